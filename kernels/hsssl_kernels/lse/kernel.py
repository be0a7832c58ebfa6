"""Triton kernels: log-sum-exp of S = x y^T / temperature by rows, and the gradient's one sweep.

    forward   lse_i = log sum_j exp(S_ij)
    backward  out_i = sum_j W_ij y_j,   W_ij = a_i exp(S_ij - r_i) + b_j exp(S_ij - c_j)

A program owns a block of rows and walks over blocks of columns; S lives in registers. Saved between
the two: n logarithms; recomputed: S. A row's entries with itself and with its partner can be left out.
Forward 2 n m D operations, backward 4 n m D, and 2 n m D more for every further block of columns where D is
too wide for one; bytes O((n + m) D). Few rows against many columns (a
queue) are split over columns, and the parts merged in a fixed order: no atomics, the same bits every
time.

Logarithms inside are to base 2. Rows of norm 1 bound |S| by the scale, so that a constant takes the
place of the running maximum and W takes one exponential: exp(S - c) (u_i + v_j).

Derived from the log-sum-exp streaming of Rabe and Staats 2021, arXiv:2112.05682.
"""

# The bodies of @triton.jit functions hold no Python types.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"

from __future__ import annotations

import triton
import triton.language as tl

__all__: list[str] = []


@triton.jit
def _load_rows(base_ptr, rows, count, columns, D: tl.constexpr):
    inside = (rows[:, None] < count) & (columns[None, :] < D)
    return tl.load(base_ptr + rows[:, None] * D + columns[None, :], mask=inside, other=0.0)


