"""From coefficients to clusters: the graph of some pixels, the landmarks, whose clusters the others join."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from hsssl.cluster.features import FeatureMap, Pixels
from hsssl.cluster.graph import spectral_clusters, symmetric_graph
from hsssl_kernels import top_coefficients

if TYPE_CHECKING:
    from scipy.sparse import csr_array

__all__ = ["Fitted", "Votes", "coefficient_graph", "draw_landmarks"]

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.floating[Any]]
_CHUNK = 16384


@dataclass(frozen=True, eq=False)
class Fitted:
    """What a method leaves: the clusters of its landmarks, and how any other pixel joins one.

    Parameters
    ----------
    features : FeatureMap
        What pixels are told apart by.
    join : callable
        From the features (n, d) of pixels to their clusters (n,), from 0.
    places : ndarray, shape (m,), int64
        Flat numbers of the landmarks, ascending.
    found : ndarray, shape (m,), int64
        Their clusters.
    """

    features: FeatureMap
    join: Callable[[FloatArray], IntArray]
    places: IntArray
    found: IntArray


@dataclass(frozen=True, eq=False)
class Votes:
    """Clusters of landmarks by their coefficients, and the votes by which other pixels join them.

    ``c_ij`` is the thresholded inner product of query i and key j (`hsssl_kernels.top_coefficients`). The
    graph of the landmarks' largest coefficients is cut by spectral clustering; every other pixel joins the
    cluster that its largest coefficients by the landmarks add up to, in O(n neighbours) memory.

    Parameters
    ----------
    keys : Tensor, shape (m, d)
        Of the landmarks.
    found : ndarray, shape (m,), int64
        Their clusters, 0 ... clusters - 1.
    clusters : int
        How many.
    how : dict
        What `Votes.of` takes besides.
    """

    keys: torch.Tensor
    found: IntArray
    clusters: int
    how: dict[str, Any]

    @classmethod
    def of(
        cls,
        query: FloatArray,
        key: FloatArray,
        clusters: int,
        *,
        seed: int = 0,
        neighbours: int = 50,
        threshold: float = 0.0,
        power: float = 1.0,
        signed: bool = True,
    ) -> Votes:
        """Cluster landmarks.

        Parameters
        ----------
        query, key : ndarray, shape (m, d), real
            Of the landmarks; one array for a symmetric C.
        clusters : int
            2 ... m - 1.
        seed : int
            Of the eigenvectors' iteration.
        neighbours : int
            Coefficients kept a pixel.
        threshold : float
            As in `hsssl_kernels.top_coefficients`.
        power : float
            What the coefficients are raised to.
        signed : bool
            Drop negative coefficients, rather than take them for their size.
        """
        q, k = _tensors(query, key)
        how: dict[str, Any] = {"threshold": threshold, "power": power, "signed": signed}
        how["neighbours"] = min(neighbours, len(q) - 1)
        graph = symmetric_graph(*_weights(q, k, np.arange(len(q)), **how))
        return cls(k, spectral_clusters(graph, clusters, seed=seed), clusters, how)

    def __call__(self, query: FloatArray) -> IntArray:
        """Return the clusters (n,) that pixels join, by their queries (n, d); none of them is a landmark."""
        (q,) = _tensors(query)
        labels = np.empty(len(q), dtype=np.int64)
        for first in range(0, len(q), _CHUNK):
            chunk = q[first : first + _CHUNK]
            column, weight = _weights(chunk, self.keys, np.full(len(chunk), -1), **self.how)
            votes = np.zeros((len(chunk), self.clusters))
            weight = np.where(column >= 0, weight, 0)
            np.add.at(votes, (np.arange(len(chunk))[:, None], self.found[column]), weight)
            labels[first : first + _CHUNK] = votes.argmax(axis=1)
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


def draw_landmarks(pixels: Pixels, landmarks: int, seed: int) -> IntArray:
    """Return the places of all pixels, or of ``landmarks`` of them drawn by the seed, ascending."""
    places = pixels.places
    if len(places) <= landmarks:
        return places
    return places[np.sort(np.random.default_rng(seed).choice(len(places), landmarks, replace=False))]
