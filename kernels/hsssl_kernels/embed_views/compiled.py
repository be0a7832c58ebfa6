"""Both passes by compiled loops: a few samples' views are made in the cache and turned into tokens there."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from hsssl_kernels.checks import compute_dtype
from hsssl_kernels.dispatch import compiles_loops
from hsssl_kernels.embed_views.source import Source
from hsssl_kernels.pages import empty_again
from hsssl_kernels.parallel import run_loop
from hsssl_kernels.random import stream_key
from hsssl_kernels.spectral_patch_embed.arguments import Source as Read
from hsssl_kernels.spectral_patch_embed.arguments import Turns
from hsssl_kernels.spectral_patch_embed.compiled import (
    empty_sums,
    fill_up,
    goes_past_cache,
    lay_out,
    tokens_held,
    total,
)
from hsssl_kernels.spectral_patch_embed.grouping import check_range
from hsssl_kernels.spectral_patch_embed.source import order_by_group, source_of
from hsssl_kernels.spectral_patch_embed.work import Work
from hsssl_kernels.spectral_views.arguments import Recipe
from hsssl_kernels.spectral_views.compiled import recipe_of
from hsssl_kernels.spectral_views.spec import ViewSpec

__all__ = ["embed_views_compiled", "grad_compiled", "takes_loops"]

# Values of both views of the samples that are in the cache at once: 512 KB.
_VALUES = 2**17
# Turns that threads take at most, and values of both views that are worth one.
_PARTS, _PART = 32, 2**17
# Numbers of tokens, or of gradients by them, that are held in another dtype or width than they have.
_WIDE = 2**22


class _Job(NamedTuple):
    """What loops make views from, and how they cut them."""

    work: Work  # of one sample
    size: int  # samples at once
    step: int  # samples of a turn
    recipe: Recipe
    read: Read


def takes_loops(source: Source) -> bool:
    """Return whether compiled loops serve: on the CPU, for values that Numba knows."""
    cube = source.cube
    return cube.device.type == "cpu" and cube.dtype != torch.float16 and compiles_loops()


def embed_views_compiled(source: Source, weight: Tensor, table: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return tokens (B, V, D) of view a and of view b."""
    from hsssl_kernels.embed_views.loops import embed_views

    wide, dim, batch = compute_dtype(weight), weight.shape[1], len(source.centres)
    job = _job(source, wide, len(weight) > 1)
    projection = lay_out(job.work, weight, table)
    across = projection.table.shape[1]
    pair = [empty_again((batch * source.tokens, dim), weight.dtype, weight.device) for _ in range(2)]
    whole = weight.dtype == wide and across == dim  # the loops write tokens as they are
    for samples, slots in _pieces(source, job, across, whole):
        out = [x[slots] if whole else torch.empty(len(x[slots]), across, dtype=wide) for x in pair]
        past_cache = whole and all(map(goes_past_cache, pair))
        _run(embed_views, job, samples, *projection, *(x.numpy() for x in out), past_cache)
        if not whole:
            for tokens, made in zip(pair, out, strict=True):
                tokens[slots] = made[:, :dim]
    a, b = (x.view(batch, source.tokens, dim) for x in pair)
    return a, b


def grad_compiled(
    source: Source, pair: tuple[Tensor, Tensor], grouped: bool, rows: int
) -> tuple[Tensor, Tensor]:
    """Return gradients by the weight (1 or G, D, K) and by the table (rows, D), from two of (B, V, D)."""
    from hsssl_kernels.embed_views.loops import add_gradients

    wide, dim, batch = compute_dtype(pair[0]), pair[0].shape[2], len(source.centres)
    # sums of a part take little beside its values and gradients
    groups, values = source.groups if grouped else 1, source.patch**2 * source.group
    job = _job(source, wide, grouped, 8 * groups * values * dim // (source.tokens * (values + dim)))
    sums = empty_sums(job.work, pair[0].reshape(-1, dim), grouped, rows, max(1, -(-batch // job.step)))
    if not batch:
        for x in sums:
            x.fill(0)
    across, share = sums.by_weight.shape[3], job.read.tokens // max(1, rows)
    whole = pair[0].dtype == wide and across == dim
    for samples, slots in _pieces(source, job, across, whole):
        some = [fill_up(x.reshape(-1, dim)[slots].to(wide)).contiguous().numpy() for x in pair]
        parts = (x[samples.start // job.step :] for x in sums)
        _run(add_gradients, job, samples, *some, share, tokens_held(sums), *parts)
    return total(job.work, sums, dim)


def _job(source: Source, wide: torch.dtype, grouped: bool, least: int = 1) -> _Job:
    """Return what loops are given, for turns at ``least`` samples or more.

    Numbers of tokens are looked at first: loops read wherever they point.
    """
    if source.visible is not None:
        check_range(source.visible, source.groups, source.space)
    bands, side, batch = source.cube.shape[2], source.patch_size, len(source.centres)
    size = max(1, min(batch, _VALUES // (2 * bands * side**2)))
    turns = max(1, min(_PARTS, 2 * batch * bands * side**2 // _PART, batch // max(1, least)))
    step = -(-batch // (turns * size)) * size  # how many threads there are says nothing: bits are the same
    key = stream_key(source.seed, source.step)
    spec = ViewSpec.of(source.strengths)
    recipe = recipe_of(
        source.cube, source.centres, source.mean, source.scale, spec, side, key, source.ids, source.valid
    )
    view = torch.empty(1, bands, side, side).permute(0, 2, 3, 1)
    some = None if source.visible is None else source.visible[0, :1]
    work = Work(view, None, None, None, some, None, None, source.patch, source.group, 0)
    read = source_of(work, wide, None)
    if source.visible is not None:
        read = read._replace(visible=source.visible.flatten().numpy())
    if grouped:
        read = read._replace(ordered=True, order=_orders(source, work, size).numpy())
    return _Job(work, size, max(1, step), recipe, read)


def _orders(source: Source, work: Work, size: int) -> Tensor:
    """Return slots (2 B V,) in an order in which tokens of a group follow each other, among ``size`` samples.

    They are counted from the first of these.
    """
    batch, kept = len(source.centres), source.tokens
    if source.visible is None:
        order = order_by_group(work._replace(x=work.x.expand(size, -1, -1, -1)), True)
        assert order is not None
        fewer = [order[order < (batch - first) * kept] for first in range(0, batch, size)]
        return torch.cat(fewer).repeat(2) if batch else order[:0]
    block = torch.arange(batch).div(size, rounding_mode="floor").unsqueeze(1)  # (B, 1)
    group = (block * source.groups + source.visible // source.space).flatten(1)  # (2, B V)
    first = block.repeat(1, kept).flatten() * size * kept
    return (torch.argsort(group, stable=True) - first).flatten()


def _pieces(source: Source, job: _Job, across: int, whole: bool) -> Iterator[tuple[slice, slice]]:
    """Yield samples and their slots, whole turns: all at once, or few for rows of ``across`` numbers."""
    batch, kept = len(source.centres), source.tokens
    count = batch if whole else max(1, _WIDE // max(1, kept * across * job.step)) * job.step
    for first in range(0, batch, max(1, count)):
        last = min(first + count, batch)
        yield slice(first, last), slice(first * kept, last * kept)


def _run(loop: Any, job: _Job, samples: slice, *others: Any) -> None:
    """Let threads take turns at some samples in a loop."""
    given = Turns.of(samples, job.step, True), job.size, job.recipe, job.read, *others
    values = 2 * (samples.stop - samples.start) * job.work.x.numel()
    run_loop(loop, given, torch.get_num_threads() if values >= _PART else 1)
