"""Collapse: features that no longer differ between samples, watched at every logged step."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from hsssl.messages import log

__all__ = ["CollapseMonitor", "FeatureHealth", "feature_health"]


class FeatureHealth(NamedTuple):
    """Spread and dimension of a batch of features."""

    std: float
    effective_rank: float


@torch.no_grad()
def feature_health(features: Tensor) -> FeatureHealth:
    """Measure how far a batch of features is from collapse.

    ``std`` is the mean over dimensions of the standard deviation of the unit-length features, times
    sqrt(D): 1 for features spread evenly over the sphere, 0 where all are the same.
    ``effective_rank`` is exp(entropy) of the normalised singular values of the centred features: the
    number of directions in use.

    Parameters
    ----------
    features : Tensor, shape (B, D)
        Embeddings of B samples.

    Returns
    -------
    FeatureHealth
        ``std`` and ``effective_rank``.

    References
    ----------
    Roy & Vetterli 2007, The effective rank (EUSIPCO).
    Chen & He 2021, Exploring Simple Siamese Representation Learning, arXiv 2011.10566 (the std).
    """
    unit = torch.nn.functional.normalize(features.float(), dim=1)
    std = unit.std(0, correction=0).mean().item() * features.shape[1] ** 0.5
    centred = (unit - unit.mean(0)).double()
    energy = torch.linalg.eigvalsh(centred.T @ centred).clamp_min(0)
    singular = energy.sqrt()
    if not singular.sum() > 1e-12:
        return FeatureHealth(std, 1.0)
    share = singular / singular.sum()
    return FeatureHealth(std, torch.special.entr(share).sum().exp().item())


class CollapseMonitor:
    """Warn once when std falls under 10 % of its first value, or the effective rank under 4.

    Parameters
    ----------
    rows : iterable of mappings
        Rows of metrics.jsonl so far; the first one holds the starting values.
    """

    def __init__(self, rows: Iterable[Mapping[str, Any]] = ()) -> None:
        first = next(iter(rows), None)
        self.start = FeatureHealth(first["feature_std"], first["effective_rank"]) if first else None
        self.warned = False

    def check(self, step: int, health: FeatureHealth) -> None:
        """Compare the features of ``step`` with those of the first logged step."""
        self.start = self.start or health
        low_std = health.std < 0.1 * self.start.std
        low_rank = health.effective_rank < min(4.0, 0.5 * self.start.effective_rank)
        if (low_std or low_rank) and not self.warned:
            self.warned = True
            log.warning(
                "step %d: the features are collapsing (std %.4f, at the start %.4f; effective rank %.1f, at "
                "the start %.1f); the loss does not show it. Try a lower learning rate or another method",
                step,
                health.std,
                self.start.std,
                health.effective_rank,
                self.start.effective_rank,
            )
