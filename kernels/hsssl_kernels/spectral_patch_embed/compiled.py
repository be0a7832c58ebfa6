"""The patch embedding on a CPU with Numba: parts of the output in threads, by the loops of ``loops.py``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from hsssl_kernels.checks import compute_dtype
from hsssl_kernels.dispatch import compiles_loops
from hsssl_kernels.parallel import run_apart
from hsssl_kernels.spectral_patch_embed.gather import in_memory_order, in_weight_order
from hsssl_kernels.spectral_patch_embed.output import Output
from hsssl_kernels.spectral_patch_embed.source import order_by_group, source_of
from hsssl_kernels.spectral_patch_embed.work import Work

if TYPE_CHECKING:
    from hsssl_kernels.spectral_patch_embed.loops import Memory, Source

__all__ = [
    "Projection",
    "Sums",
    "add_slots",
    "embed_compiled",
    "embed_slots",
    "goes_past_cache",
    "lay_out",
    "memory_for_sums",
    "memory_for_tokens",
    "no_sums",
    "takes_loops",
    "total",
    "weight_grad_compiled",
]

# Numbers of rows that stay in the cache until they are normalised, cast or put in their places.
_ROWS = 2**17
# Bytes of tokens of which none would still be in the cache when they are read.
_PAST_CACHE = 2**25
# Values and results, or products, that are worth a thread's turn; and how many turns there are at most.
_PART, _PRODUCTS, _PARTS = 2**19, 2**25, 16
# Tokens to sum over at once: their values and gradients stay in the cache. Fewer of very large ones.
_TOKENS, _MEMORY = 96, 2**20


def takes_loops(work: Work) -> bool:
    """Return whether compiled loops serve: on the CPU, for values that Numba knows."""
    narrow = work.x.dtype in (torch.float16, torch.bfloat16)
    return work.x.device.type == "cpu" and not narrow and compiles_loops()


def goes_past_cache(tokens: Tensor) -> bool:
    """Return whether tokens are too many to stay in the cache, and lie as writing past it demands."""
    from hsssl_kernels.lanes import BYTES

    return tokens.nbytes >= _PAST_CACHE and tokens.data_ptr() % BYTES == 0


class Projection(NamedTuple):
    """A weight, and what is added to its products, as `embed_tokens` takes them; arrays of NumPy."""

    panels: Any  # (1 or G, D' / L, K, L), D' >= D a multiple of the lanes L
    table: Any  # (1 or G or G S, D')
    share: int  # tokens for each row of the table


class Sums(NamedTuple):
    """Gradients that `add_slots` adds to."""

    by_weight: Tensor  # (1 or G, K', D'), K' >= K a multiple of 6
    by_table: Tensor  # (1 or G or G S or 0, D')


def embed_compiled(
    work: Work,
    weight: Tensor,
    table: Tensor | None,
    norm: tuple[Tensor, Tensor, float] | None,
    keep: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return what `embed_blocked` does, from the same."""
    order, projection = order_by_group(work, len(weight) > 1), lay_out(work, weight, table)
    source, output = source_of(work, compute_dtype(weight), order), Output.of(work, weight, norm, keep)
    past_cache = goes_past_cache(output.tokens)

    @torch.no_grad()  # the mode is a thread's own
    def part(slots: slice) -> None:
        embed_slots(source, projection, slots, order, output, past_cache, memory_for_tokens(projection))

    run_apart(part, _parts(work, weight.shape[1]), torch.get_num_threads())
    return output.result(work.kept)


def weight_grad_compiled(work: Work, gradient: Tensor, grouped: bool, rows: int) -> tuple[Tensor, Tensor]:
    """Return what `weight_grad_blocked` does, from the same."""
    order, dim = order_by_group(work, grouped), gradient.shape[2]
    source, gradient = source_of(work, compute_dtype(gradient), order), gradient.reshape(-1, dim)
    found: dict[int, Sums] = {}

    @torch.no_grad()  # the mode is a thread's own
    def part(slots: slice) -> None:
        sums = no_sums(work, gradient, grouped, rows)
        add_slots(source, sums, slots, order, gradient, memory_for_sums(sums))
        found[slots.start] = sums

    # each part has sums of its own, which take as long as some values and gradients
    least = 2 * (work.groups if grouped else 1) * work.values * dim // (work.values + dim)
    run_apart(part, _parts(work, dim, least), torch.get_num_threads())
    return total(work, [found[first] for first in sorted(found)], dim)


