"""Endmembers as the mean direction of the pixels that hold little else; brightness plays no part."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hsssl.unmix.extraction import check_pixels, spa, subspace, unit_rows
from hsssl.unmix.solvers import nnls

__all__ = ["brightness", "directions", "pure_pixels", "refined"]

FloatArray = NDArray[np.float64]
# Share of the signal from which a pixel counts as pure, and how many pixels are averaged at least.
PURE, LEAST = 0.9, 5
# Darker than this share of the median length, a pixel is noise, and its direction says nothing.
DARK = 0.01


def pure_pixels(pixels: NDArray[np.floating[Any]], endmembers: int) -> FloatArray:
    """Return endmembers that are averages over nearly pure pixels.

    1. Spectra are scaled to length one, so that light and shade of one material are one direction, and
       projected on their first p axes, which takes most of the noise away. Pixels with next to no signal are
       left out.
    2. `hsssl.unmix.spa` finds p corners among the projected directions.
    3. Each corner is replaced by the mean direction of the pixels of which it makes up at least 90 % (by
       non-negative least squares), of five pixels at least; repeated until nothing moves, at most 20 times.
    4. An endmember has the median length of those pixels.

    A corner found by projection is the most extreme pixel and the noisiest one; its mean is neither. The
    method is deterministic. A design of this package; the 90 % were chosen on the Samson scene, where 80 to
    95 % do about as well.

    Parameters
    ----------
    pixels : ndarray, shape (n, bands)
        Spectra without NaN.
    endmembers : int
        How many, p.

    Returns
    -------
    ndarray, shape (p, bands), float64
        In the unit of the pixels, in the order of choice.

    Raises
    ------
    ValueError
        See `hsssl.unmix.spa`.

    Examples
    --------
    >>> import numpy as np
    >>> light = np.linspace(1, 2, 20)[:, None]
    >>> pure_pixels(np.vstack([light * [1.0, 0.0], light * [0.0, 2.0]]), 2).round(2).tolist()
    [[1.5, 0.0], [0.0, 3.0]]
    """
    check_pixels("pure_pixels", pixels, endmembers)
    units = directions(pixels)
    axes = subspace(units, endmembers)
    corners = units[spa(unit_rows(units @ axes), endmembers)]
    found = refined(units, corners, axes)
    return found * brightness(pixels, found)[:, None]


def directions(pixels: NDArray[np.floating[Any]]) -> FloatArray:
    """Return spectra of length one, without those that are too dark to have a direction."""
    length = np.linalg.norm(pixels, axis=1)
    lit = length > DARK * np.median(length)
    if not lit.any():
        raise ValueError("pure_pixels: every spectrum is zero; there is nothing to unmix")
    return unit_rows(pixels[lit])


def refined(units: FloatArray, corners: FloatArray, axes: FloatArray) -> FloatArray:
    """Move each corner to the mean direction of the pixels nearly pure in it, until nothing moves."""
    flat = units @ axes  # (n, p)
    for _ in range(20):
        share = _shares(flat, corners @ axes)
        moved = np.stack([units[_purest(share[:, k])].mean(axis=0) for k in range(len(corners))])
        moved = unit_rows(moved)
        still = np.abs(moved - corners).max() < 1e-9
        corners = moved
        if still:
            break
    return corners


def brightness(pixels: NDArray[np.floating[Any]], units: FloatArray) -> FloatArray:
    """Return the median length (p,) of the pixels that are nearly pure in each of the directions."""
    length = np.linalg.norm(pixels, axis=1)
    share = _shares(np.asarray(pixels, dtype=np.float64), units)
    share[length <= DARK * np.median(length)] = 0
    return np.array([np.median(length[_purest(share[:, k])]) for k in range(len(units))])


def _shares(pixels: FloatArray, corners: FloatArray) -> FloatArray:
    signal: FloatArray = nnls(pixels, corners)
    total = signal.sum(axis=1, keepdims=True)
    return signal / np.where(total > 0, total, 1)


def _purest(share: FloatArray) -> NDArray[np.bool_]:
    least = min(LEAST, share.size)
    purest: NDArray[np.bool_] = share >= min(PURE, np.partition(share, -least)[-least])
    return purest
