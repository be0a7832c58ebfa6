"""Fused operations for self-supervised learning on spectral images; needs torch and triton only."""

from hsssl_kernels.cosine_regression import cosine_regression
from hsssl_kernels.nt_xent import nt_xent

__all__ = ["cosine_regression", "nt_xent"]
