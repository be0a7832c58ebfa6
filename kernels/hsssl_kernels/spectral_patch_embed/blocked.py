"""The patch embedding in plain torch: raw values are gathered block by block, and each block is multiplied.

Where all tokens are wanted, a block is some samples, normalised in the order they lie in memory and then cut
into tokens. Where some are, a block is tokens of one group, gathered one by one: the others cost nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from hsssl_kernels.checks import compute_dtype
from hsssl_kernels.spectral_patch_embed.reference import cut_windows
from hsssl_kernels.spectral_patch_embed.work import Work

__all__ = ["embed_blocked", "weight_grad_blocked"]

# Raw values of a block. Smaller ones fit the cache better, but threads then wait for each other more often.
_VALUES = 2**20


def embed_blocked(
    work: Work, weight: Tensor, table: Tensor | None, norm: tuple[Tensor, Tensor, float] | None, keep: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Return tokens (B, V, D) and, where ``keep``, for `norm` (B V, D) before it and (2, B V) of statistics.

    ``weight`` is (1 or G, D, K), ``table`` (1 or G or G S, D); the latter's rows are added to the products.
    """
    wide, dim = compute_dtype(weight), weight.shape[1]
    weight_t = weight.to(wide).mT  # (1 or G, K, D)
    table = torch.zeros(1, dim, dtype=wide, device=work.x.device) if table is None else table.to(wide)
    tokens = weight.new_empty(work.batch * work.kept, dim)
    before = torch.empty_like(tokens) if keep else tokens.new_empty(0, dim)
    stats = weight_t.new_empty(2, len(before))
    for place, g, block in _blocks(work, wide, len(weight) > 1):
        if isinstance(place, slice):
            rows = _project_samples(work, block, weight_t, table)  # (n V, D)
        else:
            rows = _project_slots(work, place, g or 0, block, weight_t, table)  # (m, D)
        if keep:
            before[place] = rows.to(before.dtype)
        if norm is not None:
            affine = (norm[0].to(wide), norm[1].to(wide))
            rows, mean, inverse = torch.native_layer_norm(rows, (dim,), *affine, norm[2])
            if keep:
                stats[0, place], stats[1, place] = mean.squeeze(1), inverse.squeeze(1)
        tokens[place] = rows.to(tokens.dtype)
    return tokens.view(-1, work.kept, dim), before, stats


def weight_grad_blocked(work: Work, gradient: Tensor, grouped: bool) -> Tensor:
    """Return the gradient by the weight (1 or G, D, K), float32 or float64; ``gradient`` is (B, V, D)."""
    wide, dim = compute_dtype(gradient), gradient.shape[2]
    gradient = gradient.reshape(-1, dim)
    total = gradient.new_zeros(work.groups if grouped else 1, dim, work.values, dtype=wide)
    for place, g, block in _blocks(work, wide, grouped):
        rows = gradient[place].to(wide)
        if g is None and grouped:
            rows = rows.view(-1, work.groups, work.space, dim).transpose(0, 1).flatten(1, 2)  # (G, n S, D)
            total.baddbmm_(rows.mT, block)
        else:
            total[g if grouped else 0].addmm_(rows.T, block.flatten(0, -2))
    return total


def _project_samples(work: Work, block: Tensor, weight_t: Tensor, table: Tensor) -> Tensor:
    """Return (n G S, D) from a block (n, G, S, K), or (G, n S, K) where each group has its own weight."""
    if len(weight_t) == 1 and len(table) == 1:
        return torch.addmm(table, block.flatten(0, 2), weight_t[0])
    table = table.repeat_interleave(work.groups * work.space // len(table), 0)  # (G S, D)
    if len(weight_t) == 1:
        rows = table.repeat(len(block), 1)  # (n G S, D)
        return rows.addmm_(block.flatten(0, 2), weight_t[0])
    dim = table.shape[1]
    product = torch.bmm(block, weight_t).view(work.groups, -1, work.space, dim)
    return (product.transpose(0, 1) + table.view(work.groups, work.space, dim)).reshape(-1, dim)


def _project_slots(
    work: Work, slots: Tensor, g: int, block: Tensor, weight_t: Tensor, table: Tensor
) -> Tensor:
    """Return (m, D) from a block (m, K) of tokens of group ``g``."""
    weight_g = weight_t[g if len(weight_t) > 1 else 0]
    if len(table) <= work.groups:
        return torch.addmm(table[g if len(table) > 1 else 0], block, weight_g)
    assert work.visible is not None
    return table[work.visible.reshape(-1)[slots]].addmm_(block, weight_g)


def _blocks(
    work: Work, wide: torch.dtype, grouped: bool
) -> Iterator[tuple[slice | Tensor, int | None, Tensor]]:
    """Yield the slots of the output that a block serves, its group where it is of one, and the block."""
    if work.order is not None and work.starts is not None:
        bounds = work.starts.tolist()
        step = max(1, _VALUES // work.values)
        for g, (first, last) in enumerate(pairwise(bounds)):
            for i in range(first, last, step):
                slots = work.order[i : min(i + step, last)]
                yield slots, g, _gather_slots(work, slots, g, wide)
        return
    step = max(1, _VALUES // (work.kept * work.values))
    for i in range(0, work.batch, step):
        n = min(step, work.batch - i)
        yield (
            slice(i * work.kept, (i + n) * work.kept),
            None,
            _gather_samples(work, slice(i, i + n), wide, grouped),
        )


def _gather_samples(work: Work, samples: slice, wide: torch.dtype, grouped: bool) -> Tensor:
    """Return tokens (n, G, S, K) of some samples, or (G, n S, K) where ``grouped``."""
    centres = None if work.centres is None else work.centres[samples]
    x = work.x[samples] if centres is None else cut_windows(work.x, centres, work.window)
    x = x.to(wide, copy=work.mean is not None or work.scale is not None)  # (n, H, W, C)
    if work.mean is not None:
        x -= work.mean.to(wide)
    if work.scale is not None:
        x *= work.scale.to(wide)
    x = F.pad(x, (0, -work.bands % work.group))
    patch, groups = work.patch, work.groups
    x = x.view(len(x), work.high, patch, work.wide, patch, groups, work.group)
    x = x.permute((5, 0, 1, 3, 2, 4, 6) if grouped else (0, 5, 1, 3, 2, 4, 6))
    return x.reshape((groups, -1, work.values) if grouped else (-1, groups, work.space, work.values))


def _gather_slots(work: Work, slots: Tensor, g: int, wide: torch.dtype) -> Tensor:
    """Return tokens (m, K) of group ``g``."""
    assert work.visible is not None
    patch, first = work.patch, g * work.group
    last = min(first + work.group, work.bands)
    sample = slots // work.kept
    place = work.visible.reshape(-1)[slots] % work.space
    corner = torch.stack([place // work.wide, place % work.wide], 1) * patch  # (m, 2)
    if work.centres is None:
        x = work.x[..., first:last]
        x = x.view(work.batch, work.high, patch, work.wide, patch, last - first).transpose(2, 3)
        x = x[sample, corner[:, 0] // patch, corner[:, 1] // patch]  # (m, p, p, bands)
    else:
        # the centre of the token's own window, such that the windows' upper left corners agree
        centre = work.centres[sample] - (work.window - 1) // 2 + corner + (patch - 1) // 2
        x = cut_windows(work.x[..., first:last], centre, patch)
    x = x.to(wide)
    if work.mean is not None:
        x = x - work.mean[first:last].to(wide)
    if work.scale is not None:
        x = x * work.scale[first:last].to(wide)
    return F.pad(x, (0, work.group - (last - first))).flatten(1)
