"""Class maps: a classifier fitted on the features of labelled pixels, applied to every pixel."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from hsssl.cube import Cube
from hsssl.embed import embed
from hsssl.evaluate.classifiers import CLASSIFIERS
from hsssl.maps import write_class_map
from hsssl.messages import unknown_name

__all__ = ["classify", "classify_features"]


def classify(
    encoder: nn.Module,
    cube: Cube,
    labels: NDArray[np.integer[Any]],
    *,
    classifier: str = "svm",
    class_names: Sequence[str] = (),
    out: str | Path | None = None,
    overwrite: bool = False,
    progress: bool | None = None,
) -> NDArray[np.uint8]:
    """Return the class of every valid pixel, learnt from the labelled ones.

    Parameters
    ----------
    encoder : nn.Module
        As `hsssl.load_encoder` returns it.
    cube : Cube
        The scene.
    labels : ndarray, shape (rows, cols), integer
        Class ids 1 ... 255 where known, 0 elsewhere. All of them are used to fit.
    classifier : str
        A name in `hsssl.evaluate.CLASSIFIERS`.
    class_names : sequence of str, optional
        Names of classes 1, 2, ..., for the legend in the file.
    out : path, optional
        Write the map to this GeoTIFF (uint8, nodata 0, palette).
    overwrite : bool
        Replace the file at ``out``.
    progress : bool, optional
        Show a progress bar; None shows it on a terminal.

    Returns
    -------
    ndarray, shape (rows, cols), uint8
        Class ids; 0 at invalid pixels.

    Raises
    ------
    ValueError
        If the labels have another shape than the cube, fewer than two classes, or ids beyond 255.
    """
    _check_labels(labels, (cube.rows, cube.cols))
    if classifier not in CLASSIFIERS:
        raise unknown_name("classifier", classifier, CLASSIFIERS)
    features = embed(encoder, cube, progress=progress)
    classes = classify_features(features, labels, classifier=classifier)
    if out is not None:
        write_class_map(out, classes, cube, class_names=class_names, overwrite=overwrite)
    return classes


def classify_features(
    features: NDArray[np.floating[Any]], labels: NDArray[np.integer[Any]], *, classifier: str = "svm"
) -> NDArray[np.uint8]:
    """Return the class of every pixel with finite features; parameters as in `classify`.

    Parameters
    ----------
    features : ndarray, shape (rows, cols, dim)
        NaN at invalid pixels.
    """
    _check_labels(labels, features.shape[:2])
    valid = np.isfinite(features).all(axis=2)
    known = valid & (labels > 0)
    if np.unique(labels[known]).size < 2:
        raise ValueError("classify: needs valid labelled pixels of at least two classes")
    predict = CLASSIFIERS[classifier](features[known], labels[known].astype(np.int64))
    classes = np.zeros(labels.shape, dtype=np.uint8)
    classes[valid] = predict(features[valid])
    return classes


def _check_labels(labels: NDArray[np.integer[Any]], shape: tuple[int, ...]) -> None:
    if labels.shape != shape:
        raise ValueError(
            f"classify: labels must have the scene's shape {shape}, got {labels.shape}; crop one of them"
        )
    if labels.min() < 0 or labels.max() > 255:
        raise ValueError(
            f"classify: class ids must lie in 0 ... 255, got {labels.min()} ... {labels.max()}; renumber them"
        )
