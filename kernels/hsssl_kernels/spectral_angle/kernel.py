"""Triton kernels: spectral angles of paired rows with their gradients, and of all rows against all.

    angle_i = 2 asin(|u_i - v_i| / 2),  from the other side where it is obtuse; u = x / |x|, v = y / |y|
    dx_i = w_i (v_i - c_i u_i) / |x_i|,  dy_i = w_i (u_i - c_i v_i) / |y_i|,  w = -upstream / sin(angle)

Pairs: saved are the angle and both inverse norms; 2 n D values read, on the way back 2 n D read and written:
bound by memory. All against all: one tile product and the arccosine in its epilogue, 2 n m D operations, (n +
m) D values read, n m written. Angle: Kruse et al. 1993, 10.1016/0034-4257(93)90013-N; arcsine: Cephes
``asinf`` (Moshier).
"""

# The bodies of @triton.jit functions hold no Python types.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from hsssl_kernels.launch import row_block
from hsssl_kernels.rows.kernel import inverse_norm

__all__ = [
    "ANGLE_OPTIONS",
    "angle_of_halves",
    "launch_all_angles",
    "launch_angle_grad",
    "launch_angle_rows",
]

ANGLE_OPTIONS = {"num_warps": 4, "num_stages": 2, "enable_fp_fusion": True}
TILE = (64, 64, 32)


@triton.jit
def _arcsine(x):
    """Return asin of 0 <= x <= 1 with an error of about 1e-7, relative to small ones too."""
    z = tl.where(x > 0.5, 0.5 * (1.0 - x), x * x)
    z = tl.maximum(z, 0.0)
    s = tl.where(x > 0.5, tl.sqrt(z), x)
    series = ((4.2163199048e-2 * z + 2.4181311049e-2) * z + 4.5470025998e-2) * z + 7.4953002686e-2
    small = s + s * z * (series * z + 1.6666752422e-1)
    return tl.where(x > 0.5, 1.5707963267948966 - 2.0 * small, small)


@triton.jit
def angle_of_halves(apart, along):
    """Return the angle between unit vectors from |u - v|^2 and |u + v|^2; pi / 2 where one is zero."""
    near = tl.minimum(apart, along)
    angle = 2.0 * _arcsine(tl.minimum(0.5 * tl.sqrt(near), 1.0))
    angle = tl.where(apart > along, 3.141592653589793 - angle, angle)
    return tl.where(apart == along, 1.5707963267948966, angle)


