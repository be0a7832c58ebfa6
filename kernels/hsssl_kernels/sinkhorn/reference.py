"""Sinkhorn-Knopp assignments in plain torch, in the log domain."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["sinkhorn_reference"]


@torch.no_grad()
def sinkhorn_reference(scores: Tensor, *, epsilon: float = 0.05, iterations: int = 3) -> Tensor:
    """Return the assignments of `sinkhorn`."""
    log_share = scores / epsilon  # (B, K)
    for _ in range(iterations):
        log_share = log_share - log_share.logsumexp(0)  # every prototype is used alike
        log_share = log_share - log_share.logsumexp(1, keepdim=True)  # every sample is assigned once
    return log_share.exp()
