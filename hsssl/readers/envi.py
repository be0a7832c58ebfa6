"""ENVI images: a text header beside a file of raw numbers, memory-mapped as they are."""

from __future__ import annotations

import os
import re
import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hsssl.cube import Cube
from hsssl.messages import log
from hsssl.readers.wavelengths import band_wavelengths, numbers, to_nanometres, widths_nm

if TYPE_CHECKING:
    from hsssl.readers import Wavelengths

__all__ = ["find_header", "read_envi"]

Header = Mapping[str, Any]
Geo = tuple[str | None, tuple[float, float, float, float, float, float] | None]

# https://www.nv5geospatialsoftware.com/docs/ENVIHeaderFiles.html (2026-01), "data type"; 6 and 9 are complex.
_DTYPES = {
    1: "u1", 2: "i2", 3: "i4", 4: "f4", 5: "f8", 12: "u2", 13: "u4", 14: "i8", 15: "u8",
}  # fmt: skip
_DATA_SUFFIXES = ("", ".img", ".dat", ".raw", ".bsq", ".bil", ".bip", ".bin", ".hyspex", ".cube")
_NEVER_DATA = {
    ".hdr", ".xml", ".txt", ".csv", ".json", ".png", ".jpg", ".jpeg", ".tif", ".tiff", ".jp2", ".vrt",
    ".mat", ".pdf", ".ovr", ".enp", ".sta", ".kml", ".shp", ".md",
}  # fmt: skip
# File order of the axes, and their positions in (rows, cols, bands).
_AXES = {"bsq": ("bands", "lines", "samples"), "bil": ("lines", "bands", "samples"),
         "bip": ("lines", "samples", "bands")}  # fmt: skip
_CUBE_AXES = ("lines", "samples", "bands")


def read_envi(path: str | os.PathLike[str], *, wavelengths: Wavelengths = None) -> Cube:
    """Read an ENVI image of any interleave, byte order and real data type.

    The values stay a read-only memory map of the raw numbers: ``reflectance scale factor`` is
    recorded as ``scale`` and not applied.

    Parameters
    ----------
    path : path
        The header (``.hdr``) or the data file, which may have any extension or none.
    wavelengths : array_like (bands,) in nm, str or None
        Band centres to use in place of the header's; a text as `parse_wavelengths` takes it.

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
    header_path, data_path = _pair(Path(path))
    source = str(header_path)
    header = _parse(header_path)
    _refuse_other_kinds(header, source)
    values = _map_values(header, data_path, source)
    bands = values.shape[2]
    centres, widths = _wavelengths(header, bands, wavelengths, source)
    crs, transform = _georeference(data_path, source) if "map info" in header else (None, None)
    factor = _number(header, "reflectance scale factor", source)
    names = header.get("band names", [])
    return Cube(
        values=values,
        wavelengths=centres,
        fwhm=widths,
        good_bands=_good_bands(header, bands, source),  # type: ignore[arg-type]  # None becomes all True
        nodata=_number(header, "data ignore value", source),
        scale=1 / factor if factor else 1.0,
        scale_source="ENVI reflectance scale factor" if factor else "",
        crs=crs,
        transform=transform,
        band_names=tuple(names) if isinstance(names, list) and len(names) == bands else (),
        source=str(path),
    )


def find_header(data: Path) -> Path | None:
    """Return the ENVI header beside a data file: ``name.ext.hdr`` or ``name.hdr``; None if there is none."""
    if data.suffix.lower() in _NEVER_DATA:
        return None
    candidates = [data.with_name(data.name + ".hdr"), data.with_name(data.name + ".HDR")]
    candidates += [data.with_suffix(".hdr"), data.with_suffix(".HDR")]
    return next((path for path in candidates if path.is_file()), None)


def _pair(path: Path) -> tuple[Path, Path]:
    """Return header and data file, whichever of them ``path`` is."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    if path.suffix.lower() == ".hdr":
        return path, _find_data(path)
    header = find_header(path)
    if header is None:
        raise FileNotFoundError(f"{path}: no ENVI header {path.name}.hdr or {path.stem}.hdr beside it")
    return header, path


def _find_data(header: Path) -> Path:
    stem = header.with_suffix("")
    # "scene.img.hdr" belongs to "scene.img", "scene.hdr" to "scene" with any extension.
    for suffix in _DATA_SUFFIXES:
        for candidate in (Path(f"{stem}{suffix}"), Path(f"{stem}{suffix.upper()}")):
            if candidate.is_file():
                return candidate
    others = [
        file
        for file in header.parent.iterdir()
        if file.stem == stem.name and file.is_file() and file.suffix.lower() not in _NEVER_DATA
    ]
    if len(others) == 1:
        return others[0]
    if others:
        listing = ", ".join(sorted(file.name for file in others))
        raise ValueError(f"{header}: several files could be its data: {listing}; give the data file itself")
    tiffs = [
        Path(f"{stem}{suffix}") for suffix in (".tif", ".tiff", ".TIF") if Path(f"{stem}{suffix}").is_file()
    ]
    if tiffs:
        raise ValueError(f"{header}: it describes a TIFF; open {tiffs[0]}")
    raise FileNotFoundError(f"{header}: no data file {stem.name}, with or without an extension, beside it")


