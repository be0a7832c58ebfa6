"""The patch embedding in plain torch: raw values are gathered block by block, and each block is multiplied.

Where all tokens are wanted, a block is some samples, normalised in the order they lie in memory and then cut
into tokens. Where some are, a block is just these: the others cost nothing. Tokens are put in the order of
their groups only where each group has a weight of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import torch
from torch import Tensor

from hsssl_kernels.checks import compute_dtype
from hsssl_kernels.spectral_patch_embed.gather import gather_samples, gather_tokens, in_one_piece
from hsssl_kernels.spectral_patch_embed.work import Work

__all__ = ["embed_blocked", "weight_grad_blocked"]

# Raw values of a block. Smaller ones fit the cache better, but threads then wait for each other more often.
_VALUES = 2**20


def embed_blocked(
    work: Work, weight: Tensor, table: Tensor | None, norm: tuple[Tensor, Tensor, float] | None, keep: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Return tokens (B, V, D) and, where ``keep``, before `norm` (B V, D) and its (2, B V) statistics.

    ``weight`` is (1 or G, D, K), ``table`` (1 or G or G S, D); the latter's rows are added to the products.
    """
    wide, dim, grouped = compute_dtype(weight), weight.shape[1], len(weight) > 1
    weight_t = weight.to(wide).mT  # (1 or G, K, D)
    table = torch.zeros(1, dim, dtype=wide, device=work.x.device) if table is None else table.to(wide)
    if len(table) > 1 or grouped:
        table = table.repeat_interleave(work.groups * work.space // len(table), 0)  # (G S, D)
    tokens = weight.new_empty(work.batch * work.kept, dim)
    before = torch.empty_like(tokens) if keep else tokens.new_empty(0, dim)
    stats = weight_t.new_empty(2, len(before))
    in_place = weight.dtype == wide and norm is None
    for place, token, block in _blocks(work, wide, grouped):
        if isinstance(place, slice):
            rows = tokens[place] if in_place else weight_t.new_empty(place.stop - place.start, dim)
            _project(work, token, block, weight_t, table, rows)
            if in_place:
                continue
        else:
            g = int(token[0]) // work.space
            rows = table.index_select(0, token).addmm_(block, weight_t[g])
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
    for place, token, block in _blocks(work, wide, grouped):
        rows = gradient[place].to(wide)
        if block.ndim == 3:
            rows = rows.view(-1, work.groups, work.space, dim).transpose(0, 1).flatten(1, 2)  # (G, n S, D)
            total.baddbmm_(rows.mT, block)
        else:
            total[int(token[0]) // work.space if grouped else 0].addmm_(rows.T, block)
    return total


def _project(work: Work, token: Tensor, block: Tensor, weight_t: Tensor, table: Tensor, rows: Tensor) -> None:
    """Write products and table into ``rows`` (m, D), from a block (m, K) or (G, n S, K)."""
    dim = rows.shape[1]
    if block.ndim == 3:
        product = torch.bmm(block, weight_t).view(work.groups, -1, work.space, dim).transpose(0, 1)
        out = rows.view(-1, work.groups, work.space, dim)
        torch.add(product, table.view(work.groups, work.space, dim), out=out)
    elif len(table) == 1:
        torch.addmm(table, block, weight_t[0], out=rows)
    else:
        if work.visible is None:
            rows.view(-1, *table.shape).copy_(table)
        else:
            torch.index_select(table, 0, token, out=rows)
        rows.addmm_(block, weight_t[0])


def _blocks(work: Work, wide: torch.dtype, grouped: bool) -> Iterator[tuple[slice | Tensor, Tensor, Tensor]]:
    """Yield slots of the output, the numbers of their tokens where only some are wanted, and their values.

    Values are (m, K); or (G, n S, K) of n samples where every group has its weight. Slots that are no slice
    are of one group.
    """
    work = in_one_piece(work)
    if work.visible is None:
        every = torch.empty(0, dtype=torch.int64, device=work.x.device)
        step = max(1, _VALUES // (work.kept * work.values))
        for i in range(0, work.batch, step):
            last = min(i + step, work.batch)
            block = gather_samples(work, i, last, wide)  # (n, G, S, K)
            block = block.transpose(0, 1).flatten(1, 2) if grouped else block.flatten(0, 2)
            yield slice(i * work.kept, last * work.kept), every, block
        return
    assert work.order is not None
    assert work.starts is not None
    step = max(1, _VALUES // (4 * work.values))  # beside the values lie their positions, as int64
    numbers = work.visible.reshape(-1)
    bounds = work.starts.tolist() if grouped else [0, len(numbers)]
    for first, stop in pairwise(bounds):
        for i in range(first, stop, step):
            last = min(i + step, stop)
            place = work.order[i:last] if grouped else slice(i, last)
            slots = work.order[i:last] if grouped else torch.arange(i, last, device=numbers.device)
            token = numbers[place]
            yield place, token, gather_tokens(work, slots // work.kept, token, wide)
