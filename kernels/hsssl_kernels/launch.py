"""Launch parameters of every kernel: a table, read at launch, never tuned while a program runs.

`python -m hsssl_kernels.tune` times candidates on the GPU at hand and prints rows for this table.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from hsssl_kernels.dispatch import interpreting

__all__ = ["PROGRAMS", "TABLE", "Tile", "architecture", "splits_for", "tile_for"]


class Tile(NamedTuple):
    """Shape of a program's work: rows, columns of S, columns of x and y at a time, columns of out."""

    block_m: int
    block_n: int
    block_d: int
    block_o: int
    warps: int
    stages: int
    programs: int = 1

    def options(self) -> dict[str, int | bool]:
        """Return the compiler's options."""
        return {"num_warps": self.warps, "num_stages": self.stages, "enable_fp_fusion": True}
