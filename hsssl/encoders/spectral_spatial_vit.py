"""A vision transformer whose tokens are band group x space: small cubes cut from the patch."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from hsssl.encoders.tokens import token_projection, token_values, token_weights
from hsssl.encoders.transformer import TransformerBlock, group_wavelengths
from hsssl.encoders.wavelength import cube_position
from hsssl_kernels import spectral_patch_embed

__all__ = ["SpectralSpatialViT"]


class SpectralSpatialViT(nn.Module):
    """Attend over spectrum and space at once: a token holds ``group`` bands of ``cell`` x ``cell`` pixels.

    Tokens as in SpectralGPT (Hong et al. 2024, doi:10.1109/TPAMI.2024.3362475), placed by mean
    wavelength and by position in the patch.

    Parameters
    ----------
    patch_size : int
        Side of the patches it is trained on, in pixels.
    cell : int
        Side of a token in pixels; a patch that does not divide is filled with zeros.
    dim : int
        Size D of tokens and embedding; a multiple of 4.
    depth, heads : int
        Number of blocks, and of attention heads in each.
    group : int
        Bands in a token; the last group may be short.
    wavelength_weights : bool
        Make the weights of every band from its wavelength (Xiong et al. 2024, arXiv 2403.15356), in place of
        one weight for all groups.
    """

    def __init__(
        self,
        patch_size: int = 9,
        cell: int = 3,
        dim: int = 64,
        depth: int = 4,
        heads: int = 4,
        group: int = 10,
        wavelength_weights: bool = False,
    ) -> None:
        super().__init__()
        self.embed_dim = dim
        self.patch_size = patch_size
        self.cell = cell
        self.group = group
        self.token_size = group * cell**2
        self.project = token_projection(dim, cell, group, wavelength_weights)
        self.place = nn.Linear(2 * dim, dim)
        self.blocks = nn.Sequential(*(TransformerBlock(dim, heads) for _ in range(depth)))
        self.norm = nn.LayerNorm(dim)

    def forward_features(self, x: Tensor, wavelengths: Tensor) -> Tensor:
        """Return (B, groups x cells, D) tokens of ``x`` (B, C, H, W)."""
        return self.attend(self.embed(x, wavelengths))

    def forward(self, x: Tensor, wavelengths: Tensor) -> Tensor:
        """Return the mean token, (B, D)."""
        return self.forward_features(x, wavelengths).mean(1)

    def embed(self, x: Tensor, wavelengths: Tensor, visible: Tensor | None = None) -> Tensor:
        """Return placed tokens before the blocks: all (B, N, D), or those numbered in ``visible`` (B, n)."""
        x = self._whole_cells(x)
        weight, bias = token_weights(self.project, wavelengths, self.group)
        by_band, by_place = self._places(x, wavelengths)
        return spectral_patch_embed(
            x,
            weight,
            bias,
            patch=self.cell,
            group=self.group,
            position=by_place,
            wavelengths_embedding=by_band,
            visible=visible,
        )

    def tokenize(self, x: Tensor, wavelengths: Tensor) -> tuple[Tensor, Tensor]:
        """Return the values in each token, (B, N, group cell cell), and the tokens' positions, (N, D)."""
        x = self._whole_cells(x)
        by_band, by_place = self._places(x, wavelengths)
        return token_values(x, self.cell, self.group), (by_band.unsqueeze(1) + by_place).flatten(0, 1)

    def _whole_cells(self, x: Tensor) -> Tensor:
        return F.pad(x, (0, -x.shape[3] % self.cell, 0, -x.shape[2] % self.cell))

    def _places(self, x: Tensor, wavelengths: Tensor) -> tuple[Tensor, Tensor]:
        """Return what is added by group (G, D) and by place (S, D): `place` of wavelength, row and column."""
        dim, high, wide = self.embed_dim, x.shape[2] // self.cell, x.shape[3] // self.cell
        position = cube_position(group_wavelengths(wavelengths, self.group), high, wide, dim)
        position = position.to(self.place.weight.dtype)
        by_band = F.linear(position[:, 0, 0, :dim], self.place.weight[:, :dim])
        by_place = F.linear(position[0, :, :, dim:], self.place.weight[:, dim:], self.place.bias)
        return by_band, by_place.flatten(0, 1)

    def attend(self, tokens: Tensor) -> Tensor:
        """Return the tokens (B, n, D), all of a patch or the visible ones, after the blocks."""
        out: Tensor = self.norm(self.blocks(tokens))
        return out
