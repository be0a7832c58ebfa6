"""What is added to the products, as one table by token, by group or for all; and its gradient."""

from __future__ import annotations

import torch
from torch import Tensor

from hsssl_kernels.checks import compute_dtype
from hsssl_kernels.spectral_patch_embed.work import Work

__all__ = ["side_table", "table_grad"]


def side_table(
    work: Work, bias: Tensor | None, position: Tensor | None, wavelengths_embedding: Tensor | None
) -> Tensor | None:
    """Return what is added to the products: (1, D), (G, D) by group, or (G S, D) by token."""
    by_group = None
    for part in (bias, wavelengths_embedding):
        if part is not None:
            part = part if part.ndim == 2 else part.unsqueeze(0)
            by_group = part if by_group is None else by_group + part
    if position is None or by_group is None:
        return by_group if position is None else position.repeat(work.groups, 1)
    by_token = by_group.unsqueeze(1) + position  # (1 or G, S, D)
    return by_token.expand(work.groups, -1, -1).flatten(0, 1)


def table_grad(work: Work, gradient: Tensor, token: Tensor | None, rows: int) -> Tensor:
    """Return the gradient by the table (``rows``, D) from that by tokens (m, D), float32 or float64.

    ``token`` (m,) holds their numbers, None where they are all tokens of some samples.
    """
    wide, dim = compute_dtype(gradient), gradient.shape[1]
    if rows == 1:
        return gradient.sum(0, keepdim=True, dtype=wide)
    share = work.groups * work.space // rows
    if token is None:
        by_token = gradient.reshape(-1, work.groups * work.space * dim).sum(0, dtype=wide)
        return by_token.view(rows, share, dim).sum(1)
    summed: Tensor = torch.ops.aten.embedding_dense_backward(
        gradient.to(wide), token // share, rows, -1, False
    )
    return summed
