"""The teacher: a moving average of a student, never trained by gradients."""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor, nn

__all__ = ["Teacher", "cosine_momentum"]


class Teacher(nn.Module):
    """Hold a copy of ``student`` that follows it as an exponential moving average.

    Parameters
    ----------
    student : nn.Module
        The module to copy; the teacher shares no tensor with it.
    """

    def __init__(self, student: nn.Module) -> None:
        super().__init__()
        self.module = copy.deepcopy(student).requires_grad_(False)

    @torch.no_grad()
    def forward(self, *inputs: Tensor) -> Tensor:
        """Return the copy's output, without a graph."""
        out: Tensor = self.module(*inputs)
        return out

    @torch.no_grad()
    def update(self, student: nn.Module, momentum: float) -> None:
        """Move weights to ``momentum * teacher + (1 - momentum) * student``; buffers stay the copy's own."""
        ours: list[Tensor] = list(self.module.parameters())
        theirs: list[Tensor] = list(student.parameters())
        torch._foreach_lerp_(ours, theirs, 1 - momentum)


def cosine_momentum(base: float, progress: float) -> float:
    """Return the momentum at ``progress`` in 0 ... 1, from ``base`` to 1 along a cosine (BYOL, eq. 3)."""
    return 1 - (1 - base) * (math.cos(math.pi * progress) + 1) / 2
