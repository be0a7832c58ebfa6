"""Tokens of band groups and space from raw values, and weights that are made from wavelengths."""

from hsssl_kernels.spectral_patch_embed.op import spectral_patch_embed

__all__ = ["spectral_patch_embed"]
