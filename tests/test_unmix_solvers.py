"""Abundances: the solvers against references and the conditions of optimality."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import nnls as scipy_nnls

from hsssl.unmix import (
    fcls,
    nnls,
    sunsal,
)


def best_of_all_sets(x: np.ndarray, e: np.ndarray) -> np.ndarray:
    """Solve the constrained problem by trying every set of endmembers, with the multiplier's equations."""
    p, best, at = len(e), np.inf, np.zeros(len(e))
    for size in range(1, p + 1):
        for chosen in map(list, itertools.combinations(range(p), size)):
            ones = np.ones((size, 1))
            system = np.block([[e[chosen] @ e[chosen].T, ones], [ones.T, np.zeros((1, 1))]])
            a = np.linalg.lstsq(system, np.append(e[chosen] @ x, 1), rcond=None)[0][:size]
            off = np.square(x - a @ e[chosen]).sum()
            if a.min() >= -1e-12 and off < best - 1e-15:
                best, at = off, np.zeros(p)
                at[chosen] = a
    return at


@given(st.integers(0, 2**31), st.integers(1, 6), st.sampled_from([0.1, 1.0, 30.0]), st.booleans())
@settings(max_examples=30, deadline=None)
def test_solvers_agree_with_references(seed: int, p: int, scale: float, negative: bool) -> None:
    rng = np.random.default_rng(seed)
    bands = int(rng.integers(p + 1, 14))
    e = rng.normal(size=(p, bands)) if negative else rng.random((p, bands))
    x = scale * rng.random((4, bands))
    exact = np.array([best_of_all_sets(pixel, e) for pixel in x])
    np.testing.assert_allclose(fcls(x, e), exact, atol=1e-6)
    np.testing.assert_allclose(nnls(x, e), [scipy_nnls(e.T, pixel)[0] for pixel in x], atol=1e-6 * scale)


@given(st.integers(0, 2**31), st.sampled_from(["twins", "zero", "collinear", "all_zero", "more_than_bands"]))
@settings(max_examples=30, deadline=None)
def test_degenerate_problems_keep_the_constraints(seed: int, kind: str) -> None:
    rng = np.random.default_rng(seed)
    e, x = rng.random((5, 7)), rng.random((20, 7))
    x[:4] = 0
    if kind == "twins":
        e = e[[0, 0, 1, 1, 1]]
    elif kind == "zero":
        e[2] = 0
    elif kind == "collinear":
        e[1] = (e[0] + e[2]) / 2
    elif kind == "all_zero":
        e[:] = 0
    else:
        e, x = e[:, :2], x[:, :2]
    a = fcls(x, e)
    assert a.min() >= 0
    np.testing.assert_allclose(a.sum(axis=1), 1, atol=1e-6)
    if kind != "all_zero":  # no feasible point nearby, and no vertex, does better
        own = np.square(x - a @ e).sum(axis=1)
        for other in [*np.eye(5), *rng.dirichlet(np.ones(5), 20)]:
            mixed = 0.99 * a + 0.01 * other
            assert (own <= np.square(x - mixed @ e).sum(axis=1) + 1e-9).all()
    assert (nnls(x, e) >= 0).all()


def test_many_endmembers_meet_the_conditions_of_optimality() -> None:
    rng = np.random.default_rng(0)
    e = rng.random((20, 30))
    x = rng.dirichlet(np.full(20, 0.1), 200) @ e + rng.normal(0, 0.05, (200, 30))
    a = fcls(x, e)
    fall = (x - a @ e) @ e.T
    level = (fall * a).sum(axis=1, keepdims=True)
    assert (fall - level).max() < 1e-9
    np.testing.assert_allclose(np.where(a > 0, fall - level, 0), 0, atol=1e-9)


@pytest.mark.parametrize("size", [1e-18, 1e18])
def test_nnls_is_as_exact_for_faint_pixels_as_for_bright_ones(size: float) -> None:
    rng = np.random.default_rng(0)
    x, e = rng.random((30, 9)), rng.random((4, 9))
    np.testing.assert_allclose(nnls(size * x, e), size * nnls(x, e), rtol=1e-6, atol=1e-12 * size)


def test_nnls_takes_endmembers_of_any_brightness() -> None:
    got = nnls(np.array([[1.0, 2.0, 3.0]]), np.diag([1e-9, 1e6, 1.0]))
    np.testing.assert_allclose(got, [[1e9, 2e-6, 3.0]], rtol=1e-9)


def test_kinds_and_dtypes_come_back() -> None:
    e, x = torch.rand(3, 6), torch.rand(5, 6, requires_grad=True)
    got = fcls(x, e)
    assert not got.requires_grad
    x = x.detach()
    assert (type(got), got.dtype) == (torch.Tensor, torch.float32)
    np.testing.assert_allclose(got.numpy(), fcls(x.double().numpy(), e.double().numpy()), atol=1e-6)
    assert fcls(x.numpy(), e.numpy()).dtype == np.float32


def test_sunsal_meets_the_exact_solvers_and_the_soft_threshold() -> None:
    rng = np.random.default_rng(0)
    e = rng.random((4, 9))
    x = rng.random((50, 9))
    np.testing.assert_allclose(sunsal(x, e), nnls(x, e), atol=1e-5)
    np.testing.assert_allclose(sunsal(x, e, sum_to_one=True), fcls(x, e), atol=1e-5)
    # orthonormal endmembers: the minimum is max(x - sparsity, 0)
    np.testing.assert_allclose(
        sunsal(np.array([[1.0, 0.3, 0.1]]), np.eye(3), sparsity=0.2), [[0.8, 0.1, 0]], atol=1e-6
    )


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: fcls(np.ones((2, 3)), np.ones((2, 4))), r"want pixels \(n, bands\)"),
        (lambda: fcls(np.full((2, 3), np.nan), np.ones((2, 3))), "pixels hold NaN"),
        (lambda: nnls(np.ones((2, 3)), np.full((2, 3), np.inf)), "endmembers hold NaN"),
        (lambda: sunsal(np.ones((2, 3)), np.ones((2, 3)), sparsity=-1), "sparsity >= 0"),
    ],
)
def test_solvers_refuse(call, message) -> None:
    with pytest.raises(ValueError, match=message):
        call()
