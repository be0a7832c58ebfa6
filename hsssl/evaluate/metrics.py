"""Accuracies of a classification, all from one confusion matrix."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["average_accuracy", "class_accuracy", "confusion_matrix", "kappa", "overall_accuracy"]

IntArray = NDArray[np.int64]


def confusion_matrix(
    truth: NDArray[np.integer[Any]],
    predicted: NDArray[np.integer[Any]],
    classes: Sequence[int] | None = None,
) -> IntArray:
    """Count pixels by true class (rows) and predicted class (columns).

    Parameters
    ----------
    truth, predicted : ndarray, shape (pixels,), integer
        Class ids.
    classes : sequence of int or None
        Ids in the order of rows and columns; None takes those that occur, ascending.

    Returns
    -------
    ndarray, shape (classes, classes), int64

    Raises
    ------
    ValueError
        If the shapes differ, or an id is not in ``classes``.

    Examples
    --------
    >>> confusion_matrix(np.array([1, 1, 7]), np.array([1, 7, 7]))
    array([[1, 1],
           [0, 1]])
    """
    if truth.shape != predicted.shape:
        raise ValueError(
            f"confusion matrix: truth {truth.shape} and predictions {predicted.shape} must have one shape"
        )
    ids = np.union1d(truth, predicted) if classes is None else np.asarray(classes)
    strange = np.setdiff1d(np.union1d(truth, predicted), ids)
    if strange.size:
        raise ValueError(f"confusion matrix: class {strange[0]} is not among `classes`; add it")
    order = np.argsort(ids, kind="stable")
    true = order[np.searchsorted(ids, truth, sorter=order)]
    guess = order[np.searchsorted(ids, predicted, sorter=order)]
    counts = np.bincount(true * ids.size + guess, minlength=ids.size**2)
    return counts.reshape(ids.size, ids.size).astype(np.int64)


def overall_accuracy(confusion: IntArray) -> float:
    """Share of pixels classified rightly, OA = trace / total, in 0 ... 1.

    References
    ----------
    Congalton, "A review of assessing the accuracy of classifications of remotely sensed data",
    Remote Sens. Environ. 37, 1991, doi:10.1016/0034-4257(91)90048-B.
    """
    return float(np.trace(confusion) / confusion.sum())


def class_accuracy(confusion: IntArray) -> NDArray[np.float64]:
    """Share of each class's pixels classified rightly (producer's accuracy, recall).

    Returns
    -------
    ndarray, shape (classes,), float64
        NaN for a class without true pixels.

    References
    ----------
    Congalton 1991, doi:10.1016/0034-4257(91)90048-B.
    """
    pixels = confusion.sum(axis=1)
    right = np.diagonal(confusion).astype(np.float64)
    accuracy = np.full(right.shape, np.nan)
    np.divide(right, pixels, out=accuracy, where=pixels > 0)
    return accuracy


def average_accuracy(confusion: IntArray) -> float:
    """Mean of the class accuracies over classes that have true pixels, AA, in 0 ... 1."""
    return float(np.nanmean(class_accuracy(confusion)))


def kappa(confusion: IntArray) -> float:
    """Agreement beyond chance, kappa = (OA - e) / (1 - e) with e = sum_k true_k predicted_k / total^2.

    NaN where chance alone agrees always (e = 1: one class, always predicted).

    References
    ----------
    Cohen, "A coefficient of agreement for nominal scales", Educ. Psychol. Meas. 20(1), 1960,
    doi:10.1177/001316446002000104.
    """
    share = confusion / confusion.sum()
    chance = float(share.sum(axis=0) @ share.sum(axis=1))
    return float((np.trace(share) - chance) / (1 - chance)) if chance < 1 else float("nan")
