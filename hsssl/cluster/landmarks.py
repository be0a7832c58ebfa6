"""From coefficients to clusters: the graph of all pixels, or of landmarks that the others then join."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from hsssl.cluster.graph import spectral_clusters, symmetric_graph
from hsssl_kernels import top_coefficients

if TYPE_CHECKING:
    from scipy.sparse import csr_array

__all__ = ["cluster_coefficients", "coefficient_graph", "draw_landmarks"]

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.floating[Any]]
_CHUNK = 16384


def cluster_coefficients(
    query: FloatArray,
    key: FloatArray,
    clusters: int,
    *,
    seed: int = 0,
    neighbours: int = 50,
    threshold: float = 0.0,
    power: float = 1.0,
    signed: bool = True,
    landmarks: int = 8192,
) -> IntArray:
    """Return clusters (n,) by spectral clustering of the graph of the largest coefficients.

    ``c_ij`` is the thresholded inner product of query i and key j (`hsssl_kernels.top_coefficients`). With
    more pixels than ``landmarks``, so many drawn by the seed are clustered, and every other pixel joins the
    cluster that its largest coefficients by them add up to, in O(n (d + neighbours)) memory.

    Parameters
    ----------
    query, key : ndarray, shape (n, d), real
        Of the pixels; one array for a symmetric C.
    clusters : int
        2 ... n - 1.
    seed : int
        Of landmarks and of the eigenvectors' iteration.
    neighbours : int
        Coefficients kept a pixel.
    threshold : float
        As in `hsssl_kernels.top_coefficients`.
    power : float
        What the coefficients are raised to.
    signed : bool
        Drop negative coefficients, rather than take them for their size.
    landmarks : int
        Most pixels in the graph.
    """
    q, k = _tensors(query, key)
    picked = draw_landmarks(len(q), landmarks, seed)
    kept = min(neighbours, len(picked) - 1)
    keys = k[picked]
    how: dict[str, Any] = {"neighbours": kept, "threshold": threshold, "power": power, "signed": signed}
    graph = symmetric_graph(*_weights(q[picked], keys, np.arange(len(picked)), **how))
    found = spectral_clusters(graph, clusters, seed=seed)
    labels = np.empty(len(q), dtype=np.int64)
    labels[picked] = found
    others = np.setdiff1d(np.arange(len(q)), picked, assume_unique=True)
    for first in range(0, len(others), _CHUNK):
        chunk = others[first : first + _CHUNK]
        column, weight = _weights(q[chunk], keys, np.full(len(chunk), -1), **how)
        votes = np.zeros((len(chunk), clusters))
        np.add.at(votes, (np.arange(len(chunk))[:, None], found[column]), np.where(column >= 0, weight, 0))
        labels[chunk] = votes.argmax(axis=1)
    return labels


def coefficient_graph(query: FloatArray, key: FloatArray, *, neighbours: int = 50) -> csr_array:
    """Return the symmetric graph (n, n) of each pixel's largest positive coefficients."""
    q, k = _tensors(query, key)
    kept = min(neighbours, len(q) - 1)
    return symmetric_graph(*_weights(q, k, np.arange(len(q)), neighbours=kept))


def _weights(
    query: torch.Tensor,
    key: torch.Tensor,
    own: IntArray,
    *,
    neighbours: int,
    threshold: float = 0.0,
    power: float = 1.0,
    signed: bool = True,
) -> tuple[IntArray, FloatArray]:
    """Return columns and weights (n, neighbours) of the largest coefficients, each row's largest being 1.

    A pixel that is hard to express is no less part of the graph.
    """
    place = torch.from_numpy(own).to(query.device)
    column, value = top_coefficients(query, key, neighbours=neighbours, threshold=threshold, own=place)
    size = value.clamp_min(0) if signed else value.abs()
    weight = (size / size[:, :1].clamp_min(1e-30)).pow(power)
    return column.cpu().numpy(), weight.cpu().numpy()


def _tensors(*arrays: FloatArray) -> list[torch.Tensor]:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return [torch.from_numpy(np.ascontiguousarray(x, dtype=np.float32)).to(device) for x in arrays]


def draw_landmarks(n: int, landmarks: int, seed: int) -> IntArray:
    """Return all of n rows, or ``landmarks`` of them drawn by the seed, ascending."""
    if n <= landmarks:
        return np.arange(n)
    return np.sort(np.random.default_rng(seed).choice(n, landmarks, replace=False))
