"""k-means on embeddings, drawn by nothing: the same rows give the same clusters."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["kmeans"]


@torch.no_grad()
def kmeans(x: Tensor, clusters: int, iterations: int = 10, *, apart: bool = False) -> tuple[Tensor, Tensor]:
    """Return centroids (K, D) and the cluster of each row (n,) by Lloyd's iterations in float32.

    It starts from rows spread evenly over ``x``: those of a queue stand in random order, so they are
    a random draw without a generator. A cluster that loses all its rows keeps its centroid.

    Parameters
    ----------
    x : Tensor, shape (n, D)
        Rows to cluster.
    clusters : int
        Number K, at most n.
    iterations : int
        Lloyd's iterations.
    apart : bool
        Start from rows each as far as can be from those before, for a few clear groups (Gonzalez 1985).

    Raises
    ------
    ValueError
        If there are fewer rows than clusters.
    """
    if not 1 <= clusters <= len(x):
        raise ValueError(f"kmeans: clusters must be in 1 ... {len(x)} rows, got {clusters}")
    x = x.float()
    start = _farthest(x, clusters) if apart else torch.arange(clusters, device=x.device) * len(x) // clusters
    centroids = x[start]
    for _ in range(iterations):
        labels = torch.cdist(x, centroids).argmin(1)
        sizes = torch.bincount(labels, minlength=clusters)[:, None]
        sums = torch.zeros_like(centroids).index_add_(0, labels, x)
        centroids = torch.where(sizes > 0, sums / sizes.clamp_min(1), centroids)
    return centroids, torch.cdist(x, centroids).argmin(1)


def _farthest(x: Tensor, clusters: int) -> Tensor:
    """Return numbers (K,) of rows, beginning with row 0, each the farthest from those before."""
    picked = [x.new_zeros((), dtype=torch.int64)]
    distance = (x - x[0]).norm(dim=1)
    for _ in range(clusters - 1):
        picked.append(distance.argmax())
        distance = torch.minimum(distance, (x - x[picked[-1]]).norm(dim=1))
    return torch.stack(picked)
