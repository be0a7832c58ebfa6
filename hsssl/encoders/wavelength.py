"""What makes an encoder independent of the sensor: wavelengths become weights and positions."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

__all__ = ["SpectralBasis", "cube_position", "wavelength_position"]


class SpectralBasis(nn.Module):
    """Resample any band set onto fixed Gaussian windows over the spectrum.

    Channel k is the average of the bands under a Gaussian at wavelength mu_k,
    ``y_k = sum_c w_kc x_c / (sum_c w_kc + 0.05)``, w_kc = exp(-(lambda_c - mu_k)^2 / 2 sigma^2):
    between bands it interpolates, and it fades to 0 where the sensor has no band near.

    Parameters
    ----------
    channels : int
        Number of windows, at least 2, evenly spaced; sigma is their spacing.
    shortest, longest : float
        Centres of the first and the last window in nm.
    """

    centres: Tensor

    def __init__(self, channels: int = 128, *, shortest: float = 380.0, longest: float = 2520.0) -> None:
        super().__init__()
        if channels < 2:
            raise ValueError(f"spectral basis: channels must be at least 2, got {channels}; 128 is usual")
        self.channels = channels
        self.sigma = (longest - shortest) / (channels - 1)
        self.register_buffer("centres", torch.linspace(shortest, longest, channels), persistent=False)

    def forward(self, wavelengths: Tensor) -> Tensor:
        """Return the (bands, channels) resampling matrix of ``wavelengths`` (bands,) in nm."""
        distance = (wavelengths[:, None] - self.centres) / self.sigma  # (C, K)
        weight = torch.exp(-0.5 * distance.square())
        return weight / (weight.sum(0) + 0.05)

    def resample(self, x: Tensor, wavelengths: Tensor) -> Tensor:
        """Return the channels (B, H, W, K) of ``x`` (B, C, H, W) with bands at ``wavelengths`` (C,) in nm."""
        batch, bands, high, wide = x.shape
        # one product a patch, or one in all; of four axes torch would make one for each row of pixels
        pixels = x.flatten(2).mT if high * wide > 1 else x.reshape(batch, bands)
        channels: Tensor = pixels @ self(wavelengths).to(x.dtype)
        return channels.view(batch, high, wide, -1)


def wavelength_position(wavelengths: Tensor, dim: int) -> Tensor:
    """Return sine and cosine positions (n, dim) of ``wavelengths`` (n,) in nm.

    Periods run geometrically from 20 nm (a band) to 10,000 nm (longer than any spectrum), as
    in Vaswani et al. 2017 (arXiv 1706.03762) with nm in place of token numbers.
    """
    if dim % 2:
        raise ValueError(f"wavelength_position: dim must be even, got {dim}")
    exponent = torch.linspace(0.0, 1.0, dim // 2, device=wavelengths.device)
    period = 20.0 * torch.pow(500.0, exponent)
    phase = wavelengths[:, None] * (2 * math.pi / period)
    return torch.cat([phase.sin(), phase.cos()], 1)


def cube_position(wavelengths: Tensor, high: int, wide: int, dim: int) -> Tensor:
    """Return positions (n, high, wide, 2 dim) of places in a cube: ``wavelengths`` (n,) in nm, row, column.

    ``dim`` is a multiple of 4; row and column take half as much room as the wavelength.
    """
    band = wavelength_position(wavelengths, dim)
    # the same sines serve rows and columns: 100 nm a step keeps neighbours apart
    row = wavelength_position(100.0 * torch.arange(high, device=wavelengths.device), dim // 2)
    col = wavelength_position(100.0 * torch.arange(wide, device=wavelengths.device), dim // 2)
    shape = (len(band), high, wide, -1)
    parts = (band[:, None, None], row[None, :, None], col[None, None])
    return torch.cat([part.expand(shape) for part in parts], -1)
