"""PRISMA level 2D products: HDF-EOS5 with a swath of two detectors."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hsssl.cube import Cube
from hsssl.lazy import LazyValues, load_or_defer
from hsssl.messages import say_once
from hsssl.readers.hdf5 import block_in, check_dataset, epsg_wkt, first, open_hdf5, read_hdf5_window
from hsssl.readers.wavelengths import band_wavelengths, to_nanometres, widths_nm

if TYPE_CHECKING:
    from hsssl.readers import Wavelengths

__all__ = ["is_prisma", "read_prisma"]

# ASI, PRISMA Products Specification Document, issue 2.3 (2020), Level 2D products: cubes (row, band, column)
# uint16 with reflectance = Min + DN (Max - Min) / 65535 by attributes of the root group; wavelengths in nm
# are 0 for bands that are not sent; corners are centres of pixels.
_FIELDS = "HDFEOS/SWATHS/PRS_L2D_HCO/Data Fields"
_DETECTORS = ("Vnir", "Swir")
_FULL_SCALE = 65535
_TILE_VALUES = 2**21


def is_prisma(file: Any) -> bool:
    """Whether an open HDF5 file is a PRISMA product of level 2D."""
    return f"{_FIELDS}/VNIR_Cube" in file and f"{_FIELDS}/SWIR_Cube" in file


def read_prisma(
    path: str | os.PathLike[str], *, wavelengths: Wavelengths = None, lazy: bool | None = None
) -> Cube:
    """Read a PRISMA L2D product: the bands of the visible detector, then those of the infrared one.

    Bands with a wavelength of 0 were not sent: they are left out, and `Cube.source_index` counts on over
    them (VNIR from 0, SWIR after it). The order of the file is kept, which is that of falling
    wavelength in each detector, and both detectors see 920 to 1010 nm. A pixel whose bands are all 0 lies
    outside the swath and is invalid; a single 0 is a dark number.

    Parameters
    ----------
    path : path
        The ``.he5`` file.
    wavelengths : array_like (bands,) in nm, str or None
        Band centres to use in place of the file's.
    lazy : bool or None
        Leave the values in the file; None does so above `hsssl.lazy.RESIDENT_BYTES`.

    Returns
    -------
    Cube
        Raw uint16 with the scale and offset of each band's detector, CRS and transform.

    Raises
    ------
    ValueError
        If it is no PRISMA L2D product, or a damaged one.

    Examples
    --------
    >>> cube = read_prisma("PRS_L2D_STD_20201107101404_20201107101408_0001.he5")  # doctest: +SKIP
    """
    source = os.fspath(path)
    with open_hdf5(path) as file:
        if not is_prisma(file):
            raise ValueError(f"{source}: not a PRISMA L2D product: no {_FIELDS}/VNIR_Cube and SWIR_Cube")
        root = dict(file.attrs)
        cubes = [file[f"{_FIELDS}/{detector.upper()}_Cube"] for detector in _DETECTORS]
        for cube in cubes:
            check_dataset(cube, source=source)
        rows, cols = cubes[0].shape[0], cubes[0].shape[2]
        block = block_in(cubes[0], "rbc")
        if cubes[1].shape[::2] != (rows, cols):
            raise ValueError(f"{source}: its detectors have {cubes[0].shape} and {cubes[1].shape} numbers")
        counts, dtype = [cube.shape[1] for cube in cubes], np.result_type(*(cube.dtype for cube in cubes))
    stated = _listed(root, "List_Cw_", counts, source)
    fwhm = _listed(root, "List_Fwhm_", counts, source)
    sent = np.flatnonzero(stated > 0)
    if sent.size == 0:
        raise ValueError(f"{source}: no band has a wavelength; the product is damaged")
    if len(sent) < len(stated):
        say_once("%s: left out %d bands that were not sent (wavelength 0)", source, len(stated) - len(sent))

    def read_window(r: slice, c: slice, bands: NDArray[np.int64]) -> NDArray[Any]:
        wanted = sent[bands]
        out = np.empty((r.stop - r.start, c.stop - c.start, len(bands)), dtype=dtype)
        for detector, start in ((0, 0), (1, counts[0])):
            here = (wanted >= start) & (wanted < start + counts[detector])
            if here.any():
                name = f"{_FIELDS}/{_DETECTORS[detector].upper()}_Cube"
                out[:, :, here] = read_hdf5_window(source, name, "rbc", r, c, wanted[here] - start)
        return out

    values = load_or_defer(read_window, (rows, cols, sent.size), dtype, lazy=lazy, block=block, source=source)
    given = band_wavelengths(wavelengths, sent.size, source=source)
    centres = to_nanometres(stated[sent], unit="nm", source=source) if given is None else given
    widths = widths_nm(fwhm[sent].tolist(), stated[sent].tolist(), unit="nm", source=source)
    scale, offset = _scales(root, counts, source)
    crs, transform = _place(root, rows, cols)
    names = [
        f"{detector.upper()} {band}"
        for detector, n in zip(_DETECTORS, counts, strict=True)
        for band in range(n)
    ]
    return Cube(
        values=values,
        wavelengths=centres,
        fwhm=widths if given is None else None,
        valid=_in_swath(values),
        scale=scale[sent],
        offset=offset[sent],
        scale_source="PRISMA L2Scale Min and Max",
        crs=crs,
        transform=transform,
        band_names=tuple(names[band] for band in sent),
        source_index=sent,
        source_bands=sum(counts),
        source=source,
        details={
            "format": "PRISMA L2D HDF-EOS5",
            "interleave": "row, band, column",
            "wavelength unit": "nm",
            "sensor": "PRISMA",
        },
    )


def _listed(root: dict[str, Any], prefix: str, counts: list[int], source: str) -> NDArray[np.float64]:
    parts = []
    for detector, count in zip(_DETECTORS, counts, strict=True):
        part = np.ravel(np.asarray(root.get(prefix + detector, []), dtype=np.float64))
        if part.size != count:
            raise ValueError(f"{source}: {prefix}{detector} has {part.size} numbers for {count} bands")
        parts.append(part)
    return np.concatenate(parts)


def _scales(
    root: dict[str, Any], counts: list[int], source: str
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    scale, offset = [], []
    for detector, count in zip(_DETECTORS, counts, strict=True):
        low, high = (first(root.get(f"L2Scale{detector}{end}")) for end in ("Min", "Max"))
        if low is None or high is None or not low < high:
            raise ValueError(f"{source}: no L2Scale{detector}Min and Max, or not in order: {low}, {high}")
        scale += [(high - low) / _FULL_SCALE] * count
        offset += [low] * count
    return np.array(scale), np.array(offset)


def _in_swath(values: NDArray[Any] | LazyValues) -> NDArray[np.bool_]:
    rows, cols, bands = values.shape
    inside = np.empty((rows, cols), dtype=bool)
    step = max(1, _TILE_VALUES // (cols * bands))
    for start in range(0, rows, step):
        inside[start : start + step] = values[start : start + step].any(axis=2)
    return inside


def _place(
    root: dict[str, Any], rows: int, cols: int
) -> tuple[str | None, tuple[float, float, float, float, float, float] | None]:
    corners = [
        f"Product_{corner}corner_{axis}" for corner in ("UL", "LR") for axis in ("easting", "northing")
    ]
    left, top, right, bottom = (first(root.get(name)) for name in corners)
    code = first(root.get("Epsg_Code"))
    if None in (left, top, right, bottom, code) or min(rows, cols) < 2:
        return None, None
    wide, high = (right - left) / (cols - 1), (top - bottom) / (rows - 1)  # type: ignore[operator]
    transform = (wide, 0.0, left - wide / 2, 0.0, -high, top + high / 2)  # type: ignore[operator]
    return epsg_wkt(str(int(code))), transform  # type: ignore[arg-type]
