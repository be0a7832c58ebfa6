"""Georeferenced outputs: GeoTIFFs that are whole or absent, with the cube's CRS and transform."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import numpy as np
from numpy.typing import NDArray

from hsssl.atomic import atomic_path, refuse_existing, write_text_atomic
from hsssl.cube import Cube

__all__ = [
    "CLASS_COLORS",
    "open_raster",
    "write_class_map",
    "write_features",
    "write_raster",
]

BLOCK = 256
# What GDAL and its users keep beside a raster; left from an overwritten one, it would describe the new one.
_SIDECARS = (".aux.xml", ".ovr", ".msk")

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


@contextmanager
def open_raster(
    path: str | os.PathLike[str],
    like: Cube,
    *,
    count: int,
    dtype: str,
    nodata: float | None,
    descriptions: Sequence[str] | None = None,
    overwrite: bool = False,
) -> Iterator[Any]:
    """Open a new GeoTIFF for writing window by window; it appears under its name when the block ends well.

    Tiled, deflate, with the predictor that fits the dtype, and the CRS and transform of ``like``.

    Parameters
    ----------
    path : path
        The file to write.
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
    overwrite : bool
        Replace an existing file.

    Yields
    ------
    rasterio.io.DatasetWriter

    Raises
    ------
    FileExistsError
        If the file exists and ``overwrite`` is off.
    FileNotFoundError
        If its folder does not exist.
    ValueError
        If there are not ``count`` descriptions.
    """
    import rasterio
    from rasterio.errors import NotGeoreferencedWarning

    refuse_existing(path, overwrite=overwrite)
    if descriptions is not None and len(descriptions) != count:
        raise ValueError(f"{os.fspath(path)}: {len(descriptions)} descriptions for {count} bands")
    profile: dict[str, Any] = {
        "driver": "GTiff", "height": like.rows, "width": like.cols, "count": count, "dtype": dtype,
        "nodata": nodata, "crs": like.crs, "tiled": True, "blockxsize": BLOCK, "blockysize": BLOCK,
        "compress": "deflate", "predictor": _predictor(dtype), "interleave": "band", "bigtiff": "if_safer",
    }  # fmt: skip
    if like.transform is not None:
        profile["transform"] = rasterio.Affine(*like.transform)
    with atomic_path(path) as temporary, warnings.catch_warnings():
        # A map is as georeferenced as its cube; many cubes are not.
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(temporary, "w", **profile) as raster:
            if descriptions is not None:
                raster.descriptions = tuple(descriptions)
            yield raster
    for suffix in _SIDECARS:
        Path(f"{os.fspath(path)}{suffix}").unlink(missing_ok=True)


def write_raster(
    path: str | os.PathLike[str],
    array: NDArray[Any],
    like: Cube,
    *,
    nodata: float | None,
    descriptions: Sequence[str] | None = None,
    overwrite: bool = False,
) -> None:
    """Write an array as a GeoTIFF where the cube lies.

    Parameters
    ----------
    path : path
        The file to write.
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
    with open_raster(
        path,
        like,
        count=stack.shape[2],
        dtype=stack.dtype.name,
        nodata=nodata,
        descriptions=descriptions,
        overwrite=overwrite,
    ) as raster:
        for window, rows in _stripes(like.rows, like.cols):
            raster.write(np.moveaxis(stack[rows], 2, 0), window=window)


def write_class_map(
    path: str | os.PathLike[str],
    classes: NDArray[np.integer[Any]],
    like: Cube,
    *,
    class_names: Sequence[str] = (),
    overwrite: bool = False,
) -> None:
    """Write a class map: uint8, nodata 0, with the palette `CLASS_COLORS` and the names of the classes.

    The names go into the file (band tag ``CLASS_NAMES``, a name a line) and into ``<path>.aux.xml``,
    where GDAL and QGIS look for them.

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
    with open_raster(path, like, count=1, dtype="uint8", nodata=0, overwrite=overwrite) as raster:
        raster.write(stack[:, :, 0].astype(np.uint8), 1)
        raster.write_colormap(1, _palette())
        if class_names:
            raster.update_tags(1, CLASS_NAMES="\n".join(class_names))
    if class_names:
        write_text_atomic(f"{os.fspath(path)}.aux.xml", _category_names(class_names))


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
    names = [f"feature {number}" for number in range(stack.shape[2])]
    with open_raster(
        path,
        like,
        count=stack.shape[2],
        dtype="float32",
        nodata=np.nan,
        descriptions=names,
        overwrite=overwrite,
    ) as raster:
        for window, rows in _stripes(like.rows, like.cols):
            measured = like.valid[rows][:, :, None]
            stripe = np.where(measured, stack[rows], np.nan).astype(np.float32)
            raster.write(np.moveaxis(stripe, 2, 0), window=window)


def _stacked(path: str | os.PathLike[str], array: NDArray[Any], like: Cube) -> NDArray[Any]:
    """Return the array with three dimensions, if it fits the cube."""
    stack = array[:, :, None] if array.ndim == 2 else array
    if stack.ndim != 3 or stack.shape[:2] != (like.rows, like.cols) or 0 in stack.shape:
        raise ValueError(
            f"{os.fspath(path)}: want an array ({like.rows}, {like.cols}) or ({like.rows}, {like.cols}, n) "
            f"as {like.source} is, got {array.shape}"
        )
    return stack


def _stripes(rows: int, cols: int) -> Iterator[tuple[Any, slice]]:
    """Cut an image into windows of whole blocks, so that each block is compressed once."""
    from rasterio.windows import Window

    for start in range(0, rows, BLOCK):
        height = min(BLOCK, rows - start)
        yield Window(0, start, cols, height), slice(start, start + height)


def _predictor(dtype: str) -> int:
    # 3 is for floats, 2 (differences) for wide integers; on bytes neither helps.
    if np.dtype(dtype).kind == "f":
        return 3
    return 2 if np.dtype(dtype).itemsize > 1 else 1


def _palette() -> dict[int, tuple[int, int, int, int]]:
    """Return 256 RGBA entries: 0 transparent, the class colours over and over."""
    colours = CLASS_COLORS[1:]
    palette = {0: (0, 0, 0, 0)}
    for number in range(1, 256):
        red, green, blue = (int(part) for part in colours[(number - 1) % len(colours)])
        palette[number] = (red, green, blue, 255)
    return palette


def _category_names(class_names: Sequence[str]) -> str:
    categories = "".join(f"<Category>{escape(name)}</Category>" for name in ("unlabelled", *class_names))
    return (
        f'<PAMDataset><PAMRasterBand band="1"><CategoryNames>{categories}</CategoryNames>'
        f"</PAMRasterBand></PAMDataset>\n"
    )
