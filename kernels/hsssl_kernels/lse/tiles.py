"""Tiles of a matrix of similarities: where they lie, and what is in them."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

__all__ = ["leave_out", "same", "similarity", "tiles"]


def tiles(n: int, m: int, triangle: bool, size: int) -> Iterator[tuple[slice, slice]]:
    """Yield rows and columns of every tile, or of those on and above the diagonal."""
    for i in range(0, n, size):
        for j in range(i if triangle else 0, m, size):
            yield slice(i, min(i + size, n)), slice(j, min(j + size, m))


def similarity(x: Tensor, y: Tensor, scratch: Tensor) -> Tensor:
    """Return x y^T in the memory of ``scratch``."""
    return torch.mm(x, y.T, out=scratch[: len(x) * len(y)].view(len(x), len(y)))


def leave_out(tile: Tensor, row: int, column: int, self_offset: int, half: int, value: float) -> None:
    """Put ``value`` where a row meets itself or its partner; the tile starts at (row, column).

    Row i is column i + self_offset (-1 leaves nothing out). Where ``half`` > 0, rows are two views of
    that many samples each, and the partner of row i lies ``half`` columns on, or back.
    """
    if self_offset < 0:
        return
    last = row + len(tile)
    for begin, end, away in ((0, last, 0), (0, half, half), (half, 2 * half, -half)):
        begin, end = max(begin, row), min(end, last)
        diagonal = begin + self_offset + away - column
        if begin < end and begin - end < diagonal < tile.shape[1]:
            tile[begin - row : end - row].diagonal(diagonal).fill_(value)


def same(x: Tensor, y: Tensor) -> bool:
    """Return whether both are the same values in the same memory."""
    return x.data_ptr() == y.data_ptr() and x.shape == y.shape and x.stride() == y.stride()
