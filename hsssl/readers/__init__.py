"""Readers: one file a format, each saying what the file says. They never scale, drop, fill or sort."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hsssl.cube import Cube
from hsssl.readers.envi import find_header, read_envi
from hsssl.readers.mat import read_mat
from hsssl.readers.raster import read_raster
from hsssl.readers.wavelengths import parse_wavelengths

__all__ = ["parse_wavelengths", "read", "read_envi", "read_mat", "read_raster"]

Wavelengths = NDArray[np.floating[Any]] | Sequence[float] | str | os.PathLike[str] | None
Reader = Callable[..., Cube]

_NO_READER = {
    ".h5": "HDF5", ".he5": "HDF5", ".hdf": "HDF", ".hdf5": "HDF5", ".nc": "NetCDF",
    ".npy": "NumPy", ".npz": "NumPy", ".zip": "archive", ".gz": "archive", ".tar": "archive",
}  # fmt: skip


def read(
    path: str | os.PathLike[str],
    *,
    wavelengths: Wavelengths = None,
    lazy: bool | None = None,
    **options: Any,
) -> Cube:
    """Read a cube from a file of any format that has a reader.

    Parameters
    ----------
    path : path
        A ``.mat`` file, an ENVI header or its data file, or a raster that GDAL opens.
    wavelengths : array_like (bands,) in nm, str or None
        Band centres to use in place of the file's; a text as `parse_wavelengths` takes it.
    lazy : bool or None
        Leave the values in the file until they are sliced (True), read them (False), or leave only large
        ones, above `hsssl.lazy.RESIDENT_BYTES` (None).
    **options
        What the format's reader takes besides: ``variable``, ``rows`` and ``cols`` of MATLAB files
        (`read_mat`), ``byte_order`` of ENVI images (`read_envi`).

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
    file = Path(path)
    if not file.exists():
        raise FileNotFoundError(f"{file}: no such file")
    reader = _reader_of(file)
    taken = inspect.signature(reader).parameters
    for name in options:
        if options[name] is not None and name not in taken:
            known = ", ".join(key for key in taken if key not in ("path", "wavelengths", "lazy")) or "none"
            raise ValueError(f"{file}: {reader.__name__} takes no {name}; leave it out (it takes: {known})")
    given = {name: value for name, value in options.items() if value is not None}
    return reader(file, wavelengths=wavelengths, lazy=lazy, **given)


def _reader_of(file: Path) -> Reader:
    if file.is_dir():
        raise ValueError(f"{file}: is a folder; give the cube's file in it")
    suffix = file.suffix.lower()
    if suffix == ".mat":
        return read_mat
    if suffix == ".hdr":
        return read_envi
    if suffix in _NO_READER:
        raise ValueError(
            f"{file}: no reader for {_NO_READER[suffix]} files; convert it to GeoTIFF or ENVI, "
            f"for one with gdal_translate"
        )
    # A TIFF may have an ENVI header beside it, which then describes a TIFF and not raw numbers.
    if not _is_tiff(file) and find_header(file) is not None:
        return read_envi
    return read_raster


def _is_tiff(file: Path) -> bool:
    with file.open("rb") as stream:
        return stream.read(4) in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
