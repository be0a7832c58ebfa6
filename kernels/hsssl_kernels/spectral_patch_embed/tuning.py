"""What `python -m hsssl_kernels.tune` times for the patch embedding, and the tiles it tries."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product

import torch
from torch import Tensor

from hsssl_kernels.spectral_patch_embed.registered import embed, weight_grad
from hsssl_kernels.spectral_patch_embed.work import Work
from hsssl_kernels.tile import Tile

__all__ = ["patch_embed_calls", "patch_embed_candidates"]

_BANDS, _GROUP, _PATCH, _SIDE = 200, 10, 8, 32


def patch_embed_calls(
    kernel: str, rows: int, columns: int, dtype: torch.dtype, device: str = "cuda"
) -> Callable[[str], Tensor]:
    """Return "patch_embed" or "patch_embed_bwd" on int16 samples of some 4 ``rows`` tokens, by backend.

    With "_some" in its name it is of a quarter of them, with "_more" with LayerNorm.
    """
    g = torch.Generator().manual_seed(0)
    batch = max(1, 4 * rows // (_BANDS // _GROUP * (_SIDE // _PATCH) ** 2))
    x = torch.randint(0, 10_000, (batch, _SIDE, _SIDE, _BANDS), generator=g, dtype=torch.int16).to(device)
    mean, scale = torch.full((_BANDS,), 5e3, device=device), torch.full((_BANDS,), 3e-4, device=device)
    work = Work(x, None, mean, scale, None, None, None, _PATCH, _GROUP, 0)
    if kernel.endswith("some"):
        order = torch.rand(batch, work.kept, generator=g).argsort(1)
        work = work._replace(visible=order[:, : work.kept // 4].contiguous().to(device))
    weight = (torch.randn(1, columns, work.values, generator=g) * work.values**-0.5).to(device, dtype)
    gradient = torch.randn(batch, work.kept, columns, generator=g).to(device, dtype)

    ones = torch.ones(columns, dtype=dtype, device=device) if kernel.endswith("more") else None

    def forward(backend: str) -> Tensor:
        tokens: Tensor = embed(*work, weight, None, ones, ones, 1e-5, False, backend)[0]
        return tokens

    def backward(backend: str) -> Tensor:
        total: Tensor = weight_grad(*work, gradient, False, 1, backend)[0]
        return total

    return backward if "bwd" in kernel else forward


def patch_embed_candidates(kernel: str, columns: int, size: int) -> Iterator[Tile]:
    """Yield tiles to try for D = ``columns``: rows, columns of D and chunk of K, or D, K and tokens."""
    whole = min(256, max(64, 1 << (columns - 1).bit_length()))
    backward = "bwd" in kernel
    high = (64, 128, 256) if backward else (32, 64, 128)
    wide = (64, 128) if backward else dict.fromkeys((64, 128, whole))
    for m, n, k, warps, stages in product(high, wide, (32, 64), (4, 8), (1, 2, 3)):
        if m * n <= (32768 if size == 2 else 8192):
            yield Tile(m, n, k, 0, warps, stages)
