"""The queue: embeddings of past batches, first in, first out."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hsssl.methods.ranks import all_rows

__all__ = ["Queue"]


class Queue(nn.Module):
    """Hold the last ``size`` rows that were pushed; before that, random unit rows.

    Rows and position are buffers, so a checkpoint holds them. With several ranks each pushes the
    rows of all, and the queues stay alike.

    Parameters
    ----------
    size : int
        Number of rows.
    dim : int
        Length D of a row.
    """

    rows: Tensor
    position: Tensor
    pushed: Tensor

    def __init__(self, size: int, dim: int) -> None:
        super().__init__()
        self.register_buffer("rows", F.normalize(torch.randn(size, dim), dim=1))
        self.register_buffer("position", torch.zeros((), dtype=torch.int64))
        self.register_buffer("pushed", torch.zeros((), dtype=torch.int64))  # how many, ever

    @property
    def filled(self) -> Tensor:
        """The rows that were pushed, in place of random ones: up to ``size`` of them (n, D)."""
        return self.rows[: int(self.pushed)]

    @torch.no_grad()
    def push(self, rows: Tensor) -> None:
        """Let ``rows`` (n, D) of this rank, and those of the others, take the place of the oldest."""
        size = len(self.rows)
        new = all_rows(rows)[-size:].to(self.rows.dtype)
        places = torch.arange(len(new), device=new.device).add_(self.position).remainder_(size)
        self.rows[places] = new
        self.position.add_(len(new)).remainder_(size)
        self.pushed.add_(len(new))
