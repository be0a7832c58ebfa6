"""The patch embedding on a CPU with Numba: parts of the output in threads, by the loops of ``loops.py``."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from hsssl_kernels.checks import compute_dtype
from hsssl_kernels.dispatch import compiles_loops
from hsssl_kernels.pages import empty_again
from hsssl_kernels.parallel import run_loop
from hsssl_kernels.spectral_patch_embed.arguments import ROWS, Source, Sums, Turns
from hsssl_kernels.spectral_patch_embed.gather import bands_first
from hsssl_kernels.spectral_patch_embed.output import Output
from hsssl_kernels.spectral_patch_embed.source import order_by_group, source_of, values_of_weight
from hsssl_kernels.spectral_patch_embed.work import Work

__all__ = [
    "Projection",
    "embed_compiled",
    "empty_sums",
    "fill_up",
    "goes_past_cache",
    "lay_out",
    "takes_loops",
    "tokens_held",
    "total",
    "weight_grad_compiled",
]

# Numbers of rows that stay in the cache until they are normalised, cast or put in their places, and the turns
# that each thread takes at them.
_ROWS, _TURNS = 2**20, 4
# Bytes of tokens of which none would still be in the cache when they are read.
_PAST_CACHE = 2**25
# Values and results, or products, that are worth a thread's turn; and how many turns there are at most.
_PART, _PRODUCTS, _PARTS = 2**16, 2**22, 16
# Columns of gradients for which a turn gathers values anew.
_COLUMNS = 256
# Tokens to sum over at once, so that their values and gradients stay in the cache; more where so many sums do
# not; and the most numbers of them.
_TOKENS, _MORE_TOKENS, _SUMS, _MEMORY = 72, 384, 2**19, 2**20


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
    tokens, parts = output.tokens, _parts(work, weight.shape[1])
    threads = torch.get_num_threads() if len(parts) > 1 else 1
    if _is_written_whole(output, projection):
        _write(source, _turns(parts), projection, tokens, goes_past_cache(tokens), threads)
        return output.result(work.kept)
    slots, (_, dim) = parts[-1].stop, tokens.shape
    count = max(1, min(slots, _ROWS // dim))
    rows = torch.empty(count, projection.table.shape[1], dtype=compute_dtype(weight))
    for first in range(0, slots, count):
        place = slice(first, min(first + count, slots))
        step = min(parts[0].stop, -(-count // (_TURNS * threads)))
        _write(source, Turns.of(place, step, False), projection, rows, False, threads)
        output.write(place if order is None else order[place], rows[: place.stop - first, :dim])
    return output.result(work.kept)


def weight_grad_compiled(work: Work, gradient: Tensor, grouped: bool, rows: int) -> tuple[Tensor, Tensor]:
    """Return what `weight_grad_blocked` does, from the same."""
    order, dim = order_by_group(work, grouped), gradient.shape[2]
    source, gradient = source_of(work, compute_dtype(gradient), order), gradient.reshape(-1, dim)
    # sums of a part take little beside its values and gradients
    least = 8 * (work.groups if grouped else 1) * work.values * dim // (work.values + dim)
    parts = _parts(work, dim, least)
    sums = empty_sums(work, gradient, grouped, rows, len(parts))
    if _is_read_whole(gradient, sums):
        turns = _turns(parts, _shares(work, dim, len(parts)))
        threads = torch.get_num_threads() if turns.shares * len(parts) > 1 else 1
        _add(source, turns, gradient, sums, threads)
        return total(work, sums, dim)
    for x in sums:
        x.fill(0)
    slots, threads = parts[-1].stop, torch.get_num_threads() if len(parts) > 1 else 1
    step = max(1, min(parts[0].stop, _ROWS // (dim * len(parts))))
    for first in range(0, slots, step * len(parts)):
        place = slice(first, min(first + step * len(parts), slots))
        dy = gradient[place if order is None else order[place]].to(compute_dtype(gradient))
        _add(source, Turns.of(place, step, False), fill_up(dy).contiguous(), sums, threads)
    return total(work, sums, dim)


def lay_out(work: Work, weight: Tensor, table: Tensor | None) -> Projection:
    """Lay out a weight (1 or G, D, K) and a table (1 or G or G S, D)."""
    wide, dim = compute_dtype(weight), weight.shape[1]
    lanes = _lanes(wide)
    rows = fill_up(weight.mT.to(wide)).mT.numpy()  # (1 or G, D', K)
    rows = rows.reshape(len(rows), -1, lanes, work.patch**2, work.group)
    rows = rows.transpose(0, 1, *((4, 3) if bands_first(work) else (3, 4)), 2)
    panels = rows.reshape(*rows.shape[:2], work.values, lanes)
    table = weight.new_zeros(1, dim) if table is None else table
    table = fill_up(table.to(wide)).contiguous()
    return Projection(panels.copy(), table.numpy(), work.groups * work.space // len(table))


def empty_sums(work: Work, gradient: Tensor, grouped: bool, rows: int, parts: int) -> Sums:
    """Return sums of any values for gradients by tokens (m, D)."""
    wide, dim = compute_dtype(gradient), gradient.shape[1]
    high, across = -(-work.values // ROWS) * ROWS, dim + -dim % _lanes(wide)
    shapes = (parts, work.groups if grouped else 1, high, across), (parts, rows, across)
    return Sums(*(empty_again(shape, wide, gradient.device).numpy() for shape in shapes))


def total(work: Work, sums: Sums, dim: int) -> tuple[Tensor, Tensor]:
    """Return the gradients by the weight (1 or G, D, K) and by the table: sums of all parts, in order."""
    by_weight, by_table = (torch.from_numpy(x) for x in sums)
    whole = (by_weight.sum(0) if len(by_weight) > 1 else by_weight[0])[..., :dim]  # (1 or G, K', D)
    values = torch.from_numpy(values_of_weight(work))
    whole = whole[:, values] if bands_first(work) else whole[:, : len(values)]
    out = empty_again((len(whole), dim, len(values)), whole.dtype, whole.device)
    return out.copy_(whole.mT), by_table.sum(0)[:, :dim]


def _write(
    source: Source, turns: Turns, projection: Projection, out: Tensor, past_cache: bool, threads: int
) -> None:
    """Write the tokens of turns to ``out``."""
    from hsssl_kernels.spectral_patch_embed.loops import embed_tokens

    run_loop(embed_tokens, (source, turns, *projection, out.numpy(), past_cache), threads)


def _add(source: Source, turns: Turns, gradient: Tensor, sums: Sums, threads: int) -> None:
    """Add what gradients by the tokens of turns give to sums."""
    from hsssl_kernels.spectral_patch_embed.loops import add_gradients

    share = source.tokens // max(1, sums.by_table.shape[1])
    given = source, turns, gradient.detach().numpy(), share, tokens_held(sums), *sums
    run_loop(add_gradients, given, threads)


def _is_written_whole(output: Output, projection: Projection) -> bool:
    """Return whether loops write tokens where they belong, with nothing left to do."""
    tokens = output.tokens
    same = tokens.dtype == compute_dtype(tokens) and tokens.shape[1] == projection.table.shape[1]
    return same and output.norm is None and not len(output.before)


def _is_read_whole(gradient: Tensor, sums: Sums) -> bool:
    """Return whether there are gradients (B V, D), and loops read them where they are."""
    same = gradient.dtype == compute_dtype(gradient) and gradient.shape[1] == sums.by_weight.shape[3]
    return same and gradient.is_contiguous() and len(gradient) > 0


def _lanes(wide: torch.dtype) -> int:
    from hsssl_kernels.lanes import BYTES

    return BYTES // wide.itemsize


def fill_up(x: Tensor) -> Tensor:
    """Fill rows of float32 or float64 up with zeros to whole lanes."""
    missing = -x.shape[-1] % _lanes(x.dtype)
    return F.pad(x.detach(), (0, missing)) if missing else x.detach()


def tokens_held(sums: Sums) -> int:
    """Return how many tokens a thread holds to sum over."""
    high, across = int(sums.by_weight.shape[2]), int(sums.by_weight.shape[3])
    tokens = _TOKENS if high * across <= _SUMS else _MORE_TOKENS
    return max(ROWS, min(tokens, _MEMORY // (high + across)) // ROWS * ROWS)


def _turns(parts: list[slice], shares: int = 1) -> Turns:
    """Return turns of threads at parts, or at shares of their columns."""
    return Turns.of(slice(0, parts[-1].stop), parts[0].stop, True, shares, True)


def _shares(work: Work, dim: int, parts: int) -> int:
    """Return among how many turns to share the columns of each part: more where parts are few and large."""
    worth = work.batch * work.kept * work.values * dim // (_PRODUCTS * parts)
    return max(1, min(_PARTS // parts, worth, dim // _COLUMNS))


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
