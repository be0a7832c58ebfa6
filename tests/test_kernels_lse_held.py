"""Similarities held at once: stripes, positives across them, threads."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from hsssl_kernels import info_nce, nt_xent
from hsssl_kernels.lse import held
from hsssl_kernels.lse.held import (
    fits_at_once,
    pair_lse_with_grad_held,
    queue_lse_with_grad_blocked,
    self_lse_with_grad_held,
)


def unit(n: int, seed: int) -> Tensor:
    return torch.nn.functional.normalize(torch.randn(n, 24, generator=torch.Generator().manual_seed(seed)))


def self_by_definition(x: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """Return what `self_lse_with_grad_held` does, from the softmax of the whole matrix, in float64."""
    x = x.double()
    half, rows = len(x) // 2, torch.arange(len(x))
    s = (x @ x.T * scale).fill_diagonal_(-torch.inf)
    partner = torch.zeros_like(s)
    partner[rows, (rows + half) % len(x)] = 1
    others = s.masked_fill(partner > 0, -torch.inf).logsumexp(1)
    share = s.softmax(1)
    return others, (share + share.T - 2 * partner) @ x


def pair_by_definition(x: Tensor, y: Tensor, scale: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return what `pair_lse_with_grad_held` does, from both softmaxes, in float64."""
    x, y = x.double(), y.double()
    s = x @ y.T * scale
    others = s.clone().fill_diagonal_(-torch.inf)
    weight = (s.softmax(1) + s.softmax(0)) / 2 - torch.eye(len(x))
    return others.logsumexp(1), others.logsumexp(0), weight @ y, weight.T @ x


def assert_close(found: tuple[Tensor, ...], exact: tuple[Tensor, ...], tolerance: float) -> None:
    for a, b in zip(found, exact, strict=True):
        torch.testing.assert_close(a.double(), b, rtol=tolerance, atol=tolerance)


# the last would overflow without a shift; sizes around a stripe's and around what is one stripe
TEMPERATURES = pytest.mark.parametrize("temperature", [0.5, 0.1, 0.01])
SIZES = pytest.mark.parametrize("n", [4, 254, 512, 514, 768, 1300])
DTYPES = pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-5), (torch.float64, 1e-12)])


@TEMPERATURES
@SIZES
@DTYPES
def test_a_batch_with_itself(n: int, temperature: float, dtype: torch.dtype, tolerance: float) -> None:
    x = unit(n, n)
    found = self_lse_with_grad_held(x.to(dtype), 1 / temperature)
    assert_close(found, self_by_definition(x, 1 / temperature), tolerance)


@TEMPERATURES
@SIZES
@DTYPES
def test_both_directions_of_pairs(n: int, temperature: float, dtype: torch.dtype, tolerance: float) -> None:
    x, y = unit(n, 0), unit(n, 1)
    found = pair_lse_with_grad_held(x.to(dtype), y.to(dtype), 1 / temperature)
    assert_close(found, pair_by_definition(x, y, 1 / temperature), tolerance)


@TEMPERATURES
@SIZES
@DTYPES
def test_rows_against_a_queue(n: int, temperature: float, dtype: torch.dtype, tolerance: float) -> None:
    x, y = unit(n, 0), unit(777, 1)
    s = x.double() @ y.double().T / temperature
    found = queue_lse_with_grad_blocked(x.to(dtype), y.to(dtype), 1 / temperature)
    assert_close(found, (s.logsumexp(1), s.softmax(1) @ y.double()), tolerance)


def test_a_long_queue_takes_stripes_of_few_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = unit(100, 0), unit(777, 1)
    whole = queue_lse_with_grad_blocked(x, y, 10.0)
    monkeypatch.setattr(held, "_STRIPE", 777 * 30)
    assert_close(queue_lse_with_grad_blocked(x, y, 10.0), tuple(t.double() for t in whole), 1e-6)


def test_bits_do_not_depend_on_the_number_of_threads() -> None:
    x, y = unit(1300, 0), unit(1300, 1)
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append(
                (
                    *self_lse_with_grad_held(x, 10.0),
                    *pair_lse_with_grad_held(x, y, 10.0),
                    *queue_lse_with_grad_blocked(x, y, 10.0),
                )
            )
    finally:
        torch.set_num_threads(before)
    for others in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], others, strict=True))


def both_directions(a: Tensor, b: Tensor) -> Tensor:
    return info_nce(a, b, temperature=0.2, symmetric=True, backend="torch")


def two_views(a: Tensor, b: Tensor) -> Tensor:
    return nt_xent(a, b, temperature=0.2, backend="torch")


@pytest.mark.parametrize(("loss", "rows"), [(both_directions, 400), (two_views, 800)])
def test_a_batch_held_has_the_loss_and_gradient_of_one_swept(
    loss: Callable[[Tensor, Tensor], Tensor], rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    views = torch.randn(2, 400, 24, generator=torch.Generator().manual_seed(1))
    found = []
    for most in (rows**2, rows**2 - 1):
        monkeypatch.setattr(held, "_MOST", most)
        assert fits_at_once(rows, rows) == (most == rows**2)
        a, b = (v.clone().requires_grad_() for v in views)
        value = loss(a, b)
        value.backward()
        found.append((value.detach(), a.grad, b.grad))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-8)
