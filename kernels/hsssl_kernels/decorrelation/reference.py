"""The decorrelating losses in plain torch, as their papers write them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["barlow_twins_reference", "vicreg_reference"]


def barlow_twins_reference(
    z1: Tensor, z2: Tensor, *, redundancy: float = 0.0051, eps: float = 1e-5
) -> Tensor:
    """Return the loss of `barlow_twins`; differentiable by autograd."""
    a, b = ((z - z.mean(0)) / (z.var(0, correction=0) + eps).sqrt() for z in (z1, z2))
    c = a.T @ b / len(z1)  # (D, D)
    on = torch.eye(len(c), dtype=torch.bool, device=c.device)
    return (1 - c[on]).square().sum() + redundancy * c[~on].square().sum()


def vicreg_reference(
    z1: Tensor,
    z2: Tensor,
    *,
    invariance: float = 25.0,
    variance: float = 25.0,
    covariance: float = 1.0,
    eps: float = 1e-4,
) -> Tensor:
    """Return the loss of `vicreg`; differentiable by autograd."""
    n, columns = z1.shape
    loss = invariance * F.mse_loss(z1, z2)
    off = ~torch.eye(columns, dtype=torch.bool, device=z1.device)
    for z in (z1, z2):
        loss = loss + variance * F.relu(1 - (z.var(0) + eps).sqrt()).mean() / 2
        centred = z - z.mean(0)
        c = centred.T @ centred / (n - 1)  # (D, D)
        loss = loss + covariance * c[off].square().sum() / columns
    return loss
