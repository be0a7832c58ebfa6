"""Triton kernels: the loss of a linear mixing model and its gradients, the reconstruction never in memory.

    r_i = a_i E,   mse_i = |x_i - r_i|^2 / D,   sad_i = 2 asin(|x_i / |x_i| - r_i / |r_i|| / 2)
    dloss_i / dr_i = alpha_i x_i + beta_i r_i =: g_i,   da_i = g_i E^T,   dE = sum_i a_i^T g_i

Saved: the loss and, for sad, 1 / |x| and 1 / |r|, three numbers a row. r is formed again from a and E
wherever it is needed, 2 n p D operations; p is small, so that n D values read (twice for sad), and twice on
the way back, bound the time. Loss: Palsson et al. 2018, 10.1109/ACCESS.2018.2818280 (spectral angle).
"""

# The bodies of @triton.jit functions hold no Python types.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from hsssl_kernels.launch import PROGRAMS, architecture
from hsssl_kernels.spectral_angle.kernel import angle_of_halves

__all__ = ["MIX_OPTIONS", "launch_mixing_grad", "launch_mixing_rows", "mixing_block"]

MIX_OPTIONS = {"num_warps": 4, "num_stages": 2, "enable_fp_fusion": True}
_ROWS, _COLUMNS = 32, 32


def mixing_block(p: int) -> tuple[int, int, int]:
    """Return rows, columns and endmembers of a program; endmembers are filled up to a power of two."""
    return _ROWS, _COLUMNS, max(16, 1 << (p - 1).bit_length())


@triton.jit
def _rebuilt(e_ptr, a, first, P, D: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_P: tl.constexpr):
    """Return a @ E for the columns from ``first`` on, (BLOCK_N, BLOCK_D) float32, and where they are."""
    columns = first + tl.arange(0, BLOCK_D)
    members = tl.arange(0, BLOCK_P)
    inside = (members[:, None] < P) & (columns[None, :] < D)
    e = tl.load(e_ptr + members[:, None] * D + columns[None, :], mask=inside, other=0.0).to(tl.float32)
    return tl.dot(a, e, input_precision="ieee"), columns


@triton.jit
def _mixing_rows_kernel(
    a_ptr,  # (n, P)
    e_ptr,  # (P, D)
    x_ptr,  # (n, D)
    loss_ptr,  # (n,) float32, as the inverse norms
    x_inverse_ptr,
    r_inverse_ptr,
    n,
    P,
    D: tl.constexpr,
    ANGLE: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_P: tl.constexpr,
):
    rows = tl.program_id(0).to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
    members = tl.arange(0, BLOCK_P)
    there = (rows[:, None] < n) & (members[None, :] < P)
    a = tl.load(a_ptr + rows[:, None] * P + members[None, :], mask=there, other=0.0).to(tl.float32)
    error = tl.zeros((BLOCK_N,), tl.float32)
    x_square = tl.zeros((BLOCK_N,), tl.float32)
    r_square = tl.zeros((BLOCK_N,), tl.float32)
    for first in range(0, D, BLOCK_D):
        r, columns = _rebuilt(e_ptr, a, first, P, D, BLOCK_D, BLOCK_P)
        inside = (rows[:, None] < n) & (columns[None, :] < D)
        x = tl.load(x_ptr + rows[:, None] * D + columns[None, :], mask=inside, other=0.0).to(tl.float32)
        if ANGLE:
            x_square += tl.sum(x * x, 1)
            r_square += tl.sum(r * r, 1)
        else:
            error += tl.sum((x - r) * (x - r), 1)
    if ANGLE:
        x_inverse = tl.where(x_square == 0, 0.0, 1.0 / tl.sqrt(tl.where(x_square == 0, 1.0, x_square)))
        r_inverse = tl.where(r_square == 0, 0.0, 1.0 / tl.sqrt(tl.where(r_square == 0, 1.0, r_square)))
        apart = tl.zeros((BLOCK_N,), tl.float32)
        along = tl.zeros((BLOCK_N,), tl.float32)
        for first in range(0, D, BLOCK_D):
            r, columns = _rebuilt(e_ptr, a, first, P, D, BLOCK_D, BLOCK_P)
            inside = (rows[:, None] < n) & (columns[None, :] < D)
            x = tl.load(x_ptr + rows[:, None] * D + columns[None, :], mask=inside, other=0.0).to(tl.float32)
            u, v = x * x_inverse[:, None], r * r_inverse[:, None]
            apart += tl.sum((u - v) * (u - v), 1)
            along += tl.sum((u + v) * (u + v), 1)
        tl.store(loss_ptr + rows, angle_of_halves(apart, along), mask=rows < n)
        tl.store(x_inverse_ptr + rows, x_inverse, mask=rows < n)
        tl.store(r_inverse_ptr + rows, r_inverse, mask=rows < n)
    else:
        tl.store(loss_ptr + rows, error / D, mask=rows < n)


