"""Where a token's values lie in its sample: tables that kernels and loops read in place of divisions."""

from __future__ import annotations

from functools import cache, lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["spot_table", "spots_of_values"]


@lru_cache(maxsize=8)
def spots_of_values(patch: int, group: int, first: bool) -> Any:
    """Return row, column and band of a token's values (K 3,), counted from its first, in memory's order."""
    side, band = torch.arange(patch), torch.arange(group)
    if first:
        band, row, col = torch.meshgrid(band, side, side, indexing="ij")
    else:
        row, col, band = torch.meshgrid(side, side, band, indexing="ij")
    return torch.stack([row, col, band], -1).view(-1).numpy()


@cache  # every call asks for the same, and sending it to a GPU waits for it
def spot_table(
    patch: int,
    group: int,
    first: bool,
    strides: tuple[int, ...],
    values: int,
    far: bool,
    device: torch.device,
) -> Tensor:
    """Return row, column and band of each value, and how far it lies from the first (4, ``values``).

    ``strides`` are those of rows, columns and bands. Past K all are 0. In int64 where memory is ``far``.
    """
    spots = torch.from_numpy(spots_of_values(patch, group, first)).view(-1, 3)
    table = torch.cat([spots, (spots * torch.tensor(strides)).sum(1, keepdim=True)], 1).mT
    table = F.pad(table, (0, values - len(spots)))
    return table.to(torch.int64 if far else torch.int32).contiguous().to(device)
