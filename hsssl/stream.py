"""The one loop for scenes larger than memory: tiles are read ahead, computed, and written behind."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "BLOCK",
    "TILE_BYTES",
    "Tile",
    "block_side",
    "cut_tiles",
    "places_inside",
    "read_ahead",
    "stream_tiles",
]

#: Side of the blocks that maps are compressed in, in pixels.
BLOCK = 256
#: What a tile may take, in bytes of all that is held for its pixels.
TILE_BYTES = 2**28
_LEAST_BLOCK = 64

Part = TypeVar("Part")
Values = TypeVar("Values")
Result = TypeVar("Result")
#: ``tick(n)``: n more pixels of the tile are done.
Tick = Callable[[int], Any]


@dataclass(frozen=True)
class Tile:
    """A rectangle of an image, and what must be read around it.

    Parameters
    ----------
    rows, cols : slice
        The pixels that the tile answers for.
    around : tuple of 2 slice
        Rows and columns to read: the tile and its halo, within the image.
    """

    rows: slice
    cols: slice
    around: tuple[slice, slice]

    @property
    def pixels(self) -> int:
        """Number of pixels that the tile answers for."""
        return int((self.rows.stop - self.rows.start) * (self.cols.stop - self.cols.start))

    @property
    def corner(self) -> tuple[int, int]:
        """First row and column: no two tiles of an image have the same."""
        return self.rows.start, self.cols.start

    @property
    def inner(self) -> tuple[slice, slice]:
        """Where the tile lies in what is read."""
        rows, cols = self.around
        return (
            slice(self.rows.start - rows.start, self.rows.stop - rows.start),
            slice(self.cols.start - cols.start, self.cols.stop - cols.start),
        )


def block_side(pixel_bytes: int) -> int:
    """Return the side of a map's blocks: 256 pixels, or less where a square of that size passes `TILE_BYTES`.

    Parameters
    ----------
    pixel_bytes : int
        What is held for a pixel.
    """
    side = BLOCK
    while side > _LEAST_BLOCK and side * side * pixel_bytes > TILE_BYTES:
        side //= 2
    return side


def cut_tiles(
    rows: int, cols: int, *, pixel_bytes: int, halo: int = 0, block: tuple[int, int] | None = None
) -> list[Tile]:
    """Cut an image into tiles of whole blocks of the map, as large as `TILE_BYTES` allows, row by row.

    Blocks of the file that a tile is written to are then compressed once. The tiles depend on the size of the
    image and of a pixel alone, not on where its values are: a scene in memory and the same in a file are
    computed alike, to the last bit. Their order follows the blocks of the file that is read.

    Parameters
    ----------
    rows, cols : int
        Size of the image.
    pixel_bytes : int
        What is held for a pixel, values and results together.
    halo : int
        Pixels to read around a tile.
    block : tuple of 2 int, optional
        Rows and columns of the blocks of the file that is read, where it has any (`hsssl.cube.block_of`): the
        tiles of one come after each other.

    Returns
    -------
    list of Tile
        Every pixel lies in one of them.

    Examples
    --------
    >>> first, second = cut_tiles(300, 200, pixel_bytes=4096, halo=2)
    >>> second.rows, second.around
    (slice(256, 300, None), (slice(254, 300, None), slice(0, 200, None)))
    """
    side = block_side(pixel_bytes)
    blocks = max(1, TILE_BYTES // (side * side * pixel_bytes))
    across = min(blocks, -(-cols // side))
    height, width = blocks // across * side, across * side
    tiles = [
        _tile(slice(top, min(top + height, rows)), slice(left, min(left + width, cols)), rows, cols, halo)
        for top in range(0, rows, height)
        for left in range(0, cols, width)
    ]
    if block is None:
        return tiles
    return sorted(tiles, key=lambda tile: (tile.rows.start // block[0], tile.cols.start // block[1]))


def _tile(rows: slice, cols: slice, height: int, width: int, halo: int) -> Tile:
    around = (
        slice(max(0, rows.start - halo), min(height, rows.stop + halo)),
        slice(max(0, cols.start - halo), min(width, cols.stop + halo)),
    )
    return Tile(rows, cols, around)


def places_inside(
    places: NDArray[np.int64], width: int, rows: slice, cols: slice
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Return which of ascending flat ``places`` of an image lie in a part, and their row and column in it.

    Examples
    --------
    >>> [found.tolist() for found in places_inside(np.array([1, 5, 7]), 4, slice(1, 2), slice(1, 4))]
    [[1, 2], [0, 0], [0, 2]]
    """
    first, last = np.searchsorted(places, (rows.start * width, rows.stop * width))
    row, col = np.divmod(places[first:last], width)
    within = (col >= cols.start) & (col < cols.stop)
    return first + np.flatnonzero(within), row[within] - rows.start, col[within] - cols.start


def read_ahead(parts: Sequence[Part], read: Callable[[Part], Values]) -> Iterator[tuple[Part, Values]]:
    """Yield each part and what ``read`` gives for it, while a thread reads the next one.

    Two of them are in memory at a time. An error of ``read`` is raised where its part would come.

    Parameters
    ----------
    parts : sequence
        What to read, in this order.
    read : callable
        Called in another thread, one call at a time.

    Examples
    --------
    >>> list(read_ahead([1, 2], lambda part: 10 * part))
    [(1, 10), (2, 20)]
    """
    with ThreadPoolExecutor(1, thread_name_prefix="hsssl-read") as reader:
        coming = reader.submit(read, parts[0]) if parts else None
        for number, part in enumerate(parts):
            assert coming is not None  # submitted one part before
            values = coming.result()
            coming = reader.submit(read, parts[number + 1]) if number + 1 < len(parts) else None
            yield part, values
            del values  # before the next one is waited for


def stream_tiles(
    tiles: Sequence[Tile],
    read: Callable[[Tile], Values],
    compute: Callable[[Tile, Values, Tick], Result],
    write: Callable[[Tile, Result], Any],
    *,
    desc: str,
    progress: bool | None = None,
) -> None:
    """Compute every tile, while the next one is read and the last one is written.

    At most two tiles of values and two of results are in memory. The first error of reading, computing or
    writing is raised, when what runs beside it has ended.

    Parameters
    ----------
    tiles : sequence of Tile
        In this order.
    read : callable
        ``read(tile) -> values``, called in a thread of its own.
    compute : callable
        ``compute(tile, values, tick) -> result``, called here. ``tick(n)`` moves the bar on by n pixels; what
        it leaves out is added when the tile is done.
    write : callable
        ``write(tile, result)``, called in another thread of its own.
    desc : str
        What the progress bar says beside pixels and pixels per second.
    progress : bool, optional
        Show the bar, on stderr; None shows it on a terminal.
    """
    from tqdm import tqdm

    total = sum(tile.pixels for tile in tiles)
    hidden = None if progress is None else not progress
    with (
        tqdm(total=total, disable=hidden, unit="pixel", unit_scale=True, desc=desc, leave=False) as bar,
        ThreadPoolExecutor(1, thread_name_prefix="hsssl-write") as writer,
    ):
        written: Future[Any] | None = None
        done = 0
        for tile, values in read_ahead(tiles, read):
            result = compute(tile, values, bar.update)
            del values
            if written is not None:
                written.result()
            written = writer.submit(write, tile, result)
            del result
            done += tile.pixels
            bar.update(done - bar.n)
        if written is not None:
            written.result()
