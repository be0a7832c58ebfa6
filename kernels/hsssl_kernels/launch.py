"""Launch parameters of every kernel: a table, read at launch, never tuned while a program runs.

`python -m hsssl_kernels.tune` times candidates on the GPU at hand and rewrites `table.py`.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from hsssl_kernels.dispatch import interpreting
from hsssl_kernels.table import TABLE
from hsssl_kernels.tile import Tile

__all__ = [
    "PROGRAMS",
    "TABLE",
    "Tile",
    "architecture",
    "row_block",
    "shape_class",
    "splits_for",
    "tile_for",
]


# Small tiles for Triton's interpreter, one that holds all columns and one that goes in chunks. Both passes
# use the same: NumPy's matrix product rounds by the shape of its blocks, a GPU's by the columns alone.
for _bytes in (2, 4):
    TABLE["lse_fwd", "interpreter", _bytes] = [
        (64, Tile(64, 32, 64, 0, 4, 1)),
        (1024, Tile(32, 64, 32, 0, 4, 1)),
    ]
    TABLE["lse_bwd", "interpreter", _bytes] = [
        (64, Tile(64, 32, 64, 64, 4, 1)),
        (1024, Tile(32, 64, 32, 64, 4, 1)),
    ]
    for _name in ("lse_fwd", "lse_bwd"):
        TABLE[f"{_name}_classes", "interpreter", _bytes] = TABLE[_name, "interpreter", _bytes]
    TABLE["patch_embed", "interpreter", _bytes] = [
        (64, Tile(32, 64, 32, 0, 4, 1)),
        (1024, Tile(32, 64, 64, 0, 4, 1)),
    ]
    TABLE["patch_embed_bwd", "interpreter", _bytes] = [(1024, Tile(64, 32, 32, 0, 4, 1))]
    for _name in ("patch_embed_some", "patch_embed_more"):
        TABLE[_name, "interpreter", _bytes] = TABLE["patch_embed", "interpreter", _bytes]
    TABLE["patch_embed_bwd_some", "interpreter", _bytes] = TABLE["patch_embed_bwd", "interpreter", _bytes]
    TABLE["express_fwd", "interpreter", _bytes] = [(1024, Tile(32, 64, 32, 64, 4, 1))]
    TABLE["express_bwd", "interpreter", _bytes] = [(1024, Tile(32, 64, 32, 64, 4, 1))]
    TABLE["express_top", "interpreter", _bytes] = [(1024, Tile(16, 64, 32, 0, 4, 1))]

# Programs that fill the device, about two a processor: short grids are split over columns up to this.
PROGRAMS = {"sm_90": 264, "sm_80": 216, "gfx942": 608, "interpreter": 4}


def architecture(x: Tensor) -> str:
    """Return the row of the table for the tensor's device: "sm_90", "sm_80", "gfx942", "interpreter"."""
    if interpreting():
        return "interpreter"
    return _device_architecture(x.device.index or 0)


@cache
def _device_architecture(index: int) -> str:
    if torch.version.hip is not None:
        return "gfx942"
    # Newer than Hopper keeps its tiles; older than it, consumer cards included, keeps Ampere's,
    # which fit in the 99 KiB of shared memory that all of them have.
    major, _ = torch.cuda.get_device_capability(index)
    return "sm_90" if major in (9, 10) else "sm_80"


def shape_class(kernel: str, arch: str, dtype: torch.dtype, columns: int) -> int:
    """Return which entry of the table serves D = ``columns``."""
    entries = TABLE[kernel, arch, dtype.itemsize]
    return next(i for i, (largest, _) in enumerate(entries) if columns <= largest)


def tile_for(kernel: str, arch: str, dtype: torch.dtype, columns: int) -> Tile:
    """Return the tile for D = ``columns``."""
    return TABLE[kernel, arch, dtype.itemsize][shape_class(kernel, arch, dtype, columns)][1]


def splits_for(tile: Tile, arch: str, programs: int, m: int) -> tuple[int, int]:
    """Return over how many programs to split the m columns, and the columns of each."""
    blocks = -(-m // tile.block_n)
    wanted = max(1, min(PROGRAMS[arch] // programs, blocks))
    span = -(-blocks // wanted) * tile.block_n
    return -(-m // span), span


def row_block(columns: int) -> tuple[int, int]:
    """Return (rows, columns) of a program that reads whole rows: about 4096 values in all."""
    width = max(16, 1 << (columns - 1).bit_length())
    return max(1, 4096 // width), width
