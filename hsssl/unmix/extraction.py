"""Endmembers that are pixels of the scene: the corners of its data cloud, by four ways of looking for them.

Each function returns the numbers of the chosen pixels, so that ``pixels[index]`` are the endmembers as
measured.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "NOTHING",
    "atgp",
    "check_pixels",
    "nfindr",
    "spa",
    "subspace",
    "too_flat",
    "vca",
]

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
Pixels = NDArray[np.floating[Any]]
# What is left of the largest spectrum below this share of it is rounding.
NOTHING = 1e-6


def spa(pixels: Pixels, endmembers: int) -> IntArray:
    """Return the pixels chosen by the successive projection algorithm.

    The longest spectrum first; then, again and again, the longest of what remains of all spectra outside the
    span of those chosen. Deterministic. ATGP is the same rule, see `atgp`.

    Parameters
    ----------
    pixels : ndarray, shape (n, bands)
        Spectra without NaN.
    endmembers : int
        How many, p, at most the dimension that the spectra span.

    Returns
    -------
    ndarray, shape (p,), int64
        Row numbers, in the order of choice.

    Raises
    ------
    ValueError
        If there are fewer pixels or bands than endmembers, a value is not finite, or the spectra span fewer
        dimensions than endmembers are wanted.

    References
    ----------
    Araújo et al. 2001, "The successive projections algorithm for variable selection in spectroscopic
    multicomponent analysis", doi:10.1016/S0169-7439(01)00119-8. Gillis and Vavasis 2014, arXiv:1208.1237.

    Examples
    --------
    >>> import numpy as np
    >>> spa(np.array([[1.0, 1.0], [3.0, 0.0], [0.0, 2.0]]), 2).tolist()
    [1, 2]
    """
    check_pixels("spa", pixels, endmembers)
    rest = np.array(pixels, dtype=np.float64)
    squares = np.einsum("ij,ij->i", rest, rest)
    least = NOTHING**2 * squares.max()
    index: list[int] = []
    for _ in range(endmembers):
        chosen = int(squares.argmax())
        if not squares[chosen] > least:
            raise too_flat("spa", len(index), endmembers)
        index.append(chosen)
        axis = rest[chosen] / np.sqrt(squares[chosen])
        rest -= (rest @ axis)[:, None] * axis
        squares = np.einsum("ij,ij->i", rest, rest)
    return np.array(index, dtype=np.int64)


def atgp(pixels: Pixels, endmembers: int) -> IntArray:
    """Return the pixels chosen by automatic target generation: `spa` by the name used in target detection.

    Ren and Chang project onto the orthogonal complement of all chosen spectra at once, which is the same
    projection as one after the other.

    References
    ----------
    Ren and Chang 2003, "Automatic spectral target recognition in hyperspectral imagery",
    doi:10.1109/TAES.2003.1261124.
    """
    return spa(pixels, endmembers)


def vca(pixels: Pixels, endmembers: int, *, seed: int = 0) -> IntArray:
    """Return the pixels chosen by vertex component analysis.

    The data are reduced to p dimensions, by perspective projection where the signal-to-noise ratio is above
    ``15 + 10 log10(p)`` dB, else about their mean. Then, again and again, the extreme pixel along a random
    direction orthogonal to all chosen ones.

    Parameters
    ----------
    pixels, endmembers
        As in `spa`.
    seed : int
        Of the random directions; different seeds may find different pixels.

    Returns
    -------
    ndarray, shape (p,), int64
        Row numbers.

    References
    ----------
    Nascimento and Dias 2005, "Vertex component analysis: a fast algorithm to unmix hyperspectral data",
    doi:10.1109/TGRS.2005.844293.

    Examples
    --------
    >>> import numpy as np
    >>> corners = np.array([[1.0, 0, 0], [0, 1.0, 0], [0, 0, 1.0]])
    >>> mixed = np.random.default_rng(0).dirichlet(np.ones(3), 50) @ corners
    >>> sorted(vca(np.vstack([corners, mixed]), 3).tolist())
    [0, 1, 2]
    """
    check_pixels("vca", pixels, endmembers)
    return _extremes("vca", _vca_coordinates(pixels, endmembers), endmembers, np.random.default_rng(seed))


def nfindr(pixels: Pixels, endmembers: int, *, seed: int = 0, starts: int = 3) -> IntArray:
    """Return the pixels that span the simplex of largest volume, as N-FINDR grows it.

    In p - 1 principal components, each corner in turn is moved to the pixel that enlarges the volume most,
    until none does. The volume is linear in each corner, so that one matrix product tries all pixels.

    Parameters
    ----------
    pixels, endmembers
        As in `spa`.
    seed : int
        Of the random starts.
    starts : int
        Starts, of which the largest simplex is returned.

    Returns
    -------
    ndarray, shape (p,), int64
        Row numbers.

    References
    ----------
    Winter 1999, "N-FINDR: an algorithm for fast autonomous spectral end-member determination in
    hyperspectral data", doi:10.1117/12.366289.
    """
    check_pixels("nfindr", pixels, endmembers)
    if starts < 1:
        raise ValueError(f"nfindr: starts must be at least 1, got {starts}")
    if endmembers == 1:
        return spa(pixels, 1)
    x = np.asarray(pixels, dtype=np.float64)
    centred = x - x.mean(axis=0)
    flat = centred @ subspace(centred, endmembers - 1)  # (n, p - 1)
    # scaled to the first coordinate, the constant, which a volume needs and rounding must not swamp
    spread = np.abs(flat).max()
    points = np.column_stack([np.ones(len(x)), flat / (spread or 1.0)])  # (n, p)
    rng = np.random.default_rng(seed)
    best, largest = np.zeros(0, dtype=np.int64), -np.inf
    for _ in range(starts):
        index = _grown(points, _extremes("nfindr", points, endmembers, rng))
        volume = float(np.linalg.slogdet(points[index])[1])
        if volume > largest + 1e-9:
            best, largest = index, volume
    return best


def subspace(pixels: Pixels, dimensions: int) -> FloatArray:
    """Return the orthonormal axes (bands, dimensions) that hold most of the spectra's squared length."""
    x = np.asarray(pixels)
    gram = np.zeros((x.shape[1], x.shape[1]))
    for start in range(0, len(x), 16384):
        part = x[start : start + 16384].astype(np.float64)
        gram += part.T @ part
    axes: FloatArray = np.linalg.eigh(gram)[1][:, ::-1][:, :dimensions]
    # an eigenvector's sign is arbitrary: fixed, the same data give the same coordinates
    axes *= np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(axes.shape[1])])
    return axes