@triton.jit
def _similarity(
    x_tile, y_tile, x_base, y_base, rows, n_left, cols, m_left,
    D: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """Return x y^T (BLOCK_M, BLOCK_N): of the tiles where they hold all D columns, else chunk by chunk."""
    if BLOCK_D >= D:
        s = tl.dot(x_tile, tl.trans(y_tile), input_precision="ieee")
    else:
        s = tl.zeros([BLOCK_M, BLOCK_N], dtype=tl.float32)
        for d in range(0, D, BLOCK_D):
            columns = d + tl.arange(0, BLOCK_D)
            x_part = _load_rows(x_base, rows, n_left, columns, D)
            y_part = _load_rows(y_base, cols, m_left, columns, D)
            s = tl.dot(x_part, tl.trans(y_part), s, input_precision="ieee")
    return s


@triton.jit
def _scaled(s, scale, inside):
    """Return s times the scale where ``inside`` (BLOCK_N,), -inf elsewhere: the same bits in every kernel.

    Both passes must form it here: a bare product is rounded or not, as the compiler fuses it with what
    follows, and beside a log-sum-exp of rounded ones an S of 10,000 would be off by a thousandth.
    """
    return s * scale + tl.where(inside, 0.0, float("-inf"))[None, :]


@triton.jit
def _keys(rows, half, PAIRS: tl.constexpr):
    """Return numbers that are equal for a row and itself, and with PAIRS for its partner."""
    if PAIRS:
        block = rows // half
        keys = (block // 2) * half + (rows - block * half)
    else:
        keys = rows
    return keys


@triton.jit
def _expm1(x):
    """Return 2^x - 1, to the last digits where x is small."""
    u = x * 0.6931471805599453
    series = u * (1 + u / 2 * (1 + u / 3 * (1 + u / 4 * (1 + u / 5 * (1 + u / 6 * (1 + u / 7))))))
    return tl.where(tl.abs(u) < 0.5, series, tl.exp2(x) - 1)


@triton.jit
def _lse_fwd_kernel(
    x_ptr,  # (n, D)
    y_ptr,  # (m, D)
    top_ptr,  # (splits, n) float32, log2 of what was taken off
    total_ptr,  # (splits, n) float32, the sum of what was left
    near_ptr,  # (splits, n) float32, of that the part of equal labels; with LABELS it is not in total
    x_label_ptr,  # (n,) int64, read where LABELS as is the next
    y_label_ptr,  # (m,) int64
    scale,  # log2(e) / temperature
    n,
    m,
    self_offset,
    half,
    span,  # columns of one split, a multiple of BLOCK_N
    D: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
    UNIT: tl.constexpr,
    EXCLUDE_SELF: tl.constexpr,
    PAIRS: tl.constexpr,
    LABELS: tl.constexpr,
):
    first = tl.program_id(0) * BLOCK_M
    split = tl.program_id(1)
    rows = tl.arange(0, BLOCK_M)
    cols = tl.arange(0, BLOCK_N)
    columns = tl.arange(0, BLOCK_D)
    own = _keys(first + self_offset + rows, half, PAIRS)
    wide_d = tl.full([], D, tl.int64)  # rows x D may pass 2^31
    x_base = x_ptr + first * wide_d
    x_tile = _load_rows(x_base, rows, n - first, columns, D)  # (BLOCK_M, BLOCK_D)
    total = tl.zeros([BLOCK_M], dtype=tl.float32)
    top = tl.full([BLOCK_M], -1.0e30, dtype=tl.float32)  # finite: a split may hold no column of a row
    if LABELS:
        near = tl.zeros([BLOCK_M], dtype=tl.float32)
        x_label = tl.load(x_label_ptr + first + rows, mask=rows < n - first, other=0)
    for j in range(split * span, tl.minimum((split + 1) * span, m), BLOCK_N):
        y_base = y_ptr + j * wide_d
        y_tile = _load_rows(y_base, cols, m - j, columns, D)  # (BLOCK_N, BLOCK_D)
        s = _similarity(
            x_tile, y_tile, x_base, y_base, rows, n - first, cols, m - j, D, BLOCK_M, BLOCK_N, BLOCK_D
        )
        if UNIT:
            # one fused multiply-add an element takes the shift off and the columns past m out
            s = s * scale + tl.where(cols < m - j, -scale, float("-inf"))[None, :]
        else:
            s = _scaled(s, scale, cols < m - j)
        if EXCLUDE_SELF:
            s = tl.where(own[:, None] == _keys(j + cols, half, PAIRS)[None, :], float("-inf"), s)
        if UNIT:
            total += tl.sum(tl.exp2(s), 1)
        else:
            new_top = tl.maximum(top, tl.max(s, 1))
            shrunk = tl.exp2(top - new_top)
            share = tl.exp2(s - new_top[:, None])
            if LABELS:
                y_label = tl.load(y_label_ptr + j + cols, mask=cols < m - j, other=0)
                alike = tl.where(x_label[:, None] == y_label[None, :], share, 0.0)
                near = near * shrunk + tl.sum(alike, 1)
                share -= alike
            total = total * shrunk + tl.sum(share, 1)
            top = new_top
    if UNIT:
        top = tl.zeros([BLOCK_M], dtype=tl.float32) + scale
    at = (split.to(tl.int64) * n + first) + rows
    tl.store(top_ptr + at, top, mask=rows < n - first)
    tl.store(total_ptr + at, total, mask=rows < n - first)
    if LABELS:
        tl.store(near_ptr + at, near, mask=rows < n - first)


@triton.jit
def _load_pull(base_ptr, first, places, count):
    """Return the three numbers of every row's pull; neutral past the end."""
    at = base_ptr + first + places
    inside = places < count - first
    pull = tl.load(at, mask=inside, other=0.0)
    even = tl.load(at + count, mask=inside, other=0.0)
    rest = tl.load(at + 2 * count, mask=inside, other=0.0)
    return pull, even, rest


@triton.jit
def _lse_bwd_kernel(
    x_ptr,  # (n, D)
    y_ptr,  # (m, D)
    x_lse_ptr,  # (n,) float32, logarithms to base 2, less LIFT; not read where UNIT
    x_weight_ptr,  # (n,) float32; where UNIT, times 2^(scale - lse)
    y_lse_ptr,  # (m,) float32, as x_lse_ptr
    y_weight_ptr,  # (m,) float32
    x_label_ptr,  # (n,) int64, read where LABELS as are the next three
    y_label_ptr,  # (m,) int64
    x_pull_ptr,  # (3, n) float32, the pull, and in two parts where S takes as much as that
    y_pull_ptr,  # (3, m) float32
    out_ptr,  # (splits, n, D) float32
    scale,
    n,
    m,
    self_offset,
    half,
    span,
    D: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_O: tl.constexpr,  # columns of out of one program
    LIFT: tl.constexpr,  # W is formed 2^LIFT times too large, off float16's subnormal numbers
    UNIT: tl.constexpr,
    EXCLUDE_SELF: tl.constexpr,
    PAIRS: tl.constexpr,
    LABELS: tl.constexpr,
):
    first = tl.program_id(0) * BLOCK_M
    split = tl.program_id(2)
    rows = tl.arange(0, BLOCK_M)
    cols = tl.arange(0, BLOCK_N)
    columns = tl.arange(0, BLOCK_D)
    out_columns = tl.program_id(1) * BLOCK_O + tl.arange(0, BLOCK_O)
    own = _keys(first + self_offset + rows, half, PAIRS)
    wide_d = tl.full([], D, tl.int64)  # rows x D may pass 2^31
    x_base = x_ptr + first * wide_d
    x_tile = _load_rows(x_base, rows, n - first, columns, D)  # (BLOCK_M, BLOCK_D)
    x_weight = tl.load(x_weight_ptr + first + rows, mask=rows < n - first, other=0.0)
    if not UNIT:
        x_lse = tl.load(x_lse_ptr + first + rows, mask=rows < n - first, other=float("inf"))
    if LABELS:
        x_label = tl.load(x_label_ptr + first + rows, mask=rows < n - first, other=0)
        x_pull, x_even, x_rest = _load_pull(x_pull_ptr, first, rows, n)
    out = tl.zeros([BLOCK_M, BLOCK_O], dtype=tl.float32)
    for j in range(split * span, tl.minimum((split + 1) * span, m), BLOCK_N):
        y_base = y_ptr + j * wide_d
        y_tile = _load_rows(y_base, cols, m - j, columns, D)  # (BLOCK_N, BLOCK_D)
        y_weight = tl.load(y_weight_ptr + j + cols, mask=cols < m - j, other=0.0)
        s = _similarity(
            x_tile, y_tile, x_base, y_base, rows, n - first, cols, m - j, D, BLOCK_M, BLOCK_N, BLOCK_D
        )
        if UNIT:
            # columns past m hold y = 0, but 0 times an overflowed float16 would be NaN
            w = tl.exp2(s * scale + tl.where(cols < m - j, LIFT - scale, float("-inf"))[None, :])
            w *= x_weight[:, None] + y_weight[None, :]
        else:
            y_lse = tl.load(y_lse_ptr + j + cols, mask=cols < m - j, other=float("inf"))
            s = _scaled(s, scale, cols < m - j)
            if LABELS:  # a share less what it should be, in which nothing cancels
                y_label = tl.load(y_label_ptr + j + cols, mask=cols < m - j, other=0)
                y_pull, y_even, y_rest = _load_pull(y_pull_ptr, j, cols, m)
                pulled = _expm1(s - x_even[:, None] - x_rest[:, None]) * x_pull[:, None]
                pulled += _expm1(s - y_even[None, :] - y_rest[None, :]) * y_pull[None, :]
            w = tl.exp2(s - x_lse[:, None]) * x_weight[:, None]
            w += tl.exp2(s - y_lse[None, :]) * y_weight[None, :]
            if LABELS:
                alike = (x_label[:, None] == y_label[None, :]) & (cols < m - j)[None, :]
                w = tl.where(alike, pulled * tl.exp2(1.0 * LIFT), w)
        if EXCLUDE_SELF:
            w = tl.where(own[:, None] == _keys(j + cols, half, PAIRS)[None, :], 0.0, w)
        if BLOCK_D >= D and BLOCK_D == BLOCK_O:
            y_out = y_tile
        else:
            y_out = _load_rows(y_base, cols, m - j, out_columns, D)  # (BLOCK_N, BLOCK_O)
        out = tl.dot(w.to(y_out.dtype), y_out, out, input_precision="ieee")
    out *= tl.exp2(-1.0 * LIFT)
    out_base = out_ptr + (split.to(tl.int64) * n + first) * wide_d
    inside = (rows[:, None] < n - first) & (out_columns[None, :] < D)
    tl.store(out_base + rows[:, None] * D + out_columns[None, :], out, mask=inside)
