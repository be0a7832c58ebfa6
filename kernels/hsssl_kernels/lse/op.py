"""The two ops under every contrastive loss: log-sum-exp of similarities, and its gradient."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from hsssl_kernels.checks import compute_dtype, log_dtype, scale_of
from hsssl_kernels.dispatch import register
from hsssl_kernels.lse.blocked import lse_blocked, lse_grad_blocked, lse_with_grad_blocked
from hsssl_kernels.lse.held import (
    pair_lse_with_grad_held,
    queue_lse_with_grad_blocked,
    self_lse_with_grad_held,
)

__all__ = [
    "lse",
    "lse_grad",
    "lse_with_grad",
    "pair_lse_with_grad",
    "queue_lse_with_grad",
    "self_lse_with_grad",
]


def _lse(
    x: Tensor,
    y: Tensor,
    temperature: Tensor,
    self_offset: int,
    half: int,
    columns: bool,
    unit: bool,
    backend: str,
    labels: Sequence[Tensor],
) -> tuple[Tensor, Tensor]:
    scale = scale_of(temperature)
    if backend == "torch":
        return lse_blocked(x, y, scale, self_offset, half, columns, tuple(labels))
    from hsssl_kernels.lse.launchers import launch_lse

    rows = launch_lse(x, y, scale, self_offset, half, unit, tuple(labels))
    return rows, launch_lse(y, x, scale, self_offset, half, unit, ()) if columns else rows.new_empty(0)


def _lse_fake(
    x: Tensor,
    y: Tensor,
    temperature: Tensor,
    self_offset: int,
    half: int,
    columns: bool,
    unit: bool,
    backend: str,
    labels: Sequence[Tensor],
) -> tuple[Tensor, Tensor]:
    dtype = log_dtype(x)
    return x.new_empty(x.shape[0], dtype=dtype), x.new_empty(y.shape[0] if columns else 0, dtype=dtype)


def _lse_grad(
    x: Tensor,
    y: Tensor,
    temperature: Tensor,
    x_lse: Tensor,
    x_weight: Tensor,
    y_lse: Tensor,
    y_weight: Tensor,
    self_offset: int,
    half: int,
    both: bool,
    unit: bool,
    backend: str,
    positives: Sequence[Tensor],
) -> tuple[Tensor, Tensor]:
    scale = scale_of(temperature)
    x_side, y_side = (x_lse, x_weight), (y_lse, y_weight)
    if backend == "torch":
        return lse_grad_blocked(x, y, scale, x_side, y_side, self_offset, half, both, tuple(positives))
    from hsssl_kernels.lse.launchers import launch_lse_grad, prepare_sides

    rows, columns = prepare_sides(x, scale, x_side, y_side, unit, tuple(positives))
    dx = launch_lse_grad(x, y, scale, rows, columns, self_offset, half, unit, bool(positives))
    if not both:
        return dx, dx.new_empty(0, x.shape[1])
    return dx, launch_lse_grad(y, x, scale, columns, rows, self_offset, half, unit, False)


def _lse_grad_fake(
    x: Tensor,
    y: Tensor,
    temperature: Tensor,
    x_lse: Tensor,
    x_weight: Tensor,
    y_lse: Tensor,
    y_weight: Tensor,
    self_offset: int,
    half: int,
    both: bool,
    unit: bool,
    backend: str,
    positives: Sequence[Tensor],
) -> tuple[Tensor, Tensor]:
    columns, dtype = x.shape[1], compute_dtype(x)
    return x.new_empty(x.shape[0], columns, dtype=dtype), x.new_empty(
        y.shape[0] if both else 0, columns, dtype=dtype
    )


def _lse_with_grad(x: Tensor, y: Tensor, temperature: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return lse_with_grad_blocked(x, y, scale_of(temperature))


def _lse_with_grad_fake(x: Tensor, y: Tensor, temperature: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    dtype = compute_dtype(x)
    log = x.new_empty(x.shape[0], dtype=log_dtype(x))
    return log, x.new_empty(x.shape, dtype=dtype), y.new_empty(y.shape, dtype=dtype)


def _self_lse_with_grad(x: Tensor, temperature: Tensor) -> tuple[Tensor, Tensor]:
    return self_lse_with_grad_held(x, scale_of(temperature))


def _self_lse_with_grad_fake(x: Tensor, temperature: Tensor) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape[0], dtype=log_dtype(x)), x.new_empty(x.shape, dtype=compute_dtype(x))


def _pair_lse_with_grad(x: Tensor, y: Tensor, temperature: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return pair_lse_with_grad_held(x, y, scale_of(temperature))


def _pair_lse_with_grad_fake(
    x: Tensor, y: Tensor, temperature: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    log, dx, dy = _lse_with_grad_fake(x, y, temperature)
    return log, torch.empty_like(log), dx, dy


def _queue_lse_with_grad(x: Tensor, y: Tensor, temperature: Tensor) -> tuple[Tensor, Tensor]:
    return queue_lse_with_grad_blocked(x, y, scale_of(temperature))


def _queue_lse_with_grad_fake(x: Tensor, y: Tensor, temperature: Tensor) -> tuple[Tensor, Tensor]:
    return _self_lse_with_grad_fake(x, temperature)


# lse(x (n, D), y (m, D)) -> over rows (n,), over columns (m,) or (0,): natural logarithms in
# float64 of the sums of exp(x y^T / temperature), without the entries of a row with itself, (i, i +
# self_offset) if self_offset >= 0, and where half > 0 without those with its partner: see `leave_out`.
# `columns` needs a self_offset of -1 or 0. `unit` promises rows of norm 1. `labels`, [] or those of
# both sides, say which entries may take nearly all of a row: the others' digits are kept.
lse = register(
    "lse(Tensor x, Tensor y, Tensor temperature, int self_offset, int half, bool columns, bool unit,"
    " str backend, Tensor[] labels) -> (Tensor, Tensor)",
    _lse,
    _lse_fake,
)

# lse_grad(...) -> W y (n, D), W^T x (m, D) or (0, D), in float32 (float64 for float64), where
# W_ij = x_weight_i exp(S_ij - x_lse_i) + y_weight_j exp(S_ij - y_lse_j), and 0 for what `lse` leaves out;
# `both` needs a self_offset of -1 or 0. `positives`, labels and pulls of both sides, are taken off W
# where labels are equal: see `lse_grad_blocked`; they need both=False; [] for none.
lse_grad = register(
    "lse_grad(Tensor x, Tensor y, Tensor temperature, Tensor x_lse, Tensor x_weight, Tensor y_lse,"
    " Tensor y_weight, int self_offset, int half, bool both, bool unit, str backend,"
    " Tensor[] positives) -> (Tensor, Tensor)",
    _lse_grad,
    _lse_grad_fake,
)

# lse_with_grad(x (n, D), y (m, D)) -> log-sum-exp (n,) without S_ii, W y (n, D), W^T x (m, D), where
# W is the softmax of the rows of S less (i = j); blocked torch, for rows that weigh the same.
lse_with_grad = register(
    "lse_with_grad(Tensor x, Tensor y, Tensor temperature) -> (Tensor, Tensor, Tensor)",
    _lse_with_grad,
    _lse_with_grad_fake,
)

# self_lse_with_grad(x (n, D)) -> log-sum-exp (n,) of x x^T without a row's entries with itself and its
# partner, n / 2 rows on, and (P + P^T) x (n, D) less twice each row's partner; blocked torch, for batches
# small enough to hold all similarities.
self_lse_with_grad = register(
    "self_lse_with_grad(Tensor x, Tensor temperature) -> (Tensor, Tensor)",
    _self_lse_with_grad,
    _self_lse_with_grad_fake,
)

# pair_lse_with_grad(x (n, D), y (n, D)) -> log-sum-exps over rows (n,) and columns (n,) without S_ii,
# W y (n, D) and W^T x (n, D), where W is the mean of the softmax of the rows and that of the columns of S,
# less (i = j); blocked torch, for batches small enough to hold all similarities.
pair_lse_with_grad = register(
    "pair_lse_with_grad(Tensor x, Tensor y, Tensor temperature) -> (Tensor, Tensor, Tensor, Tensor)",
    _pair_lse_with_grad,
    _pair_lse_with_grad_fake,
)

# queue_lse_with_grad(x (n, D), y (m, D)) -> log-sum-exp (n,) and P y (n, D), where P is the softmax of the
# rows of S; blocked torch.
queue_lse_with_grad = register(
    "queue_lse_with_grad(Tensor x, Tensor y, Tensor temperature) -> (Tensor, Tensor)",
    _queue_lse_with_grad,
    _queue_lse_with_grad_fake,
)
