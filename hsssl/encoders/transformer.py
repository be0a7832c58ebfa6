"""The transformer block, and tokens of band groups, shared by the transformer encoders."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["TransformerBlock", "group_bands", "group_wavelengths"]


class TransformerBlock(nn.Module):
    """Pre-norm self-attention and a two-layer network, (B, tokens, D) to (B, tokens, D)."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        if dim % heads:
            raise ValueError(f"TransformerBlock: dim must divide by heads, got dim={dim}, heads={heads}")
        self.heads = heads
        self.norm = nn.LayerNorm(dim)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)
        self.mlp = nn.Sequential(
            nn.LayerNorm(dim), nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output, the shape of ``x``."""
        batch, tokens, dim = x.shape
        qkv = self.qkv(self.norm(x)).view(batch, tokens, 3, self.heads, dim // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # (B, heads, tokens, D / heads) each
        attended = F.scaled_dot_product_attention(q, k, v)
        x = x + self.out(attended.transpose(1, 2).reshape(batch, tokens, dim))
        return torch.add(x, self.mlp(x))


def group_bands(x: Tensor, group: int) -> Tensor:
    """Split (B, C, H, W) into (B, groups, group, H, W); a last short group is filled with zeros."""
    batch, bands, height, width = x.shape
    missing = -bands % group
    if missing:
        x = torch.cat([x, x.new_zeros(batch, missing, height, width)], 1)
    return x.view(batch, -1, group, height, width)


def group_wavelengths(wavelengths: Tensor, group: int) -> Tensor:
    """Return the mean wavelength (groups,) in nm of each group of bands (C,)."""
    return torch.stack([part.mean() for part in torch.split(wavelengths, group)])
