"""Triton kernels: tokens straight from raw values, and the gradient by the weight.

    forward   token = W_g u + table,   u = (x - mean) scale of the token's K raw values, then LayerNorm
    backward  dW_g = sum over tokens of group g of dtoken u^T

A program owns tokens of one group, or, where some are wanted that share a weight, tokens as they are asked
for. Raw values are gathered, normalised in float32, cast and
multiplied, and never stored. Saved: nothing but the inputs (and the tokens before LayerNorm); recomputed: u.
2 T K D operations each way for T tokens; read once and written once, T K raw values and T D results. The
backward pass splits tokens over programs and adds the parts in a fixed order: no atomics, the same bits every
time.
Source: the definition in `spectral_patch_embed`; normalisation before the cast, as bf16(10^4) is off by 32.
"""

# The bodies of @triton.jit functions hold no Python types.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"

from __future__ import annotations

import math
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from hsssl_kernels.launch import PROGRAMS, architecture, tile_for
from hsssl_kernels.spectral_patch_embed.gather import bands_first, in_memory_order, in_weight_order
from hsssl_kernels.spectral_patch_embed.work import Work

__all__ = ["launch_embed", "launch_weight_grad"]

# Tokens are split over so many times the programs that fill the device: the last ones to run then wait for
# less than with as few as fill it, whose number would have to be just right.
_WAVES = 4
# Groups of bands that a program takes at the same places: 10 bands of int16 are less than a sector of memory.
_TOGETHER = 4


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
    PATCH: tl.constexpr, GROUP: tl.constexpr, TOGETHER: tl.constexpr, MIXED: tl.constexpr,
    FULL: tl.constexpr, PIXELS_FIRST: tl.constexpr, HAS_MEAN: tl.constexpr, HAS_SCALE: tl.constexpr,
):  # fmt: skip
    """Return raw values (BLOCK, BLOCK_K) from ``first`` on, of groups ``g`` ... in turn, normalised, float32.

    Bands that there are not give 0.
    """
    BLOCK: tl.constexpr = raw.shape[0]
    BLOCK_K: tl.constexpr = raw.shape[1]
    k = first + tl.arange(0, BLOCK_K)
    member = k // (PATCH * PATCH) if PIXELS_FIRST else k % GROUP
    u = raw.to(tl.float32)
    if MIXED:
        band = g[:, None] * GROUP + member[None, :]
    else:
        # one row for every group, in registers but once
        band = (g + tl.arange(0, TOGETHER))[:, None] * GROUP + member[None, :]
        band = band[None, :, :]
        u = u.reshape(BLOCK // TOGETHER, TOGETHER, BLOCK_K)
    exists = k < PATCH * PATCH * GROUP
    exists = exists[None, :] if MIXED else exists[None, None, :]
    if not FULL:
        exists = exists & (band < bands)
    if HAS_MEAN:
        u -= tl.load(mean_ptr + band, mask=exists, other=0.0)
    if HAS_SCALE:
        u *= tl.load(scale_ptr + band, mask=exists, other=0.0)
    return u.reshape(BLOCK, BLOCK_K)


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
    TOGETHER: tl.constexpr,  # groups in turn in a program, unless MASKED: what lies next to each other
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
        g = program % (groups // TOGETHER) * TOGETHER
        first = program // (groups // TOGETHER) * (BLOCK_M // TOGETHER)
        stop = count
    turn = tl.arange(0, BLOCK_M)
    at = first + turn // TOGETHER
    inside = at < stop
    begin = g
    if TOGETHER > 1:
        g = begin + turn % TOGETHER
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
            raw, mean_ptr, scale_ptr, g if MIXED else begin, k, bands,
            PATCH, GROUP, TOGETHER, MIXED, FULL, PIXELS_FIRST, HAS_MEAN, HAS_SCALE,
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
            PATCH, GROUP, 1, MIXED, FULL, PIXELS_FIRST, HAS_MEAN, HAS_SCALE,
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


def launch_embed(
    work: Work, weight: Tensor, table: Tensor | None, norm: tuple[Tensor, Tensor, float] | None, keep: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Return tokens (B, V, D) and, where ``keep``, before `norm` (B V, D) and its (2, B V) statistics."""
    dim = weight.shape[1]
    own = len(weight) > 1
    mixed = _mixed(work, own)
    named = _arguments(work, weight.dtype, mixed)
    name = "patch_embed_some" if mixed else "patch_embed"
    by_token = table is not None and len(table) > 1
    if own or by_token or norm is not None or work.centres is not None:
        name = "patch_embed_more"  # registers hold more than products
    tile = tile_for(name, architecture(work.x), weight.dtype, dim)
    total = work.batch * work.kept
    out = torch.empty(total, dim, dtype=weight.dtype, device=work.x.device)
    # LayerNorm needs whole tokens in one program
    fused = norm is not None and dim <= tile.block_n
    before = torch.empty(total if keep and fused else 0, dim, dtype=weight.dtype, device=work.x.device)
    stats = torch.empty(2, total if keep and fused else 0, dtype=torch.float32, device=work.x.device)
    together = 1
    if mixed:
        row_blocks = triton.cdiv(total, tile.block_m)
    elif work.visible is None:
        # neighbours read what lies between them but once; bands of a group that come first have no neighbours
        together = 1 if own or named["PIXELS_FIRST"] else math.gcd(_TOGETHER, work.groups)
        places = triton.cdiv(work.batch * work.space, tile.block_m // together)
        row_blocks = work.groups // together * places
    else:
        row_blocks = triton.cdiv(total, tile.block_m) + work.groups
    affine = [v.float().contiguous() for v in norm[:2]] if norm is not None else [out, out]
    weight = in_memory_order(work, weight) if named["PIXELS_FIRST"] else weight
    if total:
        _embed_kernel[(row_blocks * triton.cdiv(dim, tile.block_n),)](
            **named,
            start_ptr=out if work.starts is None else work.starts,
            weight_ptr=weight.contiguous(),
            table_ptr=out if table is None else table.contiguous(),
            norm_weight_ptr=affine[0],
            norm_bias_ptr=affine[1],
            out_ptr=out,
            before_ptr=before,
            stats_ptr=stats,
            total=total,
            share=1 if table is None else work.groups * work.space // len(table),
            eps=0.0 if norm is None else norm[2],
            D=dim,
            OWN=own,
            TOGETHER=together,
            TABLE=0 if table is None else 1 if len(table) == 1 else 2,
            NORM=fused,
            KEEP=keep,
            BLOCK_G=triton.next_power_of_2(work.groups),
            BLOCK_M=tile.block_m,
            BLOCK_N=tile.block_n,
            BLOCK_K=min(tile.block_d, max(16, triton.next_power_of_2(work.values))),
            **tile.options(),
        )
    if norm is not None and not fused:
        plain, affine = out, [v.to(out.dtype) for v in norm[:2]]
        out, mean, inverse = torch.native_layer_norm(plain, (dim,), affine[0], affine[1], norm[2])
        if keep:
            before, stats = plain, torch.stack([mean.view(-1), inverse.view(-1)]).float()
    return out.view(work.batch, work.kept, dim), before, stats


def launch_weight_grad(
    work: Work, gradient: Tensor, grouped: bool, rows: int
) -> tuple[Tensor, Tensor | None]:
    """Return gradients by the weight (1 or G, D, K) and by the table (``rows``, D), float32.

    ``gradient`` is (B, V, D). That by the table is None where it is left to torch: there are rows by token,
    or by group and programs' tokens are of several, or products are asked for in less than float32.
    """
    dim, arch = gradient.shape[2], architecture(work.x)
    mixed = _mixed(work, grouped)
    tile = tile_for("patch_embed_bwd_some" if mixed else "patch_embed_bwd", arch, gradient.dtype, dim)
    groups = 1 if mixed else work.groups
    named = _arguments(work, gradient.dtype, mixed)
    by_table = rows in (1, groups) and named["PRECISION"] == "ieee"
    columns = work.values + by_table
    block_k = min(tile.block_n, max(16, triton.next_power_of_2(columns)))
    blocks = triton.cdiv(dim, tile.block_m) * triton.cdiv(columns, block_k)
    most = triton.cdiv(work.batch * work.kept // groups, tile.block_d)
    splits = max(1, min(_WAVES * PROGRAMS[arch] // (blocks * groups), most))
    size = [dim * work.values, dim]
    parts = torch.empty(groups, splits, sum(size), dtype=torch.float32, device=work.x.device)
    _weight_grad_kernel[(blocks, groups, splits)](
        **named,
        start_ptr=parts if work.starts is None else work.starts,
        gradient_ptr=gradient.contiguous(),
        part_ptr=parts,
        splits=splits,
        D=dim,
        BY_TABLE=by_table,
        BLOCK_D=tile.block_m,
        BLOCK_K=block_k,
        BLOCK_T=tile.block_d,
        **tile.options(),
    )
    weight_parts, table_parts = parts.split(size, 2)
    total = weight_parts.sum(1) if grouped else weight_parts.sum((0, 1))
    total = total.view(-1, dim, work.values)
    total = in_weight_order(work, total.mT).mT if named["PIXELS_FIRST"] else total
    if not by_table:
        return total, None
    return total, table_parts.sum(1) if rows > 1 else table_parts.sum((0, 1)).unsqueeze(0)


def _mixed(work: Work, own: bool) -> bool:
    """Return whether tokens come as they are asked for, not group by group.

    Groups apart take their normalisation once, which pays unless tokens would have to be sorted for it.
    """
    return not own and work.visible is not None


def _pixels_first(work: Work) -> bool:
    """Return whether a band's pixels, of which there are several, lie next to each other."""
    return bands_first(work) and work.x.shape[1] * work.x.shape[2] > 1


def _run(work: Work, pixels_first: bool) -> int:
    """Return how many values next to each other start at a multiple of as many, up to 16 bytes."""
    *outer, inner = work.x.permute(0, 3, 1, 2).stride() if pixels_first else work.x.stride()
    if inner != 1:
        return 1
    along = work.patch if pixels_first else work.group
    return math.gcd(16 // work.x.element_size(), along, *outer)


def _arguments(work: Work, dtype: torch.dtype, mixed: bool) -> dict[str, Any]:
    """Return what both kernels are given: the raw values and how tokens are cut from them."""
    x, cube = work.x, work.centres is not None
    pixels_first = _pixels_first(work)
    run = _run(work, pixels_first)
    inner = 2 if pixels_first else 3
    every = x.stride() if x.ndim == 4 else (0, *x.stride())
    strides = [s if i == inner else s // run for i, s in enumerate(every)]
    mean, scale = (None if v is None else v.float().contiguous() for v in (work.mean, work.scale))
    ieee = dtype != torch.float32 or torch.get_float32_matmul_precision() == "highest"
    return {
        "x_ptr": x,
        "centre_ptr": x if work.centres is None else work.centres.contiguous(),
        "mean_ptr": x if mean is None else mean,
        "scale_ptr": x if scale is None else scale,
        "order_ptr": x if work.order is None else work.order,
        "visible_ptr": x if work.visible is None else work.visible.contiguous(),
        "count": work.batch * (work.kept if mixed else work.space),
        "kept": work.kept,
        "groups": work.groups,
        "high": work.high,
        "wide": work.wide,
        "rows": x.shape[-3],
        "cols": x.shape[-2],
        "bands": work.bands,
        "stride_b": strides[0],
        "stride_h": strides[1],
        "stride_w": strides[2],
        "stride_c": strides[3],
        "reach": (work.window - 1) // 2,
        "PATCH": work.patch,
        "GROUP": work.group,
        "CUBE": cube,
        "FAR": cube and x.numel() >= 2**31,
        "MASKED": work.visible is not None,
        "MIXED": mixed,
        "FULL": work.bands % work.group == 0,
        "PIXELS_FIRST": pixels_first,
        "RUN": run,
        "HAS_MEAN": mean is not None,
        "HAS_SCALE": scale is not None,
        "PRECISION": "ieee" if ieee else "tf32",
    }
