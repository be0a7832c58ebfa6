"""Spectral libraries: spectra with names and wavelengths, as CSV and as ENVI ``.sli``."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hsssl.cube import Cube
from hsssl.readers.library import open_library
from hsssl.readers.wavelengths import to_nanometres

__all__ = ["Library", "envi_library", "library_csv", "read_library"]

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Library:
    """Named spectra.

    Parameters
    ----------
    names : tuple of str
        One a spectrum.
    wavelengths : ndarray, shape (bands,), float64
        In nm, rising.
    spectra : ndarray, shape (n, bands), float64
        Any scale.
    source : str
        Path, for messages.
    """

    names: tuple[str, ...]
    wavelengths: FloatArray
    spectra: FloatArray
    source: str = "library"

    def on(self, cube: Cube) -> FloatArray:
        """Return the spectra (n, bands) on a cube's bands, see `at`.

        Raises
        ------
        ValueError
            If the cube has no wavelengths, or the library does not cover them.
        """
        if cube.wavelengths is None:
            raise ValueError(
                f"{cube.source}: has no wavelengths to compare with {self.source}; give --wavelengths"
            )
        return self.at(cube.wavelengths)

    def at(self, wavelengths: NDArray[np.floating[Any]]) -> FloatArray:
        """Return the spectra (n, bands) at other wavelengths (nm), linearly interpolated.

        Raises
        ------
        ValueError
            If a wavelength lies more than a band's width outside the library's.
        """
        wanted = np.asarray(wavelengths, dtype=np.float64)
        step = np.median(np.diff(self.wavelengths)) if self.wavelengths.size > 1 else 0.0
        if wanted.min() < self.wavelengths[0] - step or wanted.max() > self.wavelengths[-1] + step:
            raise ValueError(
                f"{self.source}: covers {self.wavelengths[0]:.0f} to {self.wavelengths[-1]:.0f} nm, the cube "
                f"{wanted.min():.0f} to {wanted.max():.0f} nm; give a library that covers the cube"
            )
        return np.stack([np.interp(wanted, self.wavelengths, spectrum) for spectrum in self.spectra])


def read_library(path: str | os.PathLike[str]) -> Library:
    """Read a spectral library: an ENVI library (its header or data file), or CSV.

    In a CSV the first column holds wavelengths (nm, or micrometres where all are below 100), each further one
    a spectrum, headed by its name.

    Raises
    ------
    FileNotFoundError
        If it is not there.
    ValueError
        If it is no library, or has no wavelengths; see `hsssl.readers.open_library`.
    """
    file = Path(path)
    if not file.is_file():
        raise FileNotFoundError(f"{file}: no such file")
    read = _read_csv if file.suffix.lower() in (".csv", ".txt") else _read_envi
    names, centres, spectra, unit = read(file)
    wavelengths = to_nanometres(centres, unit=unit, bands=spectra.shape[1], source=str(file))
    order = np.argsort(wavelengths, kind="stable")
    return Library(names, wavelengths[order], spectra[:, order], str(file))


def library_csv(names: Sequence[str], axis: Sequence[float], spectra: NDArray[Any], *, head: str) -> bytes:
    """Return spectra (n, bands) as CSV: a row a band, headed by ``head`` and the names."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([head, *names])
    for centre, values in zip(axis, np.asarray(spectra, dtype=np.float32).T, strict=True):
        writer.writerow([f"{centre:.10g}", *(str(value) for value in values)])
    return text.getvalue().encode()


def envi_library(
    names: Sequence[str], wavelengths: NDArray[Any] | None, spectra: NDArray[Any], *, description: str
) -> tuple[bytes, bytes]:
    """Return header and data of an ENVI spectral library: float32, little-endian, wavelengths in nm.

    References
    ----------
    https://www.nv5geospatialsoftware.com/docs/ENVIHeaderFiles.html
    """
    n, bands = spectra.shape
    plain = [" ".join(name.translate(str.maketrans("{},", "()-")).split()) for name in (*names, description)]
    lines = [
        "ENVI", f"description = {{{plain[-1]}}}", f"samples = {bands}", f"lines = {n}", "bands = 1",
        "header offset = 0", "file type = ENVI Spectral Library", "data type = 4", "interleave = bsq",
        "byte order = 0", f"spectra names = {{{', '.join(plain[:-1])}}}",
    ]  # fmt: skip
    if wavelengths is not None:
        centres = ", ".join(f"{centre:.10g}" for centre in wavelengths)
        lines += ["wavelength units = Nanometers", f"wavelength = {{{centres}}}"]
    return ("\n".join(lines) + "\n").encode(), np.ascontiguousarray(spectra, dtype="<f4").tobytes()


Parts = tuple[tuple[str, ...], list[float], FloatArray, str]


def _read_csv(file: Path) -> Parts:
    try:
        rows = [row for row in csv.reader(file.read_text(encoding="utf-8").splitlines()) if row]
        names = tuple(name.strip() for name in rows[0][1:])
        table = np.array([[float(cell) for cell in row] for row in rows[1:]])
    except (ValueError, IndexError, UnicodeDecodeError) as error:
        raise ValueError(
            f"{file}: not a library: want a head of names, then rows of wavelength and values ({error})"
        ) from error
    if table.ndim != 2 or table.shape[1] != len(names) + 1 or not names or not np.isfinite(table).all():
        raise ValueError(
            f"{file}: not a library: want a wavelength and {len(names)} finite values in each row"
        )
    return names, table[:, 0].tolist(), table[:, 1:].T, ""


def _read_envi(file: Path) -> Parts:
    library = open_library(file)
    if library.wavelengths is None:
        raise ValueError(f"{file}: has no wavelengths; add them to its header, or give a CSV")
    spectra = np.asarray(library.spectra, dtype=np.float64)
    return library.names, library.wavelengths.tolist(), spectra, "nm"
