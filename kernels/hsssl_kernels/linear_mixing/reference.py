"""The loss of a linear mixing model in plain torch."""

from __future__ import annotations

import torch
from torch import Tensor

from hsssl_kernels.spectral_angle.reference import angles_reference

__all__ = ["linear_mixing_reference"]


def linear_mixing_reference(
    abundances: Tensor,
    endmembers: Tensor,
    pixels: Tensor,
    *,
    loss: str = "mse",
    softmax: bool = False,
    reduction: str = "mean",
) -> Tensor:
    """Return the loss of `linear_mixing`; differentiable by autograd."""
    a = abundances.softmax(1) if softmax else abundances
    rebuilt = a @ endmembers  # (n, D)
    x = pixels.detach()
    rows = (x - rebuilt).square().mean(1) if loss == "mse" else angles_reference(x, rebuilt)
    return rows if reduction == "none" else torch.mean(rows) if reduction == "mean" else rows.sum()
