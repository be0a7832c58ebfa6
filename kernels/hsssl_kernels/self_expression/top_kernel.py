"""Triton kernel: the largest |c_ij| of every row, kept sorted in registers while the columns stream by.

    c_ij = sign(s) max(|s| - t, 0),   s = <q_i, k_j>,   0 where j is the row's own column

A coefficient and its column are one int64: the bits of |c|, which as a float from 0 up sort like integers,
then the column, the lower the larger, then the sign. The best of a block of columns are merged into those so
far by one step of a bitonic sort. 2 n m D operations and some log(BLOCK_N)^2 comparisons a coefficient.
"""

# The bodies of @triton.jit functions hold no Python types.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from hsssl_kernels.launch import architecture, tile_for
from hsssl_kernels.self_expression.kernel import own_columns, scores

__all__ = ["launch_top"]

_LAST_COLUMN = tl.constexpr(2**30 - 1)


@triton.jit
def _top_kernel(
    a_ptr,  # (n, D)
    b_ptr,  # (m, D)
    threshold_ptr,  # one float32
    own_ptr,  # (n,) int64
    column_ptr,  # (n, neighbours) int64
    value_ptr,  # (n, neighbours) float32
    n,
    m,
    neighbours,
    D: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_K: tl.constexpr,  # the next power of two from neighbours
):
    first = tl.program_id(0) * BLOCK_M
    rows, cols = tl.arange(0, BLOCK_M), tl.arange(0, BLOCK_N)
    wide_d = tl.full([], D, tl.int64)  # rows x D may pass 2^31
    threshold = tl.load(threshold_ptr)
    best = tl.zeros([BLOCK_M, BLOCK_K], dtype=tl.int64)
    for j in range(0, m, BLOCK_N):
        s = scores(
            a_ptr + first * wide_d,
            b_ptr + j * wide_d,
            rows,
            n - first,
            cols,
            m - j,
            D,
            BLOCK_M,
            BLOCK_N,
            BLOCK_D,
        )
        size = tl.maximum(tl.abs(s) - threshold, 0.0)
        size = tl.where(own_columns(own_ptr, first, rows, n - first, j, cols, m - j, True), 0.0, size)
        code = (_LAST_COLUMN - (j + cols)[None, :]) * 2 + tl.where(s < 0, 1, 0)
        packed = (size.to(tl.int32, bitcast=True).to(tl.int64) << 32) | code.to(tl.int64)
        packed = tl.where(size > 0, packed, 0)
        found = tl.topk(packed, BLOCK_K)
        # of two falling halves, one turned round, the larger of each pair are the best of both, unsorted
        best = tl.sort(tl.maximum(best, tl.flip(found, 1)), descending=True)
    size = (best >> 32).to(tl.int32).to(tl.float32, bitcast=True)
    code = (best & 0x7FFFFFFF).to(tl.int32)
    value = tl.where((code & 1) == 1, -size, size)
    column = tl.where(best > 0, _LAST_COLUMN - (code >> 1), -1)
    places = tl.arange(0, BLOCK_K)
    at = (first.to(tl.int64) + rows)[:, None] * neighbours + places[None, :]
    inside = (rows[:, None] < n - first) & (places[None, :] < neighbours)
    tl.store(column_ptr + at, column.to(tl.int64), mask=inside)
    tl.store(value_ptr + at, value, mask=inside)


def launch_top(
    a: Tensor, b: Tensor, threshold: Tensor, own: Tensor, neighbours: int
) -> tuple[Tensor, Tensor]:
    """Return columns (n, neighbours) int64 and values of the largest |c_ij|; -1 and 0 past the last."""
    n, columns = a.shape
    tile = tile_for("express_top", architecture(a), a.dtype, columns)
    column = torch.empty(n, neighbours, dtype=torch.int64, device=a.device)
    value = torch.empty(n, neighbours, dtype=torch.float32, device=a.device)
    _top_kernel[(triton.cdiv(n, tile.block_m),)](
        a_ptr=a.contiguous(),
        b_ptr=b.contiguous(),
        threshold_ptr=threshold.to(a.device, torch.float32),
        own_ptr=own.contiguous(),
        column_ptr=column,
        value_ptr=value,
        n=n,
        m=len(b),
        neighbours=neighbours,
        D=columns,
        BLOCK_M=tile.block_m,
        BLOCK_N=tile.block_n,
        BLOCK_D=tile.block_d,
        BLOCK_K=max(2, triton.next_power_of_2(neighbours)),
        **tile.options(),
    )
    return column, value
