"""Writing GeoTIFFs window by window: whole or absent, with the cube's CRS and transform."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hsssl.atomic import atomic_path, refuse_existing
from hsssl.cube import Cube
from hsssl.sidecars import remove_sidecars
from hsssl.stream import BLOCK, Tile

__all__ = ["is_geotiff", "make_cog", "open_raster", "write_tile"]

_DTYPES = (
    "uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64", "float32", "float64",
    "complex64",
)  # fmt: skip
# Blocks that wait to be compressed, in bytes. GDAL's own limit is a share of the machine's memory.
_CACHE = 2**26
# Bands are handed over in groups of about so many bytes: GDAL wants them planar, which is a copy.
_GROUP = 2**24


def is_geotiff(path: str | os.PathLike[str]) -> bool:
    """Say whether a map of this name is a GeoTIFF (``.tif``); any other is an ENVI image."""
    return Path(path).suffix.lower() in (".tif", ".tiff")


@contextmanager
def open_raster(
    path: str | os.PathLike[str],
    like: Cube,
    *,
    count: int,
    dtype: str,
    nodata: float | None,
    descriptions: Sequence[str] | None = None,
    block: int = BLOCK,
    overwrite: bool = False,
) -> Iterator[Any]:
    """Open a new GeoTIFF for writing window by window; it appears under its name when the block ends well.

    Tiled, deflate, with the predictor that fits the dtype, and the CRS and transform of ``like``; a BigTIFF
    where it could pass 4 GiB.

    Parameters
    ----------
    path : path
        The file to write.
    like : Cube
        Gives rows, columns, CRS and transform.
    count : int
        Number of bands.
    dtype : str
        NumPy name of the dtype: int and uint of 8 to 64 bits, float32, float64, complex64.
    nodata : float or None
        Value of pixels that hold nothing.
    descriptions : sequence of str or None
        Name of each band.
    block : int
        Side of the blocks that are compressed, a multiple of 16.
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
        If there are not ``count`` descriptions, or GeoTIFF has no such dtype.
    """
    import rasterio
    from rasterio.errors import NotGeoreferencedWarning

    refuse_existing(path, overwrite=overwrite)
    if np.dtype(dtype).name not in _DTYPES:
        raise ValueError(
            f"{os.fspath(path)}: GeoTIFF has no {dtype}; convert the values to one of {', '.join(_DTYPES)}"
        )
    if descriptions is not None and len(descriptions) != count:
        raise ValueError(f"{os.fspath(path)}: {len(descriptions)} descriptions for {count} bands")
    profile: dict[str, Any] = {
        "driver": "GTiff", "height": like.rows, "width": like.cols, "count": count, "dtype": dtype,
        "nodata": nodata, "crs": like.crs, "tiled": True, "blockxsize": block, "blockysize": block,
        "compress": "deflate", "predictor": _predictor(dtype), "interleave": "band", "bigtiff": "if_safer",
    }  # fmt: skip
    if np.dtype(dtype).kind == "f":
        # Half the time of the usual level 6, for 2 % more bytes of features.
        profile["zlevel"] = 1
    if like.transform is not None:
        profile["transform"] = rasterio.Affine(*like.transform)
    with (
        atomic_path(path) as temporary,
        warnings.catch_warnings(),
        rasterio.Env(GDAL_CACHEMAX=_CACHE),
    ):
        # A map is as georeferenced as its cube; many cubes are not.
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(temporary, "w", **profile) as raster:
            if descriptions is not None:
                raster.descriptions = tuple(descriptions)
            yield raster
    remove_sidecars(path)


def write_tile(raster: Any, tile: Tile, block: NDArray[Any]) -> None:
    """Write a tile into an open raster.

    Parameters
    ----------
    raster : rasterio.io.DatasetWriter
        As `open_raster` gives it.
    tile : Tile
        Where the block lies.
    block : ndarray, shape (rows, cols) or (rows, cols, bands)
        Its values.
    """
    window = ((tile.rows.start, tile.rows.stop), (tile.cols.start, tile.cols.stop))
    planes = np.moveaxis(np.atleast_3d(block), 2, 0)  # (bands, rows, cols)
    step = max(1, _GROUP // planes[0].nbytes)
    for first in range(0, len(planes), step):
        group = np.ascontiguousarray(planes[first : first + step])
        raster.write(group, indexes=range(first + 1, first + 1 + len(group)), window=window)


def make_cog(path: str | os.PathLike[str], *, resampling: str = "average") -> None:
    """Rewrite a GeoTIFF as a cloud-optimised one, with overviews; values, tags and palette stay.

    The old file stays until the new one is whole.

    Parameters
    ----------
    path : path
        The file.
    resampling : {"average", "nearest", "mode"}
        How overviews follow from the pixels; not "average" for classes.

    Raises
    ------
    OSError
        If the file cannot be read or written.

    References
    ----------
    Open Geospatial Consortium, OGC Cloud Optimized GeoTIFF Standard, 21-026, 2023.

    Examples
    --------
    >>> make_cog("features.tif")                                            # doctest: +SKIP
    """
    import rasterio
    from rasterio.errors import NotGeoreferencedWarning
    from rasterio.shutil import copy

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(path) as raster:
            block, level = raster.block_shapes[0][0], "1" if np.dtype(raster.dtypes[0]).kind == "f" else "6"
    options = {
        "COMPRESS": "DEFLATE", "PREDICTOR": "YES", "LEVEL": level, "BIGTIFF": "IF_SAFER",
        "BLOCKSIZE": str(max(128, block)), "OVERVIEW_RESAMPLING": resampling.upper(),
    }  # fmt: skip
    # What lies beside the file still describes it, and must not be copied to a temporary name.
    with atomic_path(path) as temporary, rasterio.Env(GDAL_CACHEMAX=_CACHE, GDAL_PAM_ENABLED=False):
        copy(path, temporary, driver="COG", **options)


def _predictor(dtype: str) -> int:
    # 3 is for floats, 2 (differences) for wide integers; on bytes neither helps.
    if np.dtype(dtype).kind == "f":
        return 3
    return 2 if np.dtype(dtype).itemsize > 1 else 1
