"""How well clusters agree with classes: ACC after the best matching, NMI, ARI, kappa."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hsssl.evaluate.metrics import confusion_matrix, kappa, overall_accuracy

__all__ = ["ClusterScore", "match_clusters", "score_clusters"]

IntArray = NDArray[np.int64]
Labels = NDArray[np.integer[Any]]


@dataclass(frozen=True)
class ClusterScore:
    """Agreement of clusters with classes over the pixels that have both.

    Parameters
    ----------
    acc : float
        Clustering accuracy, in 0 ... 1: share of pixels whose cluster's class is theirs, clusters being given
        to classes one to one so that the share is largest (Kuhn 1955). Clusters left over count as wrong.
    nmi : float
        Mutual information over the arithmetic mean of both entropies, in 0 ... 1.
    ari : float
        Rand index adjusted for chance: 0 in expectation for random clusters, 1 for the classes themselves.
    kappa : float
        Cohen's kappa after the same matching as ``acc``.
    pixels : int
        How many pixels were compared.

    References
    ----------
    Kuhn 1955, "The Hungarian method for the assignment problem", doi:10.1002/nav.3800020109.
    Hubert and Arabie 1985, "Comparing partitions", doi:10.1007/BF01908075 (ARI).
    Cohen 1960, doi:10.1177/001316446002000104 (kappa).
    """

    acc: float
    nmi: float
    ari: float
    kappa: float
    pixels: int

    def __str__(self) -> str:
        return (
            f"ACC {self.acc:.3f}, NMI {self.nmi:.3f}, ARI {self.ari:.3f}, kappa {self.kappa:.3f} "
            f"({self.pixels:,} px)"
        )

    def to_record(self) -> dict[str, float]:
        """Return the figures by name, for JSON."""
        return asdict(self)


def score_clusters(truth: Labels, clusters: Labels) -> ClusterScore:
    """Score clusters against classes, over the pixels where both are above 0.

    Parameters
    ----------
    truth : ndarray, integer
        Classes from 1; 0 is unlabelled.
    clusters : ndarray of the same shape, integer
        Clusters from 1; 0 is not measured.

    Raises
    ------
    ValueError
        If the shapes differ, or no pixel has both.

    Examples
    --------
    >>> score_clusters(np.array([1, 1, 2, 2, 0]), np.array([2, 2, 1, 2, 1])).acc
    0.75
    """
    from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

    true, found = _both(truth, clusters)
    matched = match_clusters(true, found)
    confusion = confusion_matrix(true, matched)
    return ClusterScore(
        acc=overall_accuracy(confusion),
        nmi=float(normalized_mutual_info_score(true, found)),
        ari=float(adjusted_rand_score(true, found)),
        kappa=kappa(confusion),
        pixels=true.size,
    )


def match_clusters(truth: Labels, clusters: Labels) -> IntArray:
    """Rename clusters to the classes they fit best, one to one, so that the most pixels agree.

    Parameters
    ----------
    truth : ndarray, integer
        Classes from 1; 0 is unlabelled.
    clusters : ndarray of the same shape, integer
        Clusters from 1; 0 is not measured and stays 0.

    Returns
    -------
    ndarray of the same shape, int64
        Clusters beyond the number of classes get numbers from the highest class on, the largest
        cluster first.

    Raises
    ------
    ValueError
        If the shapes differ, or no pixel has both.

    References
    ----------
    Kuhn 1955, doi:10.1002/nav.3800020109; solved by `scipy.optimize.linear_sum_assignment`.

    Examples
    --------
    >>> match_clusters(np.array([5, 5, 7, 0]), np.array([1, 1, 2, 2]))
    array([5, 5, 7, 7])
    """
    from scipy.optimize import linear_sum_assignment

    true, found = _both(truth, clusters)
    classes, true_at = np.unique(true, return_inverse=True)
    names, sizes = np.unique(clusters[clusters > 0], return_counts=True)
    shared = np.zeros((classes.size, names.size), dtype=np.int64)  # pixels by class and cluster
    np.add.at(shared, (true_at, np.searchsorted(names, found)), 1)
    rows, columns = linear_sum_assignment(shared, maximize=True)
    renamed = np.zeros(names.size, dtype=np.int64)
    renamed[columns] = classes[rows]
    left = np.flatnonzero(renamed == 0)
    renamed[left[np.argsort(-sizes[left], kind="stable")]] = classes[-1] + 1 + np.arange(left.size)
    lookup = np.zeros(int(names[-1]) + 1, dtype=np.int64)
    lookup[names] = renamed
    return lookup[np.where(clusters > 0, clusters, 0)]


def _both(truth: Labels, clusters: Labels) -> tuple[Labels, Labels]:
    """Return classes and clusters of the pixels that have both."""
    if truth.shape != clusters.shape:
        raise ValueError(
            f"score_clusters: classes {truth.shape} and clusters {clusters.shape} must have one shape; "
            "give the labels of this cube"
        )
    both = (truth > 0) & (clusters > 0)
    if not both.any():
        raise ValueError("score_clusters: no pixel has both a class and a cluster; check labels and mask")
    return truth[both], clusters[both]
