"""The mixing loss and its gradients on any device in plain torch, some rows at a time."""

from __future__ import annotations

import torch
from torch import Tensor

from hsssl_kernels.checks import compute_dtype
from hsssl_kernels.spectral_angle.blocked import angles_and_norms, parts

__all__ = ["mixing_grad", "mixing_rows"]


def mixing_rows(a: Tensor, e: Tensor, x: Tensor, loss: str) -> tuple[Tensor, Tensor, Tensor]:
    """Return the loss of each row, 1 / |x| and 1 / |a E|, each (n,); the norms are empty for "mse"."""
    wide = compute_dtype(a)
    e = e.to(wide)
    found = []
    for part in parts(x):
        seen, rebuilt = x[part].to(wide), a[part].to(wide) @ e
        if loss == "sad":
            found.append(angles_and_norms(seen, rebuilt))
        else:
            rows = rebuilt.sub_(seen).square_().mean(1)
            found.append((rows, rows[:0], rows[:0]))
    rows, x_inverse, r_inverse = (torch.cat(pieces) for pieces in zip(*found, strict=True))
    return rows, x_inverse, r_inverse


def mixing_grad(a: Tensor, e: Tensor, x: Tensor, alpha: Tensor, beta: Tensor) -> tuple[Tensor, Tensor]:
    """Return ``G E^T`` (n, p) and ``a^T G`` (p, D) for the rows ``G = alpha x + beta a E``."""
    wide = compute_dtype(a)
    da, de = torch.empty_like(a), torch.zeros_like(e, dtype=wide)
    e_wide = e.to(wide)
    for part in parts(x):
        here = a[part].to(wide)
        gradient = here @ e_wide
        gradient.mul_(beta[part, None].to(wide)).addcmul_(x[part].to(wide), alpha[part, None].to(wide))
        da[part] = (gradient @ e_wide.T).to(a.dtype)
        de.addmm_(here.T, gradient)
    return da, de.to(e.dtype)
