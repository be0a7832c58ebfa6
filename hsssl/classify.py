"""Class maps: a classifier fitted on the features of labelled pixels, applied to every pixel."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, overload

import numpy as np
from numpy.typing import NDArray
from torch import nn

from hsssl.cube import Cube
from hsssl.embed import FeatureTiles
from hsssl.evaluate.classifiers import CLASSIFIERS, Predict
from hsssl.maps import WriteTile, open_class_map, refuse_map
from hsssl.messages import unknown_name
from hsssl.quicklook import class_quicklook, refuse_quicklook
from hsssl.sampling import ResidentScene
from hsssl.stream import Tick, Tile, stream_tiles

__all__ = ["classify", "classify_features"]

# Features that are kept from the first pass to the second, in bytes.
_KEPT_BYTES = 2**29
Kept = dict[tuple[int, int], NDArray[np.float32]]  # by corner of the tile


@overload
def classify(
    encoder: nn.Module,
    cube: Cube,
    labels: NDArray[np.integer[Any]],
    *,
    classifier: str = "svm",
    class_names: Sequence[str] = (),
    out: None = None,
    overwrite: bool = False,
    quicklook: Literal[False] = False,
    progress: bool | None = None,
) -> NDArray[np.uint8]: ...


@overload
def classify(
    encoder: nn.Module,
    cube: Cube,
    labels: NDArray[np.integer[Any]],
    *,
    classifier: str = "svm",
    class_names: Sequence[str] = (),
    out: str | Path,
    overwrite: bool = False,
    quicklook: bool = False,
    progress: bool | None = None,
) -> Path: ...


def classify(
    encoder: nn.Module,
    cube: Cube,
    labels: NDArray[np.integer[Any]],
    *,
    classifier: str = "svm",
    class_names: Sequence[str] = (),
    out: str | Path | None = None,
    overwrite: bool = False,
    quicklook: bool = False,
    progress: bool | None = None,
) -> NDArray[np.uint8] | Path:
    """Return the class of every valid pixel, learnt from the labelled ones, or write the map to a file.

    The scene goes through memory tile by tile, twice: the features of labelled pixels first, then all. What
    fits into 512 MiB of the first pass is kept for the second.

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
        Write the map to this file (uint8, nodata 0, palette), a GeoTIFF (``.tif``) or, by any other
        extension, an ENVI classification, and return no array.
    overwrite : bool
        Replace the file at ``out``, and the quick-look.
    quicklook : bool
        Write a PNG beside ``out`` too, named after it: the map in its palette with the names of the classes,
        of at most some 1200 pixels a side (`hsssl.quicklook`).
    progress : bool, optional
        Show a progress bar with pixels per second; None shows it on a terminal.

    Returns
    -------
    ndarray, shape (rows, cols), uint8
        Class ids; 0 at invalid pixels. With ``out``, its path.

    Raises
    ------
    FileExistsError
        If there is a file at ``out``, or the quick-look's, and ``overwrite`` is off.
    ValueError
        If the labels have another shape than the cube, fewer than two classes, or ids beyond 255, ``out``
        is named as another format's file, or a quick-look is asked for without ``out``.
    """
    if out is not None:
        refuse_map(out, overwrite=overwrite)  # before the work, not after it
    if quicklook:
        refuse_quicklook(out, overwrite=overwrite)
    _check_labels(labels, (cube.rows, cube.cols))
    if classifier not in CLASSIFIERS:
        raise unknown_name("classifier", classifier, CLASSIFIERS)
    features = FeatureTiles.of(encoder, cube)
    kept: Kept = {}
    predict = CLASSIFIERS[classifier](*_taught(features, labels, kept, progress))
    if out is not None:
        named: dict[str, Any] = {"highest": int(labels.max()), "class_names": class_names}
        look = class_quicklook(out if quicklook else None, cube.rows, cube.cols, class_names)
        with look as watch, open_class_map(out, cube, overwrite=overwrite, **named) as write:
            _predict_tiles(features, predict, kept, watch(write), progress)
        return Path(out)
    classes = np.zeros(labels.shape, dtype=np.uint8)

    def keep(tile: Tile, block: NDArray[np.uint8]) -> None:
        classes[tile.rows, tile.cols] = block

    _predict_tiles(features, predict, kept, keep, progress)
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
    known = np.isfinite(features).all(axis=2) & (labels > 0)
    _check_taught(labels[known])
    predict = CLASSIFIERS[classifier](features[known], labels[known].astype(np.int64))
    return _classes_of(features, predict)


def _taught(
    features: FeatureTiles, labels: NDArray[np.integer[Any]], kept: Kept, progress: bool | None
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return features (n, dim) and classes (n,) of the labelled pixels; put whole tiles' into ``kept``."""
    known = (labels > 0) & features.cube.valid
    _check_taught(labels[known])
    tiles = [tile for tile in features.tiles() if known[tile.rows, tile.cols].any()]
    sizes = np.cumsum([4 * features.dim * tile.pixels for tile in tiles])
    whole = {tile.corner for tile, size in zip(tiles, sizes, strict=True) if size <= _KEPT_BYTES}
    rows: list[NDArray[np.float32]] = []
    classes: list[NDArray[np.int64]] = []

    def read(tile: Tile) -> ResidentScene:
        # A tile that is not kept is embedded where it is labelled, and later as a whole.
        return features.read(tile, None if tile.corner in whole else known[tile.rows, tile.cols])

    def compute(tile: Tile, scene: ResidentScene, tick: Tick) -> None:
        block = features.compute(tile, scene, tick)
        if tile.corner in whole:
            kept[tile.corner] = block
        here = known[tile.rows, tile.cols] & np.isfinite(block).all(axis=2)
        rows.append(block[here])
        classes.append(labels[tile.rows, tile.cols][here].astype(np.int64))

    stream_tiles(tiles, read, compute, lambda tile, nothing: None, desc="labelled", progress=progress)
    _check_taught(np.concatenate(classes))
    return np.concatenate(rows), np.concatenate(classes)


