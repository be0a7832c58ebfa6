"""How many exp2 a GPU takes a second: each program keeps its values in registers and goes over them again."""

from __future__ import annotations

from collections.abc import Callable

import torch
import triton
import triton.language as tl

__all__ = ["launch_exp2"]

_PROGRAMS, _VALUES, _ROUNDS = 8192, 1024, 256


@triton.jit
def _exp2_kernel(x_ptr, rounds, VALUES: tl.constexpr):
    at = tl.program_id(0) * VALUES + tl.arange(0, VALUES)
    x = tl.load(x_ptr + at)
    for _ in range(rounds):
        x = tl.exp2(-x)
    tl.store(x_ptr + at, x)


def launch_exp2() -> tuple[int, Callable[[], None]]:
    """Return how many exp2 a call takes, and the call."""
    x = torch.rand(_PROGRAMS * _VALUES, device="cuda")

    def run() -> None:
        _exp2_kernel[(_PROGRAMS,)](x_ptr=x, rounds=_ROUNDS, VALUES=_VALUES, num_warps=4)

    return _PROGRAMS * _VALUES * _ROUNDS, run
