"""How many endmembers a scene holds: the dimension of the signal subspace, by HySime."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["hysime"]

FloatArray = NDArray[np.float64]
# Power along an axis, as a share of the largest, below which it is rounding and the noise's ridge.
_ROUNDING = 1e-11


def hysime(pixels: NDArray[np.floating[Any]]) -> int:
    """Return the number of endmembers by minimum-error signal subspace identification.

    Noise is what a regression of each band on all others leaves over. An axis of the signal's correlation
    matrix belongs to the signal if leaving it out would cost more than the noise that it brings in.

    Parameters
    ----------
    pixels : ndarray, shape (n, bands)
        Spectra without NaN; more pixels than bands, at least two bands.

    Returns
    -------
    int
        From 1 to bands. Correlated noise and many slightly different materials raise it.

    Raises
    ------
    ValueError
        If there are too few pixels or bands, or a value is not finite.

    References
    ----------
    Bioucas-Dias and Nascimento 2008, "Hyperspectral subspace identification", doi:10.1109/TGRS.2008.918089.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> mixed = rng.dirichlet(np.ones(3), 2000) @ rng.random((3, 40))
    >>> hysime(mixed + 0.01 * rng.normal(size=mixed.shape))
    3
    """
    x = np.asarray(pixels, dtype=np.float64)
    if x.ndim != 2 or x.shape[1] < 2 or x.shape[0] <= x.shape[1]:
        raise ValueError(f"hysime: want more pixels than bands, and two bands at least, got {x.shape}")
    if not np.isfinite(x).all():
        raise ValueError("hysime: pixels hold NaN or infinity; leave out those that were not measured")
    correlation = x.T @ x / len(x)
    noise = _noise_correlation(correlation)
    axes = np.linalg.eigh(correlation - noise)[1]
    total, error = (np.einsum("ij,ik,kj->j", axes, matrix, axes) for matrix in (correlation, noise))
    return max(1, int(((2 * error < total) & (total > _ROUNDING * total.max())).sum()))


def _noise_correlation(correlation: FloatArray) -> FloatArray:
    """Return the correlation matrix (bands, bands) of the residuals of each band regressed on the others.

    The residual of band b is ``x V_b`` with ``V = inverse / diagonal(inverse)``, so that no residual is
    formed.
    """
    bands = len(correlation)
    ridge = 1e-12 * np.trace(correlation) / bands
    inverse = np.linalg.inv(correlation + ridge * np.eye(bands))
    weights = inverse / inverse.diagonal()
    noise: FloatArray = weights.T @ correlation @ weights
    # the method takes the noise as uncorrelated between bands
    return np.diag(noise.diagonal())
