"""Encoders: name -> class, each in its file. All take ``(x (B, C, H, W), wavelengths (C,) in nm)``."""

from __future__ import annotations

from typing import Any, Protocol

from torch import Tensor, nn

from hsssl.encoders.band_groups import BandGroups
from hsssl.encoders.heads import mlp_head
from hsssl.encoders.plain import PlainEncoder
from hsssl.encoders.residual_conv import ResidualConv
from hsssl.encoders.spectral_spatial import SpectralSpatial
from hsssl.encoders.spectral_spatial_vit import SpectralSpatialViT
from hsssl.encoders.spectral_transformer import SpectralTransformer
from hsssl.messages import unknown_name
from hsssl.options import check_options

__all__ = ["ENCODERS", "Encoder", "PlainEncoder", "build_encoder", "mlp_head"]

ENCODERS: dict[str, type[nn.Module]] = {
    "band_groups": BandGroups,
    "residual_conv": ResidualConv,
    "spectral_spatial": SpectralSpatial,
    "spectral_spatial_vit": SpectralSpatialViT,
    "spectral_transformer": SpectralTransformer,
}


class Encoder(Protocol):
    """What a method needs of an encoder."""

    embed_dim: int

    def forward_features(self, x: Tensor, wavelengths: Tensor) -> Tensor:
        """Return tokens (B, tokens, D) of ``x`` (B, C, H, W)."""

    def __call__(self, x: Tensor, wavelengths: Tensor) -> Tensor:
        """Return the embedding (B, D) of ``x`` (B, C, H, W)."""


def build_encoder(name: str, **options: Any) -> nn.Module:
    """Return a new encoder by name.

    Parameters
    ----------
    name : str
        A key of `ENCODERS`.
    **options
        Arguments of that class.

    Raises
    ------
    ValueError
        If there is no such encoder (the nearest names are offered), no such option, or it is of another kind.
    """
    if name not in ENCODERS:
        raise unknown_name("encoder", name, ENCODERS)
    check_options(f"encoder {name}", ENCODERS[name], options)
    try:
        return ENCODERS[name](**options)
    except TypeError as error:
        raise ValueError(f"encoder {name}: {error}") from error
