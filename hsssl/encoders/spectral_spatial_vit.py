"""A vision transformer whose tokens are band group x space: small cubes cut from the patch."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from hsssl.encoders.transformer import TransformerBlock, group_bands, group_wavelengths
from hsssl.encoders.wavelength import cube_position

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
    """

    def __init__(
        self,
        patch_size: int = 9,
        cell: int = 3,
        dim: int = 64,
        depth: int = 4,
        heads: int = 4,
        group: int = 10,
    ) -> None:
        super().__init__()
        self.embed_dim = dim
        self.patch_size = patch_size
        self.cell = cell
        self.group = group
        self.project = nn.Linear(group * cell**2, dim)
        self.place = nn.Linear(2 * dim, dim)
        self.blocks = nn.Sequential(*(TransformerBlock(dim, heads) for _ in range(depth)))
        self.norm = nn.LayerNorm(dim)

    def forward_features(self, x: Tensor, wavelengths: Tensor) -> Tensor:
        """Return (B, groups x cells, D) tokens of ``x`` (B, C, H, W)."""
        values, position = self.tokenize(x, wavelengths)
        return self.attend(self.project(values) + position)

    def forward(self, x: Tensor, wavelengths: Tensor) -> Tensor:
        """Return the mean token, (B, D)."""
        return self.forward_features(x, wavelengths).mean(1)

    def tokenize(self, x: Tensor, wavelengths: Tensor) -> tuple[Tensor, Tensor]:
        """Return the values in each token, (B, N, group cell cell), and the tokens' positions, (N, D)."""
        batch, cell = len(x), self.cell
        x = F.pad(x, (0, -x.shape[3] % cell, 0, -x.shape[2] % cell))
        high, wide = x.shape[2] // cell, x.shape[3] // cell
        x = group_bands(x, self.group).view(batch, -1, self.group, high, cell, wide, cell)
        values = x.permute(0, 1, 3, 5, 2, 4, 6).flatten(4).flatten(1, 3)  # (B, N, group cell cell)
        position = cube_position(group_wavelengths(wavelengths, self.group), high, wide, self.embed_dim)
        return values, self.place(position.flatten(0, 2).to(x.dtype))

    def attend(self, tokens: Tensor) -> Tensor:
        """Return the tokens (B, n, D), all of a patch or the visible ones, after the blocks."""
        out: Tensor = self.norm(self.blocks(tokens))
        return out
