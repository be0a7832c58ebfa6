"""A transformer whose tokens are groups of neighbouring bands, placed by wavelength."""

from __future__ import annotations

from torch import Tensor, nn

from hsssl.encoders.tokens import token_projection, token_values, token_weights
from hsssl.encoders.transformer import TransformerBlock, group_wavelengths
from hsssl.encoders.wavelength import wavelength_position
from hsssl_kernels import spectral_patch_embed

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
    wavelength_weights : bool
        Make the weights of every band from its wavelength (Xiong et al. 2024, arXiv 2403.15356), in place of
        one weight for all groups.
    """

    def __init__(
        self,
        patch_size: int = 1,
        dim: int = 64,
        depth: int = 4,
        heads: int = 4,
        group: int = 8,
        wavelength_weights: bool = False,
    ) -> None:
        super().__init__()
        self.embed_dim = dim
        self.patch_size = patch_size
        self.group = group
        self.token_size = group * patch_size**2
        self.project = token_projection(dim, patch_size, group, wavelength_weights)
        self.place = nn.Linear(dim, dim)
        self.blocks = nn.Sequential(*(TransformerBlock(dim, heads) for _ in range(depth)))
        self.norm = nn.LayerNorm(dim)

    def forward_features(self, x: Tensor, wavelengths: Tensor) -> Tensor:
        """Return one token a band group, (B, groups, D), of ``x`` (B, C, H, W)."""
        return self.attend(self.embed(x, wavelengths))

    def forward(self, x: Tensor, wavelengths: Tensor) -> Tensor:
        """Return the mean token, (B, D)."""
        return self.forward_features(x, wavelengths).mean(1)

    def embed(self, x: Tensor, wavelengths: Tensor, visible: Tensor | None = None) -> Tensor:
        """Return placed tokens before the blocks: all (B, N, D), or those numbered in ``visible`` (B, n)."""
        self._check_size(x)
        weight, bias = token_weights(self.project, wavelengths, self.group)
        return spectral_patch_embed(
            x,
            weight,
            bias,
            patch=self.patch_size,
            group=self.group,
            wavelengths_embedding=self._places(wavelengths),
            visible=visible,
        )

    def tokenize(self, x: Tensor, wavelengths: Tensor) -> tuple[Tensor, Tensor]:
        """Return the values in each token, (B, N, group H W), and the tokens' positions, (N, D)."""
        self._check_size(x)
        return token_values(x, self.patch_size, self.group), self._places(wavelengths)

    def _check_size(self, x: Tensor) -> None:
        if x.shape[2:] != (self.patch_size, self.patch_size):
            raise ValueError(
                f"spectral_transformer: patches must be {self.patch_size} x {self.patch_size} pixels, "
                f"got {tuple(x.shape[2:])}"
            )

    def _places(self, wavelengths: Tensor) -> Tensor:
        position = wavelength_position(group_wavelengths(wavelengths, self.group), self.embed_dim)
        placed: Tensor = self.place(position.to(self.place.weight.dtype))
        return placed

    def attend(self, tokens: Tensor) -> Tensor:
        """Return the tokens (B, n, D), all of a patch or the visible ones, after the blocks."""
        out: Tensor = self.norm(self.blocks(tokens))
        return out
