"""Both passes by compiled loops: a few samples' views are made in the cache and turned into tokens there."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from hsssl_kernels.checks import compute_dtype
from hsssl_kernels.dispatch import compiles_loops
from hsssl_kernels.embed_views.source import Source, parts_of, run_parts
from hsssl_kernels.pages import empty_again
from hsssl_kernels.parallel import ALONE, run_apart
from hsssl_kernels.random import stream_key
from hsssl_kernels.spectral_patch_embed.arguments import Source as Read
from hsssl_kernels.spectral_patch_embed.compiled import (
    add_slots,
    cleared,
    embed_slots,
    empty_sums,
    goes_past_cache,
    lay_out,
    total,
)
from hsssl_kernels.spectral_patch_embed.grouping import check_range
from hsssl_kernels.spectral_patch_embed.output import Output
from hsssl_kernels.spectral_patch_embed.source import order_by_group, source_of, with_slots
from hsssl_kernels.spectral_patch_embed.work import Work
from hsssl_kernels.spectral_views.compiled import view_maker
from hsssl_kernels.spectral_views.spec import ViewSpec
from hsssl_kernels.spectral_views.strengths import strengths_of

__all__ = ["embed_views_compiled", "grad_compiled", "takes_loops"]

# Values of both views of some samples, which stay in the cache: 2 MB in float32.
_VALUES = 2**19


def takes_loops(source: Source) -> bool:
    """Return whether compiled loops serve: on the CPU, for values that Numba knows."""
    cube = source.cube
    return cube.device.type == "cpu" and cube.dtype != torch.float16 and compiles_loops()


def embed_views_compiled(source: Source, weight: Tensor, table: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return tokens (B, V, D) of view a and of view b."""
    _check_visible(source)
    dim, grouped = weight.shape[1], len(weight) > 1
    shape = (len(source.centres) * source.tokens, dim)
    tokens = [empty_again(shape, weight.dtype, weight.device) for _ in range(2)]
    projection = lay_out(_work(source, _memory(source, 1)[0]), weight, table)
    past_cache = goes_past_cache(tokens[0])

    @torch.no_grad()  # the mode is a thread's own
    def part(samples: slice) -> None:
        for view, slots, read, order in _blocks(source, samples, grouped, compute_dtype(weight)):
            output = Output(tokens[view][slots])
            embed_slots(read, projection, slice(0, len(output.tokens)), order, output, past_cache)

    run_parts(source, part)
    a, b = (x.view(-1, source.tokens, dim) for x in tokens)
    return a, b


def grad_compiled(
    source: Source, pair: tuple[Tensor, Tensor], grouped: bool, rows: int
) -> tuple[Tensor, Tensor]:
    """Return gradients by the weight (1 or G, D, K) and by the table (rows, D), from two of (B, V, D)."""
    _check_visible(source)
    dim, template = pair[0].shape[2], _work(source, _memory(source, 1)[0])
    by_tokens = [gradient.reshape(-1, dim) for gradient in pair]
    parts = parts_of(source)
    sums = empty_sums(template, by_tokens[0], grouped, rows, len(parts))

    @torch.no_grad()  # the mode is a thread's own
    def part(samples: slice) -> None:
        own = cleared(sums, parts.index(samples))
        for view, slots, read, order in _blocks(source, samples, grouped, compute_dtype(pair[0])):
            gradient = by_tokens[view][slots]
            add_slots(read, own, slice(0, len(gradient)), order, gradient)

    run_apart(part, parts, torch.get_num_threads())
    return total(template, sums, dim)


def _check_visible(source: Source) -> None:
    """Look at numbers of tokens before each pass: loops read wherever they point."""
    if source.visible is not None:
        check_range(source.visible, source.groups, source.space)


def _blocks(
    source: Source, samples: slice, grouped: bool, wide: torch.dtype
) -> Iterator[tuple[int, slice, Read, Tensor | None]]:
    """Yield which view, its slots of the output, and what its tokens are read from, and in which order.

    The next views overwrite them.
    """
    bands, side = source.cube.shape[2], source.patch_size
    strengths = strengths_of(ViewSpec.of(source.strengths), bands, side)
    key = stream_key(source.seed, source.step)
    make = view_maker(
        source.cube, source.centres, source.mean, source.scale, strengths, key, source.ids, source.valid
    )
    size = max(1, min(_VALUES // (2 * bands * side**2), samples.stop - samples.start))
    pair = _memory(source, size)
    reads: list[Read] = []
    for first in range(samples.start, samples.stop, size):
        block = slice(first, min(first + size, samples.stop))
        count = block.stop - first
        make(block, pair[0, :count], pair[1, :count])(ALONE)
        slots = slice(first * source.tokens, block.stop * source.tokens)
        for i, x in enumerate(pair):
            work = _work(source, x[:count], None if source.visible is None else source.visible[i, block])
            order = order_by_group(work, grouped)
            if len(reads) < 2:
                reads.append(source_of(work, wide, order))
            yield i, slots, with_slots(reads[i], work.visible, order), order


def _memory(source: Source, samples: int) -> Tensor:
    return torch.empty(2, samples, source.cube.shape[2], source.patch_size, source.patch_size)


def _work(source: Source, x: Tensor, visible: Tensor | None = None) -> Work:
    """Return what is to be done with views (n, C, P, P)."""
    x = x.permute(0, 2, 3, 1)
    return Work(x, None, None, None, visible, None, None, source.patch, source.group, 0)
