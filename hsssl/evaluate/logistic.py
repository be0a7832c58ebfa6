"""Multinomial logistic regression that converges fast on collinear features, such as spectra."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["fit_softmax"]

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


def fit_softmax(features: FloatArray, targets: IntArray, penalty: float) -> tuple[FloatArray, FloatArray]:
    """Minimise  sum_i -log softmax(x_i W + b)[t_i]  +  penalty / 2 |W|^2  over W and b.

    scikit-learn's ``LogisticRegression(C=1/penalty)`` has the same minimum for three classes and more
    and takes thousands of steps to it: the bands of a spectrum are collinear, so the problem is
    ill-conditioned. Here the features are rotated to their principal axes, which leaves the penalty
    as it is, and each axis is scaled by the root of its curvature at W = 0.

    Parameters
    ----------
    features : ndarray, shape (pixels, dim), float64
    targets : ndarray, shape (pixels,), int64
        Class numbers 0 ... classes - 1.
    penalty : float
        Weight of the L2 penalty, positive; b is free.

    Returns
    -------
    W : ndarray, shape (dim, classes)
    b : ndarray, shape (classes,)
    """
    from scipy.optimize import minimize

    pixels, classes = len(targets), int(targets.max()) + 1
    centre = features.mean(axis=0)
    left, size, axes = np.linalg.svd(features - centre, full_matrices=False)
    curvature = (classes - 1) / classes**2
    scale = 1.0 / np.sqrt(curvature * size**2 + penalty)
    offset = 1.0 / np.sqrt(curvature * pixels)
    design = np.column_stack([left * (size * scale), np.full(pixels, offset)])
    weight = np.append(penalty * scale**2, 0.0)[:, None]
    wanted = np.zeros((pixels, classes))
    wanted[np.arange(pixels), targets] = 1.0

    def objective(flat: FloatArray) -> tuple[float, FloatArray]:
        inner = flat.reshape(-1, classes)
        scores = design @ inner
        scores -= scores.max(axis=1, keepdims=True)
        right = (scores * wanted).sum()
        share = np.exp(scores, out=scores)
        total = share.sum(axis=1, keepdims=True)
        share /= total
        loss = np.log(total).sum() - right + 0.5 * (weight * inner**2).sum()
        gradient = design.T @ (share - wanted) + weight * inner
        return float(loss / pixels), gradient.ravel() / pixels

    start = np.zeros(design.shape[1] * classes)
    result = minimize(
        objective,
        start,
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": 5000, "maxfun": 10000, "maxcor": 20, "gtol": 1e-6, "ftol": 1e-12},
    )
    inner = result.x.reshape(-1, classes)
    weights = axes.T @ (scale[:, None] * inner[:-1])
    return weights, offset * inner[-1] - centre @ weights
