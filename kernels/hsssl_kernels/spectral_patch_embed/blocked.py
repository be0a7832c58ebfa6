"""The patch embedding in plain torch: raw values are gathered block by block, and each block is multiplied.

Where all tokens are wanted, a block is some samples, normalised in the order they lie in memory and then cut
into tokens. Where some are, a block is just these: the others cost nothing. Tokens are put in the order of
their groups only where each group has a weight of its own. A block stays in the cache, and threads work on
blocks of their own.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import torch
from torch import Tensor

from hsssl_kernels.checks import compute_dtype
from hsssl_kernels.parallel import run_apart
from hsssl_kernels.spectral_patch_embed.gather import (
    in_memory_order,
    in_weight_order,
    run_of_tokens,
    sample_gatherer,
    token_gatherer,
)
from hsssl_kernels.spectral_patch_embed.output import Output
from hsssl_kernels.spectral_patch_embed.table import table_grad
from hsssl_kernels.spectral_patch_embed.work import Work

__all__ = ["embed_blocked", "weight_grad_blocked"]

# Values and results of a block: 4 MB in float32 on a CPU, as smaller ones keep threads waiting for Python's
# lock; elsewhere launches cost more than passes.
_VALUES, _LARGE = 2**20, 2**26
# Values and results that are worth a thread's start.
_PART = 2**20


def embed_blocked(
    work: Work,
    weight: Tensor,
    table: Tensor | None,
    norm: tuple[Tensor, Tensor, float] | None,
    keep: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return tokens (B, V, D) and, where ``keep``, before `norm` (B V, D) and its (2, B V) statistics.

    ``weight`` is (1 or G, D, K), ``table`` (1 or G or G S, D); the latter's rows are added to the products.
    """
    wide, dim, grouped = compute_dtype(weight), weight.shape[1], len(weight) > 1
    weight_t = in_memory_order(work, weight.to(wide)).mT.contiguous()  # (1 or G, K, D)
    table = torch.zeros(1, dim, dtype=wide, device=work.x.device) if table is None else table.to(wide)
    if len(table) > 1 or grouped:
        table = table.repeat_interleave(work.groups * work.space // len(table), 0)  # (G S, D)
    output = Output.of(work, weight, norm, keep)
    in_place = weight.dtype == wide and norm is None

    @torch.no_grad()  # the mode is a thread's own
    def part(units: slice) -> None:
        for place, token, block in _blocks(work, units, wide, grouped, dim):
            if isinstance(place, slice):
                rows = output.tokens[place] if in_place else weight_t.new_empty(place.stop - place.start, dim)
                _project(work, token, block, weight_t, table, rows)
                if in_place:
                    continue
            else:
                assert token is not None
                g = int(token[0]) // work.space
                rows = table.index_select(0, token).addmm_(block, weight_t[g])
            output.write(place, rows)

    run_apart(part, _parts(work, grouped, dim), torch.get_num_threads())
    return output.result(work.kept)


def weight_grad_blocked(work: Work, gradient: Tensor, grouped: bool, rows: int) -> tuple[Tensor, Tensor]:
    """Return the gradients by the weight (1 or G, D, K) and by the table (``rows``, D), wide.

    ``gradient`` is (B, V, D), that by the tokens.
    """
    wide, dim = compute_dtype(gradient), gradient.shape[2]
    gradient = gradient.reshape(-1, dim)
    found: dict[int, tuple[Tensor, Tensor]] = {}

    @torch.no_grad()  # the mode is a thread's own
    def part(units: slice) -> None:
        # u^T dy and not dy^T u: with few values in a token that is seven times as fast
        by_weight = gradient.new_zeros(work.groups if grouped else 1, work.values, dim, dtype=wide)
        by_table = gradient.new_zeros(rows, dim, dtype=wide)
        for place, token, block in _blocks(work, units, wide, grouped, dim):
            dy = gradient[place].to(wide)
            g = int(token[0]) // work.space if grouped and token is not None else 0
            if block.ndim == 3:
                by_group = dy.view(-1, work.groups, work.space, dim).transpose(0, 1).flatten(1, 2)
                by_weight.baddbmm_(block.mT, by_group)
            else:
                by_weight[g].addmm_(block.T, dy)
            if rows:
                by_table += table_grad(work, dy, token, rows)
        found[units.start] = by_weight, by_table

    run_apart(part, _parts(work, grouped, dim), torch.get_num_threads())
    (by_weight, by_table), *others = (found[first] for first in sorted(found))
    for more_by_weight, more_by_table in others:
        by_weight += more_by_weight
        by_table += more_by_table
    return in_weight_order(work, by_weight).mT, by_table


def _project(
    work: Work, token: Tensor | None, block: Tensor, weight_t: Tensor, table: Tensor, rows: Tensor
) -> None:
    """Write products and table into ``rows`` (m, D), from a block (m, K) or (G, n S, K)."""
    dim = rows.shape[1]
    if block.ndim == 3:
        product = torch.bmm(block, weight_t).view(work.groups, -1, work.space, dim).transpose(0, 1)
        out = rows.view(-1, work.groups, work.space, dim)
        torch.add(product, table.view(work.groups, work.space, dim), out=out)
    elif len(table) == 1:
        torch.addmm(table, block, weight_t[0], out=rows)
    else:
        if token is None:
            rows.view(-1, *table.shape).copy_(table)
        else:
            torch.index_select(table, 0, token, out=rows)
        rows.addmm_(block, weight_t[0])


def _by_samples(work: Work, grouped: bool) -> bool:
    """Return whether whole samples are gathered, even if not all of their tokens are wanted.

    That takes half of the time a token that picking single ones does, or a seventh where values are
    picked one by one.
    """
    dearer = 8 if run_of_tokens(work) == 1 else 2
    return work.visible is None or not (grouped or dearer * work.kept < work.groups * work.space)


def _parts(work: Work, grouped: bool, dim: int) -> list[slice]:
    """Return what threads take in turn: samples, or slots where single tokens are picked."""
    units = work.batch if _by_samples(work, grouped) else work.batch * work.kept
    threads = torch.get_num_threads() if work.x.device.type == "cpu" else 1
    size = work.batch * work.kept * (work.values + dim)
    parts = 1
    if threads > 1 and size >= threads * _PART:
        # two parts a thread, so that one held up by another program leaves work to the others
        parts = 2 * threads if size >= 4 * threads * _PART else threads
    step = max(1, -(-units // parts))
    return [slice(first, min(first + step, units)) for first in range(0, max(1, units), step)]


def _blocks(
    work: Work,
    units: slice,
    wide: torch.dtype,
    grouped: bool,
    dim: int,
) -> Iterator[tuple[slice | Tensor, Tensor | None, Tensor]]:
    """Yield slots of the output, the numbers of their tokens where only some are wanted, and their values.

    Values are (m, K), overwritten by the next block; or (G, n S, K) of n samples where every group has its
    weight. Slots that are no slice are of one group.
    """
    most = _VALUES if work.x.device.type == "cpu" else _LARGE
    if _by_samples(work, grouped):
        of_sample = work.groups * work.space * work.values + work.kept * dim
        yield from _sample_blocks(work, units, wide, grouped, most // of_sample)
    else:
        yield from _token_blocks(work, units, wide, grouped, most // (work.values + dim))


def _sample_blocks(
    work: Work, samples: slice, wide: torch.dtype, grouped: bool, most: int
) -> Iterator[tuple[slice, Tensor | None, Tensor]]:
    tokens = work.groups * work.space
    step = max(1, min(samples.stop - samples.start, most))
    gather = sample_gatherer(work, step, wide)
    size = 0 if work.visible is None else step * work.kept
    picked = torch.empty(size, work.values, dtype=wide, device=work.x.device)
    for first in range(samples.start, samples.stop, step):
        last = min(first + step, samples.stop)
        block, slots = gather(first, last), slice(first * work.kept, last * work.kept)  # (n, G, S, K)
        if work.visible is None:
            yield slots, None, block.transpose(0, 1).flatten(1, 2) if grouped else block.flatten(0, 2)
        else:
            token = work.visible[first:last]
            row = token + tokens * torch.arange(last - first, device=token.device).unsqueeze(1)
            out = picked[: row.numel()]
            yield slots, token.reshape(-1), torch.index_select(block.flatten(0, 2), 0, row.view(-1), out=out)


def _token_blocks(
    work: Work, slots: slice, wide: torch.dtype, grouped: bool, most: int
) -> Iterator[tuple[slice | Tensor, Tensor, Tensor]]:
    assert work.visible is not None
    first, last = slots.start, slots.stop
    step = max(1, min(last - first, most))
    gather = token_gatherer(work, step, wide)
    order = work.order[slots] if grouped and work.order is not None else None
    number, sample = work.visible.reshape(-1), torch.arange(work.batch, device=work.x.device)
    number = number[slots] if order is None else number[order]
    sample = sample.repeat_interleave(work.kept)[slots] if order is None else order // work.kept
    bounds = [] if order is None or work.starts is None else work.starts.tolist()
    for begin, end in pairwise([first, *(b for b in bounds if first < b < last), last]):
        for i in range(begin, end, step):
            at = slice(i - first, min(i + step, end) - first)
            place = slice(first + at.start, first + at.stop) if order is None else order[at]
            yield place, number[at], gather(sample[at], number[at])
