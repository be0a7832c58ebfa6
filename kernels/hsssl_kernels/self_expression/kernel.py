"""Triton kernels: self-expression by rows, and its gradient by rows or by columns.

    forward   out_i = sum_j c_ij v_j,   c_ij = soft(<a_i, b_j>, t) = sign(s) max(|s| - t, 0)
    backward  out_i = sum_j w_ij b_j,   w_ij = [|s_ij| > t] (<u_i, v_j> + g1 sign(s_ij) + 2 g2 c_ij)

A program owns a block of rows and a block of output columns and walks over blocks of columns of C; S, C and w
live in registers. Saved between the two: nothing but the inputs; recomputed: S. Rows are queries, or keys for
the gradients by key and by x, so that a block of rows is always the first factor: no transposed product,
and no atomics. ``g1`` and ``g2`` belong to queries, so they are read by row or by column, as ``own`` is.

Forward 2 n m (D + F) operations, backward 2 n m (3 D + 3 F) with all three gradients, more where D or F
takes several output blocks; bytes O((n + m) (D + F)). Few rows against many columns are split over columns,
and the parts added in a fixed order: the same bits every time.

Formula: Zhang, You, Vidal and Li 2021, "Learning a self-expressive network for subspace clustering",
arXiv:2110.04318, equations 6 to 8.
"""

# The bodies of @triton.jit functions hold no Python types.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from hsssl_kernels.dispatch import MAX_COLUMNS
from hsssl_kernels.launch import architecture, splits_for, tile_for

__all__ = ["launch_express", "launch_express_grad", "own_columns", "scores"]


@triton.jit
def _load_rows(base_ptr, rows, count, columns, WIDTH: tl.constexpr):
    inside = (rows[:, None] < count) & (columns[None, :] < WIDTH)
    return tl.load(base_ptr + rows[:, None] * WIDTH + columns[None, :], mask=inside, other=0.0)


