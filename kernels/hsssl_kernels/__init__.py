"""Fused operations for self-supervised learning on spectral images; needs torch and triton only."""

import torch
import torch.nn.functional as F

from hsssl_kernels.spectral_views import ViewSpec, spectral_views

__all__ = ["ViewSpec", "spectral_views", "nt_xent", "cosine_regression"]


def nt_xent(a, b, *, temperature, gather_distributed=False):
    z = F.normalize(torch.cat([a, b]), dim=1)
    s = (z @ z.T / temperature).fill_diagonal_(float("-inf"))
    return F.cross_entropy(s, torch.arange(len(z)).roll(len(a)))


def cosine_regression(p, t):
    return (2 - 2 * F.cosine_similarity(p, t.detach(), dim=1)).mean()
