"""Triton kernels: cosines of paired rows, and their gradient by the first.

    c_i = <p_i, t_i> / (|p_i| |t_i|),   dp_i = factor (t_i / |t_i| - c_i p_i / |p_i|) / |p_i|

Saved: c and both inverse norms, three numbers a row; the unit rows are formed again. Forward reads
2 n D values, backward reads 2 n D and writes n D: bound by memory.
Formula: Grill et al. 2020, arXiv:2006.07733, equation 2.
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

__all__ = ["launch_cosine_rows", "launch_cosine_rows_grad"]


@triton.jit
def _cosine_rows_kernel(
    p_ptr,  # (n, D)
    t_ptr,  # (n, D)
    cosine_ptr,  # (n,) float32, as both norms
    p_inverse_ptr,
    t_inverse_ptr,
    n,
    D: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    rows = tl.program_id(0).to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
    columns = tl.arange(0, BLOCK_D)
    inside = (rows[:, None] < n) & (columns[None, :] < D)
    at = rows[:, None] * D + columns[None, :]
    p = tl.load(p_ptr + at, mask=inside, other=0.0).to(tl.float32)
    t = tl.load(t_ptr + at, mask=inside, other=0.0).to(tl.float32)
    p_inverse, t_inverse = inverse_norm(p), inverse_norm(t)
    cosine = tl.sum((p * p_inverse[:, None]) * (t * t_inverse[:, None]), 1)
    tl.store(cosine_ptr + rows, cosine, mask=rows < n)
    tl.store(p_inverse_ptr + rows, p_inverse, mask=rows < n)
    tl.store(t_inverse_ptr + rows, t_inverse, mask=rows < n)


@triton.jit
def _cosine_rows_grad_kernel(
    p_ptr,
    t_ptr,
    cosine_ptr,
    p_inverse_ptr,
    t_inverse_ptr,
    factor_ptr,  # one float32
    dp_ptr,  # (n, D)
    n,
    D: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    rows = tl.program_id(0).to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
    columns = tl.arange(0, BLOCK_D)
    inside = (rows[:, None] < n) & (columns[None, :] < D)
    at = rows[:, None] * D + columns[None, :]
    p = tl.load(p_ptr + at, mask=inside, other=0.0).to(tl.float32)
    t = tl.load(t_ptr + at, mask=inside, other=0.0).to(tl.float32)
    cosine = tl.load(cosine_ptr + rows, mask=rows < n, other=0.0)
    p_inverse = tl.load(p_inverse_ptr + rows, mask=rows < n, other=0.0)
    t_inverse = tl.load(t_inverse_ptr + rows, mask=rows < n, other=0.0)
    across = t * t_inverse[:, None] - p * (cosine * p_inverse)[:, None]
    tl.store(dp_ptr + at, across * (p_inverse * tl.load(factor_ptr))[:, None], mask=inside)


def launch_cosine_rows(p: Tensor, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return cosines, 1 / |p| and 1 / |t|, each (n,), float32."""
    n, columns = p.shape
    block_n, block_d = row_block(columns)
    cosine, p_inverse, t_inverse = (torch.empty(n, dtype=torch.float32, device=p.device) for _ in range(3))
    _cosine_rows_kernel[(triton.cdiv(n, block_n),)](
        p_ptr=p.contiguous(),
        t_ptr=t.contiguous(),
        cosine_ptr=cosine,
        p_inverse_ptr=p_inverse,
        t_inverse_ptr=t_inverse,
        n=n,
        D=columns,
        BLOCK_N=block_n,
        BLOCK_D=block_d,
        num_warps=4,
        enable_fp_fusion=True,
    )
    return cosine, p_inverse, t_inverse


def launch_cosine_rows_grad(
    p: Tensor, t: Tensor, cosine: Tensor, p_inverse: Tensor, t_inverse: Tensor, factor: Tensor
) -> Tensor:
    """Return ``factor`` times the gradient of the cosines by p (n, D)."""
    n, columns = p.shape
    block_n, block_d = row_block(columns)
    dp = torch.empty(n, columns, dtype=p.dtype, device=p.device)
    _cosine_rows_grad_kernel[(triton.cdiv(n, block_n),)](
        p_ptr=p.contiguous(),
        t_ptr=t.contiguous(),
        cosine_ptr=cosine,
        p_inverse_ptr=p_inverse,
        t_inverse_ptr=t_inverse,
        factor_ptr=factor.to(p.device, torch.float32),
        dp_ptr=dp,
        n=n,
        D=columns,
        BLOCK_N=block_n,
        BLOCK_D=block_d,
        num_warps=4,
        enable_fp_fusion=True,
    )
    return dp
