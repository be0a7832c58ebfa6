"""Quick-looks: a small PNG beside a map, of every n-th pixel that goes by on its way to the map's file."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hsssl.atomic import refuse_existing, refuse_place, write_bytes_atomic
from hsssl.figures import class_maps, feature_colour, thinning
from hsssl.maps import WriteTile
from hsssl.stream import Tile

__all__ = [
    "Thinned",
    "Watch",
    "class_quicklook",
    "feature_quicklook",
    "quicklook_path",
    "refuse_quicklook",
]

#: ``watch(write) -> write``: the same, and what is written is looked at.
Watch = Callable[[WriteTile], WriteTile]
Change = Callable[[NDArray[Any]], NDArray[Any]]
# Three components, and as many more again and again as make their picture that of all dimensions.
_MIXTURES = 12


@dataclass(frozen=True, eq=False)
class Thinned:
    """Every n-th pixel of an image, collected as its tiles go by, in any order.

    Parameters
    ----------
    step : int
        n, the same along rows and columns; 1 for images of up to 1200 pixels a side.
    image : ndarray, shape (ceil(rows / n), ceil(cols / n), bands)
        What has gone by; zeros where nothing has.
    """

    step: int
    image: NDArray[Any]

    @classmethod
    def of(cls, rows: int, cols: int, bands: int, dtype: str = "float32") -> Thinned:
        """Return one of zeros for an image of ``rows`` x ``cols`` pixels."""
        step = thinning(rows, cols)
        return cls(step, np.zeros((-(-rows // step), -(-cols // step), bands), dtype=dtype))

    def put(self, tile: Tile, block: NDArray[Any], change: Change | None = None) -> None:
        """Keep what falls on every n-th pixel of a block (rows, cols, bands), changed by ``change``."""
        first = [-span.start % self.step for span in (tile.rows, tile.cols)]
        kept = np.atleast_3d(block)[first[0] :: self.step, first[1] :: self.step]
        top, left = (
            (span.start + skip) // self.step for span, skip in zip((tile.rows, tile.cols), first, strict=True)
        )
        kept = kept if change is None else change(kept)
        self.image[top : top + kept.shape[0], left : left + kept.shape[1]] = kept


def quicklook_path(out: str | os.PathLike[str]) -> Path:
    """Return the PNG that goes with a map: "map.tif" has "map.png"."""
    return Path(out).with_suffix(".png")


def refuse_quicklook(out: str | os.PathLike[str] | None, *, overwrite: bool) -> None:
    """Raise, before any work is done, if the quick-look of the map ``out`` could not be written.

    Raises
    ------
    FileExistsError
        If there is such a PNG and ``overwrite`` is off.
    IsADirectoryError, FileNotFoundError
        If it is a folder, or its folder is missing.
    ValueError
        If there is no ``out``.
    """
    if out is None:
        raise ValueError("a quick-look lies beside the file of a map; give out=... too")
    refuse_place(quicklook_path(out))
    refuse_existing(quicklook_path(out), overwrite=overwrite)


def feature_quicklook(
    out: str | os.PathLike[str] | None, rows: int, cols: int, dim: int
) -> AbstractContextManager[Watch]:
    """Draw features by their first three principal components as red, green and blue.

    The components are those of 12 random mixtures of the features, the same ones at every pixel, which
    span nearly what the leading ones of all dimensions do (Halko et al. 2011); features of
    12 or fewer dimensions are taken as they are.

    Parameters
    ----------
    out : path or None
        The map; the PNG gets its name. None draws nothing.
    rows, cols, dim : int
        Size of the map.

    Yields
    ------
    callable
        See `Watch`; the PNG appears when the block ends well.

    References
    ----------
    Halko, Martinsson and Tropp 2011, "Finding structure with randomness", doi:10.1137/090771806.
    """
    mix = None
    if dim > _MIXTURES:
        mix = np.random.default_rng(0).standard_normal((dim, _MIXTURES)).astype(np.float32)
    kept = min(dim, _MIXTURES)
    change = None if mix is None else (lambda block: block @ mix)
    return _drawn(out, (rows, cols, kept), "float32", feature_colour, change)


def class_quicklook(
    out: str | os.PathLike[str] | None, rows: int, cols: int, class_names: Sequence[str] = ()
) -> AbstractContextManager[Watch]:
    """Draw a class map in its palette, with the names of classes below; see `feature_quicklook`."""
    return _drawn(
        out, (rows, cols, 1), "uint8", lambda image: class_maps(image[:, :, 0], class_names=class_names), None
    )


@contextmanager
def _drawn(
    out: str | os.PathLike[str] | None,
    shape: tuple[int, int, int],
    dtype: str,
    draw: Callable[[NDArray[Any]], bytes],
    change: Change | None,
) -> Iterator[Watch]:
    if out is None:
        yield lambda write: write
        return
    thinned = Thinned.of(*shape, dtype)

    def watch(write: WriteTile) -> WriteTile:
        def both(tile: Tile, block: NDArray[Any]) -> None:
            write(tile, block)
            thinned.put(tile, block, change)

        return both

    yield watch
    write_bytes_atomic(quicklook_path(out), draw(thinned.image))
