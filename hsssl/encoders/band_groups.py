"""Two encoders side by side, one for the short and one for the long half of the bands."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hsssl.encoders.spectral_spatial import SpectralSpatial

__all__ = ["BandGroups", "halves"]


class BandGroups(nn.Module):
    """Encode the bands below and above the median wavelength apart, and set both embeddings side by side.

    It is the two-stream network of contrast between band groups: what either stream learns stays in the
    embedding. Streams are `SpectralSpatial` encoders of half the size.

    Parameters
    ----------
    patch_size : int
        Side of the patches it is trained on, in pixels.
    dim : int
        Size D of the embedding, even.
    hidden, depth, channels : int
        As in `SpectralSpatial`.

    References
    ----------
    Liu et al. 2020, Deep Multiview Learning for Hyperspectral Image Classification, IEEE TGRS 59(9).
    """

    def __init__(
        self, patch_size: int = 1, dim: int = 128, hidden: int = 256, depth: int = 2, channels: int = 128
    ) -> None:
        super().__init__()
        if dim % 2:
            raise ValueError(f"band_groups: dim must be even, got {dim}")
        self.embed_dim = dim
        self.streams = nn.ModuleList(
            SpectralSpatial(patch_size, dim // 2, hidden, depth, channels) for _ in range(2)
        )

    def forward_features(self, x: Tensor, wavelengths: Tensor) -> Tensor:
        """Return one token a pixel, (B, H W, D), of ``x`` (B, C, H, W)."""
        parts = zip(self.streams, halves(wavelengths), strict=True)
        return torch.cat([stream.forward_features(x[:, i], wavelengths[i]) for stream, i in parts], 2)  # type: ignore[operator]

    def forward(self, x: Tensor, wavelengths: Tensor) -> Tensor:
        """Return the mean token, (B, D): first the short bands' half, then the long bands'."""
        return self.forward_features(x, wavelengths).mean(1)


def halves(wavelengths: Tensor) -> tuple[Tensor, Tensor]:
    """Return the band numbers of the short and of the long half of ``wavelengths`` (C,), C at least 2.

    Raises
    ------
    ValueError
        If there is one band only.
    """
    if len(wavelengths) < 2:
        raise ValueError("band groups need at least 2 bands, got 1")
    short, long = torch.tensor_split(wavelengths.argsort(stable=True), 2)
    return short, long
