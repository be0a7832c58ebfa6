"""Scores side by side: means and standard errors over seeds, and who won by how much on the same splits."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = [
    "ENCODER",
    "ROW_KEYS",
    "Comparison",
    "Estimate",
    "Verdict",
    "compare",
    "estimate",
    "label",
    "score_rows",
]

ENCODER = "encoder"
ROW_KEYS = ("method", "classifier", "split", "guard", "seed", "oa", "aa", "kappa")
_MEASURES = ("oa", "aa", "kappa")
_LABELS = {"knn": "k-NN", "svm": "SVM", "linear": "linear", ENCODER: "encoder (pretrained)"}

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds with its standard error (NaN with fewer than two seeds)."""

    mean: float
    error: float
    seeds: int


@dataclass(frozen=True)
class Verdict:
    """The encoder's best classifier against the best baseline; ``gain`` is paired by seed."""

    encoder: str
    baseline: str
    baseline_method: str
    gain: Estimate
    ahead: int

    @property
    def word(self) -> str:
        """Won or lost by more than one standard error of the paired difference, else tied."""
        # A single split has no standard error: its difference counts as it is.
        margin = self.gain.error if math.isfinite(self.gain.error) else 0.0
        if abs(self.gain.mean) <= margin:
            return "Tied"
        return "Won" if self.gain.mean > 0 else "Lost"


@dataclass(frozen=True)
class Comparison:
    """All rows of one protocol, that is, of one way of splitting.

    Parameters
    ----------
    split : str
        "random", "block" or "fixed".
    guard : int or None
        Width of the guard band in pixels.
    rows : tuple of mapping
        One a method, classifier and seed, with the keys `ROW_KEYS`.
    """

    split: str
    guard: int | None
    rows: tuple[Row, ...]

    @property
    def name(self) -> str:
        """What to call the protocol."""
        return (
            f"{self.split} split, guard {self.guard} px" if self.split == "block" else f"{self.split} split"
        )

    @property
    def methods(self) -> list[str]:
        """Methods, the encoder first, the others in the order of the rows."""
        names = list(dict.fromkeys(str(row["method"]) for row in self.rows))
        return sorted(names, key=lambda name: name != ENCODER)

    @property
    def classifiers(self) -> list[str]:
        """Classifiers in the order of the rows."""
        return list(dict.fromkeys(str(row["classifier"]) for row in self.rows))

    def by_seed(self, method: str, classifier: str, measure: str = "oa") -> dict[int, float]:
        """Return the measure of each seed."""
        return {
            int(row["seed"]): math.nan if row[measure] is None else float(row[measure])
            for row in self.rows
            if row["method"] == method and row["classifier"] == classifier
        }

    def cell(self, method: str, classifier: str, measure: str = "oa") -> Estimate | None:
        """Return the mean over the seeds, or None if the pair was not run."""
        values = self.by_seed(method, classifier, measure)
        return estimate(values.values()) if values else None

    def best(self, methods: Iterable[str]) -> tuple[str, str] | None:
        """Return the method and classifier with the highest mean OA."""
        means = {
            (method, classifier): cell.mean
            for method in methods
            for classifier in self.classifiers
            if (cell := self.cell(method, classifier)) is not None
        }
        return max(means, key=lambda pair: means[pair]) if means else None

    def verdict(self) -> Verdict | None:
        """Compare the encoder's best with the best baseline over the seeds both have.

        Returns
        -------
        Verdict or None
            None if there is no encoder, no baseline, or no seed in common.
        """
        encoder = self.best([ENCODER])
        baseline = self.best(method for method in self.methods if method != ENCODER)
        if encoder is None or baseline is None:
            return None
        ours, theirs = self.by_seed(*encoder), self.by_seed(*baseline)
        gains = [ours[seed] - theirs[seed] for seed in ours if seed in theirs]
        if not gains:
            return None
        ahead = sum(gain > 0 for gain in gains)
        return Verdict(encoder[1], baseline[1], baseline[0], estimate(gains), ahead)


def label(name: str) -> str:
    """Return what to call a method or classifier in a table."""
    return _LABELS.get(name, name.replace("_", " "))


def estimate(values: Iterable[float]) -> Estimate:
    """Return mean and standard error of the mean, s / sqrt(n) with n - 1 degrees of freedom.

    Examples
    --------
    >>> estimate([0.25, 0.75])
    Estimate(mean=0.5, error=0.25, seeds=2)
    """
    array = np.array(list(values), dtype=np.float64)
    error = float(array.std(ddof=1) / math.sqrt(len(array))) if len(array) > 1 else math.nan
    return Estimate(float(array.mean()), error, len(array))


def score_rows(scores: Iterable[Any]) -> list[dict[str, Any]]:
    """Return the rows of all scores with the keys `ROW_KEYS` as plain numbers, each once.

    Parameters
    ----------
    scores : iterable of Score
        What `hsssl.evaluate` returned; their ``rows`` hold the baselines too.

    Returns
    -------
    list of dict
        In the order given; NaN (a measure that is not defined) is None.

    Raises
    ------
    ValueError
        If a row lacks a key, or two rows for the same method, classifier, split and seed differ.
    """
    rows: dict[tuple[Any, ...], dict[str, Any]] = {}
    for row in (row for score in scores for row in score.rows):
        if missing := [key for key in ROW_KEYS if key not in row]:
            raise ValueError(f"scores: a row must have {', '.join(ROW_KEYS)}; it lacks {', '.join(missing)}")
        plain = {key: _plain(row[key]) for key in ROW_KEYS}
        key = tuple(plain[name] for name in ROW_KEYS if name not in _MEASURES)
        if rows.setdefault(key, plain) != plain:
            raise ValueError(f"scores: two results for {key}; evaluate each protocol once")
    return list(rows.values())


def compare(rows: Iterable[Row]) -> list[Comparison]:
    """Group rows by split and guard, in the order of the rows."""
    groups: dict[tuple[str, int | None], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["split"], row["guard"]), []).append(row)
    return [Comparison(split, guard, tuple(group)) for (split, guard), group in groups.items()]


def _plain(value: Any) -> Any:
    number = value.item() if isinstance(value, np.generic) else value
    return None if isinstance(number, float) and not math.isfinite(number) else number
