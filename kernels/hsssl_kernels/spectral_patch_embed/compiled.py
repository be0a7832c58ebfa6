"""The patch embedding on a CPU with Numba: parts of the output in threads, by the loops of ``loops.py``."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from hsssl_kernels.checks import compute_dtype
from hsssl_kernels.dispatch import compiles_loops
from hsssl_kernels.parallel import run_apart
from hsssl_kernels.spectral_patch_embed.gather import bands_first, by_value, in_memory_order, in_weight_order
from hsssl_kernels.spectral_patch_embed.output import Output
from hsssl_kernels.spectral_patch_embed.work import Work

if TYPE_CHECKING:
    from hsssl_kernels.spectral_patch_embed.loops import Memory, Source

__all__ = ["embed_compiled", "takes_loops", "weight_grad_compiled"]

# Numbers of rows that stay in the cache until they are normalised, cast or put in their places.
_ROWS = 2**17
# Bytes of tokens of which none would still be in the cache when they are read.
_PAST_CACHE = 2**25
# Values and results that are worth a thread's turn.
_PART = 2**18
# Tokens to sum over at once, a multiple of 6: their values and gradients stay in the cache.
_TOKENS = 96
# Tokens of a group in a row where each group has a weight.
_IN_A_ROW = 256


def takes_loops(work: Work) -> bool:
    """Return whether compiled loops serve: on the CPU, for values that Numba knows."""
    narrow = work.x.dtype in (torch.float16, torch.bfloat16)
    return work.x.device.type == "cpu" and not narrow and compiles_loops()


def embed_compiled(
    work: Work,
    weight: Tensor,
    table: Tensor | None,
    norm: tuple[Tensor, Tensor, float] | None,
    keep: bool,
    threads: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return what `embed_blocked` does, from the same."""
    from hsssl_kernels.lanes import BYTES
    from hsssl_kernels.spectral_patch_embed.loops import ROWS, embed_tokens

    wide, dim = compute_dtype(weight), weight.shape[1]
    lanes = _lanes(wide)
    panels = _filled(in_memory_order(work, weight.to(wide)).mT, lanes)  # (1 or G, K, D')
    panels = panels.reshape(*panels.shape[:2], -1, lanes).transpose(1, 2).contiguous()
    table = weight.new_zeros(1, dim) if table is None else table
    table = _filled(table.to(wide), lanes).contiguous()
    share = work.groups * work.space // len(table)
    order = _order(work, len(weight) > 1)
    source, output = _source(work, wide, order), Output(work, weight, norm, keep)
    in_place = weight.dtype == wide and norm is None and order is None and table.shape[1] == dim
    given = panels.numpy(), table.numpy(), share
    past_cache = output.tokens.nbytes >= _PAST_CACHE and output.tokens.data_ptr() % BYTES == 0

    @torch.no_grad()  # the mode is a thread's own
    def part(slots: slice) -> None:
        memory = _memory(work.values, ROWS, 0, wide)
        if in_place:
            embed_tokens(
                source, memory, slots.start, slots.stop, *given, output.tokens[slots].numpy(), past_cache
            )
            return
        step = max(1, _ROWS // dim)
        sums = table.new_empty(min(step, slots.stop - slots.start), table.shape[1])
        for first in range(slots.start, slots.stop, step):
            last = min(first + step, slots.stop)
            rows, place = sums[: last - first], slice(first, last)
            embed_tokens(source, memory, first, last, *given, rows.numpy(), False)
            output.write(place if order is None else order[place], rows[:, :dim])

    run_apart(part, _parts(work, dim, threads), threads)
    return output.result()


def weight_grad_compiled(
    work: Work, gradient: Tensor, grouped: bool, rows: int, threads: int
) -> tuple[Tensor, Tensor]:
    """Return what `weight_grad_blocked` does, from the same."""
    from hsssl_kernels.spectral_patch_embed.loops import ROWS, add_gradients

    wide, dim = compute_dtype(gradient), gradient.shape[2]
    lanes, order = _lanes(wide), _order(work, grouped)
    source, gradient = _source(work, wide, order), gradient.reshape(-1, dim)
    size = work.groups if grouped else 1, -(-work.values // ROWS) * ROWS, -(-dim // lanes) * lanes
    in_place = gradient.dtype == wide and order is None and size[2] == dim
    share = work.groups * work.space // max(1, rows)
    found: dict[int, tuple[Tensor, Tensor]] = {}

    @torch.no_grad()  # the mode is a thread's own
    def part(slots: slice) -> None:
        memory = _memory(size[1], _TOKENS, size[2], wide)
        sums = gradient.new_zeros(size, dtype=wide), gradient.new_zeros(rows, size[2], dtype=wide)
        step = max(1, slots.stop - slots.start if in_place else _ROWS // dim)
        for first in range(slots.start, slots.stop, step):
            place = slice(first, min(first + step, slots.stop))
            dy = _filled(gradient[place if order is None else order[place]].to(wide), lanes).contiguous()
            add_gradients(source, memory, first, place.stop, dy.numpy(), share, *(x.numpy() for x in sums))
        found[slots.start] = sums

    least = 2 * size[0] * size[1] * size[2]  # each part has sums of its own
    run_apart(part, _parts(work, dim, threads, least), threads)
    by_weight, by_table = (
        torch.stack(x).sum(0) for x in zip(*(found[i] for i in sorted(found)), strict=True)
    )
    return in_weight_order(work, by_weight[:, : work.values, :dim]).mT, by_table[:, :dim]


def _lanes(wide: torch.dtype) -> int:
    from hsssl_kernels.lanes import BYTES

    return BYTES // wide.itemsize


def _filled(x: Tensor, lanes: int) -> Tensor:
    """Fill rows up with zeros to whole lanes."""
    missing = -x.shape[-1] % lanes
    return F.pad(x, (0, missing)) if missing else x.detach()


def _memory(height: int, tokens: int, dim: int, wide: torch.dtype) -> Memory:
    from hsssl_kernels.spectral_patch_embed.loops import ROWS, Memory

    numbers = (torch.zeros(n, dtype=wide) for n in (height * tokens, tokens * dim))
    whole = torch.zeros(2 * height, dtype=torch.int64), torch.zeros(ROWS, dtype=torch.uint64)
    u, right, offsets, rows = (x.numpy() for x in (*numbers, *whole))
    return Memory(u, offsets, rows, right)


def _parts(work: Work, dim: int, threads: int, least: int = 0) -> list[slice]:
    """Return the slots that threads take in turn: ``least`` values and results or more in each part."""
    slots = work.batch * work.kept
    # eight parts a thread, so that one held up by another program leaves work to the others
    parts = min(8 * threads, slots * (work.values + dim) // max(_PART, least))
    step = -(-slots // parts) if threads > 1 and parts > 1 else max(1, slots)
    return [slice(first, min(first + step, slots)) for first in range(0, max(1, slots), step)]


def _order(work: Work, grouped: bool) -> Tensor | None:
    """Return slots in an order in which tokens of a group follow each other, where each has a weight."""
    if not grouped or work.visible is not None:
        return work.order if grouped else None
    slots = torch.arange(work.batch * work.kept).view(-1, work.groups, work.space)
    some = torch.split(slots, -(-_IN_A_ROW // work.space))  # samples whose values stay in the cache
    return torch.cat([x.transpose(0, 1).reshape(-1) for x in some])


def _source(work: Work, wide: torch.dtype, order: Tensor | None) -> Source:
    from hsssl_kernels.spectral_patch_embed.loops import Source

    x = work.x.detach()
    reach = 1 + sum((n - 1) * step for n, step in zip(x.shape, x.stride(), strict=True))
    raw = torch.as_strided(x, (reach if x.numel() else 0,), (1,))
    corners, strides, size = None, x.stride(), x.shape[1:3]
    if work.centres is not None:
        corners = work.centres - (work.window - 1) // 2
        strides, size = (0, *x.stride()), x.shape[:2]  # a cube is one sample
    often = 8 * work.kept >= work.groups * work.space and order is None
    return Source(
        raw=raw.numpy(),
        length=len(raw),
        line=max(1, 64 // x.itemsize),
        ahead=-(-strides[0] // work.kept) if often and work.kept else 0,
        strides=strides,
        size=tuple(size),
        corners=_list(corners),
        window=0 if work.centres is None else work.window,
        places=_places_of_tokens(work.groups, work.space, work.wide, work.patch, work.group),
        spots=_spots_of_values(work.patch, work.group, bands_first(work)),
        values=work.values,
        bands=work.bands,
        normalised=work.mean is not None or work.scale is not None,
        mean=_by_value(work, work.mean, 0.0, wide),
        scale=_by_value(work, work.scale, 1.0, wide),
        some=work.visible is not None,
        visible=_list(work.visible),
        ordered=order is not None,
        order=_list(order),
        kept=work.kept,
    )


def _by_value(work: Work, by_band: Tensor | None, otherwise: float, wide: torch.dtype) -> Any:
    """Return the number of every value of every group (G K,), or none where there is no normalisation."""
    if work.mean is None and work.scale is None:
        return torch.empty(0, dtype=wide).numpy()
    by_band = torch.full((work.bands,), otherwise) if by_band is None else by_band.detach()
    return by_value(work, by_band.to(wide)).reshape(-1).numpy()


def _list(x: Tensor | None) -> Any:
    return (torch.empty(0, dtype=torch.int64) if x is None else x.flatten().contiguous()).numpy()


@lru_cache(maxsize=8)  # every call asks for the same, and a dozen short operations take 1 ms
def _places_of_tokens(groups: int, space: int, wide: int, patch: int, group: int) -> Any:
    """Return row, column, group and first band of every token (G S 4,)."""
    place, which = torch.arange(space).repeat(groups), torch.arange(groups).repeat_interleave(space)
    return (
        torch.stack([place // wide * patch, place % wide * patch, which, which * group], 1).view(-1).numpy()
    )


@lru_cache(maxsize=8)
def _spots_of_values(patch: int, group: int, first: bool) -> Any:
    """Return row, column and band of a token's values (K 3,), counted from its first, in memory's order."""
    side, band = torch.arange(patch), torch.arange(group)
    if first:
        band, row, col = torch.meshgrid(band, side, side, indexing="ij")
    else:
        row, col, band = torch.meshgrid(side, side, band, indexing="ij")
    return torch.stack([row, col, band], -1).view(-1).numpy()
