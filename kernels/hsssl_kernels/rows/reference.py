"""Unit rows and the end of a loss's gradient in plain torch."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["finish_rows_reference", "unit_rows_reference"]


def unit_rows_reference(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return x / |x| in the dtype of ``x`` (n, D), and 1 / |x| (n,); a row of zeros stays, with 0.

    The largest value of each row is divided out first, so that squares neither overflow nor vanish.
    """
    wide = x if x.dtype == torch.float64 else x.to(torch.float32)
    peak = wide.abs().amax(1, keepdim=True)
    zero = peak == 0
    wide = wide / torch.where(zero, 1.0, peak)
    inverse = torch.where(zero, 0.0, torch.linalg.vector_norm(wide, dim=1, keepdim=True).reciprocal())
    return (wide * inverse).to(x.dtype), (inverse / torch.where(zero, 1.0, peak)).squeeze(1)


def finish_rows_reference(
    total: Tensor, target: Tensor, weight: Tensor, x: Tensor, inverse: Tensor, factor: Tensor, shift: int
) -> tuple[Tensor, Tensor]:
    """Return the gradient by ``x`` (n, D) and its share along each unit row (n,).

    ``g_i = factor (total_i - weight_i target_(i + shift))`` is the gradient by the unit row u_i;
    that by x_i is ``(g_i - u_i <u_i, g_i>) / |x_i|``. An empty ``inverse`` says that x is u.
    """
    wide = x.to(total.dtype)
    gradient = total - weight.to(total.dtype).unsqueeze(1) * target.roll(-shift, 0)
    gradient *= factor
    if not inverse.numel():
        return gradient.to(x.dtype), (wide * gradient).sum(1)
    unit = wide * inverse.unsqueeze(1)
    along = (unit * gradient).sum(1)
    gradient -= unit * along.unsqueeze(1)
    return (gradient * inverse.unsqueeze(1)).to(x.dtype), along
