"""Tokens of band groups and space from raw values, and weights that are made from wavelengths."""

from hsssl_kernels.spectral_patch_embed.op import spectral_patch_embed
from hsssl_kernels.spectral_patch_embed.wavelengths import WavelengthWeights, group_weights

__all__ = ["WavelengthWeights", "group_weights", "spectral_patch_embed"]
