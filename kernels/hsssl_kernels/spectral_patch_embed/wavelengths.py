"""Weights made from wavelengths: one patch embedding for every sensor."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["WavelengthWeights", "group_weights"]

_SHORTEST, _LONGEST = 20.0, 10_000.0  # periods over wavelengths, nm: a band, and more than any spectrum


class WavelengthWeights(nn.Module):
    """Make the weight and bias of `spectral_patch_embed` from the bands' wavelengths and widths.

    Each band c becomes a vector of Fourier features of its wavelength and of the logarithm of its width;
    a small transformer without positions lets the bands of a sensor know of each other, and a linear layer
    turns band c into its weights W_c (patch patch, D). A group's weight is that of its bands side by side, so
    the order of the bands does not matter as long as their wavelengths move with them.

    Parameters
    ----------
    dim : int
        Size D of the tokens.
    patch : int
        Side of a token in pixels.
    group : int
        Bands of a token.
    hidden : int
        Size of a band's vector; a multiple of ``heads`` and of 4.
    depth, heads : int
        Layers of the transformer, and attention heads in each; with depth 0 bands stand by themselves.

    Raises
    ------
    ValueError
        If a size is below 1 or ``hidden`` does not divide.

    References
    ----------
    Xiong et al. 2024, "Neural plasticity-inspired multimodal foundation model for Earth observation" (DOFA),
    arXiv:2403.15356: weights generated from wavelengths. Widths are taken in here besides.

    Examples
    --------
    >>> weights = WavelengthWeights(dim=64, patch=3, group=10)
    >>> weight, bias = weights(torch.linspace(400, 2500, 204))
    >>> weight.shape, bias.shape  # 21 groups, the last of 4 bands
    (torch.Size([21, 64, 90]), torch.Size([64]))
    """

    def __init__(
        self, dim: int, patch: int, group: int, *, hidden: int = 128, depth: int = 1, heads: int = 4
    ) -> None:
        super().__init__()
        for name, size in (("dim", dim), ("patch", patch), ("group", group), ("heads", heads)):
            if size < 1:
                raise ValueError(f"WavelengthWeights: `{name}` must be at least 1, got {size}")
        if hidden < 4 or hidden % 4 or hidden % heads:
            raise ValueError(
                f"WavelengthWeights: `hidden` must be a multiple of 4 and of heads={heads}, got {hidden}"
            )
        self.dim, self.patch, self.group, self.hidden = dim, patch, group, hidden
        self.wavelength = nn.Linear(hidden, hidden)
        self.width = nn.Linear(hidden, hidden)
        self.unknown_width = nn.Parameter(torch.zeros(hidden))
        layers = (
            nn.TransformerEncoderLayer(
                hidden, heads, 4 * hidden, 0.0, F.gelu, batch_first=True, norm_first=True
            )
            for _ in range(depth)
        )
        self.layers = nn.Sequential(*layers)
        self.norm = nn.LayerNorm(hidden)
        self.weight = nn.Linear(hidden, patch**2 * dim)
        # tokens of normalised bands then start with variance 1: |norm(v)|^2 = hidden, over K values
        nn.init.normal_(self.weight.weight, std=(hidden * patch**2 * group) ** -0.5)
        nn.init.zeros_(self.weight.bias)
        self.bias = nn.Parameter(torch.zeros(dim))

    def forward(self, wavelengths: Tensor, fwhm: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return the weight (G, D, K) and the bias (D,) for a sensor.

        Parameters
        ----------
        wavelengths : Tensor, shape (C,), floating point
            Band centres in nm.
        fwhm : Tensor, shape (C,), floating point, optional
            Full widths at half maximum in nm; a learned vector stands for them where they are unknown.

        Raises
        ------
        ValueError, TypeError
            If they are not floating-point vectors of one length, or a value is not above 0.
        """
        _check_spectrum("wavelengths", wavelengths, None)
        _check_positive("wavelengths", wavelengths)
        band = self.wavelength(_fourier(wavelengths / _SHORTEST, self.hidden, _LONGEST / _SHORTEST))
        if fwhm is None:
            band = band + self.unknown_width
        else:
            _check_spectrum("fwhm", fwhm, len(wavelengths))
            _check_positive("fwhm", fwhm)
            band = band + self.width(_fourier(fwhm.log(), self.hidden, 100.0))
        band = self.norm(self.layers(F.gelu(band).unsqueeze(0)).squeeze(0))  # (C, hidden)
        per_band = self.weight(band).view(-1, self.patch**2, self.dim)  # (C, patch patch, D)
        return group_weights(per_band, self.group), self.bias


def group_weights(per_band: Tensor, group: int) -> Tensor:
    """Arrange weights of bands (C, patch patch, D) as `spectral_patch_embed` takes them, (G, D, K).

    The bands that fill up the last group have weight 0.
    """
    per_band = F.pad(per_band, (0, 0, 0, 0, 0, -len(per_band) % group))
    per_band = per_band.view(-1, group, *per_band.shape[1:])  # (G, group, patch patch, D)
    return per_band.permute(0, 3, 2, 1).flatten(2)


def _fourier(x: Tensor, size: int, longest: float) -> Tensor:
    """Return sines and cosines (n, size) of x (n,) with periods from 1 to ``longest``, geometric."""
    period = torch.pow(longest, torch.linspace(0.0, 1.0, size // 2, device=x.device, dtype=x.dtype))
    phase = x.unsqueeze(1) * (2 * math.pi / period)
    return torch.cat([phase.sin(), phase.cos()], 1)


def _check_spectrum(name: str, value: Tensor, length: int | None) -> None:
    if not isinstance(value, Tensor):
        raise TypeError(f"WavelengthWeights: `{name}` must be a tensor, got {type(value).__name__}")
    if not value.is_floating_point():
        raise TypeError(
            f"WavelengthWeights: `{name}` must be floating point, got {value.dtype}; cast it first"
        )
    if value.ndim != 1 or len(value) != (len(value) if length is None else length) or not len(value):
        wanted = "(C,) with C >= 1" if length is None else f"({length},) as `wavelengths` is"
        raise ValueError(f"WavelengthWeights: `{name}` must be {wanted}, got {tuple(value.shape)}")


def _check_positive(name: str, value: Tensor) -> None:
    # while torch.compile traces, there is no value to look at
    if not torch.compiler.is_compiling() and not bool((value > 0).all()):
        raise ValueError(f"WavelengthWeights: `{name}` must be above 0 nm, got {value.min().item():g}")
