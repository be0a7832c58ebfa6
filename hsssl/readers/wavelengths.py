"""Wavelengths as files and people give them, brought to nanometres in one place."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hsssl.messages import log
from hsssl.sensors import SENSORS, sensor_bands

__all__ = [
    "band_wavelengths",
    "lone_widths_nm",
    "numbers",
    "parse_wavelengths",
    "to_nanometres",
    "unit_of_name",
    "widths_nm",
]

_NM_PER_UNIT = {"nm": 1.0, "nano": 1.0, "um": 1e3, "micro": 1e3, "angstrom": 0.1}
_NO_UNIT = {"", "unknown", "none", "n/a"}
# From the vacuum ultraviolet to the end of the thermal infrared: what no imaging spectrometer leaves.
_SHORTEST_NM, _LONGEST_NM = 100.0, 100_000.0
_NAME = re.compile(r"(?:band_?)?(?:wave_?lengths?|wvls?|wls?|lambdas?)_?(nm|um|microns?)?")
_ADVICE = "give --wavelengths (a text file of numbers, or start:stop in nm)"


def to_nanometres(
    values: Sequence[float] | NDArray[np.floating[Any]],
    *,
    unit: str = "",
    bands: int | None = None,
    source: str = "wavelengths",
) -> NDArray[np.float64]:
    """Convert wavelengths to nm, order kept, and refuse what cannot be a wavelength.

    Parameters
    ----------
    values : array_like, shape (bands,)
        Band centres in ``unit``.
    unit : str
        Unit as a file writes it ("Nanometers", "um", "Micrometers", "µm", "Angstroms"). Where it is
        empty or "Unknown", the values are micrometres if the largest is under 100, else nm.
    bands : int or None
        How many there must be.
    source : str
        Path or name for messages.

    Returns
    -------
    ndarray, shape (bands,), float64
        Band centres in nm.

    Raises
    ------
    ValueError
        If the count is wrong, the unit unknown, or a value lies outside 100 nm to 100 um.

    Examples
    --------
    >>> to_nanometres([0.4, 2.5])
    array([ 400., 2500.])
    """
    array = np.asarray(values, dtype=np.float64).ravel()
    if bands is not None and array.size != bands:
        raise ValueError(f"{source}: {array.size} wavelengths for {bands} bands; {_ADVICE}")
    nanometres = _scaled(array, _nm_per_unit(array, unit, source))
    sensible = np.isfinite(nanometres) & (nanometres >= _SHORTEST_NM) & (nanometres <= _LONGEST_NM)
    if not sensible.all():
        position = int(np.flatnonzero(~sensible)[0])
        stated = f" {unit}" if unit.strip().lower() not in _NO_UNIT else ""
        raise ValueError(
            f"{source}: wavelength {array[position]:g}{stated} of band {position} (from 0) is not within "
            f"100 nm to 100 um; {_ADVICE}"
        )
    return nanometres


def unit_of_name(name: str) -> str | None:
    """Return the unit that the name of a vector of wavelengths states, "" if none; None for other names."""
    match = _NAME.fullmatch(name.lower())
    return None if match is None else (match[1] or "").replace("microns", "um").replace("micron", "um")


def widths_nm(
    widths: Sequence[float], wavelengths: Sequence[float], *, unit: str = "", source: str = "fwhm"
) -> NDArray[np.float64] | None:
    """Convert full widths at half maximum to nm, in the unit that the wavelengths beside them have.

    A list of another length or with values that are not positive is no width: None, with a message.
    """
    if len(widths) == 0:
        return None
    array = np.asarray(widths, dtype=np.float64)
    if array.size != len(wavelengths) or not (np.isfinite(array) & (array > 0)).all():
        log.warning("%s: ignored its fwhm: not %d positive numbers", source, len(wavelengths))
        return None
    return _scaled(array, _nm_per_unit(np.asarray(wavelengths, dtype=np.float64), unit, source))


def lone_widths_nm(
    widths: Sequence[float], bands: int, *, unit: str, source: str
) -> NDArray[np.float64] | None:
    """Convert full widths of a file without wavelengths to nm; None where it states no unit of length."""
    if len(widths) == 0 or _stated_factor(unit) is None:
        return None
    return widths_nm(widths, np.full(bands, np.nan).tolist(), unit=unit, source=source)


def parse_wavelengths(text_or_path: str | os.PathLike[str], bands: int) -> NDArray[np.float64]:
    """Read what people give as ``--wavelengths``.

    Parameters
    ----------
    text_or_path : str or path
        "start:stop" in nm, spread evenly over the bands, both ends included; the name of a sensor,
        "sentinel-2a", or of some of its bands, "sentinel-2a:B2,B3,B4,B8" (`hsssl.sensors`); or a text file
        of numbers (white space, commas or semicolons between them, ``#`` comments), in nm or micrometres.
    bands : int
        Number of bands.

    Returns
    -------
    ndarray, shape (bands,), float64
        Band centres in nm.

    Raises
    ------
    FileNotFoundError
        If it is neither a range nor a sensor nor a file.
    ValueError
        If the file or the sensor has other than ``bands`` wavelengths.

    Examples
    --------
    >>> parse_wavelengths("400:700", 4)
    array([400., 500., 600., 700.])
    """
    text = os.fspath(text_or_path)
    span = re.fullmatch(r"\s*([\d.]+)\s*(?:nm)?\s*:\s*([\d.]+)\s*(?:nm)?\s*", text)
    if span is not None:
        ends = numbers(" ".join(span.groups()), source=f"--wavelengths {text}")
        spread = np.linspace(ends[0], ends[1], bands)
        return to_nanometres(spread, unit="nm", bands=bands, source=f"--wavelengths {text}")
    if text.partition(":")[0].strip().lower() in SENSORS:
        return to_nanometres(sensor_bands(text)[0], unit="nm", bands=bands, source=f"--wavelengths {text}")
    path = Path(text)
    if not path.is_file():
        raise FileNotFoundError(
            f"--wavelengths {text}: neither a file nor start:stop in nm, such as 400:2500, nor a sensor "
            f"({', '.join(SENSORS)}); give one of them"
        )
    try:
        content = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{text}: not a text file; --wavelengths takes a text file of numbers") from error
    lines = [line.split("#", 1)[0] for line in content.splitlines()]
    return to_nanometres(numbers(" ".join(lines), source=text), bands=bands, source=text)


def band_wavelengths(
    given: NDArray[np.floating[Any]] | Sequence[float] | str | os.PathLike[str] | None,
    bands: int,
    *,
    source: str,
) -> NDArray[np.float64] | None:
    """Return the caller's wavelengths in nm: an array in nm, or text for `parse_wavelengths`; None stays."""
    if given is None:
        return None
    if isinstance(given, str | os.PathLike):
        return parse_wavelengths(given, bands)
    return to_nanometres(given, unit="nm", bands=bands, source=f"{source}: wavelengths given")


def numbers(text: str, *, source: str) -> list[float]:
    """Read the numbers in ``text``; white space, commas, semicolons and braces stand between them."""
    words = [word for word in re.split(r"[\s,;{}\[\]]+", text) if word]
    try:
        return [float(word) for word in words]
    except ValueError as error:
        wrong = next(word for word in words if not _is_number(word))
        raise ValueError(f"{source}: {wrong[:40]!r} is not a number; correct it") from error


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _scaled(values: NDArray[np.float64], factor: float) -> NDArray[np.float64]:
    # 0.4174 um times 1000 is 417.40000000000003; no file states a wavelength to 1e-9 nm.
    return values if factor == 1 else np.round(values * factor, 9)


def _nm_per_unit(values: NDArray[np.float64], unit: str, source: str) -> float:
    if unit.strip().lower() in _NO_UNIT:
        return 1e3 if values.size and np.nanmax(values) < 100 else 1.0
    factor = _stated_factor(unit)
    if factor is None:
        raise ValueError(f"{source}: unknown wavelength unit {unit!r}, want nm or um; {_ADVICE}")
    return factor


def _stated_factor(unit: str) -> float | None:
    name = unit.strip().lower().replace("µ", "u").replace("μ", "u")
    for known, factor in _NM_PER_UNIT.items():
        if name == known or (len(known) > 2 and name.startswith(known)):
            return factor
    return None
