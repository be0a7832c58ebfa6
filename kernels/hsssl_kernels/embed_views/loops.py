"""Views and then their tokens, by loops that Numba compiles at the first call and then keeps.

Views of a few samples are made in the cache and cut there: nothing but tokens is written. What makes and cuts
them is that of `spectral_views` and of `spectral_patch_embed`.
"""

# The bodies of compiled functions hold no Python types.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"

from __future__ import annotations

import numpy as np

from hsssl_kernels.lanes import address, take_turn, together
from hsssl_kernels.loops import NO_MEMORY, compile_and_keep, compile_inline, compile_part
from hsssl_kernels.spectral_patch_embed.arguments import Source, Turns
from hsssl_kernels.spectral_patch_embed.loops import add_some_gradients, embed_some_tokens
from hsssl_kernels.spectral_views.loops import make_some, memory_for_views

__all__ = ["BUILT_ON", "add_gradients", "embed_views"]

# Of lanes.py and both ops' loops, which go into what Numba keeps until this file changes; a test compares it.
BUILT_ON = "2c0d5cdc5221bcec"


@compile_and_keep
def embed_views(team, turns, size, recipe, source, panels, table, share, a, b, past_cache):
    """Write tokens (m, D) of views a and b, of samples that threads of a `parallel.Team` take in turn.

    ``size`` samples are in the cache at once. ``source`` says how a view (C, P, P) is cut, and holds which
    tokens are wanted and in which order for view a and then view b, of all samples. The first row of a and b
    belongs to the first sample of these turns. The rest is as in `spectral_patch_embed.loops.embed_tokens`.
    """
    if not together(
        team, _embed_views, (turns, size, recipe, source, panels, table, share, a, b, past_cache)
    ):
        raise MemoryError(NO_MEMORY)


@compile_and_keep
def add_gradients(team, turns, size, recipe, source, a, b, share, most, by_weight, by_table):
    """Write `Sums`, a part for each turn, of gradients a and b (m, D) by the tokens of both views.

    The rest is as in `embed_views` and in `spectral_patch_embed.loops.add_gradients`.
    """
    if not together(
        team, _add_gradients, (turns, size, recipe, source, a, b, share, most, by_weight, by_table)
    ):
        raise MemoryError(NO_MEMORY)


@compile_part
def _embed_views(turns, size, recipe, source, panels, table, share, a, b, past_cache):
    pair, memory, own = _memory(size, recipe, source)
    first = turns.first + take_turn(address(turns.taken)) * turns.step
    while first < turns.last:
        end = min(first + turns.step, turns.last)
        for at in range(first, end, size):
            until = min(at + size, end)
            make_some(at, until, recipe, memory, pair[0], pair[1])
            rows = slice((at - turns.first) * source.kept, (until - turns.first) * source.kept)
            for view in range(2):
                some = _some(source, pair[view], view * len(recipe.centres) + at)
                slots = _slots(rows, own, False)
                out = b[rows] if view else a[rows]
                embed_some_tokens(some, slots, panels, table, share, out, past_cache)
        first = turns.first + take_turn(address(turns.taken)) * turns.step


@compile_part
def _add_gradients(turns, size, recipe, source, a, b, share, most, by_weight, by_table):
    pair, memory, own = _memory(size, recipe, source)
    turn = take_turn(address(turns.taken))
    first = turns.first + turn * turns.step
    while first < turns.last:
        end, weights, entries = min(first + turns.step, turns.last), by_weight[turn:], by_table[turn:]
        for at in range(first, end, size):
            until = min(at + size, end)
            make_some(at, until, recipe, memory, pair[0], pair[1])
            rows = slice((at - turns.first) * source.kept, (until - turns.first) * source.kept)
            for view in range(2):
                some = _some(source, pair[view], view * len(recipe.centres) + at)
                slots = _slots(rows, own, at == first and view == 0)
                gradient = b[rows] if view else a[rows]
                add_some_gradients(some, slots, gradient, share, most, weights, entries)
        turn = take_turn(address(turns.taken))
        first = turns.first + turn * turns.step


@compile_inline
def _memory(size, recipe, source):
    """Return memory for both views of so many samples, for those who make them, and for a count."""
    pixels, bands = source.size[0] * source.size[1], recipe.cube.shape[2]
    pair = np.empty((2, size, bands, pixels), np.float32)
    return pair, memory_for_views(recipe, pixels), np.zeros(1, np.int64)


@compile_inline
def _slots(rows, own, fresh):
    """Return a turn at all slots of some samples."""
    own[0] = 0
    count = rows.stop - rows.start
    return Turns(own, 0, count, count, 1, True, fresh)


@compile_inline
def _some(source, view, sample):
    """Return the source of samples in a view (n, C, P P), the first of which is a ``sample`` of all views."""
    slot = sample * source.kept
    return Source(
        view.reshape(-1),
        view.size,
        source.line,
        0,
        source.strides,
        source.size,
        source.corners,
        source.window,
        source.places,
        source.spots,
        source.values,
        source.bands,
        source.normalised,
        source.mean,
        source.scale,
        source.some,
        source.visible[slot:],
        source.ordered,
        source.order[slot:],
        source.kept,
        source.tokens,
    )
