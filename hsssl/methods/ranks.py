"""The rows of all ranks, with and without gradients, for losses over the statistics of a whole batch."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable

from hsssl_kernels.distributed import gather, rank_and_world

__all__ = ["all_rows"]


def all_rows(x: Tensor) -> Tensor:
    """Return the rows of all ranks in order of rank, (n, ...) -> (ranks n, ...); with one rank, ``x``.

    Gradients flow into this rank's rows only, times the number of ranks: for a loss that every rank
    computes of all rows, the mean over ranks of the parameters' gradients, as DistributedDataParallel
    takes it, is then that of one process with the whole batch. Ranks must bring equal shapes.
    """
    if rank_and_world(gather_distributed=True)[1] == 1:
        return x
    everyone: Tensor = _AllRows.apply(x)  # type: ignore[no-untyped-call]
    return everyone


class _AllRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.rows = len(x)
        return gather(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        start = dist.get_rank() * ctx.rows
        return gradients[0][start : start + ctx.rows] * dist.get_world_size()
