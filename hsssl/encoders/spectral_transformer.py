"""A transformer whose tokens are groups of neighbouring bands, placed by wavelength."""

from __future__ import annotations

from torch import Tensor, nn

from hsssl.encoders.transformer import TransformerBlock, group_bands, group_wavelengths
from hsssl.encoders.wavelength import wavelength_position

__all__ = ["SpectralTransformer"]


class SpectralTransformer(nn.Module):
    """Attend over the spectrum: one token a band group, with all pixels of the patch in it.

    Group-wise spectral tokens as in SpectralFormer (Hong et al. 2022, doi:10.1109/TGRS.2021.3130716);
    the position is the group's mean wavelength in place of its number, so another sensor's
    bands find their place.

    Parameters
    ----------
    patch_size : int
        Side of the patches in pixels; 1 looks at a pixel alone.
    dim : int
        Size D of tokens and embedding.
    depth, heads : int
        Number of blocks, and of attention heads in each.
    group : int
        Bands in a token. Any band count fits: the last group may be short.
    """

    def __init__(
        self, patch_size: int = 1, dim: int = 64, depth: int = 4, heads: int = 4, group: int = 8
    ) -> None:
        super().__init__()
        self.embed_dim = dim
        self.patch_size = patch_size
        self.group = group
        self.project = nn.Linear(group * patch_size**2, dim)
        self.place = nn.Linear(dim, dim)
        self.blocks = nn.Sequential(*(TransformerBlock(dim, heads) for _ in range(depth)))
        self.norm = nn.LayerNorm(dim)

    def forward_features(self, x: Tensor, wavelengths: Tensor) -> Tensor:
        """Return one token a band group, (B, groups, D), of ``x`` (B, C, H, W)."""
        values, position = self.tokenize(x, wavelengths)
        return self.attend(self.project(values) + position)

    def forward(self, x: Tensor, wavelengths: Tensor) -> Tensor:
        """Return the mean token, (B, D)."""
        return self.forward_features(x, wavelengths).mean(1)

    def tokenize(self, x: Tensor, wavelengths: Tensor) -> tuple[Tensor, Tensor]:
        """Return the values in each token, (B, N, group H W), and the tokens' positions, (N, D)."""
        if x.shape[2:] != (self.patch_size, self.patch_size):
            raise ValueError(
                f"spectral_transformer: patches must be {self.patch_size} x {self.patch_size} pixels, "
                f"got {tuple(x.shape[2:])}"
            )
        position = wavelength_position(group_wavelengths(wavelengths, self.group), self.embed_dim)
        return group_bands(x, self.group).flatten(2), self.place(position.to(x.dtype))

    def attend(self, tokens: Tensor) -> Tensor:
        """Return the tokens (B, n, D), all of a patch or the visible ones, after the blocks."""
        out: Tensor = self.norm(self.blocks(tokens))
        return out
