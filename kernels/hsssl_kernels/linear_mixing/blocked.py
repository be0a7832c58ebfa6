"""The mixing loss and its gradients on any device in plain torch, some rows at a time."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from hsssl_kernels.checks import compute_dtype
from hsssl_kernels.rows.reference import unit_rows_reference
from hsssl_kernels.spectral_angle.reference import angle_between

__all__ = ["mixing_grad", "mixing_rows"]

# Values of the reconstruction held at a time.
_VALUES = 2**18


def mixing_rows(a: Tensor, e: Tensor, x: Tensor, loss: str) -> tuple[Tensor, Tensor, Tensor]:
    """Return the loss of each row, 1 / |x| and 1 / |a E|, each (n,); the norms are empty for "mse"."""
    wide = compute_dtype(a)
    rows = torch.empty(len(a), dtype=wide, device=a.device)
    x_inverse, r_inverse = (torch.empty_like(rows) if loss == "sad" else rows.new_empty(0) for _ in range(2))
    e = e.to(wide)
    for part in _parts(a, e):
        seen, rebuilt = x[part].to(wide), a[part].to(wide) @ e
        if loss == "mse":
            rows[part] = rebuilt.sub_(seen).square_().mean(1)
            continue
        u, x_inverse[part] = unit_rows_reference(seen)
        v, r_inverse[part] = unit_rows_reference(rebuilt)
        rows[part] = angle_between(u, v)
    return rows, x_inverse, r_inverse


def mixing_grad(a: Tensor, e: Tensor, x: Tensor, alpha: Tensor, beta: Tensor) -> tuple[Tensor, Tensor]:
    """Return ``G E^T`` (n, p) and ``a^T G`` (p, D) for the rows ``G = alpha x + beta a E``."""
    wide = compute_dtype(a)
    da, de = torch.empty_like(a), torch.zeros_like(e, dtype=wide)
    e_wide = e.to(wide)
    for part in _parts(a, e):
        here = a[part].to(wide)
        gradient = here @ e_wide
        gradient.mul_(beta[part, None].to(wide)).addcmul_(x[part].to(wide), alpha[part, None].to(wide))
        da[part] = (gradient @ e_wide.T).to(a.dtype)
        de.addmm_(here.T, gradient)
    return da, de.to(e.dtype)


def _parts(a: Tensor, e: Tensor) -> Iterator[slice]:
    step = max(1, _VALUES // e.shape[1])
    for start in range(0, len(a), step):
        yield slice(start, start + step)
