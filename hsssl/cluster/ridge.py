"""Ridge self-expression: every pixel by all others, exact, low-rank, never stored."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["ridge_coefficients", "ridge_factor", "ridge_weights"]

FloatArray = NDArray[np.float64]


def ridge_factor(features: NDArray[np.floating[Any]], *, ridge: float = 0.1) -> FloatArray:
    """Return Q with ``C = Q Q^T``, the exact solution of ``min_C |Z - C Z|^2 + l |C|^2`` for rows of Z.

    ``C = Z (Z^T Z + l I)^-1 Z^T`` has the rank of Z, so with ``Z^T Z = V diag(e) V^T`` it is
    ``Q = Z V diag(e + l)^-1/2``: O(n d^2) time and O(n d) memory where C itself takes O(n^3) and O(n^2).

    Parameters
    ----------
    features : ndarray, shape (n, d), real
        Z, a pixel a row.
    ridge : float
        l as a share of the mean of the e, above 0.

    Returns
    -------
    ndarray, shape (n, d), float64

    Raises
    ------
    ValueError
        If ``ridge`` is not above 0, the features are no finite matrix, or all of them are 0.

    References
    ----------
    Lu et al. 2012, "Robust and efficient subspace segmentation via least squares regression",
    doi:10.1007/978-3-642-33786-4_26 (the ridge form). The low rank is the push-through identity
    ``(Z Z^T + l I)^-1 Z Z^T = Z (Z^T Z + l I)^-1 Z^T``.

    Examples
    --------
    >>> q = ridge_factor(np.array([[1.0, 0.0], [0.0, 2.0]]), ridge=0.4)
    >>> np.round(q @ q.T, 3)
    array([[0.5, 0. ],
           [0. , 0.8]])
    """
    return np.asarray(features, dtype=np.float64) @ ridge_weights(features, ridge=ridge)


def ridge_weights(features: NDArray[np.floating[Any]], *, ridge: float = 0.1) -> FloatArray:
    """Return W (d, d) with ``Q = Z W``: rows that were not among Z are expressed by it too.

    Parameters and errors as of `ridge_factor`.
    """
    if not 0 < ridge < np.inf:
        raise ValueError(f"ridge: `ridge` must be finite and above 0, got {ridge}; try 0.1")
    z = np.asarray(features, dtype=np.float64)
    if z.ndim != 2 or not np.isfinite(z).all():
        raise ValueError(f"ridge: features must be a finite matrix (pixels, d), got shape {z.shape}")
    energy, axes = np.linalg.eigh(z.T @ z)
    if not energy[-1:].sum() > 0:
        raise ValueError("ridge: all features are 0; nothing expresses anything")
    penalty = ridge * energy.clip(0).mean()
    weights: FloatArray = axes / np.sqrt(energy.clip(0) + penalty)
    return weights


def ridge_coefficients(features: NDArray[np.floating[Any]], *, ridge: float = 0.1) -> FloatArray:
    """Return all of C (n, n) by the dense normal equations: for checks and small scenes, O(n^3).

    Parameters and errors as of `ridge_factor`, of which it is the slow counterpart.
    """
    z = np.asarray(features, dtype=np.float64)
    gram = z @ z.T  # (n, n)
    penalty = ridge * np.square(z).sum() / z.shape[1]
    solved: FloatArray = np.linalg.solve(gram + penalty * np.eye(len(z)), gram)
    return solved.T
