"""Triton kernels: tokens straight from raw values, and the gradient by the weight.

    forward   token = W_g u + table,   u = (x - mean) scale of the token's K raw values, then LayerNorm
    backward  dW_g = sum over tokens of group g of dtoken u^T

A program owns tokens of one group, or, where some are wanted that share a weight, tokens as they are asked
for. Raw values are gathered, normalised in float32, cast and multiplied, and never stored. Saved: nothing but
the inputs (and the tokens before LayerNorm); recomputed: u. 2 T K D operations each way for T tokens; read
once and written once, T K raw values and T D results. The backward pass splits tokens over programs and adds
the parts in a fixed order: no atomics, the same bits every time.
Source: the definition in `spectral_patch_embed`; normalisation before the cast, as bf16(10^4) is off by 32.
"""

# The bodies of @triton.jit functions hold no Python types.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"

from __future__ import annotations

import triton
import triton.language as tl

__all__: list[str] = []


@triton.jit
def _slots(
    order_ptr, visible_ptr, at, inside, g, groups, kept, high, wide,
    MASKED: tl.constexpr, MIXED: tl.constexpr,
):  # fmt: skip
    """Return slot, sample, group, row and column of the tokens numbered ``at``, of group ``g`` or of any."""
    space = high * wide
    if MASKED:
        slot = at
        if not MIXED:
            slot = tl.load(order_ptr + at, mask=inside, other=0).to(tl.int32)
        sample = slot // kept
        slot = slot.to(tl.int64)
        token = tl.load(visible_ptr + slot, mask=inside, other=0)
        # one that there is not must not be read: on a GPU no one has looked
        token = tl.minimum(tl.maximum(token, 0), groups * space - 1).to(tl.int32)
        if MIXED:
            g = token // space
        place = token - g * space
    else:
        sample, place = at // space, at % space
        slot = (sample.to(tl.int64) * groups + g) * space + place
    return slot, sample, g, place // wide, place % wide


@triton.jit
def _read(
    x_ptr, centre_ptr, sample, row, col, inside, g, first,
    rows, cols, bands, stride_b, stride_h, stride_w, stride_c, reach,
    PATCH: tl.constexpr, GROUP: tl.constexpr, BLOCK_K: tl.constexpr, CUBE: tl.constexpr, FAR: tl.constexpr,
    FULL: tl.constexpr, PIXELS_FIRST: tl.constexpr, RUN: tl.constexpr,
):  # fmt: skip
    """Return raw values first ... first + BLOCK_K of tokens (BLOCK, BLOCK_K), 0 outside."""
    k = first + tl.arange(0, BLOCK_K)
    if PIXELS_FIRST:
        member, pixel = k // (PATCH * PATCH), k % (PATCH * PATCH)
    else:
        pixel, member = k // GROUP, k % GROUP
    down, right = pixel // PATCH, pixel % PATCH
    use = inside[:, None] & (k < PATCH * PATCH * GROUP)[None, :]
    begin = g * GROUP + tl.zeros_like(row)  # of the group, a token each
    if not FULL:
        use = use & (begin[:, None] + member[None, :] < bands)
    # strides come in whole runs, and one that is a run of 1 is contiguous: so loads become wide
    if CUBE:
        y = tl.load(centre_ptr + 2 * sample, mask=inside, other=0).to(tl.int32) - reach + row * PATCH
        x = tl.load(centre_ptr + 2 * sample + 1, mask=inside, other=0).to(tl.int32) - reach + col * PATCH
        # windows are no larger than the scene, so one reflection is enough
        y = tl.abs(y[:, None] + down[None, :])
        x = tl.abs(x[:, None] + right[None, :])
        y, x = tl.minimum(y, 2 * (rows - 1) - y), tl.minimum(x, 2 * (cols - 1) - x)
        if FAR:
            y, x = y.to(tl.int64), x.to(tl.int64)
        at = (y * stride_h + x * stride_w) * RUN + (begin[:, None] + member[None, :]) * stride_c
    elif PIXELS_FIRST:
        base = (
            sample.to(tl.int64) * stride_b + row * PATCH * stride_h + begin * stride_c
        ) * RUN + col * PATCH * stride_w
        at = base[:, None] + ((down * stride_h + member * stride_c) * RUN + right * stride_w)[None, :]
    else:
        base = (sample.to(tl.int64) * stride_b + (row * PATCH * stride_h + col * PATCH * stride_w)) * RUN
        at = (base + begin * stride_c)[:, None]
        at += ((down * stride_h + right * stride_w) * RUN + member * stride_c)[None, :]
    return tl.load(x_ptr + at, mask=use, other=0)


