"""Tokens, and gradients of what is learned, by loops that Numba compiles at the first call and then keeps.

Values of six tokens are gathered and normalised, then multiplied while they are in the fastest cache: nothing
but tokens is written. Sums stay in registers, six rows of `hsssl_kernels.lanes` at once.
"""

# The bodies of compiled functions hold no Python types.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from hsssl_kernels.lanes import (
    add,
    address,
    beyond,
    finish_streams,
    keep_until_here,
    load,
    multiply_add,
    store,
    stream,
    take_turn,
    together,
    width,
    zeros,
)
from hsssl_kernels.loops import NO_MEMORY, compile_and_keep, compile_inline, compile_part
from hsssl_kernels.spectral_patch_embed.arguments import ROWS
from hsssl_kernels.spectral_patch_embed.source_loops import (
    addresses,
    end_of_group,
    fetch_lines,
    group_of,
    lines_ahead,
    list_offsets,
    read_token,
    token_at,
)

__all__ = ["BUILT_ON", "add_gradients", "add_some_gradients", "embed_some_tokens", "embed_tokens"]

# Of lanes.py and source_loops.py, which go into what Numba keeps until this file changes; a test compares it.
BUILT_ON = "3c5aa11b84fdf018"


class Memory(NamedTuple):
    """What a thread writes to on the way."""

    u: Any  # (m / 6, K', 6) normalised values of m tokens; for gradients K' >= K is a multiple of 6, else K
    offsets: Any  # (2 K',) where a token's values lie: from its first, and in a cube that mirrors them
    given: Any  # (6,) where rows begin that sums are added to; uint64
    to: Any  # (6,) where rows begin that take the result; uint64
    right: Any  # (D / L, m, L) gradients by m tokens


@compile_and_keep
def embed_tokens(team, source, turns, panels, table, share, out, past_cache):
    """Write tokens (m, D) as long as there are turns: products and rows of the table.

    The threads of a `parallel.Team` share the turns.
    ``panels`` (1 or G, D / L, K, L) is the weight for lanes of L numbers; ``table`` (1 or G or G S, D) has a
    row for ``share`` tokens. L divides D. With ``past_cache`` rows of ``out`` begin at multiples of 64 bytes.
    """
    if not together(team, embed_some_tokens, (source, turns, panels, table, share, out, past_cache)):
        raise MemoryError(NO_MEMORY)


@compile_and_keep
def add_gradients(team, source, turns, gradient, share, most, by_weight, by_table):
    """Add to `Sums`, of which a row of those by the table is for ``share`` tokens.

    ``gradient`` (m, D) is that by tokens. Turns at the same slots add to one part, each to its columns: bits
    do not depend on how many threads of a `parallel.Team` there are. Each holds up to ``most`` tokens, a
    multiple of 6.
    """
    if not together(team, add_some_gradients, (source, turns, gradient, share, most, by_weight, by_table)):
        raise MemoryError(NO_MEMORY)


