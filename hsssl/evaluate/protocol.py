"""Evaluation of frozen features: the same splits and classifiers for the encoder and for the baselines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hsssl.cube import Cube
from hsssl.evaluate.baselines import BASELINES, baseline_features
from hsssl.evaluate.classifiers import CLASSIFIERS
from hsssl.evaluate.runner import FeatureSet, Protocol, Trial, run_trials
from hsssl.evaluate.score import Score
from hsssl.messages import log, unknown_name
from hsssl.splits import Split, block_split, fixed_split, random_split

__all__ = ["PROTOCOLS", "SPLITS", "Protocol", "draw_trials", "evaluate", "score_table"]

IntArray = NDArray[np.int64]
LabelArray = NDArray[np.integer[Any]]
FloatArray = NDArray[np.floating[Any]]
Labels = LabelArray | Sequence[LabelArray]

SPLITS = ("random", "block", "fixed")

#: What `score_table` runs unless told otherwise.
PROTOCOLS = (Protocol("random", 10), Protocol("block", 100, 4), Protocol("block", 100))


def evaluate(
    features: FloatArray,
    labels: Labels,
    classifier: str = "linear",
    split: str = "block",
    per_class: int = 100,
    patch_size: int = 9,
    *,
    guard: int | None = None,
    seeds: int | Sequence[int] = 5,
    cube: Cube | None = None,
    name: str = "encoder",
) -> Score:
    """Score frozen features by a classifier on splits of the labelled pixels, with a leakage audit.

    Parameters
    ----------
    features : ndarray, shape (rows, cols, dim), real
        Features of every pixel (`hsssl.embed`). Labelled pixels at which they are not finite are left
        out, and that is said.
    labels : ndarray, shape (rows, cols), integer, or a pair of them
        Class ids; 0 = unlabelled. For ``split="fixed"`` the maps (training, test).
    classifier : str
        "knn", "linear" or "svm"; fitted, scaler included, on training pixels only.
    split : str
        "random": ``per_class`` a class at random, all others tested. "block": tiles apart with a
        guard band (`hsssl.splits.block_split`). "fixed": as ``labels`` say.
    per_class : int
        Training pixels a class; at most so many under block.
    patch_size : int
        Side in pixels of the window a pixel's features come from.
    guard : int or None
        Block only: every test pixel is more than this many pixels from every training pixel. None is
        the radius of the footprint, patch_size // 2.
    seeds : int or sequence of int
        How many splits (0 ... n - 1), or which. A fixed split has one.
    cube : Cube or None
        The prepared cube: the hand-made baselines are then scored on the same splits, and held in memory
        for the whole scene (see `hsssl.evaluate.baselines.baseline_features`).
    name : str
        What to call the features.

    Returns
    -------
    Score
        Printed, a table with the audit underneath.

    Raises
    ------
    ValueError
        If shapes disagree, a name is unknown, a number is out of range, or pixels are too few.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> labels = rng.integers(1, 3, (32, 32))
    >>> features = labels[:, :, None] + rng.normal(scale=0.1, size=(32, 32, 4))
    >>> evaluate(features, labels, split="random", per_class=10, seeds=2).oa
    1.0
    """
    table = score_table(
        features,
        labels,
        cube,
        patch_size,
        classifiers=(classifier,),
        protocols=(Protocol(split, per_class, guard),),
        seeds=seeds,
        progress=False,
        name=name,
    )
    return table[0]


def score_table(
    features: FloatArray,
    labels: Labels,
    cube: Cube | None,
    patch_size: int,
    *,
    classifiers: Sequence[str] = ("linear", "svm"),
    protocols: Sequence[Protocol] = PROTOCOLS,
    seeds: int | Sequence[int] = 5,
    progress: bool | None = None,
    name: str = "encoder",
) -> list[Score]:
    """Score features and baselines under several protocols and classifiers, features made once.

    Parameters are as in `evaluate`; further:

    Parameters
    ----------
    classifiers : sequence of str
        Names in `hsssl.evaluate.CLASSIFIERS`.
    protocols : sequence of Protocol
        Those that come to the same (a guard that is the footprint's radius anyway) run once.
    progress : bool or None
        Show a progress bar; None shows it on a terminal.

    Returns
    -------
    list of Score
        For each protocol each classifier, the baselines inside; ``[row for score in table for row in
        score.rows]`` is the flat table.

    Raises
    ------
    ValueError
        As `evaluate`.
    """
    features = np.asarray(features)
    _check_features(features, cube)
    for classifier in classifiers:
        if classifier not in CLASSIFIERS:
            raise unknown_name("classifier", classifier, CLASSIFIERS)
    truth, trials = draw_trials(features, labels, cube, patch_size, protocols, seeds)
    sets = [FeatureSet(name, features.reshape(-1, features.shape[2]), patch_size)]
    for key, values in (baseline_features(cube) if cube is not None else {}).items():
        sets.append(FeatureSet(key, values.reshape(-1, values.shape[2]), BASELINES[key]))
    return run_trials(sets, truth, trials, classifiers, progress=progress)


def draw_trials(
    features: FloatArray,
    labels: Labels,
    cube: Cube | None,
    patch_size: int,
    protocols: Sequence[Protocol],
    seeds: int | Sequence[int],
) -> tuple[LabelArray, list[Trial]]:
    """Check what an evaluation is given and draw its splits; parameters and errors as in `evaluate`.

    Returns
    -------
    labels : ndarray, shape (rows, cols), integer
        Class ids of training and test pixels, 0 where they cannot be used.
    trials : list of Trial
        One a protocol.
    """
    asked = dict.fromkeys(_checked(protocol, patch_size) for protocol in protocols)
    pair = any(protocol.split == "fixed" for protocol in asked)
    maps = _usable_labels(_label_maps(labels, features.shape[:2], pair=pair), features, cube)
    numbers = _seed_numbers(seeds)
    return np.maximum.reduce(maps), [_drawn(protocol, maps, numbers) for protocol in asked]


def _check_features(features: FloatArray, cube: Cube | None) -> None:
    if features.ndim != 3 or features.dtype.kind not in "iuf" or 0 in features.shape:
        raise ValueError(
            "evaluate: features must be real numbers of shape (rows, cols, dim), got "
            f"{features.dtype} {features.shape}"
        )
    if cube is not None and (cube.rows, cube.cols) != features.shape[:2]:
        raise ValueError(
            f"evaluate: features {features.shape[:2]} and cube {(cube.rows, cube.cols)} must have the same "
            "rows and cols; embed this cube"
        )


def _checked(protocol: Protocol, patch_size: int) -> Protocol:
    """Return the protocol with what was left open filled in, and what its split does not use left out."""
    if protocol.split not in SPLITS:
        raise unknown_name("split", protocol.split, SPLITS)
    if patch_size < 1:
        raise ValueError(f"evaluate: patch_size must be at least 1 pixel, got {patch_size}")
    if protocol.guard is not None and protocol.guard < 0:
        raise ValueError(f"evaluate: guard must be 0 pixels or more, got {protocol.guard}")
    if protocol.per_class < 1:
        raise ValueError(
            f"evaluate: per_class must be at least 1 training pixel a class, got {protocol.per_class}"
        )
    if protocol.split == "block":
        guard = patch_size // 2 if protocol.guard is None else protocol.guard
        return replace(protocol, guard=guard)
    return replace(protocol, guard=None)


def _seed_numbers(seeds: int | Sequence[int]) -> list[int]:
    numbers = [int(seed) for seed in (range(seeds) if isinstance(seeds, int | np.integer) else seeds)]
    if not numbers or min(numbers) < 0:
        raise ValueError(f"evaluate: seeds must be at least 1, or a list of seeds from 0, got {seeds}")
    return numbers


def _label_maps(labels: Labels, shape: tuple[int, ...], *, pair: bool) -> list[LabelArray]:
    """Return the label maps as a list: one, or training and test."""
    maps = [np.asarray(part) for part in labels] if pair else [np.asarray(labels)]
    if pair and (len(maps) != 2 or any(part.ndim != 2 for part in maps)):
        raise ValueError(
            'evaluate: split="fixed" takes a pair of label maps (training, test), each (rows, cols); '
            f"got {len(maps)} of shapes {[part.shape for part in maps]}"
        )
    for part in maps:
        if part.shape != shape:
            raise ValueError(
                f"evaluate: labels must have the features' rows and cols {shape}, got {part.shape}; "
                "crop one of them"
            )
        if part.dtype.kind not in "iu":
            raise ValueError(f"evaluate: labels must be integer class ids, got {part.dtype}; convert them")
    return maps


def _usable_labels(maps: list[LabelArray], features: FloatArray, cube: Cube | None) -> list[LabelArray]:
    """Set labels to 0 where features are not finite or the cube is not valid, and say how many."""
    labelled = np.logical_or.reduce([part != 0 for part in maps])
    usable = np.zeros(labelled.shape, dtype=bool)
    usable[labelled] = np.isfinite(features[labelled]).all(axis=1)
    if cube is not None:
        usable &= cube.valid
    lost = np.count_nonzero(labelled & ~usable)
    if lost:
        log.warning(
            "evaluate: left out %d of %d labelled pixels: not measured, or features not finite",
            lost,
            np.count_nonzero(labelled),
        )
    maps = [np.where(usable, part, 0) for part in maps]
    known = np.unique(np.maximum.reduce(maps))
    if np.count_nonzero(known > 0) < 2:
        raise ValueError(
            "evaluate: needs usable labelled pixels of at least two classes, got classes "
            f"{known[known > 0].tolist()}; label more"
        )
    return maps


def _drawn(protocol: Protocol, maps: list[LabelArray], seeds: list[int]) -> Trial:
    """Draw the splits of a protocol."""
    truth = np.maximum.reduce(maps)
    splits: list[Split]
    if protocol.split == "fixed":
        seeds, splits = seeds[:1], [fixed_split(*maps)]
    elif protocol.split == "random":
        splits = [random_split(truth, protocol.per_class, seed) for seed in seeds]
    else:
        assert protocol.guard is not None, "a block protocol has its guard by now"
        splits = [block_split(truth, protocol.per_class, protocol.guard, seed) for seed in seeds]
    return Trial(protocol, seeds, splits)
