"""Launches of the patch embedding's kernels: tiles from the table, strides in runs, parts added up."""

from __future__ import annotations

import math
from typing import Any

import torch
import triton
from torch import Tensor

from hsssl_kernels.launch import PROGRAMS, architecture, tile_for
from hsssl_kernels.spectral_patch_embed.gather import bands_first, in_weight_order
from hsssl_kernels.spectral_patch_embed.kernel import _embed_kernel, _weight_grad_kernel
from hsssl_kernels.spectral_patch_embed.spots import spot_table
from hsssl_kernels.spectral_patch_embed.work import Work

__all__ = ["launch_embed", "launch_weight_grad"]

# Tokens are split over so many times the programs that fill the device: the last ones to run then wait for
# less than with as few as fill it, whose number would have to be just right.
_WAVES = 4


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
    if mixed:
        row_blocks = triton.cdiv(total, tile.block_m)
    elif work.visible is None:
        row_blocks = work.groups * triton.cdiv(work.batch * work.space, tile.block_m)
    else:
        row_blocks = triton.cdiv(total, tile.block_m) + work.groups
    affine = [v.float().contiguous() for v in norm[:2]] if norm is not None else [out, out]
    block_k = min(tile.block_d, max(16, triton.next_power_of_2(work.values)))
    spots = triton.cdiv(work.values, block_k) * block_k
    if total:
        _embed_kernel[(row_blocks * triton.cdiv(dim, tile.block_n),)](
            **named,
            start_ptr=out if work.starts is None else work.starts,
            weight_ptr=_lay_out(work, weight, spots),
            spot_ptr=_spot_table(work, spots),
            table_ptr=out if table is None else table.contiguous(),
            norm_weight_ptr=affine[0],
            norm_bias_ptr=affine[1],
            out_ptr=out,
            before_ptr=before,
            stats_ptr=stats,
            total=total,
            eps=0.0 if norm is None else norm[2],
            D=dim,
            OWN=own,
            TABLE=0 if table is None else 1 if len(table) == 1 else 2,
            SHARE=1 if table is None or len(table) == 1 else work.groups * work.space // len(table),
            NORM=fused,
            KEEP=keep,
            BLOCK_G=triton.next_power_of_2(work.groups),
            BLOCK_M=tile.block_m,
            BLOCK_N=tile.block_n,
            BLOCK_K=block_k,
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
        spot_ptr=_spot_table(work, triton.cdiv(columns, block_k) * block_k),
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
    weight_parts, table_parts = torch.split(parts, size, 2)
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


def _lay_out(work: Work, weight: Tensor, values: int) -> Tensor:
    """Return weights (1 or G, D, ``values``) in the order in which kernels read values, 0 past K."""
    if values == work.values and not _pixels_first(work):
        return weight.contiguous()
    shape = weight.shape[:2]
    out = weight.new_zeros(*shape, values)
    part = out[..., : work.values]
    if _pixels_first(work):
        weight = weight.reshape(*shape, -1, work.group).transpose(2, 3)
        part = part.view(*shape, work.group, -1)
    part.copy_(weight)
    return out


def _far(x: Tensor) -> bool:
    """Return whether values lie so far apart that 32 bits do not count them."""
    return sum((n - 1) * abs(step) for n, step in zip(x.shape, x.stride(), strict=True)) >= 2**31


def _spot_table(work: Work, values: int) -> Tensor:
    """Return `spot_table` of as many values."""
    x = work.x
    strides = tuple(x.stride()[-3:])
    return spot_table(work.patch, work.group, _pixels_first(work), strides, values, _far(x), x.device)


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
        "rows": x.shape[-3],
        "cols": x.shape[-2],
        "bands": work.bands,
        "stride_b": strides[0],
        "stride_h": strides[1],
        "stride_w": strides[2],
        "stride_c": strides[3],
        "reach": (work.window - 1) // 2,
        "HIGH": work.high,
        "WIDE": work.wide,
        "PATCH": work.patch,
        "GROUP": work.group,
        "CUBE": cube,
        "FAR": _far(x),
        "MASKED": work.visible is not None,
        "MIXED": mixed,
        "FULL": work.bands % work.group == 0,
        "PIXELS_FIRST": pixels_first,
        "RUN": run,
        "HAS_MEAN": mean is not None,
        "HAS_SCALE": scale is not None,
        "PRECISION": "ieee" if ieee else "tf32",
    }
