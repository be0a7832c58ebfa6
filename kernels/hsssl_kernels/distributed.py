"""What every rank must see of the others: unit rows and log-sum-exps, never gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from hsssl_kernels.dispatch import register

# torch 2.13 renamed it; earlier versions know the old name only
_gather_into: Any = getattr(dist, "all_gather_single", getattr(dist, "all_gather_into_tensor", None))
_SAID = 1024  # bytes of what a rank says of its input
_FAILED = "failed: "
T = TypeVar("T")

__all__ = ["described", "gather", "mean_over_ranks", "rank_and_world", "together"]


def rank_and_world(gather_distributed: bool) -> tuple[int, int]:
    """Return (rank, world size); (0, 1) unless gathering is asked for and a process group is up.

    What is neither True nor False counts as asked for, so that every rank hears of its refusal.
    """
    if gather_distributed is not False and dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


def together(op: str, world: int, check: Callable[[], T], say: Callable[[T], str]) -> T:
    """Return what ``check`` finds in this rank's input, or raise on every rank if it fails on any.

    A rank that raised alone would leave the others waiting for it until the process group's time-out.
    ``say`` puts into words what must be equal on all ranks. While torch.compile traces, ranks are
    not compared: each checks its own input.
    """
    if world == 1 or torch.compiler.is_compiling():
        return check()
    try:
        found = check()
    except (TypeError, ValueError) as failure:
        _everyone_says(_FAILED + str(failure))
        raise
    everyone = _everyone_says(say(found))
    for rank, said in enumerate(everyone):
        if said.startswith(_FAILED):
            raise ValueError(f"{op}: rank {rank} cannot go on, so no rank does; {said.removeprefix(_FAILED)}")
    if len(set(everyone)) > 1:
        listed = "; ".join(f"rank {rank}: {said}" for rank, said in enumerate(everyone))
        raise ValueError(
            f"{op}: every rank must bring the same batch with `gather_distributed`, got {listed}; "
            "drop the last incomplete batch, and give all ranks the same settings"
        )
    return found


def described(x: Tensor, temperature: Tensor, **flags: bool) -> str:
    """Return the batch's shape and dtype, the temperature and the settings, as ranks compare them."""
    kind = "learnable" if temperature.requires_grad else "fixed"
    settings = "".join(f", {name}={value}" for name, value in flags.items())
    tracked = "with" if torch.is_grad_enabled() else "without"
    return (
        f"{tuple(x.shape)} {x.dtype}, {kind} temperature {float(temperature.detach())}{settings}, "
        f"{tracked} gradients"
    )


def gather(x: Tensor) -> Tensor:
    """Return the rows of all ranks, in order of rank: (n, ...) -> (world n, ...)."""
    everyone: Tensor = _gather_op(x)
    return everyone


def mean_over_ranks(loss: Tensor) -> Tensor:
    """Give a rank's loss the value of the mean over ranks and leave its gradient alone."""
    return loss + (gather(loss.detach().reshape(1)).mean() - loss.detach())


def _everyone_says(text: str) -> list[str]:
    """Return the texts of all ranks, in order of rank."""
    # NCCL knows GPUs only; every other process group has a way for the CPU
    device = torch.device("cuda" if dist.get_backend() == "nccl" else "cpu")
    letters = text.encode()[:_SAID].ljust(_SAID, b"\0")
    everyone = gather(torch.tensor([list(letters)], dtype=torch.uint8, device=device)).cpu()
    return [bytes(row.tolist()).rstrip(b"\0").decode(errors="replace") for row in everyone]


def _gather(x: Tensor) -> Tensor:
    x = x.contiguous()
    everyone = x.new_empty(dist.get_world_size() * x.shape[0], *x.shape[1:])
    _gather_into(everyone, x)
    return everyone


def _gather_fake(x: Tensor) -> Tensor:
    return x.new_empty(dist.get_world_size() * x.shape[0], *x.shape[1:])


_gather_op = register("gather(Tensor x) -> Tensor", _gather, _gather_fake)
