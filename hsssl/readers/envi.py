"""ENVI images: a text header beside a file of raw numbers."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hsssl.cube import Cube
from hsssl.lazy import load_or_defer
from hsssl.messages import log
from hsssl.readers.envi_header import (
    ByteOrder,
    Header,
    RawLayout,
    braced,
    find_header,
    find_pair,
    number,
    number_list,
    parse_header,
)
from hsssl.readers.raster import open_gdal
from hsssl.readers.wavelengths import band_wavelengths, lone_widths_nm, to_nanometres, widths_nm

if TYPE_CHECKING:
    from hsssl.readers import Wavelengths

__all__ = ["envi_details", "find_header", "header_wavelengths", "read_envi"]

_STAND_IN = (
    "ENVI\nsamples = 4\nlines = 4\nbands = 1\nheader offset = 0\nfile type = ENVI Standard\ndata type = 1\n"
    "interleave = bsq\nbyte order = 0\n"
)
Scale = float | NDArray[np.float64]
Geo = tuple[str | None, tuple[float, float, float, float, float, float] | None]


def read_envi(
    path: str | os.PathLike[str],
    *,
    wavelengths: Wavelengths = None,
    byte_order: ByteOrder | None = None,
    data: str | os.PathLike[str] | None = None,
    lazy: bool | None = None,
) -> Cube:
    """Read an ENVI image of any interleave, byte order and real data type.

    Values are the raw numbers: ``reflectance scale factor`` is recorded as ``scale`` and not applied.

    Parameters
    ----------
    path : path
        The header (``.hdr``) or the data file, which may have any extension or none.
    wavelengths : array_like (bands,) in nm, str or None
        Band centres to use in place of the header's; a text as `parse_wavelengths` takes it.
    byte_order : {"little", "big"} or None
        What to assume of a header that does not state it; without this, such a header is refused.
    data : path or None
        The data file of a header that is not named after it.
    lazy : bool or None
        Leave the values in the file; None does so above `hsssl.lazy.RESIDENT_BYTES`.

    Returns
    -------
    Cube
        With wavelengths and FWHM in nm, ``bbl``, ``data ignore value``, scale, CRS and transform,
        as far as the header has them.

    Raises
    ------
    FileNotFoundError
        If the header or the data file is missing.
    ValueError
        If the header lacks a field or contradicts itself, or the data file is too short.

    Examples
    --------
    >>> cube = read_envi("scene.hdr")                                       # doctest: +SKIP
    """
    header_path, data_path = find_pair(Path(path), data)
    source = str(header_path)
    header = parse_header(header_path)
    _refuse_other_kinds(header, source)
    layout = RawLayout.of(header, data_path, source, byte_order)
    bands = layout.shape[2]
    centres, widths = header_wavelengths(header, bands, wavelengths, source)
    crs, transform = _georeference(header, source)
    scale, offset, scale_source = _scale(header, bands, source)
    names = header.get("band names", [])
    return Cube(
        values=load_or_defer(layout.read_window, layout.shape, layout.dtype, lazy=lazy, source=source),
        wavelengths=centres,
        fwhm=widths,
        good_bands=_good_bands(header, bands, source),  # type: ignore[arg-type]  # None becomes all True
        nodata=number(header, "data ignore value", source),
        scale=scale,
        offset=offset,
        scale_source=scale_source,
        crs=crs,
        transform=transform,
        band_names=tuple(names) if isinstance(names, list) and len(names) == bands else (),
        source=str(path),
        details=envi_details(header, layout),
    )


def _refuse_other_kinds(header: Header, source: str) -> None:
    kind = str(header.get("file type", "")).lower()
    if "library" in kind:
        raise ValueError(f"{source}: a spectral library, not an image; give the header of an image")
    if "tif" in kind or str(header.get("interleave", "")).lower() == "tif":
        raise ValueError(f"{source}: it describes a TIFF; open the .tif file itself")
    if str(header.get("file compression", "0")).strip() not in ("0", ""):
        raise ValueError(f"{source}: compressed ENVI data; write it uncompressed first")


def header_wavelengths(
    header: Header, bands: int, given: Wavelengths, source: str
) -> tuple[NDArray[np.float64] | None, NDArray[np.float64] | None]:
    """Return band centres and widths in nm: the caller's, or the header's, or None."""
    unit = str(header.get("wavelength units", ""))
    stated = number_list(header, "wavelength", source)
    centres = band_wavelengths(given, bands, source=source)
    if centres is not None:
        return centres, None
    widths = number_list(header, "fwhm", source)
    # "Index" is ENVI's word for wavelengths that are band numbers.
    if not stated or unit.strip().lower() == "index":
        return None, lone_widths_nm(widths, bands, unit=unit, source=source)
    centres = to_nanometres(stated, unit=unit, bands=bands, source=source)
    return centres, widths_nm(widths, stated, unit=unit, source=source)


def _good_bands(header: Header, bands: int, source: str) -> NDArray[np.bool_] | None:
    listed = number_list(header, "bbl", source)
    if not listed:
        return None
    if len(listed) != bands:
        raise ValueError(f"{source}: bbl has {len(listed)} entries for {bands} bands; correct or remove it")
    return np.array([entry != 0 for entry in listed])


def envi_details(header: Header, layout: RawLayout) -> dict[str, str]:
    """Return what else a header says, for `Cube.details`."""
    details = {"format": "ENVI", "interleave": layout.interleave}
    details["byte order"] = "big-endian" if layout.dtype.byteorder == ">" else "little-endian"
    if "wavelength" in header:
        details["wavelength unit"] = str(header.get("wavelength units", "")) or "not stated"
    sensor = str(header.get("sensor type", "")).strip()
    return details | ({"sensor": sensor} if sensor.lower() not in ("", "unknown") else {})


def _scale(header: Header, bands: int, source: str) -> tuple[Scale, Scale, str]:
    """Return scale and offset: of the reflectance scale factor, or else of gains and offsets by band."""
    factor = number(header, "reflectance scale factor", source)
    if factor:
        return 1 / factor, 0.0, "ENVI reflectance scale factor"
    gains = np.array(number_list(header, "data gain values", source))
    offsets = np.array(number_list(header, "data offset values", source) or [0.0] * gains.size)
    if gains.size == 0:
        return 1.0, 0.0, ""
    if gains.size != bands or offsets.size != bands or not (np.isfinite(gains) & (gains != 0)).all():
        log.warning("%s: ignored its data gain and offset values: not %d finite numbers", source, bands)
        return 1.0, 0.0, ""
    scale, offset = (part if (part != part[0]).any() else float(part[0]) for part in (gains, offsets))
    return scale, offset, "ENVI data gain and offset values"


def _georeference(header: Header, source: str) -> Geo:
    """Read map info and coordinate system string by GDAL, which knows ENVI's many dialects of both.

    It gets them with a stand-in for the numbers: a data file may be too small or too large for it.
    """
    if "map info" not in header:
        return None, None
    fields = {
        name: header[name]
        for name in ("map info", "projection info", "coordinate system string")
        if name in header
    }
    lines = [f"{name} = {braced(v) if isinstance(v, list) else v}\n" for name, v in fields.items()]
    with tempfile.TemporaryDirectory() as folder:
        stand_in = Path(folder) / "place.img"
        stand_in.write_bytes(bytes(16))
        stand_in.with_suffix(".hdr").write_text(_STAND_IN + "".join(lines), encoding="utf-8")
        try:
            with open_gdal(stand_in) as raster:
                crs = _as_registered(raster.crs).to_wkt() if raster.crs else None
                return crs, None if raster.transform.is_identity else tuple(raster.transform)[:6]
        except ValueError:
            log.warning("%s: GDAL cannot read its map info; the cube has no georeference", source)
            return None, None


def _as_registered(crs: Any) -> Any:
    """Return the EPSG system that reads the same in ENVI's words, which drop authority and order of axes."""
    from rasterio.crs import CRS

    words = crs.to_wkt(version="WKT1_ESRI")
    code = CRS.from_wkt(words, morph_from_esri_dialect=True).to_epsg()
    if code is None:
        return crs
    registered = CRS.from_epsg(code)
    return registered if registered.to_wkt(version="WKT1_ESRI") == words else crs
