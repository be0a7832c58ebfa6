"""The log-sum-exp of similarities, stored in full: obviously right, O(n m) memory."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["lse_reference"]


def lse_reference(x: Tensor, y: Tensor, temperature: float, self_offset: int = -1) -> tuple[Tensor, Tensor]:
    """Return log-sum-exp over the rows (n,) and over the columns (m,) of ``x y^T / temperature``.

    With ``self_offset >= 0`` the entry (i, i + self_offset) is left out.
    """
    similarity = x @ y.T / temperature  # (n, m)
    if self_offset >= 0:
        row, column = torch.meshgrid(torch.arange(len(x)), torch.arange(len(y)), indexing="ij")
        own = (row + self_offset == column).to(x.device)
        similarity = similarity.masked_fill(own, float("-inf"))
    return similarity.logsumexp(1), similarity.logsumexp(0)
