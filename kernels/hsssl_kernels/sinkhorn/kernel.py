"""Triton kernels: one reading of the scores for a whole Sinkhorn iteration.

With S = scores / epsilon and c the log-sum-exp of the columns so far,

    r_i = log sum_j exp(S_ij - c_j),   c'_j = log sum_i exp(S_ij - r_i),   Q_ij = exp(S_ij - c_j - r_i)

A program walks over rows that it reads whole, finishes r_i, and takes S_ij - r_i at once into
running sums of its columns; the programs' columns are merged in a fixed order. Two exponentials an
element and iteration; B K values read an iteration, and written once at the end. Bound by memory.
Formula: Cuturi 2013, arXiv:1306.0895, algorithm 1, in logarithms.
"""

# The bodies of @triton.jit functions hold no Python types.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from hsssl_kernels.launch import PROGRAMS, architecture

__all__ = ["launch_finish", "launch_next_columns"]

_LOG2_E = tl.constexpr(1.4426950408889634)
_LN_2 = tl.constexpr(0.6931471805599453)


@triton.jit
def _log_rows(s):
    """Return log2 of the sum of 2^s over each row (1, BLOCK_K) -> (1,)."""
    top = tl.max(s, 1)
    return top + tl.log2(tl.sum(tl.exp2(s - top[:, None]), 1))


@triton.jit
def _next_columns_kernel(
    scores_ptr,  # (B, K)
    columns_ptr,  # (K,) float32, read where HAS_COLUMNS
    out_ptr,  # (programs, K) float32, natural logarithms
    scale,  # log2(e) / epsilon
    b,
    span,  # rows of one program
    K: tl.constexpr,
    BLOCK_K: tl.constexpr,
    HAS_COLUMNS: tl.constexpr,
):
    program = tl.program_id(0)
    k = tl.arange(0, BLOCK_K)
    wide_k = tl.full([], K, tl.int64)  # rows x K may pass 2^31
    if HAS_COLUMNS:
        columns = tl.load(columns_ptr + k, mask=k < K, other=0.0) * _LOG2_E
    top = tl.full([BLOCK_K], -1.0e30, dtype=tl.float32)
    total = tl.zeros([BLOCK_K], dtype=tl.float32)
    for i in range(program * span, tl.minimum((program + 1) * span, b)):
        score = tl.load(scores_ptr + i * wide_k + k, mask=k < K, other=float("-inf"))
        s = score.to(tl.float32) * scale  # (BLOCK_K,)
        if HAS_COLUMNS:
            s -= _log_rows((s - columns)[None, :])
        new_top = tl.maximum(top, s)
        total = total * tl.exp2(top - new_top) + tl.exp2(s - new_top)
        top = new_top
    tl.store(out_ptr + program * wide_k + k, (top + tl.log2(total)) * _LN_2, mask=k < K)


@triton.jit
def _finish_kernel(
    scores_ptr,  # (B, K)
    columns_ptr,  # (K,) float32
    out_ptr,  # (B, K) float32
    scale,
    b,
    K: tl.constexpr,
    BLOCK_B: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    rows = tl.program_id(0).to(tl.int64) * BLOCK_B + tl.arange(0, BLOCK_B)
    k = tl.arange(0, BLOCK_K)
    inside = (rows[:, None] < b) & (k[None, :] < K)
    at = rows[:, None] * K + k[None, :]
    columns = tl.load(columns_ptr + k, mask=k < K, other=0.0) * _LOG2_E
    # rows past b are zeros and not -inf, whose sum would have no logarithm
    outside = tl.where(k < K, 0.0, float("-inf"))[None, :]
    score = tl.load(scores_ptr + at, mask=inside, other=0.0).to(tl.float32)
    s = score * scale - columns[None, :] + outside
    tl.store(out_ptr + at, tl.exp2(s - _log_rows(s)[:, None]), mask=inside)


def launch_next_columns(scores: Tensor, columns: Tensor, epsilon: float) -> Tensor:
    """Return the next log-sum-exp over samples (K,), float32; empty ``columns`` start the iterations."""
    b, k = scores.shape
    programs = min(b, PROGRAMS[architecture(scores)])
    span = triton.cdiv(b, programs)
    programs = triton.cdiv(b, span)
    parts = torch.empty(programs, k, dtype=torch.float32, device=scores.device)
    _next_columns_kernel[(programs,)](
        scores_ptr=scores.contiguous(),
        columns_ptr=columns if columns.numel() else parts,
        out_ptr=parts,
        scale=_LOG2_E.value / epsilon,
        b=b,
        span=span,
        K=k,
        BLOCK_K=max(16, triton.next_power_of_2(k)),
        HAS_COLUMNS=bool(columns.numel()),
        num_warps=4,
        enable_fp_fusion=True,
    )
    return parts.logsumexp(0)


def launch_finish(scores: Tensor, columns: Tensor, epsilon: float) -> Tensor:
    """Return the assignments (B, K), float32."""
    b, k = scores.shape
    block_k = max(16, triton.next_power_of_2(k))
    block_b = max(1, 4096 // block_k)
    out = torch.empty(b, k, dtype=torch.float32, device=scores.device)
    _finish_kernel[(triton.cdiv(b, block_b),)](
        scores_ptr=scores.contiguous(),
        columns_ptr=columns.contiguous(),
        out_ptr=out,
        scale=_LOG2_E.value / epsilon,
        b=b,
        K=k,
        BLOCK_B=block_b,
        BLOCK_K=block_k,
        num_warps=4,
        enable_fp_fusion=True,
    )
    return out
