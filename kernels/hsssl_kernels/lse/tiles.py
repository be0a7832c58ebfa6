"""Tiles of a matrix of similarities: where they lie, and what is in them."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

__all__ = ["drop_self", "same", "similarity", "tiles"]


def tiles(n: int, m: int, triangle: bool, size: int) -> Iterator[tuple[slice, slice]]:
    """Yield rows and columns of every tile, or of those on and above the diagonal."""
    for i in range(0, n, size):
        for j in range(i if triangle else 0, m, size):
            yield slice(i, min(i + size, n)), slice(j, min(j + size, m))


def similarity(x: Tensor, y: Tensor, scratch: Tensor) -> Tensor:
    """Return x y^T in the memory of ``scratch``."""
    return torch.mm(x, y.T, out=scratch[: len(x) * len(y)].view(len(x), len(y)))


def drop_self(tile: Tensor, row: int, column: int, self_offset: int, value: float) -> None:
    """Put ``value`` where row i meets column i + self_offset; the tile starts at (row, column)."""
    diagonal = row + self_offset - column
    if self_offset >= 0 and -tile.shape[0] < diagonal < tile.shape[1]:
        tile.diagonal(diagonal).fill_(value)


def same(x: Tensor, y: Tensor) -> bool:
    """Return whether both are the same values in the same memory."""
    return x.data_ptr() == y.data_ptr() and x.shape == y.shape and x.stride() == y.stride()
