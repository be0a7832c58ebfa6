"""Triton kernels: rows to norm 1, and a gradient back through that norm.

    u_i = x_i / |x_i|
    g_i = factor (total_i - weight_i target_(i + shift)),   dx_i = (g_i - u_i <u_i, g_i>) / |x_i|

A program reads whole rows once and writes them once; u is formed again from x and the saved
1 / |x|. Bytes: 2 n D forward, 4 n D backward, a few operations each: bound by memory.
"""

# The bodies of @triton.jit functions hold no Python types.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from hsssl_kernels.launch import row_block

__all__ = ["inverse_norm", "launch_finish_rows", "launch_unit_rows"]


@triton.jit
def inverse_norm(x):
    """Return 1 / |x| of each row (BLOCK_N,), 0 for a row of zeros; squares neither overflow nor vanish."""
    peak = tl.max(tl.abs(x), 1)
    peak = tl.where(peak == 0, 1.0, peak)
    x = x / peak[:, None]
    square = tl.sum(x * x, 1)
    # only an exact 0 is a row of zeros: NaN must come through
    return tl.where(square == 0, 0.0, 1.0 / tl.sqrt(tl.where(square == 0, 1.0, square))) / peak


@triton.jit
def _unit_rows_kernel(
    x_ptr, unit_ptr, inverse_ptr, n, D: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr
):
    first = tl.program_id(0).to(tl.int64) * BLOCK_N
    rows = tl.arange(0, BLOCK_N)
    columns = tl.arange(0, BLOCK_D)
    inside = (rows[:, None] < n - first) & (columns[None, :] < D)
    at = first * D + rows[:, None] * D + columns[None, :]
    x = tl.load(x_ptr + at, mask=inside, other=0.0).to(tl.float32)
    inverse = inverse_norm(x)
    tl.store(unit_ptr + at, x * inverse[:, None], mask=inside)
    tl.store(inverse_ptr + first + rows, inverse, mask=rows < n - first)


@triton.jit
def _finish_rows_kernel(
    total_ptr,  # (n, D) float32
    target_ptr,  # (n, D)
    weight_ptr,  # (n,) float32
    x_ptr,  # (n, D)
    inverse_ptr,  # (n,) float32, read where NORMALIZE
    factor_ptr,  # one float32
    dx_ptr,  # (n, D)
    along_ptr,  # (n,) float32
    n,
    shift,
    D: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
    NORMALIZE: tl.constexpr,
):
    rows = tl.program_id(0).to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
    columns = tl.arange(0, BLOCK_D)
    inside = (rows[:, None] < n) & (columns[None, :] < D)
    at = rows[:, None] * D + columns[None, :]
    partner = rows + shift
    partner = tl.where(partner >= n, partner - n, partner)
    total = tl.load(total_ptr + at, mask=inside, other=0.0)
    partner_at = partner[:, None] * D + columns[None, :]
    target = tl.load(target_ptr + partner_at, mask=inside, other=0.0).to(tl.float32)
    weight = tl.load(weight_ptr + rows, mask=rows < n, other=0.0)
    x = tl.load(x_ptr + at, mask=inside, other=0.0).to(tl.float32)
    gradient = (total - weight[:, None] * target) * tl.load(factor_ptr)
    if NORMALIZE:
        inverse = tl.load(inverse_ptr + rows, mask=rows < n, other=0.0)
        unit = x * inverse[:, None]
        along = tl.sum(unit * gradient, 1)
        gradient = (gradient - unit * along[:, None]) * inverse[:, None]
    else:
        along = tl.sum(x * gradient, 1)
    tl.store(dx_ptr + at, gradient, mask=inside)
    tl.store(along_ptr + rows, along, mask=rows < n)


def launch_unit_rows(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return x / |x| (n, D) and 1 / |x| (n,), float32."""
    n, columns = x.shape
    block_n, block_d = row_block(columns)
    unit = torch.empty(n, columns, dtype=x.dtype, device=x.device)
    inverse = torch.empty(n, dtype=torch.float32, device=x.device)
    _unit_rows_kernel[(triton.cdiv(n, block_n),)](
        x_ptr=x.contiguous(),
        unit_ptr=unit,
        inverse_ptr=inverse,
        n=n,
        D=columns,
        BLOCK_N=block_n,
        BLOCK_D=block_d,
        num_warps=4,
        enable_fp_fusion=True,
    )
    return unit, inverse


def launch_finish_rows(
    total: Tensor, target: Tensor, weight: Tensor, x: Tensor, inverse: Tensor, factor: Tensor, shift: int
) -> tuple[Tensor, Tensor]:
    """Return the gradient by x (n, D) and its share along the unit rows (n,), float32."""
    n, columns = x.shape
    block_n, block_d = row_block(columns)
    dx = torch.empty(n, columns, dtype=x.dtype, device=x.device)
    along = torch.empty(n, dtype=torch.float32, device=x.device)
    _finish_rows_kernel[(triton.cdiv(n, block_n),)](
        total_ptr=total.contiguous(),
        target_ptr=target.contiguous(),
        weight_ptr=weight.to(torch.float32).contiguous(),
        x_ptr=x.contiguous(),
        inverse_ptr=inverse if inverse.numel() else along,
        factor_ptr=factor.to(x.device, torch.float32),
        dx_ptr=dx,
        along_ptr=along,
        n=n,
        shift=shift,
        D=columns,
        BLOCK_N=block_n,
        BLOCK_D=block_d,
        NORMALIZE=bool(inverse.numel()),
        num_warps=4,
        enable_fp_fusion=True,
    )
    return dx, along
