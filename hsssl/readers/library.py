"""Spectral libraries: ENVI's, a header beside an image of spectra (rows) by bands (columns)."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hsssl.cube import Cube, FloatArray
from hsssl.lazy import load_or_defer
from hsssl.messages import say_once
from hsssl.readers.envi import envi_details, header_wavelengths
from hsssl.readers.envi_header import ByteOrder, Header, RawLayout, find_pair, number, parse_header

if TYPE_CHECKING:
    from hsssl.readers import Wavelengths

__all__ = ["SpectralLibrary", "is_library", "open_library", "read_library_cube"]


@dataclass(frozen=True, eq=False)
class SpectralLibrary:
    """Spectra of known materials.

    Parameters
    ----------
    spectra : ndarray, shape (n, bands), real
        Raw numbers of the file.
    names : tuple of str, length n
        Name of each spectrum.
    wavelengths : ndarray, shape (bands,), float64, or None
        Band centres in nm.
    fwhm : ndarray, shape (bands,), float64, or None
        Full width at half maximum of each band in nm.
    scale : float
        Physical value = raw value x scale.
    source : str
        Path, for messages.
    """

    spectra: NDArray[np.number]
    names: tuple[str, ...]
    wavelengths: FloatArray | None
    fwhm: FloatArray | None
    scale: float
    source: str


def open_library(
    path: str | os.PathLike[str], *, wavelengths: Wavelengths = None, byte_order: ByteOrder | None = None
) -> SpectralLibrary:
    """Read a spectral library of ENVI.

    Parameters
    ----------
    path : path
        The header (``.hdr``) or the data file (``.sli``, ``.lib`` or any other name).
    wavelengths : array_like (bands,) in nm, str or None
        Band centres to use in place of the header's; a text as `parse_wavelengths` takes it.
    byte_order : {"little", "big"} or None
        What to assume of a header that does not state it; without this, such a header is refused.

    Returns
    -------
    SpectralLibrary
        Spectra with their names and wavelengths.

    Raises
    ------
    FileNotFoundError
        If the header or the data file is missing.
    ValueError
        If it is no library, or header and data contradict each other.

    References
    ----------
    https://www.nv5geospatialsoftware.com/docs/ENVIHeaderFiles.html (2026-01): "file type", "spectra names";
    samples are bands, and lines are spectra.

    Examples
    --------
    >>> open_library("library_berlin.sli").names[0]                         # doctest: +SKIP
    'red clay tile 1'
    """
    cube, names = _read(path, wavelengths, byte_order)
    spectra = np.asarray(cube.values)[:, 0]
    scale = float(cube.scale)
    return SpectralLibrary(spectra, names, cube.wavelengths, cube.fwhm, scale, cube.source)


def read_library_cube(
    path: str | os.PathLike[str],
    *,
    wavelengths: Wavelengths = None,
    byte_order: ByteOrder | None = None,
    lazy: bool | None = None,
) -> Cube:
    """Read a spectral library as an image of one column with a row a spectrum; see `open_library`."""
    cube, names = _read(path, wavelengths, byte_order, lazy)
    say_once(
        "%s: a spectral library: %d spectra as %d rows of 1 column; open_library gives names",
        path,
        len(names),
        len(names),
    )
    return cube


def is_library(header: Path) -> bool:
    """Whether an ENVI header describes a spectral library; False where it is no header at all."""
    try:
        return "library" in str(parse_header(header).get("file type", "")).lower()
    except (ValueError, OSError):
        return False


def _read(
    path: str | os.PathLike[str],
    wavelengths: Wavelengths,
    byte_order: ByteOrder | None,
    lazy: bool | None = False,
) -> tuple[Cube, tuple[str, ...]]:
    header_path, data_path = find_pair(Path(path))
    source = str(header_path)
    header = parse_header(header_path)
    if "library" not in str(header.get("file type", "")).lower():
        raise ValueError(
            f"{source}: not a spectral library but {header.get('file type', 'an image')}; open_cube"
        )
    layout = RawLayout.of(header, data_path, source, byte_order)
    spectra, bands, depth = layout.shape
    if depth != 1:
        raise ValueError(f"{source}: a library has bands = 1 (samples are bands, lines spectra), got {depth}")

    def read_window(rows: slice, cols: slice, wanted: NDArray[np.int64]) -> NDArray[np.number]:
        table = layout.read_window(rows, slice(0, bands), np.zeros(1, dtype=np.int64))  # (rows, bands, 1)
        return table[:, wanted, 0][:, None, :]

    centres, widths = header_wavelengths(header, bands, wavelengths, source)
    factor = number(header, "reflectance scale factor", source)
    values = load_or_defer(read_window, (spectra, 1, bands), layout.dtype, lazy=lazy, source=source)
    cube = Cube(
        values=values,
        wavelengths=centres,
        fwhm=widths,
        nodata=number(header, "data ignore value", source),
        scale=1 / factor if factor else 1.0,
        scale_source="ENVI reflectance scale factor" if factor else "",
        source=str(path),
        details=envi_details(header, layout) | {"format": "ENVI spectral library"},
    )
    return cube, _names(header, spectra)


def _names(header: Header, spectra: int) -> tuple[str, ...]:
    stated = header.get("spectra names", [])
    if isinstance(stated, list) and len(stated) == spectra:
        return tuple(stated)
    return tuple(f"spectrum {number}" for number in range(spectra))
