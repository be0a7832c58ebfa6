"""Readers: one file a format, each saying what the file says. They never scale, drop, fill or sort."""

from __future__ import annotations

import os
from collections.abc import Sequence
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

_NO_READER = {
    ".h5": "HDF5", ".he5": "HDF5", ".hdf": "HDF", ".hdf5": "HDF5", ".nc": "NetCDF",
    ".npy": "NumPy", ".npz": "NumPy", ".zip": "archive", ".gz": "archive", ".tar": "archive",
}  # fmt: skip


def read(
    path: str | os.PathLike[str], *, variable: str | None = None, wavelengths: Wavelengths = None
) -> Cube:
    """Read a cube from a MATLAB, ENVI, GeoTIFF or other GDAL raster file.

    Parameters
    ----------
    path : path
        A ``.mat`` file, an ENVI header or its data file, or a raster that GDAL opens.
    variable : str or None
        Name of the cube in a MATLAB file; needed only where several have three dimensions.
    wavelengths : array_like (bands,) in nm, str or None
        Band centres to use in place of the file's; a text as `parse_wavelengths` takes it.

    Returns
    -------
    Cube
        Raw values and all that the file says about them.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError, OSError
        If the file holds no cube or is damaged; one line that says where and what to do.
    """
    file = Path(path)
    if not file.exists():
        raise FileNotFoundError(f"{file}: no such file")
    if file.is_dir():
        raise ValueError(f"{file}: is a folder; give the cube's file in it")
    suffix = file.suffix.lower()
    if suffix == ".mat":
        return read_mat(file, variable=variable, wavelengths=wavelengths)
    if variable is not None:
        raise ValueError(f"{file}: only MATLAB files have variables; leave --variable out")
    if suffix == ".hdr":
        return read_envi(file, wavelengths=wavelengths)
    if suffix in _NO_READER:
        raise ValueError(
            f"{file}: no reader for {_NO_READER[suffix]} files; convert it to GeoTIFF or ENVI, "
            f"for one with gdal_translate"
        )
    # A TIFF may have an ENVI header beside it, which then describes a TIFF and not raw numbers.
    if not _is_tiff(file) and find_header(file) is not None:
        return read_envi(file, wavelengths=wavelengths)
    return read_raster(file, wavelengths=wavelengths)


def _is_tiff(file: Path) -> bool:
    with file.open("rb") as stream:
        return stream.read(4) in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
