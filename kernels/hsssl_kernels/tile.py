"""The shape of a program's work, and how it is compiled."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["Tile"]


class Tile(NamedTuple):
    """Work of one program: rows and columns of S, columns of x and y at a time, columns of out."""

    block_m: int
    block_n: int
    block_d: int
    block_o: int
    warps: int
    stages: int

    def options(self) -> dict[str, int | bool]:
        """Return the compiler's options."""
        # its default changes in Triton 3.10
        return {"num_warps": self.warps, "num_stages": self.stages, "enable_fp_fusion": True}
