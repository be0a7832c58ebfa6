"""Spectral angles and spectral information divergence, pair by pair or all against all."""

from hsssl_kernels.spectral_angle.op import spectral_angle, spectral_divergence

__all__ = ["spectral_angle", "spectral_divergence"]