def _parse(path: Path) -> dict[str, Any]:
    import spectral.io.envi as envi
    from spectral.io.spyfile import SpyException

    raw = path.read_bytes()
    if not raw.lstrip(b"\xef\xbb\xbf").startswith(b"ENVI"):
        raise ValueError(f"{path}: not an ENVI header: its first line must be ENVI")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = raw.decode("latin-1")
    # The parser takes a file name and decodes by the locale, where µ in Latin-1 would stop it: it gets
    # ASCII with character references, which are resolved in what it returns.
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        # It warns where field names have capitals, and lowers them, which is what we want.
        warnings.filterwarnings("ignore", message="Parameters with non-lowercase names")
        copy = Path(folder) / "copy.hdr"
        copy.write_bytes(text.encode("ascii", "xmlcharrefreplace"))
        try:
            return {key.strip(): _resolved(value) for key, value in envi.read_envi_header(str(copy)).items()}
        except (SpyException, IndexError) as error:
            raise ValueError(f"{path}: a damaged ENVI header; look for a brace that is not closed") from error


def _resolved(value: Any) -> Any:
    if isinstance(value, list):
        return [_resolved(part) for part in value]
    return re.sub(r"&#(\d+);", lambda found: chr(int(found[1])), value)


def _refuse_other_kinds(header: Header, source: str) -> None:
    kind = str(header.get("file type", "")).lower()
    if "library" in kind:
        raise ValueError(f"{source}: a spectral library, not an image; give the header of an image")
    if "tif" in kind or str(header.get("interleave", "")).lower() == "tif":
        raise ValueError(f"{source}: it describes a TIFF; open the .tif file itself")
    if str(header.get("file compression", "0")).strip() not in ("0", ""):
        raise ValueError(f"{source}: compressed ENVI data; write it uncompressed first")


def _map_values(header: Header, data: Path, source: str) -> NDArray[Any]:
    sizes = {axis: _integer(header, axis, source, least=1) for axis in _CUBE_AXES}
    offset = _integer(header, "header offset", source, least=0) if "header offset" in header else 0
    interleave = str(header.get("interleave", "")).lower()
    if interleave not in _AXES:
        raise ValueError(f"{source}: interleave {interleave!r}; add or correct the line: interleave = bsq")
    code = _integer(header, "data type", source, least=0)
    if code not in _DTYPES:
        raise ValueError(f"{source}: data type {code} is complex or unknown; want one of {sorted(_DTYPES)}")
    if "byte order" not in header:
        raise ValueError(
            f"{source}: no byte order; add the line: byte order = 0 "
            f"(little-endian, as PCs write; 1 is big-endian)"
        )
    order = _integer(header, "byte order", source, least=0)
    dtype = np.dtype(("<" if order == 0 else ">") + _DTYPES[code])
    axes = _AXES[interleave]
    shape = tuple(sizes[axis] for axis in axes)
    # Python integers: a damaged header must not overflow on its way to the comparison.
    wanted = offset + sizes["lines"] * sizes["samples"] * sizes["bands"] * dtype.itemsize
    actual = data.stat().st_size
    if actual < wanted:
        raise ValueError(
            f"{data}: {actual} bytes, but {source} describes {wanted}; "
            f"copy the file again or correct the header"
        )
    if actual > wanted:
        log.warning("%s: %d bytes more than its header describes; the rest is ignored", data, actual - wanted)
    mapped = np.memmap(data, dtype=dtype, mode="r", offset=offset, shape=shape)
    return mapped.transpose([axes.index(axis) for axis in _CUBE_AXES])


def _wavelengths(
    header: Header, bands: int, given: Wavelengths, source: str
) -> tuple[NDArray[np.float64] | None, NDArray[np.float64] | None]:
    unit = str(header.get("wavelength units", ""))
    stated = _number_list(header, "wavelength", source)
    centres = band_wavelengths(given, bands, source=source)
    if centres is not None:
        return centres, None
    # "Index" is ENVI's word for wavelengths that are band numbers.
    if not stated or unit.strip().lower() == "index":
        return None, None
    centres = to_nanometres(stated, unit=unit, bands=bands, source=source)
    return centres, widths_nm(_number_list(header, "fwhm", source), stated, unit=unit, source=source)


def _good_bands(header: Header, bands: int, source: str) -> NDArray[np.bool_] | None:
    listed = _number_list(header, "bbl", source)
    if not listed:
        return None
    if len(listed) != bands:
        raise ValueError(f"{source}: bbl has {len(listed)} entries for {bands} bands; correct or remove it")
    return np.array([entry != 0 for entry in listed])


def _georeference(data: Path, source: str) -> Geo:
    """Read map info and coordinate system string by GDAL, which knows ENVI's many dialects of both."""
    import rasterio
    from rasterio.errors import NotGeoreferencedWarning, RasterioError

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        try:
            with rasterio.open(data, driver="ENVI") as raster:
                crs = raster.crs.to_wkt() if raster.crs else None
                transform = None if raster.transform.is_identity else tuple(raster.transform)[:6]
                return crs, transform
        except RasterioError:
            log.warning("%s: GDAL cannot read its map info; the cube has no georeference", source)
            return None, None


def _integer(header: Header, key: str, source: str, *, least: int) -> int:
    text = str(header.get(key, "")).strip()
    if not text.isdecimal() or int(text) < least:
        found = f"{key} = {text[:40]}" if text else f"no {key}"
        raise ValueError(f"{source}: {found}; want the line: {key} = (an integer, at least {least})")
    return int(text)


def _number(header: Header, key: str, source: str) -> float | None:
    found = _number_list(header, key, source)
    return found[0] if found else None


def _number_list(header: Header, key: str, source: str) -> list[float]:
    value = header.get(key, "")
    return numbers(" ".join(value) if isinstance(value, list) else str(value), source=f"{source}: {key}")
