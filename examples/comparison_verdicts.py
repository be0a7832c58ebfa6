"""Who won a comparison and by how much: differences paired over the same splits, with their interval."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import t as student

from hsssl.comparison import estimate
from hsssl.evaluate import BASELINES, CLASSIFIERS

UNTRAINED = "untrained encoder"
POSITION = "position alone"
CONFIDENCE = 0.95

Record = dict[str, Any]
Pair = tuple[str, str]


@dataclass(frozen=True)
class Row:
    """One kind of features: its name and the records of its runs, one a pretraining seed."""

    name: str
    records: Sequence[Record]

    @property
    def pretrained(self) -> bool:
        """Whether an encoder was trained for it."""
        return self.name not in (*BASELINES, UNTRAINED, POSITION)

    def values(self, protocol: str, classifier: str, measure: str = "oa") -> np.ndarray:
        """Return 100 x the measure, (seeds, splits)."""
        found = [record["scores"][self.name][protocol][classifier][measure] for record in self.records]
        return 100 * np.array(found)

    def best(self, protocol: str) -> Pair:
        """Return the name and the classifier with the highest mean OA."""
        return self.name, max(CLASSIFIERS, key=lambda classifier: self.values(protocol, classifier).mean())


@dataclass(frozen=True)
class Gain:
    """Difference in points, mean over splits, and the lower end of its 95 % interval (NaN for one split)."""

    mean: float
    lower: float

    @classmethod
    def of(cls, differences: np.ndarray) -> Gain:
        """Sum up one difference a split."""
        found = estimate(differences)
        if found.seeds < 2:
            return cls(found.mean, math.nan)
        quantile = student.ppf(0.5 + CONFIDENCE / 2, found.seeds - 1)
        return cls(found.mean, found.mean - float(quantile) * found.error)

    def __str__(self) -> str:
        lower = f" (≥ {self.lower:+.1f})" if math.isfinite(self.lower) else ""
        return f"{self.mean:+.1f}{lower}"


class Verdicts:
    """Who won under one protocol, and by how much over the best hand-made baseline."""

    def __init__(self, rows: Sequence[Row], protocol: str) -> None:
        self.protocol = protocol
        # (name, classifier) -> OA of each split, the pretraining seeds averaged within it
        self.by_split = {
            (row.name, classifier): row.values(protocol, classifier).mean(axis=0)
            for row in rows
            for classifier in CLASSIFIERS
        }
        self.pretrained = [pair for row in rows if row.pretrained for pair in self.pairs(row.name)]
        self.baseline = self.highest([pair for name in BASELINES for pair in self.pairs(name)])

    def pairs(self, name: str) -> list[Pair]:
        """Return the features ``name`` with each classifier."""
        return [(name, classifier) for classifier in CLASSIFIERS]

    def highest(self, pairs: Sequence[Pair], but: int | None = None) -> Pair:
        """Return the pair with the highest mean OA, over all splits ``but`` one."""
        others = [split for split in range(len(self.by_split[pairs[0]])) if split != but]
        return max(pairs, key=lambda pair: self.by_split[pair][others].mean())

    def gain(self, pair: Pair, over: Pair | None = None) -> Gain:
        """Return what a pair is ahead of another, of the best hand-made baseline unless told."""
        return Gain.of(self.by_split[pair] - self.by_split[over or self.baseline])

    def cross_chosen(self) -> Gain:
        """Return the gain where the best features for each split are chosen on the other splits."""
        baseline = self.by_split[self.baseline]
        chosen = [self.highest(self.pretrained, but=split) for split in range(len(baseline))]
        return Gain.of(np.array([self.by_split[pair][i] for i, pair in enumerate(chosen)]) - baseline)

    def beating_raw(self, names: Sequence[str], points: float = 15.0) -> list[str]:
        """Return which of ``names`` are ``points`` or more over the raw spectrum, both linear."""
        raw = ("raw spectrum", "linear")
        return [name for name in names if self.gain((name, "linear"), raw).mean >= points]
