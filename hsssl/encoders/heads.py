"""Projector and predictor: the two-layer networks between an encoder and a loss."""

from __future__ import annotations

from torch import nn

__all__ = ["mlp_head"]


def mlp_head(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    """Return linear - batch norm - ReLU - linear, as in SimCLR and BYOL: (B, inputs) to (B, outputs)."""
    return nn.Sequential(
        nn.Linear(inputs, hidden), nn.BatchNorm1d(hidden), nn.ReLU(inplace=True), nn.Linear(hidden, outputs)
    )
