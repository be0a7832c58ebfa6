"""Georeferenced outputs: class maps, features and other maps, as GeoTIFF or ENVI, whole or absent."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any
from xml.sax.saxutils import escape

import numpy as np
from numpy.typing import NDArray

from hsssl.atomic import refuse_existing, refuse_place, write_text_atomic
from hsssl.cube import Cube
from hsssl.envi_writer import class_fields, envi_paths, open_envi
from hsssl.geotiff_writer import is_geotiff, open_raster, write_tile
from hsssl.stream import BLOCK, Tile, cut_tiles

__all__ = [
    "CLASS_COLORS",
    "WriteTile",
    "open_class_map",
    "open_features",
    "open_map",
    "refuse_map",
    "write_class_map",
    "write_features",
    "write_raster",
]

#: ``write(tile, block)``: put a block (rows, cols) or (rows, cols, bands) where the tile lies.
WriteTile = Callable[[Tile, NDArray[Any]], None]

#: Colours of classes, RGB, shape (25, 3) uint8: row 0 (black) is "unlabelled", row k class k.
CLASS_COLORS: NDArray[np.uint8] = np.array(
    [
        (0, 0, 0), (214, 40, 40), (34, 139, 62), (31, 99, 199), (247, 189, 24), (134, 62, 156),
        (22, 178, 190), (240, 120, 30), (150, 205, 70), (232, 100, 170), (120, 78, 40), (140, 175, 240),
        (105, 115, 20), (250, 165, 145), (10, 75, 110), (195, 160, 225), (170, 225, 185), (120, 15, 45),
        (200, 150, 85), (70, 70, 75), (0, 225, 120), (255, 235, 130), (85, 45, 235), (165, 165, 170),
        (245, 0, 210),
    ],
    dtype=np.uint8,
)  # fmt: skip
CLASS_COLORS.flags.writeable = False


def refuse_map(path: str | os.PathLike[str], *, overwrite: bool) -> None:
    """Raise, before any work is done, what `open_map` would say about the name of a map.

    Raises
    ------
    FileExistsError
        If a file exists and ``overwrite`` is off.
    FileNotFoundError, IsADirectoryError
        If its folder does not exist, or it is a folder.
    ValueError
        If the extension is another format's.
    """
    for file in (path,) if is_geotiff(path) else envi_paths(path):
        refuse_place(file)
        refuse_existing(file, overwrite=overwrite)


@contextmanager
def open_map(
    path: str | os.PathLike[str],
    like: Cube,
    *,
    count: int,
    dtype: str,
    nodata: float | None,
    descriptions: Sequence[str] | None = None,
    block: int = BLOCK,
    overwrite: bool = False,
) -> Iterator[WriteTile]:
    """Open a new map for writing tile by tile; it appears under its name when the block ends well.

    Parameters
    ----------
    path : path
        A GeoTIFF (``.tif``), or header (``.hdr``) or data file (any other extension) of an ENVI image.
    like : Cube
        Gives rows, columns, CRS and transform.
    count : int
        Number of bands.
    dtype : str
        NumPy name of the dtype.
    nodata : float or None
        Value of pixels that hold nothing.
    descriptions : sequence of str or None
        Name of each band.
    block : int
        Side of a GeoTIFF's blocks, see `hsssl.stream.block_side`; tiles made of whole ones are written best.
    overwrite : bool
        Replace existing files.

    Yields
    ------
    callable
        ``write(tile, block)``, for one thread at a time.

    Raises
    ------
    FileExistsError
        If a file exists and ``overwrite`` is off.
    FileNotFoundError
        If its folder does not exist.
    ValueError
        If there are not ``count`` descriptions, or ENVI cannot hold the dtype or the transform.
    """
    layout: dict[str, Any] = {"count": count, "dtype": dtype, "nodata": nodata, "overwrite": overwrite}
    if is_geotiff(path):
        with open_raster(path, like, descriptions=descriptions, block=block, **layout) as raster:
            yield partial(write_tile, raster)
        return
    with open_envi(path, like, descriptions=descriptions, interleave="bip", **layout) as image:
        yield image.write_tile


@contextmanager
def open_class_map(
    path: str | os.PathLike[str],
    like: Cube,
    *,
    highest: int,
    class_names: Sequence[str] = (),
    overwrite: bool = False,
) -> Iterator[WriteTile]:
    """Open a new class map for writing tile by tile: uint8, nodata 0, with the palette `CLASS_COLORS`.

    The names of classes go into the file (in a GeoTIFF as band tag ``CLASS_NAMES``, a name a line) and for a
    GeoTIFF into ``<path>.aux.xml`` too, where GDAL and QGIS look for them.

    Parameters
    ----------
    path : path
        A GeoTIFF (``.tif``), or header (``.hdr``) or data file (any other extension) of an ENVI
        classification.
    like : Cube
        Gives rows, columns, CRS and transform.
    highest : int
        The highest class.
    class_names : sequence of str
        Name of class 1, 2, and so on.
    overwrite : bool
        Replace existing files.

    Yields
    ------
    callable
        ``write(tile, classes)`` with uint8 of shape (rows, cols).

    Raises
    ------
    FileExistsError
        If a file exists and ``overwrite`` is off.
    """
    layout: dict[str, Any] = {"count": 1, "dtype": "uint8", "nodata": 0, "overwrite": overwrite}
    if not is_geotiff(path):
        names = ("unlabelled", *(_name(number, class_names) for number in range(1, highest + 1)))
        palette = _palette()
        colours = [palette[number][:3] for number in range(highest + 1)]
        with open_envi(path, like, fields=class_fields(names, colours), **layout) as image:
            yield image.write_tile
        return
    with open_raster(path, like, **layout) as raster:
        raster.write_colormap(1, _palette())
        if class_names:
            raster.update_tags(1, CLASS_NAMES="\n".join(class_names))
        yield partial(write_tile, raster)
    if class_names:
        write_text_atomic(f"{os.fspath(path)}.aux.xml", _category_names(class_names))


def open_features(
    path: str | os.PathLike[str], like: Cube, dim: int, *, block: int = BLOCK, overwrite: bool = False
) -> AbstractContextManager[WriteTile]:
    """Open a new map of features for writing tile by tile: float32, a band a dimension, nodata NaN.

    Parameters and errors as of `open_map`; ``dim`` is the number of features.
    """
    names = [f"feature {number}" for number in range(dim)]
    return open_map(
        path,
        like,
        count=dim,
        dtype="float32",
        nodata=np.nan,
        descriptions=names,
        block=block,
        overwrite=overwrite,
    )


def write_raster(
    path: str | os.PathLike[str],
    array: NDArray[Any],
    like: Cube,
    *,
    nodata: float | None,
    descriptions: Sequence[str] | None = None,
    overwrite: bool = False,
) -> None:
    """Write an array as a map where the cube lies.

    Parameters
    ----------
    path : path
        The file to write; see `open_map`.
    array : ndarray, shape (rows, cols) or (rows, cols, n)
        Any integer or real dtype.
    like : Cube
        Gives CRS and transform.
    nodata : float or None
        Value of pixels that hold nothing.
    descriptions : sequence of str or None
        Name of each of the n bands.
    overwrite : bool
        Replace an existing file.

    Raises
    ------
    FileExistsError
        If the file exists and ``overwrite`` is off.
    ValueError
        If rows and columns are not the cube's.

    Examples
    --------
    >>> write_raster("abundances.tif", abundances, cube, nodata=np.nan)     # doctest: +SKIP
    """
    stack = _stacked(path, array, like)
    layout: dict[str, Any] = {"count": stack.shape[2], "dtype": stack.dtype.name, "nodata": nodata}
    with open_map(path, like, descriptions=descriptions, overwrite=overwrite, **layout) as write:
        for tile in _tiles(stack):
            write(tile, stack[tile.rows, tile.cols])


def write_class_map(
    path: str | os.PathLike[str],
    classes: NDArray[np.integer[Any]],
    like: Cube,
    *,
    class_names: Sequence[str] = (),
    overwrite: bool = False,
) -> None:
    """Write a class map: uint8, nodata 0, with palette and the names of the classes; see `open_class_map`.

    Parameters
    ----------
    path : path
        The file to write.
    classes : ndarray, shape (rows, cols), integer
        0 (none) to 255.
    like : Cube
        Gives CRS and transform.
    class_names : sequence of str
        Name of class 1, 2, and so on.
    overwrite : bool
        Replace an existing file.

    Raises
    ------
    FileExistsError
        If the file exists and ``overwrite`` is off.
    ValueError
        If shape or class numbers do not fit.
    """
    stack = _stacked(path, classes, like)
    if stack.shape[2] != 1 or stack.dtype.kind not in "biu" or stack.min() < 0 or stack.max() > 255:
        raise ValueError(
            f"{os.fspath(path)}: a class map holds integers 0 to 255 in (rows, cols), got {classes.dtype} "
            f"{classes.shape} from {classes.min()} to {classes.max()}"
        )
    named: dict[str, Any] = {"highest": int(stack.max()), "class_names": class_names}
    with open_class_map(path, like, overwrite=overwrite, **named) as write:
        for tile in _tiles(stack):
            write(tile, stack[tile.rows, tile.cols].astype(np.uint8))


def write_features(
    path: str | os.PathLike[str], features: NDArray[np.floating[Any]], like: Cube, *, overwrite: bool = False
) -> None:
    """Write features: float32, a band a dimension, NaN where the cube was not measured.

    Parameters
    ----------
    path : path
        The file to write.
    features : ndarray, shape (rows, cols, dim), real
        One vector a pixel.
    like : Cube
        Gives CRS, transform and the pixels that are valid.
    overwrite : bool
        Replace an existing file.

    Raises
    ------
    FileExistsError
        If the file exists and ``overwrite`` is off.
    ValueError
        If rows and columns are not the cube's.
    """
    stack = _stacked(path, features, like)
    with open_features(path, like, stack.shape[2], overwrite=overwrite) as write:
        for tile in _tiles(stack):
            measured = like.valid[tile.rows, tile.cols][:, :, None]
            write(tile, np.where(measured, stack[tile.rows, tile.cols], np.nan).astype(np.float32))


def _stacked(path: str | os.PathLike[str], array: NDArray[Any], like: Cube) -> NDArray[Any]:
    """Return the array with three dimensions, if it fits the cube."""
    stack = array[:, :, None] if array.ndim == 2 else array
    if stack.ndim != 3 or stack.shape[:2] != (like.rows, like.cols) or 0 in stack.shape:
        raise ValueError(
            f"{os.fspath(path)}: want an array ({like.rows}, {like.cols}) or ({like.rows}, {like.cols}, n) "
            f"as {like.source} is, got {array.shape}"
        )
    return stack


def _tiles(stack: NDArray[Any]) -> list[Tile]:
    rows, cols, bands = stack.shape
    return cut_tiles(rows, cols, pixel_bytes=bands * stack.itemsize)


def _palette() -> dict[int, tuple[int, int, int, int]]:
    """Return 256 RGBA entries: 0 transparent, the class colours over and over."""
    colours = CLASS_COLORS[1:]
    palette = {0: (0, 0, 0, 0)}
    for number in range(1, 256):
        red, green, blue = (int(part) for part in colours[(number - 1) % len(colours)])
        palette[number] = (red, green, blue, 255)
    return palette


def _name(number: int, class_names: Sequence[str]) -> str:
    return class_names[number - 1] if number <= len(class_names) else f"class {number}"


def _category_names(class_names: Sequence[str]) -> str:
    categories = "".join(f"<Category>{escape(name)}</Category>" for name in ("unlabelled", *class_names))
    return (
        f'<PAMDataset><PAMRasterBand band="1"><CategoryNames>{categories}</CategoryNames>'
        f"</PAMRasterBand></PAMDataset>\n"
    )
