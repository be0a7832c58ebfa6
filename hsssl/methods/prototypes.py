"""Prototypes: unit vectors that embeddings are compared with, learnt by gradients."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["Prototypes"]


class Prototypes(nn.Module):
    """Return the cosines of embeddings (B, D) with ``count`` learnt directions, (B, count).

    Until `thaw` is called no gradient reaches the directions: a start at which they do not run
    after embeddings that mean nothing yet. Whether they move is a buffer, so a checkpoint holds it.

    Parameters
    ----------
    dim : int
        Length D of an embedding.
    count : int
        Number of prototypes.
    """

    moving: Tensor

    def __init__(self, dim: int, count: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(count, dim))
        self.register_buffer("moving", torch.zeros(()))

    def forward(self, z: Tensor) -> Tensor:
        """Return the cosines in float32, under mixed precision too: they are divided by temperatures."""
        # a gradient of 0, not none: DistributedDataParallel waits for every parameter
        weight = self.weight.detach() + self.moving * (self.weight - self.weight.detach())
        with torch.autocast(z.device.type, enabled=False):
            return F.normalize(z.float(), dim=1) @ F.normalize(weight, dim=1).T

    def thaw(self) -> None:
        """Let gradients move the prototypes from now on."""
        self.moving.fill_(1.0)
