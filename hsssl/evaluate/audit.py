"""What a score owes to place: how well position alone classifies, and how far patches overlap."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hsssl.splits import Split, distance_to_train

__all__ = ["Audit", "audit", "coordinates_accuracy", "share_in_train_patch"]


@dataclass(frozen=True)
class Audit:
    """Leakage of a split, both in 0 ... 1.

    Parameters
    ----------
    coordinates_oa : float
        Overall accuracy of the nearest training pixel's class: position alone, no spectra.
    test_in_train_patch : float
        Share of test pixels that lie inside the patch of a training pixel.
    """

    coordinates_oa: float
    test_in_train_patch: float


def audit(split: Split, labels: NDArray[np.integer[Any]], patch_size: int) -> Audit:
    """Measure how far a split can be won by place.

    Parameters
    ----------
    split : Split
        Training and test pixels.
    labels : ndarray, shape (rows, cols), integer
        Class ids of both (for a fixed split: the union of its two maps).
    patch_size : int
        Side in pixels of the window a pixel's features come from.

    Returns
    -------
    Audit

    Examples
    --------
    >>> from hsssl.splits import random_split
    >>> labels = np.repeat([[1, 2]], 8, axis=0).repeat(8, axis=1)  # (8, 16)
    >>> audit(random_split(labels, per_class=32, seed=0), labels, patch_size=9).test_in_train_patch
    1.0
    """
    return Audit(coordinates_accuracy(split, labels), share_in_train_patch(split, patch_size))


def coordinates_accuracy(split: Split, labels: NDArray[np.integer[Any]]) -> float:
    """Return the accuracy, 0 ... 1, of 1-NN on (row, column); Euclidean distance."""
    from scipy.spatial import KDTree

    cols = split.shape[1]
    train = np.stack(np.divmod(split.train, cols), axis=1)  # (train pixels, 2)
    test = np.stack(np.divmod(split.test, cols), axis=1)  # (test pixels, 2)
    _, nearest = KDTree(train).query(test)
    flat = labels.ravel()
    return float(np.mean(flat[split.train[nearest]] == flat[split.test]))


def share_in_train_patch(split: Split, patch_size: int) -> float:
    """Return the share, 0 ... 1, of test pixels within patch_size // 2 of a training pixel.

    That is how far a patch reaches; an even one does so to one side, which either of the two may have.
    """
    return float(np.mean(distance_to_train(split) <= patch_size // 2))
