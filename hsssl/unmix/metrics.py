"""How good an unmixing is: spectral angle after matching, abundance errors, reconstruction.

Names differ from paper to paper, so each function states its formula; an abundance error means nothing
without the name of the truth it was taken against.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = [
    "abundance_rmse",
    "armse",
    "match_endmembers",
    "reconstruction_error",
    "sad",
    "signal_to_reconstruction_error",
    "spectral_angles",
]

FloatArray = NDArray[np.float64]


def spectral_angles(x: ArrayLike, y: ArrayLike) -> FloatArray:
    """Return the spectral angle between every spectrum of ``x`` and every one of ``y``, in radians.

    ``angle_ij = arccos(<x_i, y_j> / (|x_i| |y_j|))``, computed as ``2 atan2(|u - v|, |u + v|)`` of the
    unit vectors, which loses no digits at small angles (Kahan 2006).

    Parameters
    ----------
    x : array_like, shape (n, bands)
        Spectra, any scale.
    y : array_like, shape (m, bands)
        Spectra, any scale.

    Returns
    -------
    ndarray, shape (n, m), float64
        0 to pi; pi / 2 to a spectrum of zeros, which has no direction.

    Raises
    ------
    ValueError
        If the numbers of bands differ.

    References
    ----------
    Kruse et al. 1993, "The spectral image processing system (SIPS)", doi:10.1016/0034-4257(93)90013-N.

    Examples
    --------
    >>> spectral_angles([[1, 0], [1, 1]], [[0, 3]]).round(4).tolist()
    [[1.5708], [0.7854]]
    """
    a, b = _spectra("x", x), _spectra("y", y)
    if a.shape[1] != b.shape[1]:
        raise ValueError(f"spectral_angles: x has {a.shape[1]} bands, y {b.shape[1]}; take the same bands")
    u, v = _unit(a)[:, None], _unit(b)[None]  # (n, 1, bands), (1, m, bands)
    apart, along = np.linalg.norm(u - v, axis=2), np.linalg.norm(u + v, axis=2)
    angles: FloatArray = np.where(apart + along > 0, 2 * np.arctan2(apart, along), np.pi / 2)
    return angles


def match_endmembers(estimated: ArrayLike, true: ArrayLike) -> NDArray[np.int64]:
    """Return which estimated endmember belongs to each true one: the matching of least total angle.

    Parameters
    ----------
    estimated : array_like, shape (q, bands)
        At least as many spectra as there are true ones.
    true : array_like, shape (p, bands)
        Reference spectra.

    Returns
    -------
    ndarray, shape (p,), int64
        ``estimated[order]`` stands beside ``true``; no index occurs twice.

    Raises
    ------
    ValueError
        If there are fewer estimated endmembers than true ones, or the bands differ.

    References
    ----------
    Kuhn 1955, "The Hungarian method for the assignment problem", doi:10.1002/nav.3800020109.

    Examples
    --------
    >>> match_endmembers([[0, 1], [1, 0]], [[2, 0], [0, 2]]).tolist()
    [1, 0]
    """
    from scipy.optimize import linear_sum_assignment

    angles = spectral_angles(true, estimated)
    if angles.shape[0] > angles.shape[1]:
        raise ValueError(
            f"match_endmembers: {angles.shape[0]} true endmembers but {angles.shape[1]} estimated ones; "
            "estimate at least as many"
        )
    return np.asarray(linear_sum_assignment(angles)[1], dtype=np.int64)


def sad(estimated: ArrayLike, true: ArrayLike) -> FloatArray:
    """Return the spectral angle distance of each true endmember to the estimated one matched to it.

    The angle of each pair is taken first and averaged by the caller: the mean SAD is ``sad(...).mean()``,
    not the arccosine of a mean.

    Parameters
    ----------
    estimated : array_like, shape (q, bands)
        Spectra in any order, see `match_endmembers`.
    true : array_like, shape (p, bands)
        Reference spectra.

    Returns
    -------
    ndarray, shape (p,), float64
        Radians.

    Examples
    --------
    >>> sad([[0, 1], [1, 1]], [[1, 0], [0, 2]]).round(4).tolist()
    [0.7854, 0.0]
    """
    order = match_endmembers(estimated, true)
    return spectral_angles(true, estimated)[np.arange(order.size), order]


def abundance_rmse(estimated: ArrayLike, true: ArrayLike) -> float:
    """Return the root of the mean squared abundance error over all pixels and endmembers.

    ``sqrt(mean_ij (a^_ij - a_ij)^2)``. Pixels where either has NaN are left out.

    Parameters
    ----------
    estimated, true : array_like, shape (..., p)
        Abundances, endmembers in the same order (see `match_endmembers`).

    Examples
    --------
    >>> abundance_rmse([[1.0, 0.0], [0.5, 0.5]], [[1.0, 0.0], [0.1, 0.9]])
    0.28284271247461906
    """
    error = _error(estimated, true)[0]
    return float(np.sqrt(np.square(error).mean()))


def armse(estimated: ArrayLike, true: ArrayLike) -> float:
    """Return aRMSE: the root of each pixel's mean squared abundance error, averaged over the pixels.

    ``mean_i sqrt(mean_j (a^_ij - a_ij)^2)``; at most `abundance_rmse`, which squares before it averages.

    Parameters
    ----------
    estimated, true : array_like, shape (..., p)
        Abundances, endmembers in the same order.

    Examples
    --------
    >>> armse([[1.0, 0.0], [0.5, 0.5]], [[1.0, 0.0], [0.1, 0.9]])
    0.2
    """
    error = _error(estimated, true)[0]
    return float(np.sqrt(np.square(error).mean(axis=1)).mean())


def signal_to_reconstruction_error(estimated: ArrayLike, true: ArrayLike) -> float:
    """Return SRE of abundances in decibels: ``20 log10(|A| / |A^ - A|)``, norms over all entries.

    Parameters
    ----------
    estimated, true : array_like, shape (..., p)
        Abundances, endmembers in the same order.

    Returns
    -------
    float
        Infinite where nothing is wrong, minus infinity where the truth is zero and the estimate is not.

    References
    ----------
    Iordache, Bioucas-Dias and Plaza 2011, "Sparse unmixing of hyperspectral data",
    doi:10.1109/TGRS.2010.2098413.

    Examples
    --------
    >>> signal_to_reconstruction_error([[0.9, 0.0]], [[1.0, 0.0]])
    20.0
    """
    error, truth = _error(estimated, true)
    wrong, size = float(np.linalg.norm(error)), float(np.linalg.norm(truth))
    if not wrong or not size:
        return float("-inf") if wrong else float("inf")
    return float(20 * np.log10(size / wrong))


def reconstruction_error(pixels: ArrayLike, endmembers: ArrayLike, abundances: ArrayLike) -> FloatArray:
    """Return each pixel's root mean squared difference from ``abundances @ endmembers``, over the bands.

    Parameters
    ----------
    pixels : array_like, shape (..., bands)
        Spectra.
    endmembers : array_like, shape (p, bands)
        In the same unit.
    abundances : array_like, shape (..., p)
        Of each pixel; NaN gives NaN.

    Returns
    -------
    ndarray, shape (...), float64
        In the unit of the pixels.

    Examples
    --------
    >>> reconstruction_error([[1.0, 2.0]], [[1.0, 1.0]], [[1.0]]).round(4).tolist()
    [0.7071]
    """
    x, e, a = (np.asarray(array, dtype=np.float64) for array in (pixels, endmembers, abundances))
    if e.ndim != 2 or x.shape[-1] != e.shape[1] or a.shape != (*x.shape[:-1], e.shape[0]):
        raise ValueError(
            "reconstruction_error: want pixels (..., bands), endmembers (p, bands), abundances (..., p), got "
            f"{x.shape}, {e.shape}, {a.shape}"
        )
    root: FloatArray = np.sqrt(np.square(x - a @ e).mean(axis=-1))
    return root


def _spectra(name: str, x: ArrayLike) -> FloatArray:
    spectra = np.asarray(x, dtype=np.float64)
    if spectra.ndim != 2 or 0 in spectra.shape or not np.isfinite(spectra).all():
        raise ValueError(f"spectral_angles: {name} must be finite spectra (n, bands), got {spectra.shape}")
    return spectra


def _unit(x: FloatArray) -> FloatArray:
    """Return rows of norm 1, rows of zeros as they are."""
    largest = np.abs(x).max(axis=1, keepdims=True)
    x = x / np.where(largest > 0, largest, 1)
    norm = np.linalg.norm(x, axis=1, keepdims=True)
    unit: FloatArray = x / np.where(norm > 0, norm, 1)
    return unit


def _error(estimated: ArrayLike, true: ArrayLike) -> tuple[FloatArray, FloatArray]:
    """Return error and truth, each (pixels, p), of the pixels known in both."""
    a, b = np.asarray(estimated, dtype=np.float64), np.asarray(true, dtype=np.float64)
    if a.shape != b.shape or a.ndim < 2:
        raise ValueError(f"abundances must have one shape (..., p), got {a.shape} and {b.shape}")
    a, b = a.reshape(-1, a.shape[-1]), b.reshape(-1, b.shape[-1])
    known = np.isfinite(a).all(axis=1) & np.isfinite(b).all(axis=1)
    if not known.any():
        raise ValueError("abundances: no pixel is known in both; check the nodata mask")
    return a[known] - b[known], b[known]
