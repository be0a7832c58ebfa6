"""Compressed files by their own blocks: a block is decoded once, and kept while its neighbours are read."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["KEPT_BYTES", "KeptBlocks", "cut_parts"]

#: What a file's decoded blocks may take while they are kept, in bytes: as much as a scene that is read whole.
KEPT_BYTES = 2**29
# Smaller blocks than of so many rows and columns are kept several at a time; read, up to so many bytes.
_LEAST = (16, 64)
_READ_BYTES = 2**24
# A tile is about so many rows and columns with its halo; larger blocks are kept in parts of that, if need be.
_TILE = 320

Window = tuple[slice, slice]


class KeptBlocks:
    """Windows of a file that is made of blocks, each of which is decoded as a whole or not at all.

    A tile of an image takes parts of many strips, and its halo parts of neighbouring blocks, which the next
    tile would decode again. What was decoded last is kept, up to `KEPT_BYTES`; a window with more blocks than
    that is read as it is.

    Parameters
    ----------
    read_window : callable
        Of the file, see `hsssl.lazy.ReadWindow`.
    shape : tuple of 3 int
        Rows, columns and bands of the image.
    block : tuple of 2 int
        Rows and columns of the file's blocks; a strip is as wide as the image. Of blocks too large to be kept
        beside each other, such as strips of a very wide image, parts are kept, and decoded each by itself.
    dtype : dtype
        Of the values.
    """

    def __init__(
        self,
        read_window: Callable[[slice, slice, NDArray[np.int64]], NDArray[Any]],
        shape: tuple[int, int, int],
        block: tuple[int, int],
        dtype: np.dtype[Any],
    ) -> None:
        self.read_window, self.shape, self.dtype = read_window, shape, dtype
        self.block = (_several(block[0], _LEAST[0]), _several(block[1], min(_LEAST[1], shape[1])))
        self._part = _that_fit(*self.block, shape[2] * dtype.itemsize)
        self._kept: OrderedDict[tuple[bytes, int, int], NDArray[Any]] = OrderedDict()
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[Any, ...]:
        return KeptBlocks, (self.read_window, self.shape, self.block, self.dtype)

    def __call__(self, rows: slice, cols: slice, bands: NDArray[np.int64]) -> NDArray[Any]:
        """Read a window; see `hsssl.lazy.ReadWindow`."""
        high, wide = self._part
        places = [
            (i, j)
            for j in range(cols.start // wide, -(-cols.stop // wide))
            for i in range(rows.start // high, -(-rows.stop // high))
        ]
        size = high * wide * len(bands) * self.dtype.itemsize
        if len(places) * size > KEPT_BYTES:
            return self.read_window(rows, cols, bands)
        with self._lock:
            blocks = self._blocks(places, bands, size)
            shape = (rows.stop - rows.start, cols.stop - cols.start, len(bands))
            # In the order of the blocks, whose bands are outermost in many formats.
            out: NDArray[Any] = np.empty_like(blocks[0], shape=shape)
            for (i, j), block in zip(places, blocks, strict=True):
                to_row, from_row = _shared(rows, i * high, high)
                to_col, from_col = _shared(cols, j * wide, wide)
                out[to_row, to_col] = block[from_row, from_col]
        return out

    def _blocks(
        self, places: list[tuple[int, int]], bands: NDArray[np.int64], size: int
    ) -> list[NDArray[Any]]:
        """Return blocks, decoding those that are not kept, after as many old ones as that takes have gone."""
        kept, key = self._kept, bands.tobytes()
        for i, j in places:
            if (key, i, j) in kept:
                kept.move_to_end((key, i, j))
        missing = [(i, j) for i, j in places if (key, i, j) not in kept]
        held = sum(block.nbytes for block in kept.values()) + len(missing) * size
        while kept and held > KEPT_BYTES:
            held -= kept.popitem(last=False)[1].nbytes
        if self._part[1] < self.block[1]:  # parts beside each other are decoded together
            runs = _runs(sorted(missing), (0, 1), most=len(missing))
        else:
            runs = _runs(missing, (1, 0), most=max(1, _READ_BYTES // size))
        for run in runs:
            for (i, j), block in zip(run, self._decode(run, bands), strict=True):
                kept[key, i, j] = block
        return [kept[key, i, j] for i, j in places]

    def _decode(self, run: list[tuple[int, int]], bands: NDArray[np.int64]) -> list[NDArray[Any]]:
        """Read blocks, or parts of them, that lie in a row or in a column."""
        (high, wide), (top, left), (bottom, right) = self._part, run[0], run[-1]
        rows = slice(top * high, min((bottom + 1) * high, self.shape[0]))
        cols = slice(left * wide, min((right + 1) * wide, self.shape[1]))
        values = np.asarray(self.read_window(rows, cols, bands), dtype=self.dtype)
        if len(run) == 1:
            return [values]
        corners = [((i - top) * high, (j - left) * wide) for i, j in run]
        # Copies, so that one that stays does not keep all the others.
        return [np.array(values[row : row + high, col : col + wide]) for row, col in corners]


def cut_parts(
    shape: tuple[int, int, int], most: int, block: tuple[int, int] | None = None
) -> Iterator[Window]:
    """Cut an image into parts of about ``most`` values, such that no block of its file is come back to.

    Parameters
    ----------
    shape : tuple of 3 int
        Rows, columns and bands of the image.
    most : int
        Values of a part; a row of a block at the least.
    block : tuple of 2 int, optional
        Rows and columns of the file's blocks; None cuts whole rows.

    Examples
    --------
    >>> list(cut_parts((4, 5, 1), 10))
    [(slice(0, 2, None), slice(0, 5, None)), (slice(2, 4, None), slice(0, 5, None))]
    """
    rows, cols, bands = shape
    high, wide = block or (rows, cols)
    step = max(1, most // (min(wide, cols) * bands))
    high *= max(1, step // high)
    for top in range(0, rows, high):
        bottom = min(top + high, rows)
        for left in range(0, cols, wide):
            for start in range(top, bottom, step):
                yield slice(start, min(start + step, bottom)), slice(left, min(left + wide, cols))


def _that_fit(high: int, wide: int, pixel_bytes: int) -> tuple[int, int]:
    """Return what is kept of a block at a time: all of it, or so much that two lie beside each other."""
    most = KEPT_BYTES // (2 * _TILE * pixel_bytes)  # columns
    if wide > 2 * most:
        wide = min(wide, max(_LEAST[1], most // _LEAST[1] * _LEAST[1]))
    if high * wide * pixel_bytes > KEPT_BYTES // 4:
        high = min(high, 256)
    return high, wide


def _several(size: int, least: int) -> int:
    """Return the least multiple of ``size`` that is at least ``least``."""
    return -(-least // size) * size


def _shared(span: slice, start: int, size: int) -> tuple[slice, slice]:
    """Return where the part that a span shares with a block lies in the span, and where in the block."""
    first, last = max(span.start, start), min(span.stop, start + size)
    return slice(first - span.start, last - span.start), slice(first - start, last - start)


def _runs(places: list[tuple[int, int]], step: tuple[int, int], most: int) -> list[list[tuple[int, int]]]:
    """Join places of which each is a step from the one before, up to ``most`` of them."""
    runs: list[list[tuple[int, int]]] = []
    for i, j in places:
        if runs and runs[-1][-1] == (i - step[0], j - step[1]) and len(runs[-1]) < most:
            runs[-1].append((i, j))
        else:
            runs.append([(i, j)])
    return runs
