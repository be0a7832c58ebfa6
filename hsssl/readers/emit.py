"""EMIT level 2A reflectance: netCDF-4 in the instrument's own geometry."""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from hsssl.cube import Cube
from hsssl.lazy import load_or_defer
from hsssl.messages import say_once
from hsssl.readers.hdf5 import block_in, check_dataset, first, open_hdf5, read_hdf5_window, small_array
from hsssl.readers.wavelengths import band_wavelengths, to_nanometres, widths_nm

if TYPE_CHECKING:
    from hsssl.readers import Wavelengths

__all__ = ["is_emit", "read_emit"]

# EMITL2ARFL version 001, doi:10.5067/EMIT/EMITL2ARFL.001, structure of the granules as NASA LP DAAC lists it
# (DMR++): reflectance (downtrack, crosstrack, bands) float32 with _FillValue -9999, the group
# sensor_band_parameters with wavelengths and fwhm in nm and good_wavelengths 1 or 0.
_DATA, _BANDS = "reflectance", "sensor_band_parameters"


def is_emit(file: Any) -> bool:
    """Whether an open HDF5 file is an EMIT product of level 2A."""
    return _DATA in file and f"{_BANDS}/wavelengths" in file


def read_emit(
    path: str | os.PathLike[str], *, wavelengths: Wavelengths = None, lazy: bool | None = None
) -> Cube:
    """Read an EMIT L2A reflectance granule as the instrument saw it: rows down track, columns across.

    The granule is not orthorectified, so the cube has no CRS and no transform.

    Parameters
    ----------
    path : path
        The ``.nc`` file.
    wavelengths : array_like (bands,) in nm, str or None
        Band centres to use in place of the file's.
    lazy : bool or None
        Leave the values in the file; None does so above `hsssl.lazy.RESIDENT_BYTES`.

    Returns
    -------
    Cube
        Reflectance with wavelengths, FWHM and the product's list of good bands.

    Raises
    ------
    ValueError
        If it is no EMIT L2A granule, or a damaged one.

    Examples
    --------
    >>> cube = read_emit("EMIT_L2A_RFL_001_20220903T163129_2224611_012.nc")  # doctest: +SKIP
    """
    source = os.fspath(path)
    with open_hdf5(path) as file:
        if not is_emit(file):
            raise ValueError(f"{source}: not an EMIT L2A granule: no {_DATA} and {_BANDS}/wavelengths")
        data = file[_DATA]
        check_dataset(data, source=source)
        shape, dtype, nodata = data.shape, data.dtype, first(data.attrs.get("_FillValue"))
        block = block_in(data, "rcb")
        held = {
            name: small_array(file, f"{_BANDS}/{name}", source=source)
            for name in ("wavelengths", "fwhm", "good_wavelengths")
            if f"{_BANDS}/{name}" in file
        }
    bands = shape[2]
    for name, numbers in held.items():
        if numbers.size != bands:
            raise ValueError(f"{source}: {_BANDS}/{name} has {numbers.size} numbers for {bands} bands")
    given = band_wavelengths(wavelengths, bands, source=source)
    stated = held["wavelengths"]
    widths = widths_nm(held.get("fwhm", np.zeros(0)).tolist(), stated.tolist(), unit="nm", source=source)
    say_once("%s: in the instrument's geometry, not orthorectified; maps of it have no coordinates", source)
    read_window = partial(read_hdf5_window, source, _DATA, "rcb")
    return Cube(
        values=load_or_defer(read_window, shape, dtype, lazy=lazy, block=block, source=source),
        wavelengths=to_nanometres(stated, unit="nm", source=source) if given is None else given,
        fwhm=widths if given is None else None,
        good_bands=held.get("good_wavelengths", np.ones(bands)) == 1,
        nodata=nodata,
        source=source,
        details={
            "format": "EMIT L2A netCDF-4",
            "interleave": "row, column, band",
            "wavelength unit": "nm",
            "sensor": "EMIT",
        },
    )