def lay_out(work: Work, weight: Tensor, table: Tensor | None) -> Projection:
    """Lay out a weight (1 or G, D, K) and a table (1 or G or G S, D)."""
    wide, dim = compute_dtype(weight), weight.shape[1]
    lanes = _lanes(wide)
    panels = _filled(in_memory_order(work, weight.to(wide)).mT, lanes)  # (1 or G, K, D')
    panels = panels.reshape(*panels.shape[:2], -1, lanes).transpose(1, 2).contiguous()
    table = weight.new_zeros(1, dim) if table is None else table
    table = _filled(table.to(wide), lanes).contiguous()
    return Projection(panels.numpy(), table.numpy(), work.groups * work.space // len(table))


def embed_slots(
    source: Source,
    projection: Projection,
    slots: slice,
    order: Tensor | None,
    output: Output,
    past_cache: bool,
    memory: Memory,
) -> None:
    """Write the tokens of slots, or of those that an order has there."""
    from hsssl_kernels.spectral_patch_embed.loops import embed_tokens

    tokens, table = output.tokens, torch.from_numpy(projection.table)
    dim = tokens.shape[1]
    if output.norm is None and order is None and tokens.dtype == table.dtype and table.shape[1] == dim:
        whole = tokens[slots].numpy()
        embed_tokens(source, memory, slots.start, slots.stop, *projection, whole, past_cache)
        return
    step = max(1, _ROWS // dim)
    sums = table.new_empty(min(step, slots.stop - slots.start), table.shape[1])
    for first in range(slots.start, slots.stop, step):
        place = slice(first, min(first + step, slots.stop))
        rows = sums[: place.stop - first]
        embed_tokens(source, memory, first, place.stop, *projection, rows.numpy(), False)
        output.write(place if order is None else order[place], rows[:, :dim])


def no_sums(work: Work, gradient: Tensor, grouped: bool, rows: int) -> Sums:
    """Return sums of 0, for gradients by tokens (m, D)."""
    from hsssl_kernels.spectral_patch_embed.loops import ROWS

    wide, dim = compute_dtype(gradient), gradient.shape[1]
    high, across = -(-work.values // ROWS) * ROWS, dim + -dim % _lanes(wide)
    by_weight = gradient.new_zeros(work.groups if grouped else 1, high, across, dtype=wide)
    return Sums(by_weight, by_weight.new_zeros(rows, across))


def add_slots(
    source: Source, sums: Sums, slots: slice, order: Tensor | None, gradient: Tensor, memory: Memory
) -> None:
    """Add what gradients (B V, D) by tokens give for slots, or for those that an order has there."""
    from hsssl_kernels.spectral_patch_embed.loops import add_gradients

    across, wide = sums.by_weight.shape[2], sums.by_weight.dtype
    share = source.tokens // max(1, len(sums.by_table))
    in_place = gradient.dtype == wide and order is None and gradient.shape[1] == across
    step = max(1, slots.stop - slots.start if in_place else _ROWS // across)
    for first in range(slots.start, slots.stop, step):
        place = slice(first, min(first + step, slots.stop))
        dy = gradient[place if order is None else order[place]].to(wide)
        dy = _filled(dy, _lanes(wide)).contiguous()
        add_gradients(source, memory, first, place.stop, dy.numpy(), share, *(x.numpy() for x in sums))


def total(work: Work, found: list[Sums], dim: int) -> tuple[Tensor, Tensor]:
    """Return the gradients by the weight (1 or G, D, K) and by the table from sums of parts, in order."""
    (by_weight, by_table), *others = found
    for more_by_weight, more_by_table in others:  # one by one: on more at once torch's threads stay awake
        by_weight += more_by_weight
        by_table += more_by_table
    return in_weight_order(work, by_weight[:, : work.values, :dim]).mT, by_table[:, :dim]


def _lanes(wide: torch.dtype) -> int:
    from hsssl_kernels.lanes import BYTES

    return BYTES // wide.itemsize


def _filled(x: Tensor, lanes: int) -> Tensor:
    """Fill rows up with zeros to whole lanes."""
    missing = -x.shape[-1] % lanes
    return F.pad(x, (0, missing)) if missing else x.detach()


def memory_for_tokens(projection: Projection) -> Memory:
    """Return what `embed_slots` writes to on the way, for one thread."""
    from hsssl_kernels.spectral_patch_embed.loops import ROWS

    return _memory(projection.panels.shape[2], ROWS, 0, torch.from_numpy(projection.table).dtype)


def memory_for_sums(sums: Sums) -> Memory:
    """Return what `add_slots` writes to on the way, for one thread."""
    from hsssl_kernels.spectral_patch_embed.loops import ROWS

    _, high, across = sums.by_weight.shape
    tokens = max(ROWS, min(_TOKENS, _MEMORY // (high + across)) // ROWS * ROWS)
    return _memory(high, tokens, across, sums.by_weight.dtype)


def _memory(height: int, tokens: int, dim: int, wide: torch.dtype) -> Memory:
    from hsssl_kernels.spectral_patch_embed.loops import ROWS, Memory

    numbers = (torch.zeros(n, dtype=wide) for n in (height * tokens, tokens * dim))
    whole = torch.zeros(2 * height, dtype=torch.int64), torch.zeros(ROWS, dtype=torch.uint64)
    u, right, offsets, rows = (x.numpy() for x in (*numbers, *whole))
    return Memory(u, offsets, rows, right)


def _parts(work: Work, dim: int, least: int = 1) -> list[slice]:
    """Return the slots that threads take in turn: ``least`` of them or more in each part.

    How many threads there are says nothing: sums have the same bits with any.
    """
    slots = work.batch * work.kept
    worth = max(slots * (work.values + dim) // _PART, slots * work.values * dim // _PRODUCTS)
    # many a thread, so that one held up by another program leaves work to the others
    parts = max(1, min(_PARTS, worth, slots // max(1, least)))
    step = max(1, -(-slots // parts))
    return [slice(first, min(first + step, slots)) for first in range(0, max(1, slots), step)]
