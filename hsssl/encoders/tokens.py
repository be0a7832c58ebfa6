"""Tokens of band groups and cells of pixels: the first layer of the transformer encoders."""

from __future__ import annotations

from torch import Tensor, nn

from hsssl.encoders.transformer import group_bands
from hsssl_kernels import WavelengthWeights

__all__ = ["token_projection", "token_values", "token_weights"]


def token_projection(dim: int, cell: int, group: int, wavelength_weights: bool) -> nn.Module:
    """Return what holds the weights of tokens: one for all groups, or weights made from wavelengths."""
    if not wavelength_weights:
        return nn.Linear(group * cell**2, dim)
    made = WavelengthWeights(dim, cell, group)
    # encoders are told no band widths, and weights that are never used must not wait for a gradient
    made.width.requires_grad_(False)
    return made


def token_weights(project: nn.Module, wavelengths: Tensor, group: int) -> tuple[Tensor, Tensor]:
    """Return weight (D, K) or (G, D, K) and bias (D,) of `spectral_patch_embed` for these bands (C,)."""
    if isinstance(project, nn.Linear):
        # from band by band, as `token_values` has them, to pixel by pixel
        return project.weight.view(len(project.weight), group, -1).mT.flatten(1), project.bias
    weight, bias = project(wavelengths)
    return weight, bias


def token_values(x: Tensor, cell: int, group: int) -> Tensor:
    """Return the values in each token (B, N, group cell cell) of x (B, C, H, W), cells filling H and W."""
    high, wide = x.shape[2] // cell, x.shape[3] // cell
    x = group_bands(x, group).view(len(x), -1, group, high, cell, wide, cell)
    return x.permute(0, 1, 3, 5, 2, 4, 6).flatten(4).flatten(1, 3)