def _predict_tiles(
    features: FeatureTiles, predict: Predict, kept: Kept, write: WriteTile, progress: bool | None
) -> None:
    """Hand the classes (rows, cols) of every tile to ``write``; empties ``kept``."""

    def read(tile: Tile) -> ResidentScene | None:
        return None if tile.corner in kept else features.read(tile)

    def compute(tile: Tile, scene: ResidentScene | None, tick: Tick) -> NDArray[np.uint8]:
        block = kept.pop(tile.corner) if scene is None else features.compute(tile, scene, tick)
        return _classes_of(block, predict)

    stream_tiles(features.tiles(), read, compute, write, desc="classify", progress=progress)


def _classes_of(features: NDArray[np.floating[Any]], predict: Predict) -> NDArray[np.uint8]:
    """Return classes (rows, cols) of features (rows, cols, dim); 0 where one is not finite."""
    valid = np.isfinite(features).all(axis=2)
    classes = np.zeros(valid.shape, dtype=np.uint8)
    if valid.any():
        classes[valid] = predict(features[valid])
    return classes


def _check_taught(classes: NDArray[np.integer[Any]]) -> None:
    if np.unique(classes).size < 2:
        raise ValueError("classify: needs valid labelled pixels of at least two classes")


def _check_labels(labels: NDArray[np.integer[Any]], shape: tuple[int, ...]) -> None:
    if labels.shape != shape:
        raise ValueError(
            f"classify: labels must have the scene's shape {shape}, got {labels.shape}; crop one of them"
        )
    if labels.min() < 0 or labels.max() > 255:
        raise ValueError(
            f"classify: class ids must lie in 0 ... 255, got {labels.min()} ... {labels.max()}; renumber them"
        )
