"""A spectral stem of 1x1 convolutions, then depthwise spatial blocks: small, and fast on a CPU."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hsssl.encoders.wavelength import SpectralBasis

__all__ = ["SpectralSpatial"]


class SpectralSpatial(nn.Module):
    """Mix each pixel's bands first, then its neighbourhood channel by channel.

    The stem resamples the bands onto a fixed spectral basis, so any sensor fits, and applies a
    pixel-wise network; each block adds a 3x3 depthwise convolution and a pixel-wise network
    (ConvNeXt's order: Liu et al. 2022, arXiv 2201.03545). A patch of one pixel has no neighbours:
    then the blocks are left out and the encoder is purely spectral.

    Parameters
    ----------
    patch_size : int
        Side of the patches it is trained on, in pixels.
    dim : int
        Size D of the embedding.
    hidden : int
        Width of the stem's pixel-wise network.
    depth : int
        Number of spatial blocks.
    channels : int
        Windows of the spectral basis.
    """

    def __init__(
        self, patch_size: int = 1, dim: int = 128, hidden: int = 256, depth: int = 2, channels: int = 128
    ) -> None:
        super().__init__()
        self.embed_dim = dim
        self.basis = SpectralBasis(channels)
        self.stem = nn.Sequential(
            nn.Linear(channels, hidden), nn.LayerNorm(hidden), nn.GELU(), nn.Linear(hidden, dim)
        )
        self.blocks = nn.Sequential(*(DepthwiseBlock(dim) for _ in range(depth if patch_size > 1 else 0)))

    def forward_features(self, x: Tensor, wavelengths: Tensor) -> Tensor:
        """Return one token a pixel, (B, H W, D), of ``x`` (B, C, H, W)."""
        x = self.basis.resample(x, wavelengths)  # (B, H, W, K)
        x = self.blocks(self.stem(x))  # (B, H, W, D)
        return x.flatten(1, 2)

    def forward(self, x: Tensor, wavelengths: Tensor) -> Tensor:
        """Return the mean token, (B, D)."""
        return self.forward_features(x, wavelengths).mean(1)


class DepthwiseBlock(nn.Module):
    """Add a depthwise 3x3 convolution and a pixel-wise network to (B, H, W, D)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.spatial = nn.Conv2d(dim, dim, 3, padding=1, groups=dim)
        self.pixelwise = nn.Sequential(
            nn.LayerNorm(dim), nn.Linear(dim, 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output, (B, H, W, D)."""
        near: Tensor = self.spatial(x.movedim(3, 1)).movedim(1, 3)
        return torch.add(x, self.pixelwise(near))
