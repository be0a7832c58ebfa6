"""Readers: one file a format, each saying what the file says. They never scale, drop, fill or sort."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hsssl.cube import Cube
from hsssl.dates import Order, choose_date
from hsssl.readers.band_files import find_band_files, read_band_files
from hsssl.readers.emit import is_emit, read_emit
from hsssl.readers.enmap import find_enmap, read_enmap
from hsssl.readers.envi import find_header, read_envi
from hsssl.readers.hdf5 import is_hdf5, open_hdf5, read_hdf5
from hsssl.readers.library import SpectralLibrary, is_library, open_library, read_library_cube
from hsssl.readers.mat import read_mat
from hsssl.readers.neon import find_neon, read_neon
from hsssl.readers.numpy_files import read_npy, read_npz
from hsssl.readers.prisma import is_prisma, read_prisma
from hsssl.readers.raster import read_raster
from hsssl.readers.wavelengths import band_wavelengths, parse_wavelengths
from hsssl.readers.zarr_store import is_zarr, read_zarr

__all__ = [
    "SpectralLibrary",
    "open_library",
    "parse_wavelengths",
    "read",
    "read_band_files",
    "read_emit",
    "read_enmap",
    "read_envi",
    "read_hdf5",
    "read_library_cube",
    "read_mat",
    "read_neon",
    "read_npy",
    "read_npz",
    "read_prisma",
    "read_raster",
    "read_zarr",
]

Wavelengths = NDArray[np.floating[Any]] | Sequence[float] | str | os.PathLike[str] | None
Reader = Callable[..., Cube]
Source = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]

_BY_SUFFIX: dict[str, Reader] = {".mat": read_mat, ".npy": read_npy, ".npz": read_npz}
_NO_CUBE = {
    ".zip": "an archive, to unpack", ".gz": "an archive, to unpack", ".tar": "an archive, to unpack",
    ".txt": "text", ".csv": "a table", ".json": "text", ".md": "text", ".pdf": "a document", ".xml": "text",
}  # fmt: skip


def read(
    path: Source,
    *,
    wavelengths: Wavelengths = None,
    lazy: bool | None = None,
    dates: int | None = None,
    date: int | None = None,
    order: Order = "date",
    **options: Any,
) -> Cube:
    """Read a cube from a file or product of any format that has a reader.

    Parameters
    ----------
    path : path or sequence of paths
        A file: MATLAB, ENVI image or library (header or data), NumPy, HDF5 or netCDF-4 (NEON, PRISMA L2D,
        EMIT L2A, others), GeoTIFF and what else GDAL opens. A folder: an EnMAP L2A product, a Zarr store,
        a Sentinel-2 SAFE product, single-band rasters. Several files: one band of each.
    wavelengths : array_like (bands,) in nm, str or None
        Band centres to use in place of the file's (of one date, with ``dates``); a text as
        `parse_wavelengths` takes it.
    lazy : bool or None
        Leave the values in the file until they are sliced (True), read them (False), or leave only large
        ones, above `hsssl.lazy.RESIDENT_BYTES` (None).
    dates, date, order : int, int, str
        A stack of several dates: how many, which to take (from 0; None keeps all as bands), and what changes
        slowest, "date" or "band"; see `hsssl.dates.choose_date`.
    **options
        What the format's reader takes besides: ``variable`` (MATLAB, .npz, HDF5, Zarr), ``rows`` and
        ``cols`` of a MATLAB list of pixels, ``byte_order`` of an ENVI header without one, ``data`` of
        one that is not named after its file, ``axes`` of an HDF5 array, ``sensor`` of single-band files.

    Returns
    -------
    Cube
        Raw values and all that the file says about them.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError, OSError
        If the file holds no cube or is damaged, or its format has no such option; one line that says where
        and what to do.
    """
    reader = _reader_of(path)
    given = {name: value for name, value in options.items() if value is not None}
    _refuse_unknown(reader, given, path)
    if dates is None:
        if date is not None:
            raise ValueError(f"{path}: date {date} of how many? give dates too")
        return reader(path, wavelengths=wavelengths, lazy=lazy, **given)
    cube = choose_date(reader(path, lazy=lazy, **given), dates, date, order=order)
    if wavelengths is None:
        return cube
    bands = cube.bands if date is not None else cube.bands // dates
    centres = band_wavelengths(wavelengths, bands, source=cube.source)
    assert centres is not None  # something was given
    if date is None:
        centres = np.tile(centres, dates) if order == "date" else np.repeat(centres, dates)
    return replace(cube, wavelengths=centres, fwhm=None)


def _refuse_unknown(reader: Reader, given: dict[str, Any], path: Source) -> None:
    taken = [key for key in inspect.signature(reader).parameters if key not in ("path", "paths")]
    for name in given:
        if name not in taken:
            known = ", ".join(key for key in taken if key not in ("wavelengths", "lazy")) or "none"
            raise ValueError(f"{path}: {reader.__name__} takes no {name}; leave it out (it takes: {known})")


def _reader_of(path: Source) -> Reader:
    if not isinstance(path, str | os.PathLike):
        return read_band_files
    file = Path(path)
    if not file.exists():
        raise FileNotFoundError(f"{file}: no such file")
    if file.is_dir():
        return _reader_of_folder(file)
    suffix = file.suffix.lower()
    if suffix in _BY_SUFFIX:
        return _BY_SUFFIX[suffix]
    if suffix == ".hdr":
        return read_library_cube if is_library(file) else read_envi
    if file.name.upper().endswith("-METADATA.XML"):
        return read_enmap
    if is_hdf5(file):
        return _reader_of_hdf5(file)
    # A TIFF may have an ENVI header beside it, which then describes a TIFF and not raw numbers.
    header = None if _is_tiff(file) else find_header(file)
    if header is not None:
        return read_library_cube if is_library(header) else read_envi
    if suffix in _NO_CUBE:
        raise ValueError(f"{file}: {_NO_CUBE[suffix]}, no image; give a cube's file or a product's folder")
    return read_raster


def _reader_of_folder(folder: Path) -> Reader:
    if is_zarr(folder):
        return read_zarr
    if find_enmap(folder) is not None:
        return read_enmap
    if find_band_files(folder):
        return read_band_files
    raise ValueError(
        f"{folder}: is a folder, but no EnMAP or Sentinel-2 product, Zarr store or single-band rasters; "
        f"give the cube's file in it"
    )


def _reader_of_hdf5(file: Path) -> Reader:
    with open_hdf5(file) as opened:
        if find_neon(opened) is not None:
            return read_neon
        if is_prisma(opened):
            return read_prisma
        return read_emit if is_emit(opened) else read_hdf5


def _is_tiff(file: Path) -> bool:
    with file.open("rb") as stream:
        return stream.read(4) in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
