"""The metrics of unmixing, by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from hsssl.unmix import (
    abundance_rmse,
    armse,
    match_endmembers,
    reconstruction_error,
    sad,
    signal_to_reconstruction_error,
    spectral_angles,
)


def test_angles_and_matching_by_hand() -> None:
    estimated, true = [[0.0, 2.0], [1.0, 1.0], [3.0, 0.0]], [[1.0, 0.0], [0.0, 1.0]]
    angles = spectral_angles(estimated, true) * 4 / math.pi
    np.testing.assert_allclose(angles, [[2, 0], [1, 1], [0, 2]], atol=1e-12)
    assert match_endmembers(estimated, true).tolist() == [2, 0]
    np.testing.assert_allclose(sad(estimated, true), [0, 0], atol=1e-12)


def test_matching_is_not_greedy() -> None:
    """The first truth's nearest is the second's only near one: greedy matching would pay 80 degrees."""
    degrees = np.radians([10.0, 80.0])
    estimated = np.stack([np.cos(degrees), np.sin(degrees)], axis=1)
    true = np.array([[np.cos(0.4), np.sin(0.4)], [1.0, 0.0]])
    assert match_endmembers(estimated, true).tolist() == [1, 0]


def test_small_angles_and_zeros() -> None:
    assert spectral_angles([[1.0, 0.0]], [[1.0, 1e-9]])[0, 0] == pytest.approx(1e-9, rel=1e-6)
    np.testing.assert_allclose(spectral_angles([[0.0, 0.0]], [[1.0, 0.0], [0.0, 0.0]]), math.pi / 2)


def test_abundance_errors_by_hand() -> None:
    true = np.array([[[1.0, 0.0], [0.5, 0.5]]])
    estimated = np.array([[[1.0, 0.0], [0.1, 0.9]]])
    assert abundance_rmse(estimated, true) == pytest.approx(math.sqrt(0.32 / 4))
    assert armse(estimated, true) == pytest.approx((0 + math.sqrt(0.32 / 2)) / 2)
    assert signal_to_reconstruction_error(estimated, true) == pytest.approx(10 * math.log10(1.5 / 0.32))
    assert signal_to_reconstruction_error(true, true) == math.inf
    assert signal_to_reconstruction_error(true, 0 * true) == -math.inf
    spoilt = np.concatenate([estimated, np.full((1, 2, 2), np.nan)])
    assert abundance_rmse(spoilt, np.concatenate([true, true])) == pytest.approx(math.sqrt(0.08))
    error = reconstruction_error([[3.0, 1.0]], [[1.0, 0.0], [0.0, 1.0]], [[0.5, 0.5]])
    assert error.tolist() == pytest.approx([math.sqrt((2.5**2 + 0.5**2) / 2)])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: spectral_angles([[1.0, 2.0]], [[1.0]]), "2 bands, y 1"),
        (lambda: match_endmembers([[1.0, 2.0]], [[1.0, 0.0], [0.0, 1.0]]), "2 true endmembers but 1"),
        (lambda: abundance_rmse([[1.0, 0.0]], [[1.0, 0.0, 0.0]]), r"one shape \(\.\.\., p\)"),
        (lambda: abundance_rmse([[np.nan, 0.0]], [[1.0, 0.0]]), "no pixel is known in both"),
        (lambda: reconstruction_error([[1.0]], [[1.0, 2.0]], [[1.0]]), "want pixels"),
    ],
)
def test_metrics_refuse(call, message) -> None:
    with pytest.raises(ValueError, match=message):
        call()
