"""Spectral angle and spectral information divergence in plain torch."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["angle_between", "angles_reference", "spectral_angle_reference", "spectral_divergence_reference"]


def angles_reference(x: Tensor, y: Tensor) -> Tensor:
    """Return the angle of each row of ``x`` (n, D) to that of ``y``, by `angle_between`.

    It loses no digits at small angles, as the arccosine does; pi / 2 where a row is zero.
    """
    return angle_between(_unit(x), _unit(y))


def angle_between(u: Tensor, v: Tensor) -> Tensor:
    """Return the angle between unit vectors along the last dimension; pi / 2 where one of them is zero."""
    apart, along = torch.linalg.vector_norm(u - v, dim=-1), torch.linalg.vector_norm(u + v, dim=-1)
    return torch.where(apart + along == 0, torch.pi / 2, 2 * torch.atan2(apart, along))


def spectral_angle_reference(
    x: Tensor, y: Tensor, *, pairwise: bool = True, mask: Tensor | None = None
) -> Tensor:
    """Return the angles of `spectral_angle`; differentiable by autograd."""
    if mask is not None:
        x, y = torch.where(mask, x, 0), torch.where(mask, y, 0)
    return angles_reference(x[:, None], y[None]) if pairwise else angles_reference(x, y)


def spectral_divergence_reference(
    x: Tensor, y: Tensor, *, pairwise: bool = True, mask: Tensor | None = None, floor: float = 1e-6
) -> Tensor:
    """Return the divergences of `spectral_divergence`; differentiable by autograd."""
    p, q = _shares(x, mask, floor), _shares(y, mask, floor)
    if pairwise:
        p, q = p[:, None], q[None]
    terms = (p - q) * (p.log() - q.log())
    return (terms if mask is None else torch.where(mask, terms, 0)).sum(-1)


def _unit(x: Tensor) -> Tensor:
    peak = x.detach().abs().amax(-1, keepdim=True)
    x = x / torch.where(peak == 0, 1, peak)  # squares neither overflow nor vanish
    norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    return x / torch.where(norm == 0, 1, norm)


def _shares(x: Tensor, mask: Tensor | None, floor: float) -> Tensor:
    """Return each row divided by its sum, no share below ``floor``."""
    positive = x.clamp_min(0) if mask is None else torch.where(mask, x, 0).clamp_min(0)
    total = positive.sum(-1, keepdim=True)
    return (positive / torch.where(total == 0, 1, total)).clamp_min(floor)
