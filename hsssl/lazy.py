"""Values that stay in their file until a window of them is read, and the sizes at which they do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hsssl.blocks import KeptBlocks, cut_parts

__all__ = [
    "MOST_PIXELS",
    "RESIDENT_BYTES",
    "LazyValues",
    "ReadWindow",
    "as_slice",
    "load_or_defer",
    "pick_bands",
    "refuse_empty_claim",
]

#: ``read_window(rows, cols, bands) -> ndarray (rows, cols, bands)``: rows and columns are slices with
#: start and stop inside the image, at least one pixel and no step; bands is an array of band numbers.
ReadWindow = Callable[[slice, slice, NDArray[np.int64]], NDArray[Any]]

#: Largest cube, in bytes of its values, that is read whole when it is opened; larger ones stay in their file.
RESIDENT_BYTES = 2**29
#: Largest image that is opened at all, in pixels: the mask of measured pixels takes a byte for each.
MOST_PIXELS = 2**31
# Deflate, the usual compression, makes at most 1032 bytes of one (zlib.net/zlib_tech.html, 2026-01).
_MOST_PACKED = 1032
_TILE_BYTES, _PART_VALUES = 2**24, 2**22


@dataclass(frozen=True, eq=False)
class LazyValues:
    """Values (rows, cols, bands) that stay in their file; indexing reads what is asked for.

    It takes the indices of an array that a file can answer by reading windows: slices and integers on rows
    and columns, those and arrays of band numbers on bands, and a mask (rows, cols), which gives
    (pixels, bands). ``numpy.asarray`` reads everything.

    Parameters
    ----------
    read_window : callable
        See `ReadWindow`; may be called from several threads.
    rows, cols : int
        Size of the image.
    dtype : dtype
        Of the values, in the machine's byte order.
    held : ndarray, shape (bands,), int64
        Number in the file of each band.
    """

    read_window: ReadWindow
    rows: int
    cols: int
    dtype: np.dtype[Any]
    held: NDArray[np.int64]

    ndim = 3

    @property
    def shape(self) -> tuple[int, int, int]:
        """Rows, columns, bands."""
        return self.rows, self.cols, len(self.held)

    @property
    def size(self) -> int:
        """Number of values."""
        return self.rows * self.cols * len(self.held)

    @property
    def nbytes(self) -> int:
        """Bytes that the values would take in memory."""
        return self.size * self.dtype.itemsize

    @property
    def block(self) -> tuple[int, int] | None:
        """Rows and columns of the file's blocks, None where any window costs what it holds."""
        return self.read_window.block if isinstance(self.read_window, KeptBlocks) else None

    def __len__(self) -> int:
        return self.rows

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        if copy is False:
            raise ValueError("values that stay in their file become an array by a copy only")
        return np.asarray(self[:], dtype=dtype)

    def __getitem__(self, key: Any) -> NDArray[Any]:
        if isinstance(key, np.ndarray) and key.dtype == bool and key.shape == (self.rows, self.cols):
            return np.concatenate([self[tile][key[tile]] for tile in self.tiles()])
        parts = key if isinstance(key, tuple) else (key,)
        if len(parts) > 3:
            raise IndexError(f"a cube has 3 dimensions (rows, cols, bands), got {len(parts)} indices")
        rows, cols, bands = (*parts, slice(None), slice(None))[:3]
        row_span, row_rest = _span(rows, self.rows, "rows")
        col_span, col_rest = _span(cols, self.cols, "columns")
        chosen = self.held[bands]  # a number where ``bands`` is one
        window = self._read(row_span, col_span, np.atleast_1d(chosen))
        if chosen.ndim == 0:
            window = window[:, :, 0]
        found: NDArray[Any] = window[:, col_rest][row_rest]
        return found

    def take_bands(self, index: NDArray[np.int64]) -> LazyValues:
        """Return the bands ``index`` of these; nothing is read."""
        return replace(self, held=self.held[index])

    def min(self) -> Any:
        """Return the lowest value; reads part by part."""
        return min(self[part].min() for part in cut_parts(self.shape, _PART_VALUES, self.block))

    def max(self) -> Any:
        """Return the highest value; reads part by part."""
        return max(self[part].max() for part in cut_parts(self.shape, _PART_VALUES, self.block))

    def tiles(self) -> Iterator[slice]:
        """Cut the rows into slices of about 16 MiB."""
        step = max(1, _TILE_BYTES // (self.nbytes // self.rows))
        for start in range(0, self.rows, step):
            yield slice(start, min(start + step, self.rows))

    def _read(self, rows: slice, cols: slice, bands: NDArray[np.int64]) -> NDArray[Any]:
        shape = (rows.stop - rows.start, cols.stop - cols.start, len(bands))
        if 0 in shape:
            return np.empty(shape, dtype=self.dtype)
        return np.asarray(self.read_window(rows, cols, bands), dtype=self.dtype)


def load_or_defer(
    read_window: ReadWindow,
    shape: tuple[int, int, int],
    dtype: np.dtype[Any],
    *,
    lazy: bool | None = None,
    block: tuple[int, int] | None = None,
    source: str,
) -> Any:
    """Return the values of a file: read whole if they are small, else as `LazyValues`.

    Parameters
    ----------
    read_window : callable
        See `ReadWindow`.
    shape : tuple of 3 int
        Rows, columns and bands of the file.
    dtype : dtype
        Of the values.
    lazy : bool or None
        Leave them in the file (True), read them (False), or go by `RESIDENT_BYTES` (None).
    block : tuple of 2 int or None
        Rows and columns of the blocks that the file is compressed in; see `hsssl.blocks.KeptBlocks`.
    source : str
        Path for messages.

    Raises
    ------
    ValueError
        If the image has more than `MOST_PIXELS`, or is to be read and does not fit into memory.
    """
    rows, cols, bands = shape
    if rows * cols > MOST_PIXELS:
        raise ValueError(
            f"{source}: {rows} x {cols} pixels, at most {MOST_PIXELS} are opened; cut it, for one with "
            f"gdal_translate -srcwin"
        )
    native = dtype.newbyteorder("=")
    values = LazyValues(read_window, rows, cols, native, np.arange(bands))
    if lazy is None:
        lazy = values.nbytes > RESIDENT_BYTES
    if lazy:
        kept = None if block is None else KeptBlocks(read_window, shape, block, native)
        return values if kept is None else replace(values, read_window=kept)
    try:
        return np.asarray(values)
    except MemoryError as error:
        size = f"{rows} x {cols} x {bands} values take {values.nbytes / 2**30:.3g} GiB"
        raise ValueError(f"{source}: {size}, more than is free; open it with lazy=True") from error


def pick_bands(values: Any, index: NDArray[np.int64]) -> Any:
    """Return bands ``index`` of values in memory, a copy unless it is all of them, or in a file, unread."""
    if isinstance(values, LazyValues):
        return values.take_bands(index)
    return values if np.array_equal(index, np.arange(values.shape[2])) else values[:, :, index]


def as_slice(bands: NDArray[np.int64]) -> slice | NDArray[np.int64]:
    """Return ascending neighbours as a slice, with which an array is viewed and not copied."""
    first, last = int(bands[0]), int(bands[-1])
    if len(bands) == last - first + 1 and (np.diff(bands) == 1).all():
        return slice(first, last + 1)
    return bands


def refuse_empty_claim(claimed: int, held: int, *, source: str) -> None:
    """Raise if a file claims more bytes of values than its own bytes could ever unpack to.

    A damaged header can claim any size, and a small file that unpacks to a huge one is an attack or an
    empty image; what fits within `RESIDENT_BYTES` is let through.

    Parameters
    ----------
    claimed : int
        Bytes of the values by the header.
    held : int
        Bytes of the file or files that hold them.
    source : str
        Path for messages.

    Raises
    ------
    ValueError
        If ``claimed`` is above `RESIDENT_BYTES` and above 1032 times ``held``.
    """
    if claimed > max(RESIDENT_BYTES, _MOST_PACKED * held):
        raise ValueError(
            f"{source}: its header claims {claimed / 2**30:.3g} GiB of values, and the file has {held} "
            f"bytes; it is damaged or nearly empty: copy it again, or cut it with gdal_translate -srcwin"
        )


def _span(key: Any, size: int, axis: str) -> tuple[slice, Any]:
    """Split an index of one axis into the contiguous part to read and the index into that part."""
    if isinstance(key, int | np.integer):
        at = int(key) + size if key < 0 else int(key)
        if not 0 <= at < size:
            raise IndexError(f"index {key} is out of bounds for {size} {axis}")
        return slice(at, at + 1), 0
    if not isinstance(key, slice):
        raise TypeError(
            f"values that stay in their file take slices and integers on {axis}, got {type(key).__name__}; "
            f"read a window first: cube.window(rows, cols)"
        )
    start, stop, step = key.indices(size)
    wanted = range(start, stop, step)
    if not wanted:
        return slice(0, 0), slice(None)
    return slice(min(wanted[0], wanted[-1]), max(wanted[0], wanted[-1]) + 1), slice(None, None, step)
