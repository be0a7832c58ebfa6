"""The result of an evaluation: accuracies of every seed, their means, and the audit beside them."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hsssl.evaluate.audit import Audit

__all__ = ["Row", "Score"]

#: One seed of one method: method, classifier, split, guard, seed, oa, aa, kappa.
Row = dict[str, Any]


@dataclass(frozen=True, eq=False)
class Score:
    """Accuracies of one classifier on one kind of features over several splits, all in 0 ... 1.

    Parameters
    ----------
    method : str
        "encoder", or the name of a hand-made baseline.
    classifier : str
        A name in `hsssl.evaluate.CLASSIFIERS`.
    split : str
        "random", "block" or "fixed".
    train_per_class : int or None
        Training pixels a class (at most, under block); None for a fixed split.
    guard : int or None
        Width of the guard band in pixels; None for splits other than block.
    patch_size : int
        Side in pixels of the window a pixel's features come from.
    runs : list of dict
        One a seed: method, classifier, split, guard, seed, oa, aa, kappa.
    classes : tuple of int
        All class ids, in the order of the confusion matrix.
    confusion : ndarray, shape (classes, classes), int64
        Pixels by true (rows) and predicted (columns) class, summed over seeds.
    per_class : dict of int to float
        Accuracy of each class, mean over the seeds that test it; untested classes are left out.
    classes_tested : list of tuple of int
        For each seed the classes that have test pixels.
    audit : Audit
        Leakage, mean over seeds.
    baselines : dict of str to Score
        The hand-made features under the same classifier and splits.
    """

    method: str
    classifier: str
    split: str
    train_per_class: int | None
    guard: int | None
    patch_size: int
    runs: list[Row]
    classes: tuple[int, ...]
    confusion: NDArray[np.int64]
    per_class: dict[int, float]
    classes_tested: list[tuple[int, ...]]
    audit: Audit
    baselines: dict[str, Score]

    @property
    def rows(self) -> list[Row]:
        """One dict a method and seed, the baselines' after its own."""
        return [*self.runs, *(row for score in self.baselines.values() for row in score.runs)]

    @property
    def oa(self) -> float:
        """Overall accuracy, mean over seeds."""
        return self._mean("oa")

    @property
    def aa(self) -> float:
        """Average accuracy over the classes tested, mean over seeds."""
        return self._mean("aa")

    @property
    def kappa(self) -> float:
        """Cohen's kappa, mean over seeds."""
        return self._mean("kappa")

    @property
    def oa_std(self) -> float:
        """Standard deviation of the overall accuracy over seeds (n - 1); 0 for one seed."""
        return self._std("oa")

    @property
    def aa_std(self) -> float:
        """Standard deviation of the average accuracy over seeds (n - 1); 0 for one seed."""
        return self._std("aa")

    @property
    def kappa_std(self) -> float:
        """Standard deviation of kappa over seeds (n - 1); 0 for one seed."""
        return self._std("kappa")

    def to_json(self) -> str:
        """Return everything as JSON text; a measure that is not defined is null."""
        return json.dumps(_plain(self._record()), indent=1, allow_nan=False)

    def __str__(self) -> str:
        scores = [self, *self.baselines.values()]
        head = ["method", "classifier", "OA, %", "AA, %", "kappa, %", "test in patch, %"]
        body = [
            [
                score.method,
                score.classifier,
                *(score._cell(measure) for measure in ("oa", "aa", "kappa")),
                f"{100 * score.audit.test_in_train_patch:.1f} ({score.patch_size}x{score.patch_size})",
            ]
            for score in scores
        ]
        return "\n".join([self._title(), *_aligned([head, *body]), self._audit_line()])

    def _mean(self, measure: str) -> float:
        return float(np.mean([run[measure] for run in self.runs]))

    def _std(self, measure: str) -> float:
        return float(np.std([run[measure] for run in self.runs], ddof=1)) if len(self.runs) > 1 else 0.0

    def _cell(self, measure: str) -> str:
        spread = f" ± {100 * self._std(measure):.1f}" if len(self.runs) > 1 else ""
        return f"{100 * self._mean(measure):.1f}{spread}"

    def _title(self) -> str:
        drawn = {
            "random": f", {self.train_per_class} training pixels a class",
            "block": f", at most {self.train_per_class} training pixels a class, guard {self.guard} px",
        }
        tested = sorted({len(classes) for classes in self.classes_tested})
        number = f"{tested[0]}" if len(tested) == 1 else f"{tested[0]} to {tested[-1]}"
        seeds = f"{len(self.runs)} seed" + ("s, mean ± std" if len(self.runs) > 1 else "")
        return (
            f"{self.split} split{drawn.get(self.split, '')}; {number} of {len(self.classes)} classes "
            f"tested; {seeds}"
        )

    def _audit_line(self) -> str:
        inside = 100 * self.audit.test_in_train_patch
        return (
            f"audit: position alone (1-NN on row, column) scores OA {100 * self.audit.coordinates_oa:.1f} %; "
            f"{inside:.1f} % of test pixels lie in a training patch ({self.patch_size}x{self.patch_size})"
        )

    def _record(self) -> dict[str, Any]:
        measures = ("oa", "oa_std", "aa", "aa_std", "kappa", "kappa_std")
        settings = ("method", "classifier", "split", "train_per_class", "guard", "patch_size")
        return {
            **{name: getattr(self, name) for name in (*settings, *measures)},
            "audit": asdict(self.audit),
            "per_class": {str(label): accuracy for label, accuracy in self.per_class.items()},
            "classes": self.classes,
            "confusion": self.confusion.tolist(),
            "classes_tested": self.classes_tested,
            "rows": self.rows,
            "baselines": {name: score._record() for name, score in self.baselines.items()},
        }


def _aligned(lines: list[list[str]]) -> list[str]:
    """Pad the cells of each column to one width."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    ]


def _plain(value: Any) -> Any:
    """Replace what JSON cannot say: numbers that are not finite become None."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