@compile_part
def embed_some_tokens(source, turns, panels, table, share, out, past_cache):
    """Do what `embed_tokens` does, in one thread of a team."""
    weight, given, tokens = address(panels), address(table), address(out)
    where, taken, grouped = addresses(source), address(turns.taken), len(panels) > 1
    memory = _memory(source.values, ROWS, 0, panels)
    work = _places(memory)
    dim, count, lanes = np.uint64(out.shape[1]), np.uint64(source.values), width(tokens)
    list_offsets(where, work.offsets)
    at = turns.first + take_turn(taken) * turns.step
    while at < turns.last:
        until, panel = min(at + turns.step, turns.last), weight
        while at < until:
            end = min(at + ROWS, until)
            if grouped:
                end = end_of_group(where, at, end)
                panel = beyond(weight, np.uint64(group_of(where, at)) * count * dim)
            for row in range(ROWS):
                here = min(at + row, end - 1)  # fewer are filled up with the last one
                slot, sample, token = token_at(where, here)
                read_token(where, work.offsets, sample, token, work.u, np.uint64(row))
                work.given[row] = np.uint64(token // share) * dim
                work.to[row] = np.uint64(slot if turns.every else here - turns.first) * dim
            next_fetched, lines = lines_ahead(where, at, end, 1, dim // lanes)
            for column in range(np.uint64(0), dim, lanes):
                next_fetched = fetch_lines(where, next_fetched, lines)
                right = beyond(panel, column * count)
                sums = _multiply(work.u, right, down=1, along=ROWS, count=count, blocks=1, skip=0)
                _write(sums, beyond(given, column), work.given, beyond(tokens, column), work.to, past_cache)
            at = end
        at = turns.first + take_turn(taken) * turns.step
    finish_streams()
    keep_until_here(memory)


@compile_part
def add_some_gradients(source, turns, gradient, share, most, by_weight, by_table):
    """Do what `add_gradients` does, in one thread of a team."""
    _, of_groups, height, dim = by_weight.shape
    rows, groups_apart = by_table.shape[1], height * dim
    by_token, all_weights, all_tables = address(gradient), address(by_weight), address(by_table)
    where, taken = addresses(source), address(turns.taken)
    memory = _memory(height, most, dim, by_weight)
    work = _places(memory)
    list_offsets(where, work.offsets)
    for row in range(ROWS):
        work.to[row] = np.uint64(row * dim)
    turn = take_turn(taken)
    at = turns.first + turn // turns.shares * turns.step
    while at < turns.last:
        until, part = min(at + turns.step, turns.last), turn // turns.shares
        begin, stop = _columns(turn % turns.shares, turns.shares, dim, width(by_token))
        to = beyond(all_weights, np.uint64(part * of_groups * groups_apart))
        table = beyond(all_tables, np.uint64(part * rows * dim))
        if turns.fresh:
            _begin(to, np.uint64(of_groups * height), dim, begin, stop)
            _begin(table, np.uint64(rows), dim, begin, stop)
        while at < until:
            end, weights = min(at + most, until), to
            if of_groups > 1:
                end = end_of_group(where, at, end)
                weights = beyond(to, np.uint64(group_of(where, at) * groups_apart))
            tiles = np.uint64((end - at + ROWS - 1) // ROWS)
            for m in range(np.uint64(end - at)):
                here = at + np.int64(m)
                slot, sample, token = token_at(where, here)
                read_token(where, work.offsets, sample, token, work.u, _tile(m, height))
                dy = beyond(by_token, np.uint64((slot if turns.every else here - turns.first) * dim))
                entry = beyond(table, np.uint64(token // share * dim))
                _take_gradient(dy, work.right, m, most, begin, stop, entry, rows > 1)
            for m in range(np.uint64(end - at), tiles * np.uint64(ROWS)):
                _clear(work, m, most, height, begin, stop)
            if rows == 1:
                _add_totals(work.right, tiles, most, begin, stop, table)
            ahead = lines_ahead(where, at, end, most, np.uint64(height // ROWS) * (stop - begin) // width(to))
            _add_products(where, ahead, work, tiles, most, height, dim, begin, stop, weights)
            at = end
        turn = take_turn(taken)
        at = turns.first + turn // turns.shares * turns.step
    keep_until_here(memory)


@compile_inline
def _begin(sums, rows, dim, begin, stop):
    """Let columns of sums (rows, D) be 0."""
    for row in range(rows):
        for column in range(begin, stop, width(sums)):
            store(sums, row * np.uint64(dim) + column, zeros(sums))


@compile_inline
def _columns(which, shares, dim, lanes):
    """Return where a share of the columns begins, and the next."""
    panels = dim // np.int64(lanes)
    return np.uint64(which * panels // shares) * lanes, np.uint64((which + 1) * panels // shares) * lanes


@compile_inline
def _tile(m, height):
    """Return where the values of token m of those in memory begin."""
    return m // np.uint64(ROWS) * np.uint64(ROWS * height) + m % np.uint64(ROWS)


@compile_inline
def _take_gradient(dy, right, m, most, begin, stop, entry, many):
    """Copy columns of the gradient by token m, of ``most``, and add them to an entry of a table of many."""
    lanes = width(right)
    for column in range(begin, stop, lanes):
        some = load(dy, column)
        store(right, column * np.uint64(most) + m * lanes, some)
        if many:
            store(entry, column, add(load(entry, column), some))


@compile_inline
def _clear(work, m, most, height, begin, stop):
    """Let token m, of ``most``, and the gradient by it be 0."""
    place, lanes = _tile(m, height), width(work.right)
    for k in range(np.uint64(height)):
        work.u[place + k * np.uint64(ROWS)] = 0
    for column in range(begin, stop, lanes):
        store(work.right, column * np.uint64(most) + m * lanes, zeros(work.right))


@compile_inline
def _add_totals(right, tiles, most, begin, stop, table):
    """Add the sums of gradients to the one row of a table."""
    lanes = width(right)
    for column in range(begin, stop, lanes):
        panel, total = beyond(right, column * np.uint64(most)), load(table, column)
        for m in range(tiles * np.uint64(ROWS)):
            total = add(total, load(panel, m * lanes))
        store(table, column, total)


@compile_inline
def _add_products(where, ahead, work, tiles, most, height, dim, begin, stop, weights):
    """Add the products of values and gradients to columns of (K', D), and fetch what is ahead meanwhile."""
    next_fetched, lines = ahead
    skip = (height - 1) * ROWS  # from tile to tile
    for k in range(np.uint64(0), np.uint64(height), np.uint64(ROWS)):
        left = beyond(work.u, k * np.uint64(ROWS))
        for column in range(begin, stop, width(weights)):
            next_fetched = fetch_lines(where, next_fetched, lines)
            right, entry = (
                beyond(work.right, column * np.uint64(most)),
                beyond(weights, k * np.uint64(dim) + column),
            )
            sums = _multiply(left, right, down=ROWS, along=1, count=ROWS, blocks=tiles, skip=skip)
            _write(sums, entry, work.to, entry, work.to, False)


@compile_inline
def _multiply(left, right, down, along, count, blocks, skip):
    """Return lanes of six rows, each a sum over products of a number on the left and lanes on the right.

    Numbers lie ``down`` apart from row to row and ``along`` from product to product, ``count`` of them in
    each block, and the next block ``skip`` further on. Lanes follow each other.
    """
    a, b, c, d, e, f = zeros(left), zeros(left), zeros(left), zeros(left), zeros(left), zeros(left)
    at, to, lanes, down = np.uint64(0), np.uint64(0), width(left), np.uint64(down)
    for _ in range(blocks):
        for _ in range(count):
            w = load(right, to)
            a = multiply_add(left[at], w, a)
            b = multiply_add(left[at + down], w, b)
            c = multiply_add(left[at + np.uint64(2) * down], w, c)
            d = multiply_add(left[at + np.uint64(3) * down], w, d)
            e = multiply_add(left[at + np.uint64(4) * down], w, e)
            f = multiply_add(left[at + np.uint64(5) * down], w, f)
            at += np.uint64(along)
            to += lanes
        at += np.uint64(skip)
    return a, b, c, d, e, f


@compile_inline
def _write(sums, given, begin, out, to, past_cache):
    """Write six rows of lanes, each added to one that is given: where both begin is counted from there."""
    a, b = add(load(given, begin[0]), sums[0]), add(load(given, begin[1]), sums[1])
    c, d = add(load(given, begin[2]), sums[2]), add(load(given, begin[3]), sums[3])
    e, f = add(load(given, begin[4]), sums[4]), add(load(given, begin[5]), sums[5])
    _put(out, to[0], a, past_cache)
    _put(out, to[1], b, past_cache)
    _put(out, to[2], c, past_cache)
    _put(out, to[3], d, past_cache)
    _put(out, to[4], e, past_cache)
    _put(out, to[5], f, past_cache)


@compile_inline
def _put(out, place, lanes, past_cache):
    if past_cache:
        stream(out, place, lanes)
    else:
        store(out, place, lanes)


@compile_inline
def _memory(height, tokens, dim, like):
    """Return memory for so many tokens of as many values, and gradients of so many numbers by them."""
    return Memory(
        np.zeros(height * tokens, like.dtype),
        np.empty(2 * height, np.int64),
        np.empty(ROWS, np.uint64),
        np.empty(ROWS, np.uint64),
        np.empty(tokens * dim, like.dtype),
    )


@compile_inline
def _places(memory):
    """Return the memory with addresses in place of its arrays."""
    return Memory(
        address(memory.u),
        address(memory.offsets),
        address(memory.given),
        address(memory.to),
        address(memory.right),
    )
