"""Evaluation of frozen features: the same splits and classifiers for the encoder and for the baselines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hsssl.cube import Cube
from hsssl.evaluate.audit import Audit, coordinates_accuracy, share_in_train_patch
from hsssl.evaluate.baselines import BASELINES, baseline_features
from hsssl.evaluate.classifiers import CLASSIFIERS
from hsssl.evaluate.metrics import average_accuracy, class_accuracy, confusion_matrix, kappa, overall_accuracy
from hsssl.evaluate.score import Row, Score
from hsssl.messages import log, unknown_name
from hsssl.splits import Split, block_split, fixed_split, random_split

__all__ = ["PROTOCOLS", "SPLITS", "Protocol", "evaluate", "score_table"]

IntArray = NDArray[np.int64]
LabelArray = NDArray[np.integer[Any]]
FloatArray = NDArray[np.floating[Any]]
Labels = LabelArray | Sequence[LabelArray]

SPLITS = ("random", "block", "fixed")
_MOST_WORKERS = 8


@dataclass(frozen=True)
class Protocol:
    """How training and test pixels are drawn.

    Parameters
    ----------
    split : str
        "random", "block" or "fixed".
    per_class : int
        Training pixels a class; at most so many under block.
    guard : int or None
        Guard band in pixels, under block only; None is the radius of the footprint.
    """

    split: str = "block"
    per_class: int = 100
    guard: int | None = None


#: What `score_table` runs unless told otherwise.
PROTOCOLS = (Protocol("random", 10), Protocol("block", 100, 4), Protocol("block", 100))


@dataclass(frozen=True)
class _FeatureSet:
    """Features of every pixel (rows x cols, dim) and the side of the window they come from."""

    method: str
    values: FloatArray
    footprint: int


@dataclass(frozen=True)
class _Drawn:
    """A protocol with its splits, one a seed."""

    protocol: Protocol
    guard: int | None
    seeds: list[int]
    splits: list[Split]


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
        the radius of the footprint, (patch_size - 1) // 2.
    seeds : int or sequence of int
        How many splits (0 ... n - 1), or which. A fixed split has one.
    cube : Cube or None
        The prepared cube: the hand-made baselines are then scored on the same splits.
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
    protocol = Protocol(split, per_class, guard)
    return _scores(features, labels, cube, patch_size, (classifier,), (protocol,), seeds, False, name)[0]


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
    return _scores(features, labels, cube, patch_size, classifiers, protocols, seeds, progress, name)


def _scores(
    features: FloatArray,
    labels: Labels,
    cube: Cube | None,
    patch_size: int,
    classifiers: Sequence[str],
    protocols: Sequence[Protocol],
    seeds: int | Sequence[int],
    progress: bool | None,
    name: str,
) -> list[Score]:
    """Draw the splits, run every classifier on every kind of features, and sum up."""
    features = np.asarray(features)
    fixed = [_check_protocol(protocol, patch_size) for protocol in protocols]
    for classifier in classifiers:
        if classifier not in CLASSIFIERS:
            raise unknown_name("classifier", classifier, CLASSIFIERS)
    numbers = _seed_numbers(seeds)
    maps = _usable_labels(features, _label_maps(labels, any(fixed)), cube)
    drawn = list(
        {
            (protocol.split, protocol.per_class, guard): _draw(protocol, guard, maps, numbers)
            for protocol in protocols
            for guard in [_guard(protocol, patch_size)]
        }.values()
    )
    sets = [_FeatureSet(name, features.reshape(-1, features.shape[2]), patch_size)]
    if cube is not None:
        sets += [
            _FeatureSet(key, values.reshape(-1, values.shape[2]), BASELINES[key])
            for key, values in baseline_features(cube).items()
        ]
    truth = np.maximum.reduce(maps)
    matrices = _confusions(sets, truth, classifiers, drawn, progress)
    table = []
    for number, one in enumerate(drawn):
        position = [coordinates_accuracy(split, truth) for split in one.splits]
        for classifier in classifiers:
            scores = [
                _summary(
                    features_of, classifier, one, matrices[number, classifier, features_of.method], truth, position
                )
                for features_of in sets
            ]
            scores[0].baselines.update({score.method: score for score in scores[1:]})
            table.append(scores[0])
    return table
