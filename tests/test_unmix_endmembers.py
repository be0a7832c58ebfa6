"""Endmembers: corners of simplices, pure pixels, and how many there are."""

from __future__ import annotations

import numpy as np
import pytest

from hsssl.unmix import (
    atgp,
    hysime,
    nfindr,
    pure_pixels,
    sad,
    spa,
    vca,
)
from mixtures import scene


@pytest.mark.parametrize("extract", [spa, atgp, vca, nfindr])
@pytest.mark.parametrize("p", [2, 3, 5])
def test_corners_of_a_simplex_are_found(extract, p: int) -> None:
    rng = np.random.default_rng(p)
    corners = rng.random((p, 20)) + 0.1
    mixed = rng.dirichlet(np.ones(p), 300).clip(0, 0.9)
    pixels = np.vstack([corners, mixed / mixed.sum(axis=1, keepdims=True) @ corners])
    assert sorted(extract(pixels, p).tolist()) == list(range(p))


@pytest.mark.parametrize("extract", [vca, nfindr])
def test_seeds_repeat(extract) -> None:
    pixels = np.random.default_rng(0).random((200, 8))
    assert np.array_equal(extract(pixels, 4, seed=3), extract(pixels, 4, seed=3))


@pytest.mark.parametrize("extract", [spa, vca, nfindr, pure_pixels])
def test_extraction_refuses(extract) -> None:
    flat = np.outer(np.linspace(1, 2, 30), np.arange(1.0, 6.0))
    with pytest.raises(ValueError, match=r"span \d dimensions.* ask for at most \d"):
        extract(flat, 3)
    with pytest.raises(ValueError, match="between 1 and the 5"):
        extract(flat, 6)
    with pytest.raises(ValueError, match="NaN"):
        extract(np.full((5, 5), np.nan), 2)


def test_pure_pixels_do_not_see_brightness() -> None:
    rng = np.random.default_rng(0)
    pixels = scene().values.reshape(-1, 12)
    shaded = pixels * rng.uniform(0.3, 3, (len(pixels), 1))
    assert sad(pure_pixels(shaded, 3), pure_pixels(pixels, 3)).max() < 0.01


def test_pure_pixels_want_more_than_one_odd_pixel() -> None:
    """A single pixel of another direction is no endmember; the third material, of six pixels, is one."""
    rng = np.random.default_rng(0)
    two = np.outer(np.linspace(0, 1, 200), [1.0, 3, 5, 2]) + np.outer(np.linspace(1, 0, 200), [4.0, 4, 1, 1])
    rare = np.array([[1.0, 5.0, 1.0, 1.0]])
    pixels = np.vstack([two, np.repeat(rare, 6, axis=0), [[0.0, 0.0, 0.0, 9.0]]])
    found = pure_pixels(pixels + rng.normal(0, 0.01, pixels.shape), 3)
    assert sad(found, np.vstack([two[:1], two[-1:], rare])).max() < 0.1  # pixels of 90 % are averaged


@pytest.mark.parametrize("n", [2, 3, 4, 7])
def test_pure_pixels_of_few_pixels(n: int) -> None:
    corners = np.array([[1.0, 0.0, 2.0], [0.0, 3.0, 1.0]])
    found = pure_pixels(np.repeat(corners, [n - n // 2, n // 2], axis=0), 2)
    assert sad(found, corners).max() < 1e-6


def test_hysime_counts_materials() -> None:
    rng = np.random.default_rng(1)
    for p in (2, 5):
        mixed = rng.dirichlet(np.ones(p), 3000) @ rng.random((p, 30))
        assert hysime(mixed + 0.005 * rng.normal(size=mixed.shape)) == p
    assert hysime(np.ones((50, 4))) == 1
    with pytest.raises(ValueError, match="more pixels than bands"):
        hysime(np.ones((5, 9)))
