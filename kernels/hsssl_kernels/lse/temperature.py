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
_GONE = -1e300  # as an S of which nothing is left, and finite: 0 times it is 0


def is_swept(x: Tensor) -> bool:
    """Return whether rows like these take the sweep; 16-bit rows have no digits that it could save."""
    return x.dtype == torch.float32 and log_dtype(x) == torch.float64


def wide_rows(x: Tensor, normalize: bool) -> Tensor:
    """Return the rows (n, D) in float64, of norm 1 where ``normalize``."""
    wide = x.double().contiguous()  # sums then have the same bits whatever the strides were
    return unit_rows(wide, "torch")[0] if normalize else wide


def expected_similarity_blocked(
    x: Tensor, y: Tensor, scale: float, self_offset: int, columns: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Return ``sum_j P_ij S_ij`` (n,), the log-sum-exp of S (n,), and the first over columns (m,) or (0,).

    Parameters
    ----------
    x, y : Tensor, shapes (n, D) and (m, D), float64
        Rows and columns of S = x y^T ``scale``.
    scale : float
        1 / temperature.
    self_offset : int
        Entry (i, i + self_offset) is left out; -1 leaves nothing out.
    columns : bool
        Whether the sums over columns are wanted too.
    """
    triangle = self_offset == 0 and not columns and same(x, y)
    by_rows = _no_sums(x, len(x))
    by_columns = by_rows if triangle else _no_sums(x, len(y) if columns else 0)
    scaled, scratch = x * scale, x.new_empty(min(_TILE, len(x)) * min(_TILE, len(y)))
    for rows, cols in tiles(len(x), len(y), triangle, _TILE):
        tile = similarity(scaled[rows], y[cols], scratch)  # (r, c)
        leave_out(tile, rows.start, cols.start, self_offset, 0, _GONE)
        _add(by_rows[:, rows], tile, 1)
        if columns or (triangle and rows != cols):
            _add(by_columns[:, cols], tile, 0)
    top, total, weighted = by_rows
    over_columns = by_columns[2] / by_columns[1] if columns else x.new_empty(0)
    return weighted / total, total.log() + top, over_columns


def _no_sums(x: Tensor, n: int) -> Tensor:
    """Return (3, n), each row's largest S so far, and the sums of exp(S - largest) and of that times S."""
    sums = x.new_zeros(3, n)
    sums[0] = _GONE
    return sums


def _add(sums: Tensor, tile: Tensor, dim: int) -> None:
    """Take a tile of S into the sums over one of its dimensions."""
    top = torch.maximum(sums[0], tile.amax(dim))
    sums[1:] *= (sums[0] - top).exp()
    sums[0] = top
    share = (tile - top.unsqueeze(dim)).exp_()
    sums[1] += share.sum(dim)
    sums[2] += share.mul_(tile).sum(dim)


def _expected_similarity(
    x: Tensor, y: Tensor, temperature: Tensor, self_offset: int, columns: bool
) -> tuple[Tensor, Tensor, Tensor]:
    return expected_similarity_blocked(x, y, scale_of(temperature), self_offset, columns)


def _expected_similarity_fake(
    x: Tensor, y: Tensor, temperature: Tensor, self_offset: int, columns: bool
) -> tuple[Tensor, Tensor, Tensor]:
    n, m = x.shape[0], y.shape[0]
    return x.new_empty(n), x.new_empty(n), x.new_empty(m if columns else 0)


# expected_similarity(x (n, D), y (m, D), ...) -> sum_j P_ij S_ij (n,), log-sum-exp of S (n,), and the
# first over columns (m,) or (0,), all in float64; see `expected_similarity_blocked`.
expected_similarity = register(
    "expected_similarity(Tensor x, Tensor y, Tensor temperature, int self_offset, bool columns)"
    " -> (Tensor, Tensor, Tensor)",
    _expected_similarity,
    _expected_similarity_fake,
)
