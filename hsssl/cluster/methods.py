"""The ways to cluster pixels, by name: each takes pixels, a number of clusters, a seed and the landmarks."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hsssl.cluster.elastic_net import fit_elastic_net
from hsssl.cluster.features import AveragedComponents, FeatureMap, Pixels, Spectra, rows_at
from hsssl.cluster.landmarks import Fitted, Votes
from hsssl.cluster.ridge import ridge_weights
from hsssl.rows import unit_rows

__all__ = ["CLUSTER_METHODS", "PRETRAINING_STEPS", "AffineRidge"]

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.floating[Any]]
Method = Callable[[Pixels, int, int, IntArray], Fitted]
# Of the two methods that train an encoder on the scene.
PRETRAINING_STEPS = 300
_RESIDENT_GIB = 1.0  # what pretraining holds of a scene; of larger ones, strips take turns


@dataclass(frozen=True, eq=False)
class AffineRidge:
    """Unit rows Q (n, d + 1) of the ridge self-expression of features (n, d) and a constant.

    The constant, as large as a row is long, makes the expression affine: pixels near the mean, which have no
    direction of their own, keep together.

    Parameters
    ----------
    constant : float
        What stands beside the features.
    weights : ndarray, shape (d + 1, d + 1)
        See `hsssl.cluster.ridge.ridge_weights`.
    """

    constant: float
    weights: NDArray[np.float64]

    @classmethod
    def of(cls, features: FloatArray) -> AffineRidge:
        """Let the rows of ``features`` express each other."""
        rows = np.asarray(features, dtype=np.float64)
        constant = float(np.sqrt(np.square(rows).sum(axis=1).mean()))
        return cls(constant, ridge_weights(_beside(rows, constant)))

    def __call__(self, features: FloatArray) -> FloatArray:
        """Return the unit rows of any features, those of ``of`` or others."""
        return unit_rows(_beside(np.asarray(features, dtype=np.float64), self.constant) @ self.weights)


def _beside(rows: NDArray[np.float64], constant: float) -> FloatArray:
    return unit_rows(np.concatenate([rows, np.full((len(rows), 1), constant)], axis=1))


def self_expressive(pixels: Pixels, clusters: int, seed: int, places: IntArray) -> Fitted:
    """Spectral clustering of the ridge self-expression, sharpened, of spectra averaged over 7 x 7 pixels."""
    return _expressed(AveragedComponents.of(pixels), pixels, clusters, seed, places, power=8.0)


def ridge(pixels: Pixels, clusters: int, seed: int, places: IntArray) -> Fitted:
    """Spectral clustering of the ridge self-expression of spectra averaged over 5 x 5 pixels, as it is."""
    return _expressed(AveragedComponents.of(pixels, window=5), pixels, clusters, seed, places)


def elastic_net(pixels: Pixels, clusters: int, seed: int, places: IntArray) -> Fitted:
    """Elastic-net self-expression by two small networks (SENet), trained on some averaged spectra."""
    features = AveragedComponents.of(pixels)
    rows = rows_at(features, places, pixels.cube.cols)
    affine = AffineRidge.of(rows)
    net = fit_elastic_net(affine(rows), seed=seed)
    query, key = net.encode(affine(rows))
    votes = Votes.of(query, key, clusters, seed=seed, threshold=float(net.threshold), signed=False)
    return Fitted(features, lambda rows: votes(net.encode(affine(rows))[0]), places, votes.found)


def ae_subspace(pixels: Pixels, clusters: int, seed: int, places: IntArray) -> Fitted:
    """Ridge self-expression of the embedding of an autoencoder trained with self-expression."""
    features, _ = _pretrained(pixels, "ae_subspace", clusters, seed)
    return _expressed(features, pixels, clusters, seed, places)


def contrastive_clustering(pixels: Pixels, clusters: int, seed: int, places: IntArray) -> Fitted:
    """Memberships of contrastive clustering's cluster head, the largest of each pixel's embedding."""
    features, weights = _pretrained(pixels, "contrastive_clustering", clusters, seed, window=1)
    from hsssl.encoders.heads import mlp_head

    prefix = "cluster_head."
    first = weights[f"{prefix}0.weight"]  # (hidden, D)
    head = mlp_head(first.shape[1], len(first), clusters)
    head.load_state_dict({k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)})
    head.eval()

    @torch.no_grad()
    def join(rows: FloatArray) -> IntArray:
        return np.asarray(head(torch.from_numpy(rows)).argmax(1), dtype=np.int64)

    return Fitted(features, join, np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64))


def kmeans(pixels: Pixels, clusters: int, seed: int, places: IntArray) -> Fitted:
    """k-means of single spectra, ten starts: a baseline."""
    from sklearn.cluster import KMeans

    features = Spectra.of(pixels)
    model = KMeans(clusters, n_init=10, random_state=seed).fit(rows_at(features, places, pixels.cube.cols))
    return Fitted(features, model.predict, places, model.labels_.astype(np.int64))


def spectral(pixels: Pixels, clusters: int, seed: int, places: IntArray) -> Fitted:
    """Spectral clustering of the graph of the 50 nearest single spectra, by scikit-learn: a baseline."""
    from sklearn.cluster import SpectralClustering
    from sklearn.neighbors import NearestNeighbors

    features = Spectra.of(pixels)
    rows = rows_at(features, places, pixels.cube.cols)
    model = SpectralClustering(
        clusters,
        affinity="nearest_neighbors",
        n_neighbors=min(50, len(places)),
        assign_labels="cluster_qr",
        random_state=seed,
    )
    with warnings.catch_warnings():
        # a graph in several parts is the best case for clusters, not a fault
        warnings.filterwarnings("ignore", message="Graph is not fully connected")
        found = model.fit(rows).labels_.astype(np.int64)
    search = NearestNeighbors(n_neighbors=1).fit(rows)
    return Fitted(
        features, lambda rows: found[search.kneighbors(rows, return_distance=False)[:, 0]], places, found
    )


def _expressed(
    features: FeatureMap, pixels: Pixels, clusters: int, seed: int, places: IntArray, *, power: float = 1.0
) -> Fitted:
    """Let landmarks express each other, and all others by them."""
    rows = rows_at(features, places, pixels.cube.cols)
    affine = AffineRidge.of(rows)
    factor = affine(rows)
    votes = Votes.of(factor, factor, clusters, seed=seed, power=power)
    return Fitted(features, lambda rows: votes(affine(rows)), places, votes.found)


def _pretrained(
    pixels: Pixels, method: str, clusters: int, seed: int, window: int = 7
) -> tuple[FeatureMap, dict[str, torch.Tensor]]:
    """Pretrain with a method on the scene; return its embedding by tiles, and all weights."""
    from hsssl.checkpoint import load_checkpoint
    from hsssl.embed import FeatureTiles
    from hsssl.train import pretrain

    with tempfile.TemporaryDirectory() as folder:
        run = pretrain(
            pixels.cube,
            method,
            out=Path(folder) / "run",
            steps=PRETRAINING_STEPS,
            seed=seed,
            method_options={"clusters": clusters},
            resident_gib=_RESIDENT_GIB,
        )
        weights = load_checkpoint(run.checkpoint_file)["model"]
        return FeatureTiles.of(run.encoder(), pixels.cube, windows=(window,)), weights


#: Name -> function ``(pixels, clusters, seed, places of the landmarks) -> Fitted``.
CLUSTER_METHODS: dict[str, Method] = {
    "self_expressive": self_expressive,
    "ridge": ridge,
    "elastic_net": elastic_net,
    "ae_subspace": ae_subspace,
    "contrastive_clustering": contrastive_clustering,
    "kmeans": kmeans,
    "spectral": spectral,
}
