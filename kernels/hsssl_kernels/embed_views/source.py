"""What views are drawn from, and how their tokens are cut."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from hsssl_kernels.parallel import run_apart

__all__ = ["Source", "run_parts"]

# Values that are worth a thread's start.
_PART = 2**20


class Source(NamedTuple):
    """What is drawn from, and how tokens are cut."""

    cube: Tensor  # (rows, cols, C)
    centres: Tensor  # (B, 2) int64
    mean: Tensor  # (C,) float32, as the scale
    scale: Tensor
    ids: Tensor | None  # (B,) int64
    valid: Tensor | None  # (rows, cols) bool
    visible: Tensor | None  # (2, B, V) int64
    patch_size: int
    strengths: list[float]
    seed: int
    step: int
    patch: int
    group: int

    @property
    def groups(self) -> int:
        """Groups of bands, G."""
        return -(-self.cube.shape[2] // self.group)

    @property
    def space(self) -> int:
        """Tokens of one group, S."""
        return (self.patch_size // self.patch) ** 2

    @property
    def tokens(self) -> int:
        """Tokens of a view that are computed."""
        return self.groups * self.space if self.visible is None else self.visible.shape[2]


def run_parts(source: Source, part: Callable[[slice], None], alone: bool = False) -> None:
    """Call ``part`` for samples of the batch: on a CPU in threads, unless they are to stay alone."""
    batch, values = len(source.centres), source.cube.shape[2] * source.patch_size**2
    threads = 1 if alone or source.cube.device.type != "cpu" else torch.get_num_threads()
    # four parts a thread, so that one held up by another program leaves work to the others
    parts = 4 * threads if threads > 1 and 2 * batch * values >= threads * _PART else 1
    size = max(1, -(-batch // parts))
    run_apart(part, [slice(i, min(i + size, batch)) for i in range(0, max(1, batch), size)], threads)
