"""Angles and their gradients in plain torch, some rows at a time, which stay in cache."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from hsssl_kernels.checks import compute_dtype
from hsssl_kernels.rows.reference import unit_rows_reference
from hsssl_kernels.spectral_angle.reference import angle_between

__all__ = [
    "all_angles_blocked",
    "all_angles_grad_blocked",
    "angle_grad_blocked",
    "angle_rows_blocked",
    "angle_weight",
    "angles_and_norms",
    "parts",
]

# Values of each matrix held at a time: what stays in a core's cache, and what keeps a GPU busy.
_VALUES, _GPU_VALUES = 2**18, 2**24
# Norms whose squares, and those of values far smaller, are normal numbers in float32.
_LEAST, _MOST = 1e-12, 1e15


def angle_rows_blocked(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the angle between each row of x and of y (n, D), 1 / |x| and 1 / |y|, each (n,)."""
    wide = compute_dtype(x)
    found = [angles_and_norms(x[part].to(wide), y[part].to(wide)) for part in parts(x)]
    angle, x_inverse, y_inverse = (torch.cat(pieces) for pieces in zip(*found, strict=True))
    return angle, x_inverse, y_inverse


def angle_grad_blocked(
    x: Tensor, y: Tensor, cosine: Tensor, weight: Tensor, x_inverse: Tensor, y_inverse: Tensor
) -> tuple[Tensor, Tensor]:
    """Return ``weight (v - cosine u) / |x|`` and ``weight (u - cosine v) / |y|`` for unit rows u and v."""
    wide = compute_dtype(x)
    dx, dy = torch.empty_like(x), torch.empty_like(y)
    for part in parts(x):
        u, v = x[part].to(wide) * x_inverse[part, None], y[part].to(wide) * y_inverse[part, None]
        c, w = cosine[part, None], weight[part]
        dx[part] = torch.addcmul(v, u, c, value=-1).mul_((w * x_inverse[part])[:, None])
        dy[part] = u.addcmul_(v, c, value=-1).mul_((w * y_inverse[part])[:, None])
    return dx, dy


def all_angles_blocked(x: Tensor, y: Tensor) -> Tensor:
    """Return the angles (n, m) of every row of x (n, D) with every row of y (m, D)."""
    wide = compute_dtype(x)
    v = unit_rows_reference(y.to(wide))[0]
    angle = torch.empty(len(x), len(y), dtype=wide, device=x.device)
    for part in parts(x):
        rows, factor, _ = _with_lengths(x[part].to(wide))
        cosine = torch.mm(rows, v.T, out=angle[part])
        cosine.mul_(factor).clamp_(-1, 1).arccos_()
    return angle


def all_angles_grad_blocked(x: Tensor, y: Tensor, angle: Tensor, upstream: Tensor) -> tuple[Tensor, Tensor]:
    """Return the gradients by x and y for that of the angles, both (n, m): two products a block of rows."""
    wide = angle.dtype
    v, y_inverse = unit_rows_reference(y.to(wide))
    dx, by_v, along_v = torch.empty_like(x), torch.zeros_like(v), v.new_zeros(len(v))
    for part in parts(x):
        rows, factor, inverse = _with_lengths(x[part].to(wide))  # (r, D), (r, 1), (r, 1)
        weight = angle_weight(upstream[part], angle[part])
        across = weight * angle[part].cos()
        along_v += across.sum(0)
        gradient = weight @ v
        gradient.addcmul_(rows, across.sum(1, keepdim=True).mul_(factor), value=-1)
        dx[part] = gradient.mul_(inverse)
        by_v.addmm_(weight.mul_(factor).T, rows)
    by_v.addcmul_(v, along_v[:, None], value=-1).mul_(y_inverse[:, None])
    return dx, by_v.to(y.dtype)


def angle_weight(upstream: Tensor, angle: Tensor) -> Tensor:
    """Return the gradient by the cosine; 0 at angles of 0 and pi, where no direction is the gradient's."""
    sine = angle.sin()
    return torch.where(sine > torch.finfo(sine.dtype).eps, -upstream / sine, 0.0)


def angles_and_norms(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the angle between each row of x and of y (n, D), 1 / |x| and 1 / |y|, for rows held in cache."""
    (a, a_factor, x_inverse), (b, b_factor, y_inverse) = _with_lengths(x), _with_lengths(y)
    x_inverse, y_inverse = x_inverse.squeeze(1), y_inverse.squeeze(1)
    if x.device.type != "cpu":  # looking for rows that are told apart another way would wait for a GPU
        return angle_between(a * a_factor, b * b_factor), x_inverse, y_inverse
    apart = torch.linalg.vector_norm((a * a_factor).addcmul_(b, b_factor, value=-1), dim=1)
    squared = apart.square()
    # of unit vectors |u + v|^2 = 4 - |u - v|^2, which loses no digits at angles that are not obtuse
    angle = torch.atan2(apart, (4 - squared).clamp_min_(0).sqrt_()).mul_(2)
    odd = torch.nonzero((squared > 2) | (x_inverse == 0) | (y_inverse == 0)).squeeze(1)
    if len(odd):
        angle[odd] = angle_between(a[odd] * a_factor[odd], b[odd] * b_factor[odd])
    return angle, x_inverse, y_inverse


def _with_lengths(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return rows (n, D) and what each is to be multiplied by to have length one (n, 1), and 1 / |x| (n, 1).

    The largest value of a row needs dividing out only where a square may overflow or vanish: a CPU looks at
    the lengths and saves two passes over the rows, a GPU would have to be waited for.
    """
    if x.device.type == "cpu":
        length = torch.linalg.vector_norm(x, dim=1, keepdim=True)
        least, most = length.aminmax()
        if float(least) > _LEAST and float(most) < _MOST:
            inverse = length.reciprocal_()
            return x, inverse, inverse
    unit, inverse = unit_rows_reference(x)  # rows of zeros or with NaN too
    return unit, torch.ones_like(inverse[:, None]), inverse[:, None]


def parts(x: Tensor) -> Iterator[slice]:
    """Cut rows (n, D) into slices of so many that a matrix of them stays in cache."""
    step = max(1, (_VALUES if x.device.type == "cpu" else _GPU_VALUES) // x.shape[1])
    for start in range(0, len(x), step):
        yield slice(start, start + step)
