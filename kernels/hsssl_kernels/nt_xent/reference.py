"""NT-Xent with the similarity matrix stored: obviously right, O(n^2) memory."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["nt_xent_reference"]


def nt_xent_reference(
    z1: Tensor, z2: Tensor, *, temperature: float | Tensor = 0.5, normalize: bool = True
) -> Tensor:
    """Return the loss of `nt_xent`; differentiable by autograd."""
    z = torch.cat([z1, z2])  # (n, D)
    if normalize:
        z = F.normalize(z, eps=0.0)
    similarity = z @ z.T / temperature  # (n, n)
    own = torch.eye(len(z), dtype=torch.bool, device=z.device)
    partner = torch.arange(len(z), device=z.device).roll(len(z1))
    return F.cross_entropy(similarity.masked_fill(own, float("-inf")), partner)
