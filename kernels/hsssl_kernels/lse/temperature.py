"""The one number in which rows cancel, the temperature's gradient, by a sweep in float64.

With ``P_ij = exp(S_ij - lse_i)`` a row's log-sum-exp has the derivative ``-1/t sum_j P_ij S_ij`` by the
temperature t, and its positive ``-1/t S_i,pos``. Their difference is summed over rows, and what is left
can be thousands of times smaller than its terms: in float32 the digits that remain are a matter of luck.
So float32 rows are normalised again in float64, and S is visited once more: 2 n m D operations, half of
them where S is symmetric, in plain torch on any device that has float64.
"""

from __future__ import annotations

import torch
from torch import Tensor

from hsssl_kernels.checks import log_dtype, scale_of
from hsssl_kernels.dispatch import register
from hsssl_kernels.lse.tiles import leave_out, same, similarity, tiles
from hsssl_kernels.rows import unit_rows

__all__ = ["expected_similarity", "is_swept", "wide_rows"]

_TILE = 1024  # 8 MiB of float64


def is_swept(x: Tensor) -> bool:
    """Return whether rows like these take the sweep; 16-bit rows have no digits that it could save."""
    return x.dtype == torch.float32 and log_dtype(x) == torch.float64


def wide_rows(x: Tensor, normalize: bool) -> Tensor:
    """Return the rows (n, D) in float64, of norm 1 where ``normalize``."""
    wide = x.double().contiguous()  # sums then have the same bits whatever the strides were
    return unit_rows(wide, "torch")[0] if normalize else wide


def expected_similarity_blocked(
    x: Tensor, y: Tensor, scale: float, x_log: Tensor, y_log: Tensor, self_offset: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return ``sum_j P_ij S_ij`` (n,), the log-sum-exp of S (n,), and the first over columns (m,).

    Parameters
    ----------
    x, y : Tensor, shapes (n, D) and (m, D), float64
        Rows and columns of S = x y^T ``scale``.
    scale : float
        1 / temperature.
    x_log, y_log : Tensor, shapes (n,) and (m,) or (0,)
        Log-sum-exps of S over rows and over columns, to any precision: they keep exponentials in
        range, and what they are off by is divided out. With an empty ``y_log`` columns are left out.
    self_offset : int
        Entry (i, i + self_offset) is left out; -1 leaves nothing out.
    """
    triangle = self_offset == 0 and not y_log.numel() and same(x, y)
    by_rows = x.new_zeros(2, len(x))  # sums of P, and of P S
    by_columns = by_rows if triangle else x.new_zeros(2, y_log.numel())
    column_log = x_log if triangle else y_log
    scaled, scratch = x * scale, x.new_empty(min(_TILE, len(x)) * min(_TILE, len(y)))
    for rows, cols in tiles(len(x), len(y), triangle, _TILE):
        tile = similarity(scaled[rows], y[cols], scratch)  # (r, c)
        share = (tile - x_log[rows, None]).exp_()
        leave_out(share, rows.start, cols.start, self_offset, 0, 0.0)
        _add(by_rows[:, rows], share, tile, 1)
        if y_log.numel() or (triangle and rows != cols):
            torch.sub(tile, column_log[cols], out=share).exp_()
            _add(by_columns[:, cols], share, tile, 0)
    over_columns = by_columns[1] / by_columns[0] if y_log.numel() else x.new_empty(0)
    return by_rows[1] / by_rows[0], by_rows[0].log() + x_log, over_columns


def _add(sums: Tensor, share: Tensor, tile: Tensor, dim: int) -> None:
    """Take a tile of P and of S into the sums of P and of P S; the share is used up."""
    sums[0] += share.sum(dim)
    sums[1] += share.mul_(tile).sum(dim)


def _expected_similarity(
    x: Tensor, y: Tensor, temperature: Tensor, x_log: Tensor, y_log: Tensor, self_offset: int
) -> tuple[Tensor, Tensor, Tensor]:
    return expected_similarity_blocked(x, y, scale_of(temperature), x_log, y_log, self_offset)


def _expected_similarity_fake(
    x: Tensor, y: Tensor, temperature: Tensor, x_log: Tensor, y_log: Tensor, self_offset: int
) -> tuple[Tensor, Tensor, Tensor]:
    return x.new_empty(x.shape[0]), x.new_empty(x.shape[0]), x.new_empty(y_log.shape)


# expected_similarity(x (n, D), y (m, D), ...) -> sum_j P_ij S_ij (n,), log-sum-exp of S (n,), and the
# first over columns (m,) or (0,), all in float64; see `expected_similarity_blocked`.
expected_similarity = register(
    "expected_similarity(Tensor x, Tensor y, Tensor temperature, Tensor x_log, Tensor y_log, int self_offset)"
    " -> (Tensor, Tensor, Tensor)",
    _expected_similarity,
    _expected_similarity_fake,
)
