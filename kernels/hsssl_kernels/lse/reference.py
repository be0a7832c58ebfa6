"""The log-sum-exp of similarities, stored in full: obviously right, O(n m) memory."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["lse_reference"]


def lse_reference(
    x: Tensor, y: Tensor, temperature: float, self_offset: int = -1, half: int = 0
) -> tuple[Tensor, Tensor]:
    """Return log-sum-exp over the rows (n,) and over the columns (m,) of ``x y^T / temperature``.

    With ``self_offset >= 0`` the entry (i, i + self_offset) is left out, and with ``half > 0`` that of
    the partner too: rows come in blocks of twice ``half``, whose first rows are the partners of the last.
    """
    similarity = x @ y.T / temperature  # (n, m)
    if self_offset >= 0:
        row, column = torch.meshgrid(torch.arange(len(x)), torch.arange(len(y)), indexing="ij")
        row = row + self_offset
        out = row == column
        if half:
            out |= row + torch.where(row // half % 2 == 0, half, -half) == column
        similarity = similarity.masked_fill(out.to(x.device), float("-inf"))
    return similarity.logsumexp(1), similarity.logsumexp(0)