@triton.jit
def _mixing_abundance_grad_kernel(
    a_ptr,
    e_ptr,
    x_ptr,
    alpha_ptr,  # (n,) float32, as beta
    beta_ptr,
    da_ptr,  # (n, P)
    n,
    P,
    D: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_P: tl.constexpr,
):
    rows = tl.program_id(0).to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
    members = tl.arange(0, BLOCK_P)
    there = (rows[:, None] < n) & (members[None, :] < P)
    a = tl.load(a_ptr + rows[:, None] * P + members[None, :], mask=there, other=0.0).to(tl.float32)
    alpha = tl.load(alpha_ptr + rows, mask=rows < n, other=0.0)
    beta = tl.load(beta_ptr + rows, mask=rows < n, other=0.0)
    da = tl.zeros((BLOCK_N, BLOCK_P), tl.float32)
    for first in range(0, D, BLOCK_D):
        r, columns = _rebuilt(e_ptr, a, first, P, D, BLOCK_D, BLOCK_P)
        inside = (rows[:, None] < n) & (columns[None, :] < D)
        x = tl.load(x_ptr + rows[:, None] * D + columns[None, :], mask=inside, other=0.0).to(tl.float32)
        g = alpha[:, None] * x + beta[:, None] * r
        # E transposed by its addresses: a transposed matrix product is miscompiled on Hopper before 3.7.1
        turned = (columns[:, None] < D) & (members[None, :] < P)
        e = tl.load(e_ptr + members[None, :] * D + columns[:, None], mask=turned, other=0.0).to(tl.float32)
        da += tl.dot(g, e, input_precision="ieee")
    tl.store(da_ptr + rows[:, None] * P + members[None, :], da, mask=there)


@triton.jit
def _mixing_endmember_grad_kernel(
    a_ptr,
    e_ptr,
    x_ptr,
    alpha_ptr,
    beta_ptr,
    de_ptr,  # (splits, P, D) float32
    n,
    P,
    span,  # rows of a split
    D: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_P: tl.constexpr,
):
    columns = tl.program_id(0) * BLOCK_D + tl.arange(0, BLOCK_D)
    members = tl.arange(0, BLOCK_P)
    begin = tl.program_id(1).to(tl.int64) * span
    end = tl.minimum(begin + span, n)
    de = tl.zeros((BLOCK_P, BLOCK_D), tl.float32)
    for start in range(begin, end, BLOCK_N):
        rows = start + tl.arange(0, BLOCK_N)
        there = (rows[:, None] < end) & (members[None, :] < P)
        a = tl.load(a_ptr + rows[:, None] * P + members[None, :], mask=there, other=0.0).to(tl.float32)
        r, _ = _rebuilt(e_ptr, a, tl.program_id(0) * BLOCK_D, P, D, BLOCK_D, BLOCK_P)
        inside = (rows[:, None] < end) & (columns[None, :] < D)
        x = tl.load(x_ptr + rows[:, None] * D + columns[None, :], mask=inside, other=0.0).to(tl.float32)
        alpha = tl.load(alpha_ptr + rows, mask=rows < end, other=0.0)
        beta = tl.load(beta_ptr + rows, mask=rows < end, other=0.0)
        g = alpha[:, None] * x + beta[:, None] * r
        turned = (rows[None, :] < end) & (members[:, None] < P)
        at = tl.load(a_ptr + rows[None, :] * P + members[:, None], mask=turned, other=0.0).to(tl.float32)
        de += tl.dot(at, g, input_precision="ieee")
    at = de_ptr + tl.program_id(1).to(tl.int64) * P * D + members[:, None] * D + columns[None, :]
    tl.store(at, de, mask=(members[:, None] < P) & (columns[None, :] < D))