@triton.jit
def _normalise(
    raw, mean_ptr, scale_ptr, g, first, bands,
    PATCH: tl.constexpr, GROUP: tl.constexpr, MIXED: tl.constexpr, FULL: tl.constexpr,
    PIXELS_FIRST: tl.constexpr, HAS_MEAN: tl.constexpr, HAS_SCALE: tl.constexpr,
):  # fmt: skip
    """Return raw values (BLOCK, BLOCK_K) from ``first`` on, of group or groups ``g``, normalised, float32.

    Bands that there are not give 0.
    """
    BLOCK_K: tl.constexpr = raw.shape[1]
    k = first + tl.arange(0, BLOCK_K)
    member = k // (PATCH * PATCH) if PIXELS_FIRST else k % GROUP
    band = g[:, None] * GROUP + member[None, :] if MIXED else (g * GROUP + member)[None, :]
    exists = (k < PATCH * PATCH * GROUP)[None, :]
    if not FULL:
        exists = exists & (band < bands)
    u = raw.to(tl.float32)
    if HAS_MEAN:
        u -= tl.load(mean_ptr + band, mask=exists, other=0.0)
    if HAS_SCALE:
        u *= tl.load(scale_ptr + band, mask=exists, other=0.0)
    return u


@triton.jit
def _embed_kernel(
    x_ptr,  # (B, H, W, C) by strides, or a cube
    centre_ptr,  # (B, 2) int64, read where CUBE
    mean_ptr,  # (C,) float32, as the scale
    scale_ptr,
    order_ptr,  # (B V,) int64, read where MASKED, as the next two
    visible_ptr,  # (B, V) int64
    start_ptr,  # (G + 1,) int64, read where MASKED and not MIXED, as the order
    weight_ptr,  # (1 or G, D, K), with PIXELS_FIRST in that order
    table_ptr,  # (groups space / share, D)
    norm_weight_ptr,  # (D,) float32, read where NORM
    norm_bias_ptr,
    out_ptr,  # (B V, D)
    before_ptr,  # (B V, D), written where KEEP, as the next
    stats_ptr,  # (2, B V) float32
    count,  # tokens of a group, or of all where MIXED
    total,  # B V
    kept,
    groups,
    high,
    wide,
    rows,
    cols,
    bands,
    stride_b,
    stride_h,
    stride_w,
    stride_c,
    reach,
    share,  # tokens of a sample that share a row of the table
    eps,
    D: tl.constexpr,
    PATCH: tl.constexpr,
    GROUP: tl.constexpr,
    CUBE: tl.constexpr,
    FAR: tl.constexpr,
    MASKED: tl.constexpr,
    MIXED: tl.constexpr,  # whether a program's tokens are of several groups, as they are asked for
    OWN: tl.constexpr,  # whether each group has a weight of its own
    FULL: tl.constexpr,  # no group is short of bands
    PIXELS_FIRST: tl.constexpr,  # a token's values band by band, as x has them, not pixel by pixel
    RUN: tl.constexpr,  # values at a time: strides are in whole runs, but the innermost one
    HAS_MEAN: tl.constexpr,
    HAS_SCALE: tl.constexpr,
    TABLE: tl.constexpr,  # 0: none, 1: a row for all tokens, 2: rows by token
    NORM: tl.constexpr,
    KEEP: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_G: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    K: tl.constexpr = PATCH * PATCH * GROUP
    n_blocks: tl.constexpr = (D + BLOCK_N - 1) // BLOCK_N
    columns = tl.program_id(0) % n_blocks * BLOCK_N + tl.arange(0, BLOCK_N)
    program = tl.program_id(0) // n_blocks
    if MIXED:
        g = 0
        first = program * BLOCK_M
        stop = count
    elif MASKED:
        # which group's turn it is follows from how many blocks the groups before it take
        group = tl.arange(0, BLOCK_G)
        begin = tl.load(start_ptr + group, mask=group < groups, other=0)
        end = tl.load(start_ptr + group + 1, mask=group < groups, other=0)
        blocks = ((end - begin + BLOCK_M - 1) // BLOCK_M).to(tl.int32)
        last = tl.cumsum(blocks, 0)
        g = tl.sum(((last <= program) & (group < groups)).to(tl.int32), 0)
        ours = (group == g).to(tl.int64)
        first = tl.sum(ours * (begin + (program - last + blocks).to(tl.int64) * BLOCK_M), 0).to(tl.int32)
        stop = tl.sum(ours * end, 0).to(tl.int32)
    else:
        # groups take turns, so that a pixel's bands are read while it is in the cache
        g = program % groups
        first = program // groups * BLOCK_M
        stop = count
    at = first + tl.arange(0, BLOCK_M)
    inside = at < stop
    slot, sample, g, row, col = _slots(
        order_ptr, visible_ptr, at, inside, g, groups, kept, high, wide, MASKED, MIXED
    )
    if OWN:
        # a program past the last block of tokens finds no group: it must not read past the weights
        weight_ptr += tl.minimum(g, groups - 1).to(tl.int64) * (D * K)
    write = inside[:, None] & (columns[None, :] < D)
    out = tl.zeros([BLOCK_M, BLOCK_N], dtype=tl.float32)
    # first, while registers are free
    if TABLE == 1:
        out += tl.load(table_ptr + columns, mask=columns < D, other=0.0)[None, :]
    elif TABLE == 2:
        line = (g * (high * wide) + row * wide + col) // share
        out += tl.load(table_ptr + line[:, None] * D + columns[None, :], mask=write, other=0.0)
    # While a block is multiplied the next is on its way: the compiler sees to that where many bytes lie side
    # by side, and is slow with few.
    AHEAD: tl.constexpr = RUN * x_ptr.dtype.element_ty.primitive_bitwidth <= 32
    if AHEAD:
        raw = _read(
            x_ptr, centre_ptr, sample, row, col, inside, g, 0,
            rows, cols, bands, stride_b, stride_h, stride_w, stride_c, reach,
            PATCH, GROUP, BLOCK_K, CUBE, FAR, FULL, PIXELS_FIRST, RUN,
        )  # fmt: skip
    for k in range(0, K, BLOCK_K):
        if not AHEAD:
            raw = _read(
                x_ptr, centre_ptr, sample, row, col, inside, g, k,
                rows, cols, bands, stride_b, stride_h, stride_w, stride_c, reach,
                PATCH, GROUP, BLOCK_K, CUBE, FAR, FULL, PIXELS_FIRST, RUN,
            )  # fmt: skip
        u = _normalise(
            raw, mean_ptr, scale_ptr, g, k, bands,
            PATCH, GROUP, MIXED, FULL, PIXELS_FIRST, HAS_MEAN, HAS_SCALE,
        )  # fmt: skip
        if AHEAD and K > BLOCK_K:
            raw = _read(
                x_ptr, centre_ptr, sample, row, col, inside, g, k + BLOCK_K,
                rows, cols, bands, stride_b, stride_h, stride_w, stride_c, reach,
                PATCH, GROUP, BLOCK_K, CUBE, FAR, FULL, PIXELS_FIRST, RUN,
            )  # fmt: skip
        across = k + tl.arange(0, BLOCK_K)
        there = (columns[:, None] < D) & (across[None, :] < K)
        w = tl.load(weight_ptr + columns[:, None] * K + across[None, :], mask=there, other=0.0)
        out = tl.dot(u.to(w.dtype), tl.trans(w), out, input_precision=PRECISION)
    to = slot[:, None] * D + columns[None, :]
    if NORM:
        mean = tl.sum(out, 1) / D  # columns past D are 0
        off = tl.where(columns[None, :] < D, out - mean[:, None], 0.0)
        inverse = tl.rsqrt(tl.sum(off * off, 1) / D + eps)
        if KEEP:
            tl.store(before_ptr + to, out, mask=write)
            tl.store(stats_ptr + slot, mean, mask=inside)
            tl.store(stats_ptr + total + slot, inverse, mask=inside)
        a = tl.load(norm_weight_ptr + columns, mask=columns < D, other=0.0)
        b = tl.load(norm_bias_ptr + columns, mask=columns < D, other=0.0)
        out = off * inverse[:, None] * a[None, :] + b[None, :]
    if MIXED:
        token = tl.load(visible_ptr + slot, mask=inside, other=0)
        there = (token >= 0) & (token < groups * high * wide)
        out = tl.where(there[:, None], out, float("nan"))
    tl.store(out_ptr + to, out, mask=write)


@triton.jit
def _weight_grad_kernel(
    x_ptr,
    centre_ptr,
    mean_ptr,
    scale_ptr,
    order_ptr,
    visible_ptr,
    start_ptr,
    gradient_ptr,  # (B V, D)
    part_ptr,  # (G, splits, D K + D) float32, or (1, splits, D K + D) where MIXED: by weight, then by table
    count,
    kept,
    groups,
    high,
    wide,
    rows,
    cols,
    bands,
    stride_b,
    stride_h,
    stride_w,
    stride_c,
    reach,
    splits,
    D: tl.constexpr,
    PATCH: tl.constexpr,
    GROUP: tl.constexpr,
    CUBE: tl.constexpr,
    FAR: tl.constexpr,
    MASKED: tl.constexpr,
    MIXED: tl.constexpr,
    FULL: tl.constexpr,
    PIXELS_FIRST: tl.constexpr,
    RUN: tl.constexpr,
    HAS_MEAN: tl.constexpr,
    HAS_SCALE: tl.constexpr,
    BY_TABLE: tl.constexpr,  # whether tokens are added up besides, as the gradient by a row for all of them
    PRECISION: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_T: tl.constexpr,  # tokens at a time
):
    K: tl.constexpr = PATCH * PATCH * GROUP
    k_blocks: tl.constexpr = (K + BY_TABLE + BLOCK_K - 1) // BLOCK_K
    k = tl.program_id(0) % k_blocks * BLOCK_K
    columns = tl.program_id(0) // k_blocks * BLOCK_D + tl.arange(0, BLOCK_D)
    part_group, split = tl.program_id(1), tl.program_id(2)
    begin = tl.zeros([], dtype=tl.int32)
    end = begin + count
    if MASKED and not MIXED:
        begin = tl.load(start_ptr + part_group).to(tl.int32)
        end = tl.load(start_ptr + part_group + 1).to(tl.int32)
    span = tl.cdiv(tl.cdiv(end - begin, splits), BLOCK_T) * BLOCK_T
    stop = tl.minimum(begin + (split + 1) * span, end)
    part = tl.zeros([BLOCK_D, BLOCK_K], dtype=tl.float32)
    across = k + tl.arange(0, BLOCK_K)
    for i in range(begin + split * span, stop, BLOCK_T):
        at = i + tl.arange(0, BLOCK_T)
        inside = at < stop
        slot, sample, g, row, col = _slots(
            order_ptr, visible_ptr, at, inside, part_group, groups, kept, high, wide, MASKED, MIXED
        )
        raw = _read(
            x_ptr, centre_ptr, sample, row, col, inside, g, k,
            rows, cols, bands, stride_b, stride_h, stride_w, stride_c, reach,
            PATCH, GROUP, BLOCK_K, CUBE, FAR, FULL, PIXELS_FIRST, RUN,
        )  # fmt: skip
        u = _normalise(
            raw, mean_ptr, scale_ptr, g, k, bands,
            PATCH, GROUP, MIXED, FULL, PIXELS_FIRST, HAS_MEAN, HAS_SCALE,
        )  # fmt: skip
        if HAS_MEAN:
            # rows that are not there must not be -mean scale, which float16 may not hold
            u = tl.where(inside[:, None], u, 0.0)
        if BY_TABLE:
            # a raw value past the last that is always 1: matrix units have room for it
            u = tl.where((across == K)[None, :], 1.0, u)
        there = inside[:, None] & (columns[None, :] < D)
        dy = tl.load(gradient_ptr + slot[:, None] * D + columns[None, :], mask=there, other=0.0)
        part = tl.dot(tl.trans(dy), u.to(dy.dtype), part, input_precision=PRECISION)
    part_ptr += (part_group * splits + split).to(tl.int64) * (D * K + D)
    to = columns[:, None] * K + across[None, :]
    tl.store(part_ptr + to, part, mask=(columns[:, None] < D) & (across[None, :] < K))
    if BY_TABLE and k == K // BLOCK_K * BLOCK_K:
        total = tl.sum(tl.where((across == K)[None, :], part, 0.0), 1)
        tl.store(part_ptr + D * K + columns, total, mask=columns < D)
