"""Triton kernels: tokens straight from raw values, and the gradient by the weight.

    forward   token = W_g u + table,   u = (x - mean) scale of the token's K raw values, then LayerNorm
    backward  dW_g = sum over tokens of group g of dtoken u^T

A program owns tokens of one group, or, where some are wanted that share a weight, tokens as they are asked
for. Where a token's values lie is read from a table (`spot_table`), as divisions for each would take longer
than all the rest. Raw values are gathered, normalised in float32, cast and multiplied, and never stored.
Saved: nothing but the inputs (and the tokens before LayerNorm); recomputed: u. 2 T K D operations each way
for T tokens; read once and written once, T K raw values and T D results. The backward pass splits tokens over
programs and adds the parts in a fixed order: no atomics, the same bits every time.
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
    order_ptr, visible_ptr, at, g, groups, kept,
    SPACE: tl.constexpr, MASKED: tl.constexpr, MIXED: tl.constexpr,
):  # fmt: skip
    """Return slot, sample, group and place of the tokens numbered ``at``, of group ``g`` or of any."""
    if MASKED:
        slot = at
        if not MIXED:
            slot = tl.load(order_ptr + at).to(tl.int32)
        sample = slot // kept
        slot = slot.to(tl.int64)
        token = tl.load(visible_ptr + slot)
        # one that there is not must not be read: on a GPU no one has looked
        token = tl.minimum(tl.maximum(token, 0), groups * SPACE - 1).to(tl.int32)
        if MIXED:
            g = token // SPACE
        place = token % SPACE
    else:
        sample, place = at // SPACE, at % SPACE
        slot = (sample.to(tl.int64) * groups + g) * SPACE + place
    return slot, sample, g, place


@triton.jit
def _corners(
    centre_ptr, sample, g, place, stride_b, stride_h, stride_w, stride_c, reach,
    WIDE: tl.constexpr, PATCH: tl.constexpr, GROUP: tl.constexpr,
    CUBE: tl.constexpr, FAR: tl.constexpr, PIXELS_FIRST: tl.constexpr, RUN: tl.constexpr,
):  # fmt: skip
    """Return where each token's values begin: row and column of the cube, and how far away its first band is.

    In samples the third is how far away the first value is, and the others are not needed.
    """
    row, col = place // WIDE * PATCH, place % WIDE * PATCH
    band = g * GROUP
    if FAR:
        band = band.to(tl.int64)
    band *= stride_c
    if CUBE:
        y = tl.load(centre_ptr + 2 * sample).to(tl.int32) - reach + row
        x = tl.load(centre_ptr + 2 * sample + 1).to(tl.int32) - reach + col
        begin = band + tl.zeros_like(place)
    else:
        y, x = row, col
        if FAR:
            sample, row, col = sample.to(tl.int64), row.to(tl.int64), col.to(tl.int64)
        # strides come in whole runs, and one that is a run of 1 is contiguous: so loads become wide
        if PIXELS_FIRST:
            begin = (sample * stride_b + row * stride_h + band) * RUN + col * stride_w
        else:
            begin = (sample * stride_b + row * stride_h + col * stride_w) * RUN + band
    return y, x, begin


@triton.jit
def _read(
    x_ptr, spot_ptr, corners, g, k, rows, cols, bands, stride_h, stride_w, stride_c,
    K: tl.constexpr, SPOTS: tl.constexpr, GROUP: tl.constexpr, CUBE: tl.constexpr, FAR: tl.constexpr,
    FULL: tl.constexpr, RUN: tl.constexpr,
):  # fmt: skip
    """Return raw values number ``k`` of tokens (BLOCK, BLOCK_K), 0 for those that there are not."""
    y, x, begin = corners
    if CUBE:
        # windows are no larger than the scene, so one reflection is enough
        y = tl.abs(y[:, None] + tl.load(spot_ptr + k)[None, :])
        x = tl.abs(x[:, None] + tl.load(spot_ptr + SPOTS + k)[None, :])
        y, x = tl.minimum(y, 2 * (rows - 1) - y), tl.minimum(x, 2 * (cols - 1) - x)
        if FAR:
            y, x = y.to(tl.int64), x.to(tl.int64)
        at = (y * stride_h + x * stride_w) * RUN
        away = tl.load(spot_ptr + 2 * SPOTS + k) * stride_c
    else:
        at, away = 0, tl.load(spot_ptr + 3 * SPOTS + k)
    # a run of values lies side by side: the compiler cannot see that in a table, and of cubes believes it not
    away = tl.max_contiguous(tl.multiple_of(away, RUN), RUN)
    at += begin[:, None] + away[None, :]
    if not FULL:
        member = tl.load(spot_ptr + 2 * SPOTS + k)
        there = (k < K)[None, :] & (g * GROUP + member[None, :] < bands)
        return tl.load(x_ptr + at, mask=there, other=0)
    if K < SPOTS:
        return tl.load(x_ptr + at, mask=(k < K)[None, :], other=0)
    return tl.load(x_ptr + at)


@triton.jit
def _normalise(
    raw, mean_ptr, scale_ptr, spot_ptr, g, k, bands,
    K: tl.constexpr, SPOTS: tl.constexpr, GROUP: tl.constexpr, FULL: tl.constexpr,
    HAS_MEAN: tl.constexpr, HAS_SCALE: tl.constexpr,
):  # fmt: skip
    """Return raw values number ``k`` (BLOCK, BLOCK_K) of group or groups ``g``, normalised, float32.

    Bands that there are not give 0.
    """
    u = raw.to(tl.float32)
    if HAS_MEAN or HAS_SCALE:
        band = g * GROUP + tl.load(spot_ptr + 2 * SPOTS + k)[None, :]
        exists = (k < K)[None, :]
        if not FULL:
            exists = exists & (band < bands)
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
    spot_ptr,  # (4, SPOTS) of each value of a token: row, column, band, and place as strides have it
    order_ptr,  # (B V,) int64, read where MASKED, as the next two
    visible_ptr,  # (B, V) int64
    start_ptr,  # (G + 1,) int64, read where MASKED and not MIXED, as the order
    weight_ptr,  # (1 or G, D, SPOTS), with PIXELS_FIRST in that order, 0 from K on
    table_ptr,  # (groups space / SHARE, D)
    norm_weight_ptr,  # (D,) float32, read where NORM
    norm_bias_ptr,
    out_ptr,  # (B V, D)
    before_ptr,  # (B V, D), written where KEEP, as the next
    stats_ptr,  # (2, B V) float32
    count,  # tokens of a group, or of all where MIXED
    total,  # B V
    kept,
    groups,
    rows,
    cols,
    bands,
    stride_b,
    stride_h,
    stride_w,
    stride_c,
    reach,
    eps,
    D: tl.constexpr,
    HIGH: tl.constexpr,  # tokens from top to bottom, and from left to right
    WIDE: tl.constexpr,
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
    SHARE: tl.constexpr,  # tokens of a sample that share a row of it
    NORM: tl.constexpr,
    KEEP: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_G: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    K: tl.constexpr = PATCH * PATCH * GROUP
    SPOTS: tl.constexpr = (K + BLOCK_K - 1) // BLOCK_K * BLOCK_K
    SPACE: tl.constexpr = HIGH * WIDE
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
        # a program past the last block of tokens finds no group, and must not read past the last
        g = tl.minimum(g, groups - 1)
    else:
        # groups take turns, so that a pixel's bands are read while it is in the cache
        g = program % groups
        first = program // groups * BLOCK_M
        stop = count
    at = first + tl.arange(0, BLOCK_M)
    inside = at < stop
    # a token past the last is read as another, and not written
    at = tl.maximum(tl.minimum(at, stop - 1), 0)
    slot, sample, g, place = _slots(order_ptr, visible_ptr, at, g, groups, kept, SPACE, MASKED, MIXED)
    corners = _corners(
        centre_ptr, sample, g, place, stride_b, stride_h, stride_w, stride_c, reach,
        WIDE, PATCH, GROUP, CUBE, FAR, PIXELS_FIRST, RUN,
    )  # fmt: skip
    if OWN:
        weight_ptr += g.to(tl.int64) * (D * SPOTS)
    write = inside[:, None] & (columns[None, :] < D)
    out = tl.zeros([BLOCK_M, BLOCK_N], dtype=tl.float32)
    # first, while registers are free
    if TABLE == 1:
        out += tl.load(table_ptr + columns, mask=columns < D, other=0.0)[None, :]
    elif TABLE == 2:
        line = (g * SPACE + place) // SHARE
        out += tl.load(table_ptr + line[:, None] * D + columns[None, :], mask=write, other=0.0)
    of_token = g[:, None] if MIXED else g
    across = tl.arange(0, BLOCK_K)
    weight_ptr += columns[:, None] * SPOTS + across[None, :]
    # While a block is multiplied the next is on its way: the compiler sees to that where many bytes lie side
    # by side, and is slow with few.
    AHEAD: tl.constexpr = RUN * x_ptr.dtype.element_ty.primitive_bitwidth <= 32
    if AHEAD:
        raw = _read(
            x_ptr, spot_ptr, corners, of_token, across, rows, cols, bands, stride_h, stride_w, stride_c,
            K, SPOTS, GROUP, CUBE, FAR, FULL, RUN,
        )  # fmt: skip
    for first in range(0, SPOTS, BLOCK_K):
        k = first + across
        if not AHEAD:
            raw = _read(
                x_ptr, spot_ptr, corners, of_token, k, rows, cols, bands, stride_h, stride_w, stride_c,
                K, SPOTS, GROUP, CUBE, FAR, FULL, RUN,
            )  # fmt: skip
        u = _normalise(
            raw, mean_ptr, scale_ptr, spot_ptr, of_token, k, bands,
            K, SPOTS, GROUP, FULL, HAS_MEAN, HAS_SCALE,
        )  # fmt: skip
        if AHEAD and SPOTS > BLOCK_K:
            k = tl.minimum(first + BLOCK_K, SPOTS - BLOCK_K) + across
            raw = _read(
                x_ptr, spot_ptr, corners, of_token, k, rows, cols, bands, stride_h, stride_w, stride_c,
                K, SPOTS, GROUP, CUBE, FAR, FULL, RUN,
            )  # fmt: skip
        if D % BLOCK_N == 0:
            w = tl.load(weight_ptr + first)
        else:
            w = tl.load(weight_ptr + first, mask=(columns < D)[:, None], other=0.0)
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
        there = (token >= 0) & (token < groups * SPACE)
        out = tl.where(there[:, None], out, float("nan"))
    tl.store(out_ptr + to, out, mask=write)


@triton.jit
def _weight_grad_kernel(
    x_ptr,
    centre_ptr,
    mean_ptr,
    scale_ptr,
    spot_ptr,
    order_ptr,
    visible_ptr,
    start_ptr,
    gradient_ptr,  # (B V, D)
    part_ptr,  # (G, splits, D K + D) float32, or (1, splits, D K + D) where MIXED: by weight, then by table
    count,
    kept,
    groups,
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
    HIGH: tl.constexpr,
    WIDE: tl.constexpr,
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
    SPOTS: tl.constexpr = k_blocks * BLOCK_K
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
        slot, sample, g, place = _slots(
            order_ptr, visible_ptr, tl.minimum(at, stop - 1), part_group, groups, kept,
            HIGH * WIDE, MASKED, MIXED,
        )  # fmt: skip
        corners = _corners(
            centre_ptr, sample, g, place, stride_b, stride_h, stride_w, stride_c, reach,
            WIDE, PATCH, GROUP, CUBE, FAR, PIXELS_FIRST, RUN,
        )  # fmt: skip
        of_token = g[:, None] if MIXED else g
        raw = _read(
            x_ptr, spot_ptr, corners, of_token, across, rows, cols, bands, stride_h, stride_w, stride_c,
            K, SPOTS, GROUP, CUBE, FAR, FULL, RUN,
        )  # fmt: skip
        u = _normalise(
            raw, mean_ptr, scale_ptr, spot_ptr, of_token, across, bands,
            K, SPOTS, GROUP, FULL, HAS_MEAN, HAS_SCALE,
        )  # fmt: skip
        u = tl.where(inside[:, None], u, 0.0)  # or what is not finite would give NaN
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