@triton.jit
def scores(
    a_base, b_base, rows, n_left, cols, m_left,
    WIDTH: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """Return a b^T (BLOCK_M, BLOCK_N), chunk by chunk; 0 in rows and columns past the end."""
    s = tl.zeros([BLOCK_M, BLOCK_N], dtype=tl.float32)
    for d in range(0, WIDTH, BLOCK_D):
        columns = d + tl.arange(0, BLOCK_D)
        a = _load_rows(a_base, rows, n_left, columns, WIDTH)
        b = _load_rows(b_base, cols, m_left, columns, WIDTH)
        s = tl.dot(a, tl.trans(b), s, input_precision="ieee")
    return s


@triton.jit
def own_columns(own_ptr, first, rows, n_left, j, cols, m_left, BY_ROW: tl.constexpr):
    """Mark (BLOCK_M, BLOCK_N) where query and key are one; ``own`` holds the key of each query."""
    if BY_ROW:
        own = tl.load(own_ptr + first + rows, mask=rows < n_left, other=-1)
        same = own[:, None] == (j + cols)[None, :]
    else:
        own = tl.load(own_ptr + j + cols, mask=cols < m_left, other=-1)
        same = own[None, :] == (first + rows)[:, None]
    return same


@triton.jit
def _express_fwd_kernel(
    a_ptr,  # (n, D)
    b_ptr,  # (m, D)
    v_ptr,  # (m, F)
    threshold_ptr,  # one float32
    own_ptr,  # (n,) int64, or (m,) where not BY_ROW
    out_ptr,  # (splits, n, F) float32
    l1_ptr,  # (splits, n) float32
    l2_ptr,  # (splits, n) float32
    n,
    m,
    span,  # columns of one split, a multiple of BLOCK_N
    D: tl.constexpr,
    F: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_O: tl.constexpr,
    BY_ROW: tl.constexpr,
):
    first = tl.program_id(0) * BLOCK_M
    split = tl.program_id(2)
    rows, cols = tl.arange(0, BLOCK_M), tl.arange(0, BLOCK_N)
    out_columns = tl.program_id(1) * BLOCK_O + tl.arange(0, BLOCK_O)
    wide_d, wide_f = tl.full([], D, tl.int64), tl.full([], F, tl.int64)  # rows x D may pass 2^31
    a_base = a_ptr + first * wide_d
    threshold = tl.load(threshold_ptr)
    out = tl.zeros([BLOCK_M, BLOCK_O], dtype=tl.float32)
    l1 = tl.zeros([BLOCK_M], dtype=tl.float32)
    l2 = tl.zeros([BLOCK_M], dtype=tl.float32)
    for j in range(split * span, tl.minimum((split + 1) * span, m), BLOCK_N):
        s = scores(a_base, b_ptr + j * wide_d, rows, n - first, cols, m - j, D, BLOCK_M, BLOCK_N, BLOCK_D)
        size = tl.maximum(tl.abs(s) - threshold, 0.0)
        size = tl.where(own_columns(own_ptr, first, rows, n - first, j, cols, m - j, BY_ROW), 0.0, size)
        l1 += tl.sum(size, 1)
        l2 += tl.sum(size * size, 1)
        c = tl.where(s < 0, -size, size)
        v = _load_rows(v_ptr + j * wide_f, cols, m - j, out_columns, F)  # (BLOCK_N, BLOCK_O)
        out = tl.dot(c.to(v.dtype), v, out, input_precision="ieee")
    at = split.to(tl.int64) * n + first
    inside = (rows[:, None] < n - first) & (out_columns[None, :] < F)
    tl.store(out_ptr + at * F + rows[:, None] * F + out_columns[None, :], out, mask=inside)
    # all blocks of output columns have the same sums: the first writes them
    once = rows < tl.where(tl.program_id(1) == 0, n - first, 0)
    tl.store(l1_ptr + at + rows, l1, mask=once)
    tl.store(l2_ptr + at + rows, l2, mask=once)


@triton.jit
def _express_bwd_kernel(
    a_ptr,  # (n, D)
    b_ptr,  # (m, D)
    u_ptr,  # (n, F)
    v_ptr,  # (m, F)
    g1_ptr,  # (n,) float32, or (m,) where not BY_ROW
    g2_ptr,
    threshold_ptr,
    own_ptr,
    out_ptr,  # (splits, n, D) float32
    along_ptr,  # (splits, n) float32, sum_j w_ij sign(s_ij)
    n,
    m,
    span,
    D: tl.constexpr,
    F: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_O: tl.constexpr,
    BY_ROW: tl.constexpr,
):
    first = tl.program_id(0) * BLOCK_M
    split = tl.program_id(2)
    rows, cols = tl.arange(0, BLOCK_M), tl.arange(0, BLOCK_N)
    out_columns = tl.program_id(1) * BLOCK_O + tl.arange(0, BLOCK_O)
    wide_d, wide_f = tl.full([], D, tl.int64), tl.full([], F, tl.int64)
    a_base, u_base = a_ptr + first * wide_d, u_ptr + first * wide_f
    threshold = tl.load(threshold_ptr)
    out = tl.zeros([BLOCK_M, BLOCK_O], dtype=tl.float32)
    along = tl.zeros([BLOCK_M], dtype=tl.float32)
    for j in range(split * span, tl.minimum((split + 1) * span, m), BLOCK_N):
        b_base = b_ptr + j * wide_d
        s = scores(a_base, b_base, rows, n - first, cols, m - j, D, BLOCK_M, BLOCK_N, BLOCK_D)
        w = scores(u_base, v_ptr + j * wide_f, rows, n - first, cols, m - j, F, BLOCK_M, BLOCK_N, BLOCK_D)
        size = tl.maximum(tl.abs(s) - threshold, 0.0)
        size = tl.where(own_columns(own_ptr, first, rows, n - first, j, cols, m - j, BY_ROW), 0.0, size)
        if BY_ROW:
            g1 = tl.load(g1_ptr + first + rows, mask=rows < n - first, other=0.0)[:, None]
            g2 = tl.load(g2_ptr + first + rows, mask=rows < n - first, other=0.0)[:, None]
        else:
            g1 = tl.load(g1_ptr + j + cols, mask=cols < m - j, other=0.0)[None, :]
            g2 = tl.load(g2_ptr + j + cols, mask=cols < m - j, other=0.0)[None, :]
        # sign(s) w = sign(s) <u, v> + g1 + 2 g2 |c|
        toward = tl.where(s < 0, -w, w) + g1 + 2.0 * g2 * size
        toward = tl.where(size > 0, toward, 0.0)
        along += tl.sum(toward, 1)
        w = tl.where(s < 0, -toward, toward)
        b_out = _load_rows(b_base, cols, m - j, out_columns, D)  # (BLOCK_N, BLOCK_O)
        out = tl.dot(w.to(b_out.dtype), b_out, out, input_precision="ieee")
    at = split.to(tl.int64) * n + first
    inside = (rows[:, None] < n - first) & (out_columns[None, :] < D)
    tl.store(out_ptr + at * D + rows[:, None] * D + out_columns[None, :], out, mask=inside)
    tl.store(along_ptr + at + rows, along, mask=rows < tl.where(tl.program_id(1) == 0, n - first, 0))


def launch_express(
    a: Tensor, b: Tensor, v: Tensor, threshold: Tensor, own: Tensor, by_row: bool = True
) -> tuple[Tensor, Tensor, Tensor]:
    """Return C v (n, F), and the sums of |c| and c^2 over each row (n,), all float32."""
    (n, columns), (m, width) = a.shape, v.shape
    grid, span, options = _plan("express_fwd", a, m, columns, width)
    splits = grid[2]
    parts = torch.empty(splits, n, width, dtype=torch.float32, device=a.device)
    l1, l2 = (torch.empty(splits, n, dtype=torch.float32, device=a.device) for _ in range(2))
    _express_fwd_kernel[grid](
        a_ptr=a.contiguous(),
        b_ptr=b.contiguous(),
        v_ptr=v.contiguous(),
        threshold_ptr=threshold.to(a.device, torch.float32),
        own_ptr=own.contiguous(),
        out_ptr=parts,
        l1_ptr=l1,
        l2_ptr=l2,
        n=n,
        m=m,
        span=span,
        D=columns,
        F=width,
        BY_ROW=by_row,
        **options,
    )
    return _merged(parts), _merged(l1), _merged(l2)


def launch_express_grad(
    a: Tensor, b: Tensor, u: Tensor, v: Tensor, weight: Tensor, threshold: Tensor, own: Tensor, by_row: bool
) -> tuple[Tensor, Tensor]:
    """Return w b (n, D) and the sums of w sign(s) over each row (n,), float32; ``weight`` is (g1, g2)."""
    (n, columns), width = a.shape, v.shape[1]
    grid, span, options = _plan("express_bwd", a, len(b), width, columns)
    parts = torch.empty(grid[2], n, columns, dtype=torch.float32, device=a.device)
    along = torch.empty(grid[2], n, dtype=torch.float32, device=a.device)
    g1, g2 = weight.to(torch.float32).contiguous().unbind()
    _express_bwd_kernel[grid](
        a_ptr=a.contiguous(),
        b_ptr=b.contiguous(),
        u_ptr=u.contiguous(),
        v_ptr=v.contiguous(),
        g1_ptr=g1,
        g2_ptr=g2,
        threshold_ptr=threshold.to(a.device, torch.float32),
        own_ptr=own.contiguous(),
        out_ptr=parts,
        along_ptr=along,
        n=n,
        m=len(b),
        span=span,
        D=columns,
        F=width,
        BY_ROW=by_row,
        **options,
    )
    return _merged(parts), _merged(along)


def _plan(
    kernel: str, a: Tensor, m: int, inner: int, out: int
) -> tuple[tuple[int, int, int], int, dict[str, int | bool]]:
    """Return the grid (rows, output columns, splits), the columns of a split, and the compiler's options."""
    arch = architecture(a)
    tile = tile_for(kernel, arch, a.dtype, min(max(inner, out), MAX_COLUMNS))  # both go in blocks
    row_blocks, out_blocks = triton.cdiv(len(a), tile.block_m), triton.cdiv(out, tile.block_o)
    splits, span = splits_for(tile, arch, row_blocks * out_blocks, m)
    blocks = {
        "BLOCK_M": tile.block_m,
        "BLOCK_N": tile.block_n,
        "BLOCK_D": tile.block_d,
        "BLOCK_O": tile.block_o,
    }
    return (row_blocks, out_blocks, splits), span, {**blocks, **tile.options()}


def _merged(parts: Tensor) -> Tensor:
    return parts.sum(0) if len(parts) > 1 else parts[0]
