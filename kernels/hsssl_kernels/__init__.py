"""Fused operations for self-supervised learning on spectral images; needs torch and triton only."""
