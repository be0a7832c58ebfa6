"""Sparse graphs of pixels, and spectral clustering of such a graph."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from scipy.sparse import csr_array

__all__ = ["spectral_clusters", "symmetric_graph"]

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.floating[Any]]
# How far beyond the largest eigenvalue, which is 1, the inverse is taken.
_SHIFT = 1e-5


def symmetric_graph(column: IntArray, value: FloatArray) -> csr_array:
    """Return ``(W + W^T) / 2`` of the weights (n, k) of each pixel's neighbours (n, k); column -1 is none."""
    from scipy.sparse import csr_array

    n, k = column.shape
    row = np.repeat(np.arange(n), k)
    kept = (column.ravel() >= 0) & (value.ravel() > 0)
    weights = value.ravel()[kept].astype(np.float64), (row[kept], column.ravel()[kept])
    directed = csr_array(weights, shape=(n, n))
    return csr_array((directed + directed.T) / 2)


def spectral_clusters(graph: csr_array, clusters: int, *, seed: int = 0) -> IntArray:
    """Return the cluster (n,), 0 ... clusters - 1, of every node by normalised spectral clustering.

    The leading eigenvectors of ``D^-1/2 W D^-1/2``, then clusters by a pivoted QR factorisation, which needs
    no start of its own. Clusters that fall apart share the eigenvalue 1, and those nearly apart lie within
    1e-5 of it, where plain Lanczos iteration misses some of them: it runs on ``((1 + 1e-5) I - W')^-1``
    instead, by one sparse factorisation, which spreads them.

    Parameters
    ----------
    graph : csr_array, shape (n, n)
        Symmetric weights, none negative. A node without edges ends in any cluster.
    clusters : int
        2 ... n - 1.
    seed : int
        Of the iteration's start.

    References
    ----------
    Ng, Jordan and Weiss 2001, "On spectral clustering: analysis and an algorithm".
    Damle, Minden and Ying 2019, "Simple, direct and efficient multi-way spectral clustering",
    doi:10.1093/imaiai/iay008 (assignment by QR).
    """
    from scipy.sparse import diags_array
    from scipy.sparse.linalg import eigsh

    n = graph.shape[0]
    scale = diags_array(1 / np.sqrt(graph.sum(axis=1).clip(min=1e-12)))
    normalised = scale @ graph @ scale
    if n <= 4 * clusters + 20:  # too few nodes for an iteration
        vectors = np.linalg.eigh(normalised.toarray())[1]
    else:
        start = np.random.default_rng(seed).uniform(0.5, 1.5, n)
        shift = 1 + _SHIFT
        vectors = eigsh(normalised.tocsc(), k=clusters, sigma=shift, which="LM", v0=start, tol=1e-6)[1]
    return _by_pivots(vectors[:, -clusters:])


def _by_pivots(vectors: FloatArray) -> IntArray:
    """Assign rows (n,) of eigenvectors (n, K) to clusters: pivots pick K rows that stand furthest apart."""
    from scipy.linalg import polar, qr

    _, _, pivots = qr(vectors.T, pivoting=True, mode="economic")
    rotation = polar(vectors[pivots[: vectors.shape[1]]].T)[0]
    assigned: IntArray = np.abs(vectors @ rotation).argmax(axis=1)
    return assigned
