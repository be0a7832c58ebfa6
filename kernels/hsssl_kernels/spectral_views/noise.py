"""White noise of the views: by Philox for every element, and, for the CPU, by rows of a table."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from hsssl_kernels.random import mix_bits, normals, philox
from hsssl_kernels.spectral_views.draws import NOISE

__all__ = ["GROUP", "element_noise", "noise_rows", "noise_table"]

# Neighbouring pixels whose noise, in one band, comes from one Philox call.
GROUP = 8
_TABLE = 1 << 20


def element_noise(key: int, ids: Tensor, bands: int, pixels: int) -> Tensor:
    """Return standard normal numbers (2B, pixels, C), view a first, as the Triton kernel draws them.

    Call ``band ceil(pixels / 8) + pixel // 8`` of Philox gives eight pixels of a band; pixel 8 g + j takes
    the low (j even) or high half of word j // 2. Slow: 2.4 seconds a million calls.
    """
    groups = -(-pixels // GROUP)
    call = torch.arange(bands * groups, device=ids.device)
    view = torch.arange(2, device=ids.device)[:, None, None] + 2 * NOISE
    words = philox(key, call, ids[:, None], ids[:, None] >> 32, view)  # 4 of (2, B, C groups)
    halves = torch.stack([z.view(-1, bands, groups) for word in words for z in normals(word)], 3)
    return halves.flatten(2)[:, :, :pixels].transpose(1, 2)


def noise_rows(words: Tensor, pixels: int, rows: int) -> Tensor:
    """Return (2B, pixels) int64: the row of `noise_table` that each pixel takes.

    The rows of a patch differ, as ``rows``, a power of two, is at least ``pixels``; which they are
    depends on the sample's two words alone.
    """
    start, step = words[:, :1], words[:, 1:] | 1
    return (start + step * torch.arange(pixels, device=words.device)) & (rows - 1)


@lru_cache(maxsize=2)
def noise_table(bands: int, pixels: int, device: torch.device) -> Tensor:
    """Return a table of normal numbers (rows, C), every column of mean 0 and variance 1.

    A million numbers or a little less, and more where four patches are more.
    """
    rows = 1 << max((_TABLE // bands).bit_length() - 1, (4 * pixels - 1).bit_length())
    count = torch.arange(-(-rows * bands // 2), dtype=torch.int32, device=device)
    low, high = normals(mix_bits(count))
    table = torch.cat([low, high])[: rows * bands].view(rows, bands)
    return table.sub_(table.mean(0)).div_(table.std(0, correction=0))
