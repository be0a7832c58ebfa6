"""A residual convolutional network that remembers where its pools found their maxima."""

from __future__ import annotations

from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from hsssl.encoders.wavelength import SpectralBasis

__all__ = ["Pool", "ResidualConv", "ResidualStage"]

_MOST_POOLS = 2


class Pool(NamedTuple):
    """What unpooling needs: where the maxima stood, and how large the map was (H, W)."""

    indices: Tensor
    size: tuple[int, int]


class ResidualConv(nn.Module):
    """Residual 3x3 convolutions and 2x2 max pools, the encoder half of Mou et al. 2017's network.

    Bands are first resampled onto a fixed spectral basis, so any sensor fits. Width, depth and two pools
    are a choice: the paper's abstract gives no layer table. A patch of one pixel is not pooled, its
    convolutions are 1x1, and the network is purely spectral.

    Parameters
    ----------
    patch_size : int
        Side of the patches it is trained on, in pixels.
    dim : int
        Number D of feature maps, and size of the embedding.
    depth : int
        Residual blocks before each pool and after the last.
    channels : int
        Windows of the spectral basis.

    References
    ----------
    Mou, Ghamisi & Zhu 2018, Unsupervised Spectral-Spatial Feature Learning via Deep Residual Conv-Deconv
    Network for Hyperspectral Image Classification, doi:10.1109/TGRS.2017.2748160.
    """

    def __init__(self, patch_size: int = 1, dim: int = 128, depth: int = 1, channels: int = 128) -> None:
        super().__init__()
        self.embed_dim = dim
        self.channels = channels
        self.depth = depth
        self.kernel = 3 if patch_size > 1 else 1
        self.pools = min(_MOST_POOLS, patch_size.bit_length() - 1)
        self.basis = SpectralBasis(channels)
        self.stem = nn.Conv2d(channels, dim, 1)
        self.stages = nn.ModuleList(
            ResidualStage(nn.Conv2d, dim, depth, self.kernel) for _ in range(self.pools + 1)
        )

    def encode(self, x: Tensor, wavelengths: Tensor) -> tuple[Tensor, list[Pool]]:
        """Return the last feature maps (B, D, h, w) of ``x`` (B, C, H, W), and the pools on the way."""
        x = self.basis.resample(x, wavelengths)  # (B, H, W, K)
        x = self.stages[0](self.stem(x.movedim(3, 1)))
        pools = []
        for stage in self.stages[1:]:
            size = (x.shape[2], x.shape[3])
            x, indices = F.max_pool2d(x, 2, ceil_mode=True, return_indices=True)
            pools.append(Pool(indices, size))
            x = stage(x)
        return x, pools

    def forward_features(self, x: Tensor, wavelengths: Tensor) -> Tensor:
        """Return one token a place of the last feature maps, (B, h w, D)."""
        return self.encode(x, wavelengths)[0].flatten(2).transpose(1, 2)

    def forward(self, x: Tensor, wavelengths: Tensor) -> Tensor:
        """Return the mean token, (B, D)."""
        return self.encode(x, wavelengths)[0].mean((2, 3))


class ResidualStage(nn.Sequential):
    """Residual blocks of two convolutions, (B, D, H, W) to (B, D, H, W).

    Parameters
    ----------
    convolution : type
        `torch.nn.Conv2d`, or `torch.nn.ConvTranspose2d` for a decoder.
    dim, depth, kernel : int
        Feature maps, blocks, and the odd side of a kernel.
    """

    def __init__(
        self, convolution: type[nn.Conv2d] | type[nn.ConvTranspose2d], dim: int, depth: int, kernel: int
    ) -> None:
        super().__init__(*(_Block(convolution, dim, kernel) for _ in range(depth)))


class _Block(nn.Module):
    def __init__(
        self, convolution: type[nn.Conv2d] | type[nn.ConvTranspose2d], dim: int, kernel: int
    ) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            nn.BatchNorm2d(dim),
            nn.ReLU(),
            convolution(dim, dim, kernel, padding=kernel // 2, bias=False),
            nn.BatchNorm2d(dim),
            nn.ReLU(),
            convolution(dim, dim, kernel, padding=kernel // 2),
        )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.branch(x)
        return out
