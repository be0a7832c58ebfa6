"""Steps on the bands of a cube, each asked for by name: sort, resolve overlaps, drop windows, and so on."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from hsssl.cube import Cube
from hsssl.messages import log
from hsssl.prepare import WATER_WINDOWS, number_ranges

__all__ = ["band_centres", "continuum_removal", "drop_windows", "resolve_overlap", "sort_bands"]

FloatArray = NDArray[np.float64]
Rule = Literal["middle", "shorter", "longer"]


def sort_bands(cube: Cube) -> Cube:
    """Return the bands in order of wavelength, file order among equals, and say so if anything moved.

    Raises
    ------
    ValueError
        If the cube has no wavelengths.

    Examples
    --------
    >>> sort_bands(Cube(np.zeros((1, 1, 2)), np.array([600.0, 500.0]))).source_index
    array([1, 0])
    """
    order = np.argsort(band_centres(cube, "sort"), kind="stable")
    if np.array_equal(order, np.arange(cube.bands)):
        return cube
    log.warning("%s: sorted its %d bands by wavelength", cube.source, cube.bands)
    return cube.take_bands(order)


def resolve_overlap(cube: Cube, *, keep: Rule = "middle") -> Cube:
    """Keep one of two detectors where both see the same wavelengths; return the bands sorted.

    A detector is a run of bands, in file order, whose wavelengths go on in the direction that most go;
    where they step back, the next begins. For two neighbours that share the range from the
    first band of the one at longer wavelengths to the last band of the other:

    Parameters
    ----------
    cube : Cube
        With wavelengths, in the order of its file.
    keep : {"middle", "shorter", "longer"}
        "middle" takes the detector of shorter wavelengths up to the middle of the shared range, and the other
        beyond it; "shorter" and "longer" take that one in all of it.

    Returns
    -------
    Cube
        `Cube.source_index` says which bands of the file are left; what is dropped is logged.

    Raises
    ------
    ValueError
        If the cube has no wavelengths, or ``keep`` is no rule.

    Examples
    --------
    >>> centres = np.array([500.0, 510, 520, 515, 525, 535])
    >>> resolve_overlap(Cube(np.zeros((1, 1, 6)), centres)).wavelengths
    array([500., 510., 525., 535.])
    """
    if keep not in ("middle", "shorter", "longer"):
        raise ValueError(f"resolve_overlap: keep is middle, shorter or longer, got {keep!r}")
    centres = band_centres(cube, "resolve the overlap of")
    kept = np.ones(cube.bands, dtype=bool)
    runs = sorted(_detectors(centres), key=lambda run: float(centres[run].mean()))
    for short, long in pairwise(runs):
        low, high = float(centres[long].min()), float(centres[short].max())
        if low > high:
            continue
        cut = {"middle": (low + high) / 2, "shorter": high, "longer": np.nextafter(low, 0)}[keep]
        kept[short[centres[short] > cut]] = False
        kept[long[centres[long] <= cut]] = False
    if not kept.all():
        dropped = number_ranges(cube.source_index[~kept])
        log.warning(
            "%s: dropped %d bands of overlapping detectors (%s, from 0)", cube.source, (~kept).sum(), dropped
        )
    index = np.flatnonzero(kept)
    return cube.take_bands(index[np.argsort(centres[index], kind="stable")])


def _detectors(centres: FloatArray) -> list[NDArray[np.int64]]:
    steps = np.diff(centres)
    direction = 1.0 if np.count_nonzero(steps > 0) * 2 >= steps.size else -1.0
    starts = np.flatnonzero(steps * direction <= 0) + 1
    return [run.astype(np.int64) for run in np.split(np.arange(centres.size), starts)]


def drop_windows(cube: Cube, windows: Sequence[tuple[float, float]] = WATER_WINDOWS) -> Cube:
    """Drop the bands whose centres lie in any of the windows, both ends included, and say which.

    Parameters
    ----------
    cube : Cube
        With wavelengths.
    windows : sequence of (low, high), in nm
        Water vapour's unless given: 1350 to 1430, 1800 to 1960 and from 2450 nm.

    Raises
    ------
    ValueError
        If the cube has no wavelengths, or no band would be left.
    """
    centres = band_centres(cube, "drop windows of")
    inside = np.zeros(cube.bands, dtype=bool)
    for low, high in windows:
        inside |= (low <= centres) & (centres <= high)
    if inside.all():
        raise ValueError(
            f"{cube.source}: all {cube.bands} bands lie in the windows {list(windows)}; none is left"
        )
    if inside.any():
        dropped = number_ranges(cube.source_index[inside])
        log.warning("%s: dropped %d bands in windows (%s, from 0)", cube.source, inside.sum(), dropped)
    return cube.take_bands(np.flatnonzero(~inside))


def continuum_removal(
    spectra: NDArray[np.floating[Any]], wavelengths: NDArray[np.floating[Any]]
) -> NDArray[np.float64]:
    """Divide spectra by their continuum, the upper convex hull over wavelength.

    Parameters
    ----------
    spectra : ndarray, shape (..., bands)
        Positive physical values, such as reflectance.
    wavelengths : ndarray, shape (bands,)
        Ascending, in any unit.

    Returns
    -------
    ndarray, shape (..., bands), float64
        At most 1, and 1 where the spectrum touches its hull; NaN where the hull is not positive or the
        spectrum not finite.

    Raises
    ------
    ValueError
        If the wavelengths are not ascending or do not fit.

    References
    ----------
    Clark, Roush 1984: Reflectance spectroscopy. J. Geophys. Res. 89 B7, doi:10.1029/JB089iB07p06329

    Examples
    --------
    >>> continuum_removal(np.array([1.0, 0.5, 1.0]), np.array([1.0, 2.0, 3.0]))
    array([1. , 0.5, 1. ])
    """
    axis = np.asarray(wavelengths, dtype=np.float64)
    values = np.asarray(spectra, dtype=np.float64)
    if axis.ndim != 1 or values.shape[-1:] != axis.shape or not (np.diff(axis) > 0).all():
        raise ValueError(
            f"continuum removal: want ascending wavelengths for the last axis of {values.shape}, got "
            f"{axis.shape}; sort the bands first"
        )
    flat = values.reshape(-1, axis.size)
    hull = np.full_like(flat, np.nan)
    finite = np.isfinite(flat).all(axis=1)
    hull[finite] = _upper_hull(flat[finite], axis)
    return np.divide(flat, hull, out=np.full_like(flat, np.nan), where=hull > 0).reshape(values.shape)


def _upper_hull(values: FloatArray, axis: FloatArray) -> FloatArray:
    """Return the upper hull (n, bands) of n spectra by Andrew's monotone chain, a step for all at once."""
    n, bands = values.shape
    corners = np.zeros((n, bands), dtype=np.int64)  # band of each corner so far
    count = np.ones(n, dtype=np.int64)
    each = np.arange(n)
    for band in range(1, bands):
        open_ = each[count >= 2]
        while open_.size:
            last, before = corners[open_, count[open_] - 1], corners[open_, count[open_] - 2]
            rise = (values[open_, last] - values[open_, before]) * (axis[band] - axis[before])
            reach = (values[open_, band] - values[open_, before]) * (axis[last] - axis[before])
            open_ = open_[rise <= reach]  # the last corner lies on or under the line past it
            count[open_] -= 1
            open_ = open_[count[open_] >= 2]
        corners[each, count] = band
        count += 1
    hull = np.empty_like(values)
    for spectrum in range(n):
        at = corners[spectrum, : count[spectrum]]
        hull[spectrum] = np.interp(axis, axis[at], values[spectrum, at])
    return hull


def band_centres(cube: Cube, what: str) -> FloatArray:
    """Return the wavelengths in nm, or raise a ValueError that says what they are needed for."""
    if cube.wavelengths is None:
        raise ValueError(f"{cube.source}: to {what} its bands, wavelengths are needed; give --wavelengths")
    return np.asarray(cube.wavelengths, dtype=np.float64)
