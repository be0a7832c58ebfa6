"""Sums of squares of D x D correlations, without the D x D matrix where a batch has fewer rows than that.

``sum_ij (a^T b)_ij^2 = sum_ij (a a^T)_ij (b b^T)_ij``: the right side is n x n. At the 8,192 dimensions that
Barlow Twins and VICReg are used with, a batch of 1,024 then takes a sixth of the operations.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from hsssl_kernels.checks import log_dtype
from hsssl_kernels.first_order import first_order

__all__ = ["cross_energy", "own_energy"]


def cross_energy(a: Tensor, b: Tensor) -> Tensor:
    """Return the sum of squares of ``a^T b`` for a, b (n, D), added up in float64."""
    energy: Tensor = _CrossEnergy.apply(a, b)  # type: ignore[no-untyped-call]
    return energy


def own_energy(a: Tensor) -> Tensor:
    """Return the sum of squares of ``a^T a`` for a (n, D), added up in float64."""
    energy: Tensor = _OwnEnergy.apply(a)  # type: ignore[no-untyped-call]
    return energy


class _CrossEnergy(torch.autograd.Function):
    """8 n^2 D operations over rows, 6 n D^2 over columns: the cheaper of the two."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor) -> Tensor:
        ctx.by_rows = 4 * a.shape[0] < 3 * a.shape[1]
        if ctx.by_rows:
            over_a, over_b = a @ a.T, b @ b.T  # (n, n)
            ctx.save_for_backward(a, b, over_a, over_b)
            return (over_a * over_b).sum(dtype=log_dtype(a))
        across = a.T @ b  # (D, D)
        ctx.save_for_backward(a, b, across)
        return _square_sum(across)

    @staticmethod
    @first_order("barlow_twins")
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        factor = 2 * gradients[0]
        if ctx.by_rows:
            a, b, over_a, over_b = ctx.saved_tensors
            return (over_b @ a).mul_(factor), (over_a @ b).mul_(factor)
        a, b, across = ctx.saved_tensors
        return (b @ across.T).mul_(factor), (a @ across).mul_(factor)


class _OwnEnergy(torch.autograd.Function):
    """4 n^2 D operations over rows, 4 n D^2 over columns: the cheaper of the two."""

    @staticmethod
    def forward(ctx: Any, a: Tensor) -> Tensor:
        ctx.by_rows = a.shape[0] < a.shape[1]
        product = a @ a.T if ctx.by_rows else a.T @ a
        ctx.save_for_backward(a, product)
        return _square_sum(product)

    @staticmethod
    @first_order("vicreg")
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor]:
        a, product = ctx.saved_tensors
        total = product @ a if ctx.by_rows else a @ product
        return (total.mul_(4 * gradients[0]),)


def _square_sum(x: Tensor) -> Tensor:
    # no second matrix of squares; added up in float32, a million of them lose a thousandth of the value
    norm: Tensor = torch.linalg.vector_norm(x, dtype=log_dtype(x))
    return norm.square()
