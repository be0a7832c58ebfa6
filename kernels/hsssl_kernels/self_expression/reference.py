"""Self-expression in plain torch, with all coefficients stored."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["coefficients_reference", "self_expression_reference", "top_coefficients_reference"]


def coefficients_reference(
    query: Tensor, key: Tensor, threshold: float | Tensor, scale: float | Tensor, own: Tensor | None
) -> Tensor:
    """Return all coefficients (n, m); ``own[i]`` is the column that row i must not use, -1 for none."""
    s = query @ key.T  # (n, m)
    c: Tensor = s.sign() * (s.abs() - threshold).clamp_min(0) / scale
    own = torch.arange(len(query), device=query.device) if own is None else own
    return c.masked_fill(own[:, None] == torch.arange(len(key), device=key.device), 0)


def self_expression_reference(
    query: Tensor,
    key: Tensor,
    x: Tensor,
    *,
    threshold: float | Tensor = 0.0,
    scale: float | Tensor = 1.0,
    own: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return C x (n, F), sum_j |c_ij| (n,) and sum_j c_ij^2 (n,); differentiable by autograd."""
    c = coefficients_reference(query, key, threshold, scale, own)
    return c @ x, c.abs().sum(1), c.square().sum(1)


def top_coefficients_reference(
    query: Tensor, key: Tensor, neighbours: int, *, threshold: float = 0.0, own: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Return columns and values (n, neighbours) of the largest |c_ij|; -1 and 0 where none is left."""
    c = coefficients_reference(query, key, threshold, 1.0, own)
    order = c.abs().argsort(dim=1, descending=True, stable=True)[:, :neighbours]  # ties: the first column
    value = c.gather(1, order)
    return order.masked_fill(value == 0, -1), value
