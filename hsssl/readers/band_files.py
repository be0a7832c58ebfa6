"""Cubes of single-band files at several resolutions: Sentinel-2 SAFE, BigEarthNet, Landsat, any list."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hsssl.cube import Cube
from hsssl.lazy import load_or_defer, refuse_empty_claim
from hsssl.messages import say_once
from hsssl.readers.raster import open_gdal
from hsssl.readers.wavelengths import band_wavelengths
from hsssl.sensors import SENSORS

if TYPE_CHECKING:
    from hsssl.readers import Wavelengths

__all__ = ["find_band_files", "read_band_files"]

_RASTERS = (".tif", ".tiff", ".jp2")
# Sentinel-2 Products Specification Document, S2-PDGS-TAS-DI-PSD, image files of a granule:
# <tile>_<time>_<band>[_<resolution>m].jp2; BigEarthNet names the same bands at the end of its files.
_SENTINEL_BAND = re.compile(r"_B(0[1-9]|1[0-2]|8A)(?:_([126]0)m)?$", re.IGNORECASE)
_SENTINEL_UNIT = re.compile(r"S2([AB])_", re.IGNORECASE)
# Landsat Collection 2 product identifiers (USGS): LC08_L2SP_..._SR_B4.TIF.
_LANDSAT_BAND = re.compile(r"^L[COTE](0[5789])_.*_B(\d{1,2})$", re.IGNORECASE)


# Beyond any coordinate on Earth, in metres.
_FARTHEST = 1e9
# No two sensors of one platform differ more in pixel size.
_LARGEST_FACTOR = 1000


@dataclass(frozen=True)
class BandFile:
    """One band: its file, its grid, and how many pixels of the finest grid one of its own covers a side."""

    path: Path
    shape: tuple[int, int]
    dtype: np.dtype[Any]
    nodata: float | None
    crs: str | None
    transform: tuple[float, ...]
    block: tuple[int, int]
    factor: int = 1

    @property
    def size(self) -> float:
        """Width of a pixel in units of the CRS."""
        return abs(self.transform[0])


def find_band_files(folder: Path) -> list[Path]:
    """List the single-band rasters of a folder: those of a SAFE product, or the folder's own, in band order.

    Where a product has a band at several resolutions, its finest file is taken.
    """
    images = sorted(folder.glob("GRANULE/*/IMG_DATA/**/*.jp2")) or sorted(
        file for file in folder.iterdir() if file.suffix.lower() in _RASTERS
    )
    named: dict[str, tuple[int, Path]] = {}
    for file in images:
        found = _SENTINEL_BAND.search(file.stem)
        if found:
            size = int(found[2] or 0)
            band = found[1].upper()
            if band not in named or size < named[band][0]:
                named[band] = (size, file)
    if named:
        # 8A comes after 08 and before 09, as in the sensor's own tables.
        return [named[band][1] for band in sorted(named, key=lambda name: name.replace("8A", "08A"))]
    return images


def read_band_files(
    paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    wavelengths: Wavelengths = None,
    sensor: str | None = None,
    lazy: bool | None = None,
) -> Cube:
    """Read single-band rasters of one place as a cube on the finest of their grids.

    A coarser band is brought to the finest grid by repeating each of its pixels over those that it
    covers (nearest neighbour): no number is invented. All grids must have the same CRS and upper left
    corner, and pixel sizes that are whole multiples of the finest.

    Parameters
    ----------
    paths : path or sequence of paths
        A folder (a Sentinel-2 SAFE product, a BigEarthNet patch, or any folder of single-band rasters, which
        are taken in order of their names), or the files in the order wanted.
    wavelengths : array_like (bands,) in nm, str or None
        Band centres to use in place of the sensor's.
    sensor : str or None
        Key of `hsssl.sensors.SENSORS`, of which the files are all bands in order; None goes by the names of
        Sentinel-2 and Landsat files.
    lazy : bool or None
        Leave the values in the files; None does so above `hsssl.lazy.RESIDENT_BYTES`.

    Returns
    -------
    Cube
        Bands in the order of the files, named after them; wavelengths and FWHM of the sensor where known.

    Raises
    ------
    FileNotFoundError
        If a file is missing.
    ValueError
        If there are none, one has several bands, or the grids do not fit.

    Examples
    --------
    >>> cube = read_band_files("S2A_MSIL2A_20170617T113321_36_85")          # doctest: +SKIP
    """
    if isinstance(paths, str | os.PathLike):
        source, files = os.fspath(paths), find_band_files(Path(paths))
    else:
        files = [Path(path) for path in paths]
        source = f"{files[0].parent} ({len(files)} files)" if files else "no files"
    if not files:
        raise ValueError(
            f"{source}: no single-band rasters ({', '.join(_RASTERS)}) in it; give the cube's file"
        )
    bands = _on_finest([_inspect(file) for file in files], source)
    finest = min(bands, key=lambda band: band.factor)
    dtype = np.result_type(*(band.dtype for band in bands))
    shape = (*finest.shape, len(bands))
    coarse = [band.path.stem for band in bands if band.factor > 1]
    if coarse:
        say_once(
            "%s: repeated the pixels of %d coarser bands on the %g grid", source, len(coarse), finest.size
        )

    def read_window(rows: slice, cols: slice, wanted: NDArray[np.int64]) -> NDArray[Any]:
        out = np.empty((rows.stop - rows.start, cols.stop - cols.start, len(wanted)), dtype=dtype)
        for place, number in enumerate(wanted):
            out[:, :, place] = _read_band(bands[int(number)], rows, cols)
        return out

    refuse_empty_claim(
        int(np.prod(shape, dtype=object)) * dtype.itemsize,
        sum(band.path.stat().st_size * band.factor**2 for band in bands),
        source=source,
    )
    centres, widths, names = _of_sensor(files, sensor, source)
    given = band_wavelengths(wavelengths, len(bands), source=source)
    return Cube(
        values=load_or_defer(read_window, shape, dtype, lazy=lazy, block=finest.block, source=source),
        wavelengths=centres if given is None else given,
        fwhm=widths if given is None else None,
        nodata=_common_nodata(bands, source),
        crs=finest.crs,
        transform=None if finest.crs is None else finest.transform,  # type: ignore[arg-type]  # six numbers
        band_names=names,
        source=source,
        details={"format": f"{len(files)} single-band files"},
    )


def _inspect(file: Path) -> BandFile:
    if not file.is_file():
        raise FileNotFoundError(f"{file}: no such file")
    with open_gdal(file) as raster:
        if raster.count != 1:
            raise ValueError(f"{file}: has {raster.count} bands; a stack of files takes one band of each")
        if raster.dtypes[0].startswith("complex"):
            raise ValueError(f"{file}: values are {raster.dtypes[0]}, want integers or real numbers")
        crs = raster.crs.to_wkt() if raster.crs else None
        dtype, shape = np.dtype(raster.dtypes[0]), (raster.height, raster.width)
        refuse_empty_claim(shape[0] * shape[1] * dtype.itemsize, file.stat().st_size, source=str(file))
        transform = tuple(raster.transform)[:6]
        if not _is_place(transform):
            raise ValueError(f"{file}: its transform {transform} is no place; write it anew, or leave it out")
        return BandFile(file, shape, dtype, raster.nodatavals[0], crs, transform, raster.block_shapes[0])


def _is_place(transform: tuple[float, ...]) -> bool:
    """Whether a transform is finite, with pixels of a size, somewhere on Earth."""
    return all(abs(part) < _FARTHEST for part in transform) and abs(transform[0]) > 1 / _FARTHEST


def _on_finest(bands: list[BandFile], source: str) -> list[BandFile]:
    """Say of each band how its grid lies in the finest, or refuse."""
    finest = min(bands, key=lambda band: (band.size, -band.shape[0]))
    fitted = []
    for band in bands:
        factor = round(band.size / finest.size)
        covered = tuple(size * factor for size in band.shape)
        corner = np.abs(np.subtract(band.transform, finest.transform)[[2, 5]]).max()
        same_place = band.crs == finest.crs and corner < 0.01 * finest.size
        scaled = np.allclose(
            np.array(band.transform)[[0, 1, 3, 4]],
            np.array(finest.transform)[[0, 1, 3, 4]] * factor,
            rtol=1e-6,
            atol=0,
        )
        fits = same_place and scaled and 1 <= factor <= _LARGEST_FACTOR
        if not (fits and covered[0] >= finest.shape[0] and covered[1] >= finest.shape[1]):
            own, fine = (f"{b.shape[0]} x {b.shape[1]} pixels of {b.size:g}" for b in (band, finest))
            raise ValueError(
                f"{source}: {band.path.name} ({own}) does not lie in the grid of {finest.path.name} "
                f"({fine}); bring it there with gdalwarp, or leave it out"
            )
        fitted.append(BandFile(**{**band.__dict__, "factor": factor}))
    return fitted


def _read_band(band: BandFile, rows: slice, cols: slice) -> NDArray[Any]:
    """Read a window of the finest grid from a band, its pixels repeated."""
    k = band.factor
    top, bottom = rows.start // k, -(-rows.stop // k)
    left, right = cols.start // k, -(-cols.stop // k)
    with open_gdal(band.path) as raster:
        own = raster.read(1, window=((top, bottom), (left, right)))
    repeated = own.repeat(k, axis=0).repeat(k, axis=1) if k > 1 else own
    inside_rows = slice(rows.start - top * k, rows.stop - top * k)
    return np.asarray(repeated[inside_rows, cols.start - left * k : cols.stop - left * k])


def _of_sensor(
    files: list[Path], sensor: str | None, source: str
) -> tuple[NDArray[np.float64] | None, NDArray[np.float64] | None, tuple[str, ...]]:
    """Return wavelengths, FWHM and names by the sensor that is given, or that the files are named after."""
    names = tuple(file.stem for file in files)
    guessed = [_band_by_name(file) for file in files]
    if sensor is not None:
        table = SENSORS.get(sensor)
        if table is None or len(table.names) != len(files):
            known = "unknown" if table is None else f"has {len(table.names)} bands"
            raise ValueError(f"{source}: {len(files)} files, and sensor {sensor!r} {known}; give wavelengths")
        return table.wavelengths, table.fwhm, table.names
    if not all(guessed):
        return None, None, names
    picked = [SENSORS[key].band(name) for key, name in guessed]  # type: ignore[misc]  # none is None
    widths = [width for _, width in picked]
    return (
        np.array([centre for centre, _ in picked]),
        None if None in widths else np.array(widths, dtype=np.float64),
        tuple(name for _, name in guessed),  # type: ignore[misc]
    )


def _band_by_name(file: Path) -> tuple[str, str] | None:
    """Return sensor and band that a file is named after, or None."""
    landsat = _LANDSAT_BAND.match(file.stem)
    if landsat:
        key, name = f"landsat-{int(landsat[1])}", f"B{int(landsat[2])}"
        return (key, name) if name in SENSORS[key].names else None
    band = _SENTINEL_BAND.search(file.stem)
    if band is None:
        return None
    # A SAFE folder's files are named after the tile, and the folder after the satellite.
    unit = _SENTINEL_UNIT.search(str(file))
    return f"sentinel-2{unit[1].lower() if unit else 'a'}", f"B{band[1].upper().lstrip('0')}"


def _common_nodata(bands: list[BandFile], source: str) -> float | None:
    stated = {str(band.nodata): band.nodata for band in bands}
    if len(stated) > 1:
        raise ValueError(
            f"{source}: its bands have different nodata values ({', '.join(sorted(stated))}); write them "
            f"alike, for one with gdal_edit.py -a_nodata"
        )
    return next(iter(stated.values()))
