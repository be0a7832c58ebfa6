"""The cosine regression loss of BYOL and SimSiam in plain torch."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

__all__ = ["cosine_regression_reference"]


def cosine_regression_reference(prediction: Tensor, target: Tensor) -> Tensor:
    """Return the loss of `cosine_regression`; differentiable by autograd."""
    p = F.normalize(prediction, eps=0.0)  # (n, D)
    t = F.normalize(target.detach(), eps=0.0)  # (n, D)
    return (2 - 2 * (p * t).sum(1)).mean()
