"""The ways to cluster pixels, by name: each takes the pixels, a number of clusters and a seed."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hsssl.cluster.elastic_net import fit_elastic_net
from hsssl.cluster.features import Pixels, averaged_components, spectra
from hsssl.cluster.landmarks import cluster_coefficients, draw_landmarks
from hsssl.cluster.ridge import ridge_factor

__all__ = ["CLUSTER_METHODS", "PRETRAINING_STEPS", "unit_rows"]

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.floating[Any]]
Method = Callable[..., IntArray]
_CHUNK = 65536
# Of the two methods that train an encoder on the scene.
PRETRAINING_STEPS = 300


def unit_rows(rows: FloatArray) -> FloatArray:
    """Divide each row by its length; a row of zeros stays."""
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(length > 0, length, 1)


def affine_factor(features: FloatArray) -> FloatArray:
    """Return unit rows Q (n, d + 1) of the ridge self-expression of ``features`` (n, d) and a constant.

    The constant, as large as a row is long, makes the expression affine: pixels near the mean, which have no
    direction of their own, keep together.
    """
    rows = np.asarray(features, dtype=np.float64)
    constant = np.full((len(rows), 1), np.sqrt(np.square(rows).sum(axis=1).mean()))
    return unit_rows(ridge_factor(unit_rows(np.concatenate([rows, constant], axis=1))))


def self_expressive(pixels: Pixels, clusters: int, seed: int, landmarks: int) -> IntArray:
    """Spectral clustering of the ridge self-expression, sharpened, of spectra averaged over 7 x 7 pixels."""
    factor = affine_factor(averaged_components(pixels))
    return cluster_coefficients(factor, factor, clusters, seed=seed, power=8.0, landmarks=landmarks)


def ridge(pixels: Pixels, clusters: int, seed: int, landmarks: int) -> IntArray:
    """Spectral clustering of the ridge self-expression of spectra averaged over 5 x 5 pixels, as it is."""
    factor = affine_factor(averaged_components(pixels, window=5))
    return cluster_coefficients(factor, factor, clusters, seed=seed, landmarks=landmarks)


def elastic_net(pixels: Pixels, clusters: int, seed: int, landmarks: int) -> IntArray:
    """Elastic-net self-expression by two small networks (SENet), trained on some averaged spectra."""
    features = affine_factor(averaged_components(pixels))
    query, key, threshold = fit_elastic_net(features, seed=seed)
    return cluster_coefficients(
        query, key, clusters, seed=seed, threshold=threshold, signed=False, landmarks=landmarks
    )


def ae_subspace(pixels: Pixels, clusters: int, seed: int, landmarks: int) -> IntArray:
    """Ridge self-expression of the embedding of an autoencoder trained with self-expression."""
    embedded, _ = _pretrained(pixels, "ae_subspace", clusters, seed)
    factor = affine_factor(embedded)
    return cluster_coefficients(factor, factor, clusters, seed=seed, landmarks=landmarks)


def contrastive_clustering(pixels: Pixels, clusters: int, seed: int, landmarks: int) -> IntArray:
    """Memberships of contrastive clustering's cluster head, the largest of each pixel's embedding."""
    embedded, weights = _pretrained(pixels, "contrastive_clustering", clusters, seed, window=1)
    from hsssl.encoders.heads import mlp_head

    head = mlp_head(embedded.shape[1], len(weights["cluster_head.0.weight"]), clusters)
    prefix = "cluster_head."
    head.load_state_dict({k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)})
    with torch.no_grad():
        chunks = torch.split(torch.from_numpy(embedded), _CHUNK)
        return np.concatenate([head.eval()(chunk).argmax(1).numpy() for chunk in chunks])


def kmeans(pixels: Pixels, clusters: int, seed: int, landmarks: int) -> IntArray:
    """k-means of single spectra, ten starts: a baseline."""
    from sklearn.cluster import KMeans

    rows = spectra(pixels)
    picked = draw_landmarks(len(rows), landmarks, seed)
    model = KMeans(clusters, n_init=10, random_state=seed).fit(rows[picked])
    chunks = [rows[first : first + _CHUNK] for first in range(0, len(rows), _CHUNK)]
    return np.concatenate([model.predict(chunk) for chunk in chunks]).astype(np.int64)


def spectral(pixels: Pixels, clusters: int, seed: int, landmarks: int) -> IntArray:
    """Spectral clustering of the graph of the 50 nearest single spectra, by scikit-learn: a baseline."""
    from sklearn.cluster import SpectralClustering
    from sklearn.neighbors import NearestNeighbors

    rows = spectra(pixels)
    picked = draw_landmarks(len(rows), landmarks, seed)
    model = SpectralClustering(
        clusters,
        affinity="nearest_neighbors",
        n_neighbors=min(50, len(picked)),
        assign_labels="cluster_qr",
        random_state=seed,
    )
    with warnings.catch_warnings():
        # a graph in several parts is the best case for clusters, not a fault
        warnings.filterwarnings("ignore", message="Graph is not fully connected")
        found = model.fit(rows[picked]).labels_
    search = NearestNeighbors(n_neighbors=1).fit(rows[picked])
    chunks = [rows[first : first + _CHUNK] for first in range(0, len(rows), _CHUNK)]
    joined = [search.kneighbors(chunk, return_distance=False)[:, 0] for chunk in chunks]
    labels: IntArray = found[np.concatenate(joined)].astype(np.int64)
    return labels


def _pretrained(
    pixels: Pixels, method: str, clusters: int, seed: int, window: int = 7
) -> tuple[NDArray[np.float32], dict[str, torch.Tensor]]:
    """Pretrain with a method on the scene; return the embedding (n, D) and all weights."""
    from hsssl.checkpoint import load_checkpoint
    from hsssl.embed import embed
    from hsssl.train import pretrain

    with tempfile.TemporaryDirectory() as folder:
        run = pretrain(
            pixels.cube,
            method,
            out=Path(folder) / "run",
            steps=PRETRAINING_STEPS,
            seed=seed,
            method_options={"clusters": clusters},
        )
        weights = load_checkpoint(run.checkpoint_file)["model"]
        embedded = embed(run.encoder(), pixels.cube, windows=(window,))
    return embedded[pixels.chosen], weights


#: Name -> function ``(pixels, clusters, seed, landmarks) -> labels (n,)`` from 0.
CLUSTER_METHODS: dict[str, Method] = {
    "self_expressive": self_expressive,
    "ridge": ridge,
    "elastic_net": elastic_net,
    "ae_subspace": ae_subspace,
    "contrastive_clustering": contrastive_clustering,
    "kmeans": kmeans,
    "spectral": spectral,
}
