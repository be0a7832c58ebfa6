"""Projector and predictor: the small networks between an encoder and a loss."""

from __future__ import annotations

from itertools import pairwise

from torch import nn

__all__ = ["mlp_head"]


def mlp_head(
    inputs: int, hidden: int, outputs: int, *, depth: int = 2, norm_last: bool = False
) -> nn.Sequential:
    """Return linear - batch norm - ReLU - linear, as in SimCLR and BYOL: (B, inputs) to (B, outputs).

    ``depth`` counts the linear layers; ``norm_last`` ends with a batch norm without weights, as in
    SimSiam and MoCo v3.
    """
    sizes = [inputs, *[hidden] * (depth - 1)]
    layers: list[nn.Module] = []
    for before, after in pairwise(sizes):
        layers += [nn.Linear(before, after), nn.BatchNorm1d(after), nn.ReLU(inplace=True)]
    layers.append(nn.Linear(sizes[-1], outputs))
    if norm_last:
        layers.append(nn.BatchNorm1d(outputs, affine=False))
    return nn.Sequential(*layers)
