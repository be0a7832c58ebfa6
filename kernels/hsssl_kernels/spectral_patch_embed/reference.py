"""Tokens of band groups and space in plain torch."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["cut_windows", "spectral_patch_embed_reference"]


def spectral_patch_embed_reference(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    patch: int,
    group: int,
    mean: Tensor | None = None,
    scale: Tensor | None = None,
    position: Tensor | None = None,
    wavelengths_embedding: Tensor | None = None,
    visible: Tensor | None = None,
    norm: tuple[Tensor, Tensor, float] | None = None,
    centres: Tensor | None = None,
    window: int | None = None,
    bands_last: bool = False,
) -> Tensor:
    """Return the tokens of `spectral_patch_embed` (B, G S or V, D); differentiable by autograd."""
    if centres is not None and window is not None:
        x = cut_windows(x, centres, window)
    elif not bands_last:
        x = x.permute(0, 2, 3, 1)
    x = x.to(torch.float64 if weight.dtype == torch.float64 else torch.float32)  # (B, H, W, C)
    x = x if mean is None else x - mean
    x = (x if scale is None else x * scale).to(weight.dtype)
    batch, height, width, bands = x.shape
    high, wide = height // patch, width // patch
    x = F.pad(x, (0, -bands % group)).view(batch, high, patch, wide, patch, -1, group)
    x = x.permute(0, 5, 1, 3, 2, 4, 6).flatten(4).flatten(2, 3)  # (B, G, S, K)
    tokens = x @ weight.mT  # (B, G, S, D)
    for side, dim in ((bias, -2), (position, 0), (wavelengths_embedding, -2)):
        if side is not None:
            tokens = tokens + (side if side.ndim == 1 else side.unsqueeze(dim))
    tokens = tokens.flatten(1, 2).to(weight.dtype)  # (B, G S, D)
    if visible is not None:
        tokens = tokens.gather(1, visible.unsqueeze(2).expand(-1, -1, tokens.shape[2]))
    return tokens if norm is None else F.layer_norm(tokens, tokens.shape[2:], norm[0], norm[1], norm[2])


def cut_windows(cube: Tensor, centres: Tensor, window: int) -> Tensor:
    """Return windows (B, window, window, bands) of a cube (rows, cols, bands), mirrored at its border.

    The edge is not repeated: row -1 is row 1. An even window reaches one pixel further down and right.
    """
    reach = torch.arange(window, device=centres.device) - (window - 1) // 2
    row, col = (
        torch.minimum(i.abs(), 2 * (size - 1) - i.abs())
        for i, size in zip((centres.unsqueeze(2) + reach).unbind(1), cube.shape[:2], strict=True)
    )  # (B, window) each
    return cube[row.unsqueeze(2), col.unsqueeze(1)]
