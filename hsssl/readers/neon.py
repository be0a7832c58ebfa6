"""NEON reflectance tiles (DP3.30006): HDF5 with a group a site."""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hsssl.cube import Cube
from hsssl.lazy import load_or_defer
from hsssl.readers.hdf5 import (
    block_in,
    check_dataset,
    epsg_wkt,
    first,
    open_hdf5,
    read_hdf5_window,
    small_array,
    small_text,
)
from hsssl.readers.wavelengths import band_wavelengths, to_nanometres, widths_nm

if TYPE_CHECKING:
    from hsssl.readers import Wavelengths

__all__ = ["find_neon", "read_neon"]

# NEON data product DP3.30006.001 as its tutorial "NEON AOP Hyperspectral Data in HDF5 format" takes it apart:
# /SITE/Reflectance/Reflectance_Data (rows, cols, bands) with Scale_Factor and Data_Ignore_Value,
# Metadata/Spectral_Data/{Wavelength, FWHM} in nm, Metadata/Coordinate_System/{Map_Info, EPSG Code}, and the
# windows of water vapour as attributes Band_Window_1_Nanometers and so on.
_DATA, _SPECTRAL, _PLACE = "Reflectance_Data", "Metadata/Spectral_Data", "Metadata/Coordinate_System"


def find_neon(file: Any) -> str | None:
    """Return the path of the group /SITE/Reflectance in an open HDF5 file; None if it is no NEON tile."""
    for site in file:
        name = f"{site}/Reflectance" if isinstance(site, str) else ""
        if name and f"{name}/{_DATA}" in file and f"{name}/{_SPECTRAL}/Wavelength" in file:
            return name
    return None


def read_neon(
    path: str | os.PathLike[str], *, wavelengths: Wavelengths = None, lazy: bool | None = None
) -> Cube:
    """Read a reflectance tile of NEON's Airborne Observation Platform.

    Parameters
    ----------
    path : path
        The HDF5 file.
    wavelengths : array_like (bands,) in nm, str or None
        Band centres to use in place of the file's.
    lazy : bool or None
        Leave the values in the file; None does so above `hsssl.lazy.RESIDENT_BYTES`.

    Returns
    -------
    Cube
        Raw values with scale, nodata, wavelengths, FWHM, CRS and transform; bands inside the product's
        windows of water vapour are marked bad.

    Raises
    ------
    ValueError
        If it is no NEON tile, or a damaged one.

    Examples
    --------
    >>> cube = read_neon("NEON_D17_SJER_DP3_257000_4112000_reflectance.h5")  # doctest: +SKIP
    """
    source = os.fspath(path)
    with open_hdf5(path) as file:
        group = find_neon(file)
        if group is None:
            raise ValueError(f"{source}: not a NEON tile: no group SITE/Reflectance with {_DATA}")
        data = file[f"{group}/{_DATA}"]
        check_dataset(data, source=source)
        shape, dtype, block = data.shape, data.dtype, block_in(data, "rcb")
        given = band_wavelengths(wavelengths, shape[2], source=source)
        stated = small_array(file, f"{group}/{_SPECTRAL}/Wavelength", source=source)
        centres = to_nanometres(stated, unit="nm", bands=shape[2], source=source) if given is None else given
        widths = None
        if given is None and f"{group}/{_SPECTRAL}/FWHM" in file:
            fwhm = small_array(file, f"{group}/{_SPECTRAL}/FWHM", source=source)
            widths = widths_nm(fwhm.tolist(), stated.tolist(), unit="nm", source=source)
        factor = first(data.attrs.get("Scale_Factor"))
        nodata = first(data.attrs.get("Data_Ignore_Value"))
        good = _outside_windows(file[group], centres)
        crs, transform = _place(file[group], source)
    read_window = partial(read_hdf5_window, source, f"{group}/{_DATA}", "rcb")
    return Cube(
        values=load_or_defer(read_window, shape, dtype, lazy=lazy, block=block, source=source),
        wavelengths=centres,
        fwhm=widths,
        good_bands=good,
        nodata=nodata,
        scale=1 / factor if factor else 1.0,
        scale_source="NEON Scale_Factor" if factor else "",
        crs=crs,
        transform=transform,
        source=source,
        details={
            "format": "NEON HDF5",
            "interleave": "row, column, band",
            "wavelength unit": "nm",
            "sensor": "NEON imaging spectrometer",
        },
    )


def _outside_windows(group: Any, centres: NDArray[np.float64]) -> NDArray[np.bool_]:
    good = np.ones(centres.size, dtype=bool)
    for name, value in group.attrs.items():
        if name.startswith("Band_Window_") and np.size(value) == 2:
            low, high = sorted(float(edge) for edge in np.ravel(value))
            good &= (centres < low) | (centres > high)
    return good


def _place(
    group: Any, source: str
) -> tuple[str | None, tuple[float, float, float, float, float, float] | None]:
    """Read Map_Info: projection, reference column and row (from 1), easting, northing, pixel sizes."""
    if f"{_PLACE}/Map_Info" not in group:
        return None, None
    parts = [part.strip() for part in small_text(group, f"{_PLACE}/Map_Info", source=source).split(",")]
    try:
        col, row, east, north, wide, high = (float(part) for part in parts[1:7])
    except ValueError as error:
        raise ValueError(f"{source}: Map_Info {','.join(parts)[:60]!r} is not understood") from error
    transform = (wide, 0.0, east - (col - 1) * wide, 0.0, -high, north + (row - 1) * high)
    name = f"{_PLACE}/EPSG Code"
    return (epsg_wkt(small_text(group, name, source=source)) if name in group else None), transform
