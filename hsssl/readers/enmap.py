"""EnMAP level 2A products: a folder with the spectral image as GeoTIFF and its metadata as XML."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from hsssl.cube import Cube, valid_pixels
from hsssl.readers.raster import read_raster
from hsssl.readers.wavelengths import band_wavelengths, to_nanometres, widths_nm

if TYPE_CHECKING:
    from hsssl.readers import Wavelengths

__all__ = ["find_enmap", "read_enmap"]

# EnMAP HSI Level 1B, 1C, 2A Product Specification, EN-PCV-ICD-2009-2, metadata of a product:
# specific/bandCharacterisation/bandID with wavelengthCenterOfBand and FWHMOfBand in nm, GainOfBand and
# OffsetOfBand; L2A images are int16, and their background is -32768.
_BAND = "specific/bandCharacterisation/bandID"
_FIELDS = ("wavelengthCenterOfBand", "FWHMOfBand", "GainOfBand", "OffsetOfBand")
_BACKGROUND = -32768.0
_LARGEST_XML = 2**26


def find_enmap(folder: Path) -> Path | None:
    """Return the metadata file of an EnMAP product in ``folder``; None if there is none."""
    found = sorted(file for file in folder.iterdir() if file.name.upper().endswith("-METADATA.XML"))
    return found[0] if len(found) == 1 and "ENMAP" in found[0].name.upper() else None


def read_enmap(
    path: str | os.PathLike[str], *, wavelengths: Wavelengths = None, lazy: bool | None = None
) -> Cube:
    """Read an EnMAP L2A product from its folder or its metadata file.

    Bands are in the order of the file; where both detectors see 900 to 1000 nm, both are kept.

    Parameters
    ----------
    path : path
        The product's folder, or its file ``...-METADATA.XML``.
    wavelengths : array_like (bands,) in nm, str or None
        Band centres to use in place of the product's.
    lazy : bool or None
        Leave the values in the file; None does so above `hsssl.lazy.RESIDENT_BYTES`.

    Returns
    -------
    Cube
        Raw values with scale, wavelengths and FWHM of the metadata, CRS and transform of the image.

    Raises
    ------
    FileNotFoundError
        If metadata or image are missing.
    ValueError
        If the metadata do not fit the image, or either is damaged.

    Examples
    --------
    >>> cube = read_enmap("ENMAP01-____L2A-DT0000001867_20220724T104526Z")  # doctest: +SKIP
    """
    folder = Path(path)
    metadata = find_enmap(folder) if folder.is_dir() else folder
    if metadata is None or not metadata.is_file():
        raise FileNotFoundError(f"{folder}: no EnMAP metadata ENMAP...-METADATA.XML in it")
    bands = _bands(metadata)
    cube = read_raster(_image(metadata), wavelengths=wavelengths, lazy=lazy)
    if bands.shape[0] != cube.bands:
        raise ValueError(f"{metadata}: describes {bands.shape[0]} bands, the image has {cube.bands}")
    source = os.fspath(path)
    given = band_wavelengths(wavelengths, cube.bands, source=source)
    centres = to_nanometres(bands[:, 0], unit="nm", source=source) if given is None else given
    widths = widths_nm(bands[:, 1].tolist(), bands[:, 0].tolist(), unit="nm", source=source)
    gain, offset = (column if (column != column[0]).any() else float(column[0]) for column in bands.T[2:])
    nodata = _BACKGROUND if cube.nodata is None else cube.nodata
    return replace(
        cube,
        wavelengths=centres,
        fwhm=widths if given is None else None,
        nodata=nodata,
        valid=cube.valid if cube.nodata == nodata else valid_pixels(cube.values, nodata),
        scale=gain,
        offset=offset,
        scale_source="EnMAP GainOfBand and OffsetOfBand",
        source=source,
        details=cube.details | {"format": "EnMAP L2A product", "wavelength unit": "nm", "sensor": "EnMAP"},
    )


def _bands(metadata: Path) -> NDArray[np.float64]:
    """Read wavelength, FWHM, gain and offset of each band, (bands, 4), in order of the bands' numbers."""
    if metadata.stat().st_size > _LARGEST_XML:
        raise ValueError(f"{metadata}: {metadata.stat().st_size} bytes are too many for metadata")
    try:
        root = ElementTree.parse(metadata).getroot()
        listed = sorted(root.findall(_BAND), key=lambda band: int(band.attrib["number"]))
        rows = [[float(band.findtext(field, "nan")) for field in _FIELDS] for band in listed]
    except (ElementTree.ParseError, KeyError, ValueError, UnicodeError) as error:
        reason = " ".join(str(error).split())[:100]
        raise ValueError(f"{metadata}: not EnMAP metadata, or damaged ones: {reason}") from error
    table = np.array(rows, dtype=np.float64)
    if table.size == 0 or not np.isfinite(table).all() or (table[:, 2] == 0).any():
        raise ValueError(f"{metadata}: {_BAND} must give {', '.join(_FIELDS)} for every band")
    return table


def _image(metadata: Path) -> Path:
    stem = metadata.name[: -len("-METADATA.XML")]
    wanted = f"{stem}-SPECTRAL_IMAGE".upper()
    for file in sorted(metadata.parent.iterdir()):
        # EOLab's analysis-ready products say COG in the name.
        if file.suffix.upper() in (".TIF", ".TIFF") and file.stem.upper() in (wanted, f"{wanted}_COG"):
            return file
    raise FileNotFoundError(f"{metadata}: no {stem}-SPECTRAL_IMAGE.TIF beside it")