def check_pixels(op: str, pixels: Pixels, endmembers: int) -> None:
    """Refuse what no endmembers can be found in."""
    if pixels.ndim != 2 or pixels.dtype.kind not in "fiu":
        raise ValueError(f"{op}: pixels must be real spectra (n, bands), got {pixels.dtype} {pixels.shape}")
    if endmembers < 1 or endmembers > min(pixels.shape):
        raise ValueError(
            f"{op}: endmembers must lie between 1 and the {min(pixels.shape)} that {pixels.shape[0]} pixels "
            f"of {pixels.shape[1]} bands allow, got {endmembers}"
        )
    if not np.isfinite(pixels).all():
        raise ValueError(f"{op}: pixels hold NaN or infinity; leave out those that were not measured")


def too_flat(op: str, found: int, wanted: int) -> ValueError:
    """Return the error for spectra that span fewer dimensions than endmembers are wanted."""
    return ValueError(
        f"{op}: the spectra span {found} dimensions, so {wanted} endmembers cannot be told apart; "
        f"ask for at most {found}"
    )


def _vca_coordinates(pixels: Pixels, p: int) -> FloatArray:
    """Return the reduced data (n, p) in which VCA looks for extremes."""
    x = np.asarray(pixels, dtype=np.float64)
    mean = x.mean(axis=0)
    centred = x - mean
    axes = subspace(centred, p)
    kept = centred @ axes
    power = np.square(x).sum() / len(x)
    signal = np.square(kept).sum() / len(x) + mean @ mean
    noise = power - signal
    ratio = (signal - p / x.shape[1] * power) / noise if noise > 1e-12 * power else np.inf
    if ratio > 0 and 10 * np.log10(ratio) > 15 + 10 * np.log10(p):
        seen = x @ subspace(x, p)  # (n, p)
        along = seen @ seen.mean(axis=0)
        # a pixel across the mean direction has no image on the plane
        facing = along > 1e-9 * np.abs(along).max()
        flat: FloatArray = np.divide(seen, along[:, None], out=np.zeros_like(seen), where=facing[:, None])
        return flat
    flat = kept[:, : p - 1]
    height = np.sqrt(np.square(flat).sum(axis=1).max()) if p > 1 else 1.0
    return np.column_stack([flat, np.full(len(x), height or 1.0)])


def _extremes(op: str, points: FloatArray, p: int, rng: np.random.Generator) -> IntArray:
    """Return p pixels, each extreme along a random direction orthogonal to those before it."""
    index: list[int] = []
    basis = np.zeros((points.shape[1], 0))
    least = NOTHING * np.linalg.norm(points, axis=1).max()
    for _ in range(p):
        direction: FloatArray = np.asarray(rng.normal(size=points.shape[1]))
        direction -= basis @ (basis.T @ direction)
        direction /= np.linalg.norm(direction)
        along = np.abs(points @ direction)
        chosen = int(along.argmax())
        if not along[chosen] > least:
            raise too_flat(op, len(index), p)
        index.append(chosen)
        basis = np.linalg.qr(points[index].T)[0]
    return np.array(index, dtype=np.int64)


def _grown(points: FloatArray, index: IntArray) -> IntArray:
    """Move corners to the pixels that enlarge the simplex most, until none does."""
    index = index.copy()
    for _ in range(100):
        before = index.copy()
        for corner in range(len(index)):
            # by Cramer's rule, volumes relative to the present one
            gain = np.abs(points @ np.linalg.inv(points[index])[:, corner])
            best = int(gain.argmax())
            if gain[best] > 1 + 1e-9:
                index[corner] = best
        if np.array_equal(before, index):
            break
    return index