@triton.jit
def _angle_rows_kernel(
    x_ptr,  # (n, D)
    y_ptr,  # (n, D)
    angle_ptr,  # (n,) float32, as both norms
    x_inverse_ptr,
    y_inverse_ptr,
    n,
    D: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    rows = tl.program_id(0).to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
    columns = tl.arange(0, BLOCK_D)
    inside = (rows[:, None] < n) & (columns[None, :] < D)
    at = rows[:, None] * D + columns[None, :]
    x = tl.load(x_ptr + at, mask=inside, other=0.0).to(tl.float32)
    y = tl.load(y_ptr + at, mask=inside, other=0.0).to(tl.float32)
    x_inverse, y_inverse = inverse_norm(x), inverse_norm(y)
    u, v = x * x_inverse[:, None], y * y_inverse[:, None]
    apart, along = tl.sum((u - v) * (u - v), 1), tl.sum((u + v) * (u + v), 1)
    tl.store(angle_ptr + rows, angle_of_halves(apart, along), mask=rows < n)
    tl.store(x_inverse_ptr + rows, x_inverse, mask=rows < n)
    tl.store(y_inverse_ptr + rows, y_inverse, mask=rows < n)


@triton.jit
def _angle_grad_kernel(
    x_ptr,
    y_ptr,
    cosine_ptr,  # (n,) float32, as what follows
    weight_ptr,
    x_inverse_ptr,
    y_inverse_ptr,
    dx_ptr,  # (n, D)
    dy_ptr,
    n,
    D: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    rows = tl.program_id(0).to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
    columns = tl.arange(0, BLOCK_D)
    inside = (rows[:, None] < n) & (columns[None, :] < D)
    at = rows[:, None] * D + columns[None, :]
    cosine = tl.load(cosine_ptr + rows, mask=rows < n, other=0.0)[:, None]
    weight = tl.load(weight_ptr + rows, mask=rows < n, other=0.0)
    x_inverse = tl.load(x_inverse_ptr + rows, mask=rows < n, other=0.0)
    y_inverse = tl.load(y_inverse_ptr + rows, mask=rows < n, other=0.0)
    u = tl.load(x_ptr + at, mask=inside, other=0.0).to(tl.float32) * x_inverse[:, None]
    v = tl.load(y_ptr + at, mask=inside, other=0.0).to(tl.float32) * y_inverse[:, None]
    tl.store(dx_ptr + at, (v - cosine * u) * (weight * x_inverse)[:, None], mask=inside)
    tl.store(dy_ptr + at, (u - cosine * v) * (weight * y_inverse)[:, None], mask=inside)


@triton.jit
def _all_angles_kernel(
    u_ptr,  # (n, D), unit rows
    v_ptr,  # (m, D)
    angle_ptr,  # (n, m) float32
    n,
    m,
    D: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    rows = tl.program_id(0).to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
    others = tl.program_id(1).to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
    cosine = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for first in range(0, D, BLOCK_D):
        columns = first + tl.arange(0, BLOCK_D)
        here = (rows[:, None] < n) & (columns[None, :] < D)
        u = tl.load(u_ptr + rows[:, None] * D + columns[None, :], mask=here, other=0.0)
        there = (others[None, :] < m) & (columns[:, None] < D)
        v = tl.load(v_ptr + others[None, :] * D + columns[:, None], mask=there, other=0.0)
        cosine += tl.dot(u, v, input_precision="ieee")
    # of unit vectors: |u - v|^2 = 2 - 2 c and |u + v|^2 = 2 + 2 c
    angle = angle_of_halves(tl.maximum(2.0 - 2.0 * cosine, 0.0), tl.maximum(2.0 + 2.0 * cosine, 0.0))
    inside = (rows[:, None] < n) & (others[None, :] < m)
    tl.store(angle_ptr + rows[:, None] * m + others[None, :], angle, mask=inside)


def launch_angle_rows(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return angles, 1 / |x| and 1 / |y|, each (n,), float32."""
    n, columns = x.shape
    block_n, block_d = row_block(columns)
    angle, x_inverse, y_inverse = (torch.empty(n, dtype=torch.float32, device=x.device) for _ in range(3))
    _angle_rows_kernel[(triton.cdiv(n, block_n),)](
        x_ptr=x.contiguous(),
        y_ptr=y.contiguous(),
        angle_ptr=angle,
        x_inverse_ptr=x_inverse,
        y_inverse_ptr=y_inverse,
        n=n,
        D=columns,
        BLOCK_N=block_n,
        BLOCK_D=block_d,
        num_warps=4,
        enable_fp_fusion=True,
    )
    return angle, x_inverse, y_inverse


def launch_angle_grad(
    x: Tensor, y: Tensor, cosine: Tensor, weight: Tensor, x_inverse: Tensor, y_inverse: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the gradients by x and y, each (n, D)."""
    n, columns = x.shape
    block_n, block_d = row_block(columns)
    dx, dy = (torch.empty(n, columns, dtype=x.dtype, device=x.device) for _ in range(2))
    _angle_grad_kernel[(triton.cdiv(n, block_n),)](
        x_ptr=x.contiguous(),
        y_ptr=y.contiguous(),
        cosine_ptr=cosine.contiguous(),
        weight_ptr=weight.to(torch.float32).contiguous(),
        x_inverse_ptr=x_inverse,
        y_inverse_ptr=y_inverse,
        dx_ptr=dx,
        dy_ptr=dy,
        n=n,
        D=columns,
        BLOCK_N=block_n,
        BLOCK_D=block_d,
        num_warps=4,
        enable_fp_fusion=True,
    )
    return dx, dy


def launch_all_angles(u: Tensor, v: Tensor) -> Tensor:
    """Return the angles (n, m) between unit rows u (n, D) and v (m, D), float32."""
    (n, columns), m = u.shape, len(v)
    block_m, block_n, block_d = TILE
    angle = torch.empty(n, m, dtype=torch.float32, device=u.device)
    _all_angles_kernel[(triton.cdiv(n, block_m), triton.cdiv(m, block_n))](
        u_ptr=u.contiguous(),
        v_ptr=v.contiguous(),
        angle_ptr=angle,
        n=n,
        m=m,
        D=columns,
        BLOCK_M=block_m,
        BLOCK_N=block_n,
        BLOCK_D=block_d,
        **ANGLE_OPTIONS,
    )
    return angle
