"""Runs every classifier on every kind of features over every split, on all cores, and sums up."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hsssl.evaluate.audit import Audit, coordinates_accuracy, share_in_train_patch
from hsssl.evaluate.classifiers import CLASSIFIERS
from hsssl.evaluate.metrics import average_accuracy, class_accuracy, confusion_matrix, kappa, overall_accuracy
from hsssl.evaluate.score import Score
from hsssl.splits import Split

__all__ = ["FeatureSet", "Protocol", "Trial", "audit_trial", "run_trials", "summarise"]

IntArray = NDArray[np.int64]
# Each holds a copy of the test pixels' features in float64.
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
        Guard band in pixels, under block only; None is the radius of the features' footprint.
    """

    split: str = "block"
    per_class: int = 100
    guard: int | None = None


@dataclass(frozen=True)
class FeatureSet:
    """One kind of features.

    Parameters
    ----------
    method : str
        What they are called.
    values : ndarray, shape (rows x cols, dim)
        Features of every pixel.
    footprint : int
        Side in pixels of the window they come from.
    """

    method: str
    values: NDArray[Any]
    footprint: int


@dataclass(frozen=True)
class Trial:
    """A protocol with the splits drawn for it, one a seed."""

    protocol: Protocol
    seeds: list[int]
    splits: list[Split]


def run_trials(
    sets: Sequence[FeatureSet],
    labels: NDArray[np.integer[Any]],
    trials: Sequence[Trial],
    classifiers: Sequence[str],
    *,
    progress: bool | None = None,
) -> list[Score]:
    """Score the first kind of features, the others as its baselines, by each trial and classifier.

    Parameters
    ----------
    sets : sequence of FeatureSet
        The features in question first.
    labels : ndarray, shape (rows, cols), integer
        Class ids of training and test pixels.
    trials : sequence of Trial
        Splits to run.
    classifiers : sequence of str
        Names in `hsssl.evaluate.CLASSIFIERS`.
    progress : bool or None
        Show a progress bar; None shows it on a terminal.
    """
    confusions = iter(_confusions(sets, labels, trials, classifiers, progress=progress))
    scores = []
    for trial in trials:
        audits = audit_trial(trial, labels, {one.footprint for one in sets})
        for classifier in classifiers:
            of_sets = [
                summarise(one, classifier, trial, labels, [next(confusions) for _ in trial.splits], audits)
                for one in sets
            ]
            scores.append(replace(of_sets[0], baselines={score.method: score for score in of_sets[1:]}))
    return scores


def _confusions(
    sets: Sequence[FeatureSet],
    labels: NDArray[np.integer[Any]],
    trials: Sequence[Trial],
    classifiers: Sequence[str],
    *,
    progress: bool | None,
) -> list[IntArray]:
    """Return confusion matrices by trial, classifier, features and split, the last fastest."""
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]
    from tqdm import tqdm

    flat = labels.ravel().astype(np.int64)
    classes = np.unique(flat[flat > 0]).tolist()
    jobs = [job for trial in trials for job in product(classifiers, sets, trial.splits)]

    def confusion(job: tuple[str, FeatureSet, Split]) -> IntArray:
        classifier, features, split = job
        predict = CLASSIFIERS[classifier](features.values[split.train], flat[split.train])
        return confusion_matrix(flat[split.test], predict(features.values[split.test]), classes)

    # The matrices are small: a thread a job and one BLAS thread in each is far faster than the reverse.
    workers = min(_MOST_WORKERS, os.cpu_count() or 1, len(jobs))
    pool = ThreadPoolExecutor(workers, initializer=threadpool_limits, initargs=(1,))
    with threadpool_limits(1), pool:
        done = tqdm(
            pool.map(confusion, jobs),
            desc="evaluate",
            total=len(jobs),
            unit="fit",
            disable=None if progress is None else not progress,
        )
        return list(done)


def audit_trial(
    trial: Trial, labels: NDArray[np.integer[Any]], footprints: Iterable[int]
) -> dict[int, Audit]:
    """Return the leakage of a trial, mean over its splits, by footprint in pixels."""
    position = float(np.mean([coordinates_accuracy(split, labels) for split in trial.splits]))
    shares = {
        side: float(np.mean([share_in_train_patch(split, side) for split in trial.splits]))
        for side in footprints
    }
    return {side: Audit(position, share) for side, share in shares.items()}


def summarise(
    features: FeatureSet,
    classifier: str,
    trial: Trial,
    labels: NDArray[np.integer[Any]],
    confusions: Sequence[IntArray],
    audits: dict[int, Audit],
) -> Score:
    """Sum up the confusion matrices of all seeds."""
    protocol = trial.protocol
    runs = [
        {
            "method": features.method,
            "classifier": classifier,
            "split": protocol.split,
            "guard": protocol.guard,
            "seed": seed,
            "oa": overall_accuracy(confusion),
            "aa": average_accuracy(confusion),
            "kappa": kappa(confusion),
        }
        for seed, confusion in zip(trial.seeds, confusions, strict=True)
    ]
    classes = tuple(np.unique(labels[labels > 0]).tolist())
    accuracy = np.array([class_accuracy(confusion) for confusion in confusions])  # (seeds, classes)
    tested = ~np.isnan(accuracy).all(axis=0)
    return Score(
        method=features.method,
        classifier=classifier,
        split=protocol.split,
        train_per_class=None if protocol.split == "fixed" else protocol.per_class,
        guard=protocol.guard,
        patch_size=features.footprint,
        runs=runs,
        classes=classes,
        confusion=np.sum(confusions, axis=0),
        per_class={
            label: float(np.nanmean(accuracy[:, number]))
            for number, label in enumerate(classes)
            if tested[number]
        },
        classes_tested=[split.classes_tested for split in trial.splits],
        audit=audits[features.footprint],
        baselines={},
    )
