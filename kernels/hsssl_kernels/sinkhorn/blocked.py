"""Sinkhorn-Knopp in plain torch: two matrix-vector products an iteration where exponentials are safe."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["finish_blocked", "next_columns_blocked", "sinkhorn_blocked"]

_ROWS = 1024
# Range of scores / epsilon over which sums of exponentials keep their precision in float32.
_SAFE = 60.0


def sinkhorn_blocked(scores: Tensor, epsilon: float, iterations: int) -> Tensor:
    """Return assignments (B, K), float32 or float64, on one process."""
    wide = scores if scores.dtype == torch.float64 else scores.to(torch.float32)
    lowest, highest = wide.aminmax()
    if float(highest - lowest) > _SAFE * epsilon:
        columns = next_columns_blocked(scores, wide.new_empty(0), epsilon)
        for _ in range(iterations - 1):
            columns = next_columns_blocked(scores, columns, epsilon)
        return finish_blocked(scores, columns, epsilon)
    share = ((wide - highest) / epsilon).exp_()  # (B, K)
    rows = wide.new_ones(len(wide))
    for _ in range(iterations):
        columns = (share.T @ rows).reciprocal_()
        rows = (share @ columns).reciprocal_()
    return share.mul_(columns).mul_(rows.unsqueeze(1))


def next_columns_blocked(scores: Tensor, columns: Tensor, epsilon: float) -> Tensor:
    """Return the log-sum-exp (K,) over samples, after each sample was normalised given the last ``columns``.

    An empty ``columns`` leaves the samples as they are.
    """
    total: Tensor | None = None
    for part in torch.split(scores, _ROWS):
        wide = (part if part.dtype == torch.float64 else part.to(torch.float32)) / epsilon  # (r, K)
        if columns.numel():
            wide -= (wide - columns).logsumexp(1, keepdim=True)
        over = wide.logsumexp(0)
        total = over if total is None else torch.logaddexp(total, over)
    assert total is not None  # the caller refused empty scores
    return total


def finish_blocked(scores: Tensor, columns: Tensor, epsilon: float) -> Tensor:
    """Return the assignments (B, K) given the last log-sum-exp over samples (K,)."""
    wide = scores if scores.dtype == torch.float64 else scores.to(torch.float32)
    return (wide / epsilon - columns).softmax(1)
