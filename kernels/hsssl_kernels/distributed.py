"""What every rank must see of the others: unit rows and log-sum-exps, never gradients."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

# torch 2.13 renamed it; earlier versions know the old name only
_gather_into: Any = getattr(dist, "all_gather_single", getattr(dist, "all_gather_into_tensor", None))

__all__ = ["check_even", "gather", "mean_over_ranks", "rank_and_world"]


def rank_and_world(gather_distributed: bool) -> tuple[int, int]:
    """Return (rank, world size); (0, 1) unless gathering is asked for and a process group is up."""
    if gather_distributed and dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


def check_even(op: str, x: Tensor) -> None:
    """Refuse, on every rank alike, inputs (n, D) whose shape or dtype differ between ranks."""
    mine = torch.tensor([*x.shape, x.element_size(), x.dtype == torch.bfloat16], device=x.device)
    everyone = gather(mine.unsqueeze(0)).tolist()
    if any(other != everyone[0] for other in everyone):
        shapes = [tuple(other[: x.ndim]) for other in everyone]
        raise ValueError(
            f"{op}: every rank must bring the same batch with `gather_distributed`, got shapes {shapes} "
            "by rank; drop the last incomplete batch"
        )


def gather(x: Tensor) -> Tensor:
    """Return the rows of all ranks, in order of rank: (n, ...) -> (world n, ...)."""
    x = x.contiguous()
    everyone = x.new_empty(dist.get_world_size() * x.shape[0], *x.shape[1:])
    _gather_into(everyone, x)
    return everyone


def mean_over_ranks(loss: Tensor) -> Tensor:
    """Give a rank's loss the value of the mean over ranks and leave its gradient alone."""
    everyone = gather(loss.detach().reshape(1))
    return loss + (everyone.mean() - loss.detach())