def launch_mixing_rows(a: Tensor, e: Tensor, x: Tensor, loss: str) -> tuple[Tensor, Tensor, Tensor]:
    """Return the loss of each row, 1 / |x| and 1 / |a E|, float32; the norms are empty for "mse"."""
    (n, p), columns = a.shape, e.shape[1]
    rows = torch.empty(n, dtype=torch.float32, device=a.device)
    size = n if loss == "sad" else 0
    x_inverse, r_inverse = (torch.empty(size, dtype=torch.float32, device=a.device) for _ in range(2))
    block_n, block_d, block_p = mixing_block(p)
    _mixing_rows_kernel[(triton.cdiv(n, block_n),)](
        a_ptr=a.contiguous(),
        e_ptr=e.contiguous(),
        x_ptr=x.contiguous(),
        loss_ptr=rows,
        x_inverse_ptr=x_inverse if size else rows,
        r_inverse_ptr=r_inverse if size else rows,
        n=n,
        P=p,
        D=columns,
        ANGLE=loss == "sad",
        BLOCK_N=block_n,
        BLOCK_D=block_d,
        BLOCK_P=block_p,
        **MIX_OPTIONS,
    )
    return rows, x_inverse, r_inverse


def launch_mixing_grad(a: Tensor, e: Tensor, x: Tensor, alpha: Tensor, beta: Tensor) -> tuple[Tensor, Tensor]:
    """Return ``G E^T`` (n, p) and ``a^T G`` (p, D) for the rows ``G = alpha x + beta a E``."""
    (n, p), columns = a.shape, e.shape[1]
    block_n, block_d, block_p = mixing_block(p)
    a, e, x = a.contiguous(), e.contiguous(), x.contiguous()
    alpha, beta = alpha.to(torch.float32).contiguous(), beta.to(torch.float32).contiguous()
    da = torch.empty(n, p, dtype=a.dtype, device=a.device)
    _mixing_abundance_grad_kernel[(triton.cdiv(n, block_n),)](
        a_ptr=a,
        e_ptr=e,
        x_ptr=x,
        alpha_ptr=alpha,
        beta_ptr=beta,
        da_ptr=da,
        n=n,
        P=p,
        D=columns,
        BLOCK_N=block_n,
        BLOCK_D=block_d,
        BLOCK_P=block_p,
        **MIX_OPTIONS,
    )
    across = triton.cdiv(columns, block_d)
    blocks = triton.cdiv(n, block_n)
    wanted = max(1, min(PROGRAMS[architecture(a)] // across, blocks))
    span = triton.cdiv(blocks, wanted) * block_n
    splits = triton.cdiv(n, span)
    de = torch.empty(splits, p, columns, dtype=torch.float32, device=a.device)
    _mixing_endmember_grad_kernel[(across, splits)](
        a_ptr=a,
        e_ptr=e,
        x_ptr=x,
        alpha_ptr=alpha,
        beta_ptr=beta,
        de_ptr=de,
        n=n,
        P=p,
        span=span,
        D=columns,
        BLOCK_N=block_n,
        BLOCK_D=block_d,
        BLOCK_P=block_p,
        **MIX_OPTIONS,
    )
    return da, de.sum(0).to(e.dtype)
