"""Endmembers as the mean direction of the pixels that hold little else; brightness plays no part."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hsssl.rows import unit_rows
from hsssl.unmix.extraction import NOTHING, check_pixels, subspace, too_flat
from hsssl.unmix.solvers import nnls

__all__ = ["brightness", "directions", "pure_pixels", "refined"]

FloatArray = NDArray[np.float64]
# Share of the signal from which a pixel counts as pure, and how many pixels are averaged at least.
PURE, LEAST = 0.9, 5
# Pixels furthest out among which a corner is looked for.
FURTHEST = 100
# Darker than this share of the median length, a pixel is noise, and its direction says nothing.
DARK = 0.01


def pure_pixels(pixels: NDArray[np.floating[Any]], endmembers: int) -> FloatArray:
    """Return endmembers that are averages over nearly pure pixels.

    1. Spectra are scaled to length one, so that light and shade of one material are one direction, and
       projected on their first 2 p axes, which takes most of the noise away and leaves materials of few
       pixels in. Pixels with next to no signal are left out.
    2. Corners are looked for as `hsssl.unmix.spa` does, by what remains outside the span of those before,
       the first by what remains outside the mean direction. A corner is no single pixel: it is the mean of
       five neighbours, of those among the 100 pixels furthest out whose mean remains longest, so that one
       odd pixel makes none.
    3. Each corner is replaced by the mean direction of the pixels of which it makes up at least 90 % (by
       non-negative least squares), of five pixels at least (of n / p where that is less);
       repeated until nothing moves, at most 20 times.
    4. An endmember has the median length of those pixels.

    The method is deterministic. A design of this package. The 90 % were chosen on the Samson scene, where
    80 to 95 % do about as well; the 2 p axes and the groups with Samson and DLR HySU in view, where 2 p + 5
    and 20 axes do about as well.

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

    References
    ----------
    Pan, Leplat, Ng and Gillis 2025, "A provably-correct and robust convex model for smooth separable NMF",
    arXiv:2511.07109 (that several pixels lie near each endmember).

    Examples
    --------
    >>> import numpy as np
    >>> light = np.linspace(1, 2, 20)[:, None]
    >>> pure_pixels(np.vstack([light * [1.0, 0.0], light * [0.0, 2.0]]), 2).round(2).tolist()
    [[1.5, 0.0], [0.0, 3.0]]
    """
    check_pixels("pure_pixels", pixels, endmembers)
    units = directions(pixels)
    axes = subspace(units, 2 * endmembers)
    corners = _corners(units, axes, endmembers)
    found = refined(units, corners, axes)
    return found * brightness(pixels, found)[:, None]


def directions(pixels: NDArray[np.floating[Any]]) -> FloatArray:
    """Return spectra of length one, without those that are too dark to have a direction."""
    length = np.linalg.norm(pixels, axis=1)
    lit = length > DARK * np.median(length)
    if not lit.any():
        raise ValueError("pure_pixels: every spectrum is zero; there is nothing to unmix")
    return unit_rows(pixels[lit])


def _corners(units: FloatArray, axes: FloatArray, endmembers: int) -> FloatArray:
    """Return the mean direction (p, bands) of the group of neighbours at each corner of the data."""
    flat = unit_rows(units @ axes)  # (n, 2 p)
    size = _least(len(flat), endmembers)
    corners, rest = np.empty((endmembers, units.shape[1])), flat
    # all are of length one: the first corner is what lies furthest from the middle
    outside = _without(flat, flat.mean(axis=0))
    for k in range(endmembers):
        group = _furthest_group(flat, rest if k else outside, size)
        axis = rest[group].mean(axis=0)
        if not np.linalg.norm(axis) > NOTHING:
            raise too_flat("pure_pixels", k, endmembers)
        corners[k] = units[group].mean(axis=0)
        rest = _without(rest, axis)
    return unit_rows(corners)


def _furthest_group(flat: FloatArray, rest: FloatArray, size: int) -> NDArray[np.int64]:
    """Return the neighbours in ``flat`` (n, d) whose mean of ``rest`` (n, d) is longest."""
    far = np.argsort(-np.square(rest).sum(axis=1), kind="stable")[:FURTHEST]
    apart = -2 * flat[far] @ flat[far].T + np.square(flat[far]).sum(axis=1)  # of each row, but for a constant
    groups = np.argsort(apart, axis=1, kind="stable")[:, :size]  # (f, size)
    longest = np.square(rest[far][groups].mean(axis=1)).sum(axis=1).argmax()
    index: NDArray[np.int64] = far[groups[longest]]
    return index


def _without(rows: FloatArray, axis: FloatArray) -> FloatArray:
    """Return rows (n, d) less their part along an axis (d,)."""
    along: FloatArray = axis / max(float(np.linalg.norm(axis)), 1e-300)
    return rows - (rows @ along)[:, None] * along


def refined(units: FloatArray, corners: FloatArray, axes: FloatArray) -> FloatArray:
    """Move each corner to the mean direction of the pixels nearly pure in it, until nothing moves."""
    flat = units @ axes  # (n, d)
    for _ in range(20):
        purest = _purest(_shares(flat, corners @ axes))
        moved = np.stack([units[pure].mean(axis=0) for pure in purest])
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
    return np.array([np.median(length[pure]) for pure in _purest(share)])


def _shares(pixels: FloatArray, corners: FloatArray) -> FloatArray:
    signal: FloatArray = nnls(pixels, corners)
    total = signal.sum(axis=1, keepdims=True)
    return signal / np.where(total > 0, total, 1)


def _purest(share: FloatArray) -> list[NDArray[np.bool_]]:
    """Return for each endmember which pixels (n,) of shares (n, p) are nearly pure in it."""
    least = _least(*share.shape)
    return [column >= min(PURE, np.partition(column, -least)[-least]) for column in share.T]


def _least(pixels: int, endmembers: int) -> int:
    """Return how many pixels an endmember is averaged over at least; fewer where there are few in all."""
    return max(1, min(LEAST, pixels // endmembers))
