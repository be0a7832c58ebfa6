"""InfoNCE with the similarity matrix stored: obviously right, O(n m) memory."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["info_nce_reference"]


def info_nce_reference(
    query: Tensor,
    key: Tensor,
    *,
    temperature: float | Tensor = 0.07,
    negatives: Tensor | None = None,
    symmetric: bool = False,
    reduction: str = "mean",
    normalize: bool = True,
) -> Tensor:
    """Return the loss of `info_nce`; differentiable by autograd."""
    if normalize:
        query, key = F.normalize(query, eps=0.0), F.normalize(key, eps=0.0)
    own = torch.arange(len(query), device=query.device)
    if negatives is None:
        similarity = query @ key.T / temperature  # (n, n)
    else:
        queue = F.normalize(negatives, eps=0.0) if normalize else negatives
        positive = (query * key).sum(1, keepdim=True)
        similarity = torch.cat([positive, query @ queue.T], 1) / temperature  # (n, 1 + m)
        own = torch.zeros_like(own)
    loss = F.cross_entropy(similarity, own, reduction=reduction)
    if symmetric:
        loss = (loss + F.cross_entropy(similarity.T, own, reduction=reduction)) / 2
    return loss
