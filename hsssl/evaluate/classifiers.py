"""The classifiers put on frozen features: what is fitted, is fitted on training pixels only."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hsssl.evaluate.logistic import fit_softmax

__all__ = ["CLASSIFIERS", "LINEAR_C", "Predict", "fit_knn", "fit_linear", "fit_svm", "standardisation"]

FloatArray = NDArray[np.floating[Any]]
IntArray = NDArray[np.int64]
Predict = Callable[[FloatArray], IntArray]

# Chosen once, for everybody, as the best for the hand-made baselines on Indian Pines (linear of
# 0.1, 1, 10; SVM of 1, 10, 100), not for any encoder.
LINEAR_C = 10.0
SVM_C = 100.0
NEIGHBOURS = 5
_PART_VALUES = 2**22


def fit_knn(features: FloatArray, classes: IntArray) -> Predict:
    """Fit 5 nearest neighbours, Euclidean in standardised features; a draw goes to the lower id.

    Parameters
    ----------
    features : ndarray, shape (pixels, dim)
        Features of the training pixels.
    classes : ndarray, shape (pixels,), int64
        Their class ids, at least two different ones.

    Returns
    -------
    callable
        Takes features (pixels, dim), returns class ids (pixels,).
    """
    from sklearn.neighbors import KNeighborsClassifier

    scale = _standardiser(features)
    model = KNeighborsClassifier(min(NEIGHBOURS, len(classes)), algorithm="brute")
    model.fit(scale(features), classes)
    return _in_parts(lambda test: model.predict(scale(test)), max(features.shape))


def fit_linear(features: FloatArray, classes: IntArray) -> Predict:
    """Fit multinomial logistic regression with an L2 penalty (C = 10) on standardised features.

    The minimum is that of scikit-learn's ``LogisticRegression`` for three classes and more; for two, that
    fits one set of weights and this one a class; see `hsssl.evaluate.logistic`.

    Parameters and return value as `fit_knn`.
    """
    scale = _standardiser(features)
    ids, targets = np.unique(classes, return_inverse=True)
    weights, intercept = fit_softmax(scale(features), targets, 1.0 / LINEAR_C)
    return _in_parts(lambda test: ids[(scale(test) @ weights + intercept).argmax(axis=1)], max(weights.shape))


def fit_svm(features: FloatArray, classes: IntArray) -> Predict:
    """Fit a one-against-one SVM with kernel exp(-gamma |x - y|^2) (C = 100) on standardised features.

    gamma = 1 / (dim x variance of all values) as scikit-learn's ``gamma="scale"``. The kernel is one
    matrix product and handed over precomputed: the same SVM, many times faster for wide features.

    Parameters and return value as `fit_knn`.
    """
    from sklearn.svm import SVC

    scale = _standardiser(features)
    train = scale(features)
    variance = train.var()
    gamma = 1.0 / (train.shape[1] * variance) if variance > 0 else 1.0
    model = SVC(C=SVM_C, kernel="precomputed").fit(_rbf(train, train, gamma), classes)
    return _in_parts(lambda test: model.predict(_rbf(scale(test), train, gamma)), max(train.shape))


#: Name -> function that fits a classifier and returns how it predicts.
CLASSIFIERS: dict[str, Callable[[FloatArray, IntArray], Predict]] = {
    "knn": fit_knn,
    "linear": fit_linear,
    "svm": fit_svm,
}


def _in_parts(predict: Predict, width: int) -> Predict:
    """Predict some pixels at a time, so that ``width`` numbers a pixel fit into memory for any scene."""
    step = max(1, _PART_VALUES // width)

    def predict_all(test: FloatArray) -> IntArray:
        starts = range(0, max(len(test), 1), step)
        return np.concatenate([predict(test[start : start + step]) for start in starts])

    return predict_all


def standardisation(train: FloatArray) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return mean and standard deviation (dim,) of features (pixels, dim); inf where they are constant."""
    wide = train.astype(np.float64)
    mean, std = wide.mean(axis=0), wide.std(axis=0)
    # Rounding leaves a constant feature a std of some 1e-16 of its mean; dividing by that is noise.
    std[std <= 1e-12 * np.abs(mean)] = np.inf
    return mean, std


def _standardiser(train: FloatArray) -> Callable[[FloatArray], NDArray[np.float64]]:
    """Mean 0 and standard deviation 1 over the training pixels; a constant feature becomes 0."""
    mean, std = standardisation(train)
    return lambda features: np.asarray((features - mean) / std)


def _rbf(x: NDArray[np.float64], y: NDArray[np.float64], gamma: float) -> NDArray[np.float64]:
    """exp(-gamma |x - y|^2) by |x|^2 + |y|^2 - 2 x.y; shape (len(x), len(y))."""
    distance = -2.0 * x @ y.T
    distance += np.square(x).sum(axis=1)[:, None]
    distance += np.square(y).sum(axis=1)
    np.maximum(distance, 0.0, out=distance)
    distance *= -gamma
    return np.exp(distance, out=distance)
