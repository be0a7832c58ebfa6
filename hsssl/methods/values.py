"""From an embedding back to the values of a patch, at any wavelengths."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hsssl.encoders.wavelength import cube_position

__all__ = ["ValueDecoder"]

_PLACE = 64  # numbers for a wavelength; row and column take as many together


class ValueDecoder(nn.Module):
    """Return values (B, C, H, W) of embeddings (B, D): ``<f(embedding), g(wavelength, row, column)>``.

    f and g are two-layer networks. As g takes wavelengths and places, not band numbers, one decoder
    serves any sensor and patch size.

    Parameters
    ----------
    dim : int
        Length D of an embedding.
    hidden : int
        Hidden size of both networks.
    rank : int
        Length of their outputs: the values of a batch are a product of that rank.
    """

    def __init__(self, dim: int, hidden: int = 256, rank: int = 64) -> None:
        super().__init__()
        self.content = nn.Sequential(nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, rank))
        self.place = nn.Sequential(nn.Linear(2 * _PLACE, hidden), nn.GELU(), nn.Linear(hidden, rank))

    def forward(self, embedding: Tensor, wavelengths: Tensor, high: int, wide: int) -> Tensor:
        """Return the values at ``wavelengths`` (C,) in nm of patches of ``high`` x ``wide`` pixels."""
        place = self.place(cube_position(wavelengths, high, wide, _PLACE))  # (C, H, W, rank)
        return torch.einsum("br,chwr->bchw", self.content(embedding), place)
