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
    fetch,
    finish_streams,
    load,
    multiply_add,
    store,
    stream,
    width,
    zeros,
)
from hsssl_kernels.loops import compile_and_keep, compile_inline

__all__ = ["LANES", "ROWS", "Memory", "Source", "add_gradients", "embed_tokens"]

# Of lanes.py, which goes into what Numba keeps until this file changes; a test compares it.
LANES = "0f783757e3d374df"
# Rows of a product at once: with two registers for each, 12 of the 16 that most machines have.
ROWS = 6


class Source(NamedTuple):
    """Raw values, and where the tokens' lie. Lists are NumPy's, flat and int64; inside loops, addresses.

    Those that are not wanted are empty.

    Slots of the output are taken in order: as they are, or as ``order`` lists them, group by group.
    """

    raw: Any  # (n,) of any dtype
    length: int  # n
    line: int  # of these numbers, how many the cache holds side by side
    ahead: int  # of these numbers, how many to fetch a slot, for the next sample; or 0
    strides: tuple[int, ...]  # of samples, rows, columns and bands; of a cube's one sample 0
    size: tuple[int, ...]  # rows and columns of the cube
    corners: Any  # (B 2,) first row and column of each window of a cube
    window: int  # their side, or 0 where x holds samples
    places: Any  # (G S 4,) each token's row, column, group and first band
    spots: Any  # (K 3,) each value's row, column and band, from there
    values: int  # of a token, K
    bands: int
    normalised: bool
    mean: Any  # (G K,) of the dtype of sums
    scale: Any
    some: bool  # whether not all tokens of a sample are wanted, but
    visible: Any  # (B V,) those in the slots
    ordered: bool
    order: Any  # (B V,)
    kept: int  # slots of a sample, V
    tokens: int  # of a sample, G S


class Memory(NamedTuple):
    """What loops write to on the way: for each thread its own."""

    u: Any  # (m / 6, K', 6) normalised values of m tokens; for gradients K' >= K is a multiple of 6, else K
    offsets: Any  # (2 K',) where a token's values lie: from its first, and in a cube that mirrors them
    rows: Any  # (6,) where rows begin that sums are added to; uint64
    right: Any  # (D / L, m, L) gradients by m tokens


@compile_and_keep
def embed_tokens(source, memory, first, last, panels, table, share, out, past_cache):
    """Write tokens (m, D) of slots ``first`` ... ``last`` - 1 in order: products and rows of the table.

    ``panels`` (1 or G, D / L, K, L) is the weight for lanes of L numbers; ``table`` (1 or G or G S, D) has a
    row for ``share`` tokens. L divides D. The memory is for 6 tokens. With ``past_cache`` rows of ``out``
    begin at multiples of 64 bytes.
    """
    right, given, tokens = address(panels), address(table), address(out)
    dim, count, lanes = np.uint64(out.shape[1]), np.uint64(source.values), width(tokens)
    grouped = len(panels) > 1
    u, offsets, start = address(memory.u), address(memory.offsets), address(memory.rows)
    where = _addresses(source)
    _list_offsets(where, offsets)
    at = first
    while at < last:
        end = min(at + ROWS, last)
        panel = np.uint64(0)
        if grouped:
            end = _end_of_group(where, at, end)
            panel = np.uint64(_group(where, at)) * count * dim
        for row in range(ROWS):
            here = min(at + row, end - 1)  # fewer are filled up with the last one
            sample, token = _token(where, here)
            _fetch_ahead(where, here)
            _read(where, offsets, sample, token, u, np.uint64(row))
            start[row] = np.uint64(token // share) * dim
        to, others = beyond(tokens, np.uint64(at - first) * dim), end - at - 1
        for column in range(np.uint64(0), dim, lanes):
            sums = _multiply(u, beyond(right, panel), down=1, along=ROWS, count=count, blocks=1, skip=0)
            _write(sums, beyond(given, column), start, beyond(to, column), dim, others, past_cache)
            panel += count * lanes
        at = end
    finish_streams()


@compile_and_keep
def add_gradients(source, memory, first, last, gradient, share, by_weight, by_table):
    """Add to the gradients by the weight (1 or G, K', D), K' >= K a multiple of 6, and by the table.

    ``gradient`` (m, D) is that by the tokens of slots ``first`` ... ``last`` - 1 in order. The table has
    (1 or G or G S or 0, D), each row for ``share`` tokens. The memory is for some multiple of 6 tokens.
    """
    dim, height = np.uint64(gradient.shape[1]), np.uint64(by_weight.shape[1])
    most = np.uint64(len(memory.u) // by_weight.shape[1])
    grouped, one, many = len(by_weight) > 1, len(by_table) == 1, len(by_table) > 1
    by_token, weights, table = address(gradient), address(by_weight), address(by_table)
    u, offsets, rows = address(memory.u), address(memory.offsets), address(memory.rows)
    right, six, lanes = address(memory.right), np.uint64(ROWS), width(by_token)
    skip = (height - np.uint64(1)) * six  # from tile to tile
    where = _addresses(source)
    _list_offsets(where, offsets)
    for row in range(ROWS):
        rows[row] = np.uint64(row) * dim
    at = first
    while at < last:
        end = min(at + np.int64(most), last)
        base = np.uint64(0)
        if grouped:
            end = _end_of_group(where, at, end)
            base = np.uint64(_group(where, at)) * height * dim
        tiles = np.uint64(end - at + ROWS - 1) // six
        for m in range(tiles * six):
            place = m // six * six * height + m % six
            if at + np.int64(m) >= end:  # a last tile is filled up with zeros
                for k in range(height):
                    u[place + k * six] = 0
                for column in range(np.uint64(0), dim, lanes):
                    store(right, column * most + m * lanes, zeros(right))
                continue
            sample, token = _token(where, at + np.int64(m))
            _fetch_ahead(where, at + np.int64(m))
            _read(where, offsets, sample, token, u, place)
            line, entry = (np.uint64(at - first) + m) * dim, np.uint64(token // share) * dim
            for column in range(np.uint64(0), dim, lanes):
                dy = load(by_token, line + column)
                store(right, column * most + m * lanes, dy)
                if many:
                    store(table, entry + column, add(load(table, entry + column), dy))
        if one:
            for column in range(np.uint64(0), dim, lanes):
                total = _total(beyond(right, column * most), tiles * six)
                store(table, column, add(load(table, column), total))
        for k in range(np.uint64(0), height, six):
            for column in range(np.uint64(0), dim, lanes):
                left, panel = beyond(u, k * six), beyond(right, column * most)
                sums = _multiply(left, panel, down=ROWS, along=1, count=six, blocks=tiles, skip=skip)
                to = beyond(weights, base + k * dim + column)
                _write(sums, to, rows, to, dim, ROWS - 1, False)
        at = end


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
def _total(numbers, count):
    """Return the sum of so many lanes that follow each other."""
    total = zeros(numbers)
    for m in range(count):
        total = add(total, load(numbers, m * width(numbers)))
    return total


@compile_inline
def _write(sums, given, start, out, dim, others, past_cache):
    """Write six rows of lanes, each added to one that is given: its ``start`` is counted from there.

    Rows of the output lie ``dim`` apart. With fewer than five others after the first, the last comes again.
    """
    a, b = add(load(given, start[0]), sums[0]), add(load(given, start[1]), sums[1])
    c, d = add(load(given, start[2]), sums[2]), add(load(given, start[3]), sums[3])
    e, f = add(load(given, start[4]), sums[4]), add(load(given, start[5]), sums[5])
    second, third = np.uint64(min(others, 1)) * dim, np.uint64(min(others, 2)) * dim
    fourth, fifth = np.uint64(min(others, 3)) * dim, np.uint64(min(others, 4)) * dim
    sixth = np.uint64(min(others, 5)) * dim
    _put(out, np.uint64(0), a, past_cache)
    _put(out, second, b, past_cache)
    _put(out, third, c, past_cache)
    _put(out, fourth, d, past_cache)
    _put(out, fifth, e, past_cache)
    _put(out, sixth, f, past_cache)


@compile_inline
def _put(out, place, lanes, past_cache):
    if past_cache:
        stream(out, place, lanes)
    else:
        store(out, place, lanes)


@compile_inline
def _addresses(source):
    """Return the source with addresses in place of its lists."""
    return Source(
        address(source.raw),
        source.length,
        source.line,
        source.ahead,
        source.strides,
        source.size,
        address(source.corners),
        source.window,
        address(source.places),
        address(source.spots),
        source.values,
        source.bands,
        source.normalised,
        address(source.mean),
        address(source.scale),
        source.some,
        address(source.visible),
        source.ordered,
        address(source.order),
        source.kept,
        source.tokens,
    )


@compile_inline
def _token(where, position):
    """Return the sample and the token of a slot, from its position in order."""
    slot = where.order[position] if where.ordered else position
    sample = slot // where.kept
    token = where.visible[slot] if where.some else slot - sample * where.kept
    return sample, token


@compile_inline
def _fetch_ahead(where, slot):
    """Fetch a share of the next sample: tokens wanted here and there would wait for the memory one by one."""
    begin = np.uint64((slot + where.kept) * where.ahead)
    end = min(begin + np.uint64(where.ahead), np.uint64(where.length))
    for n in range(begin, end, np.uint64(where.line)):
        fetch(where.raw, n)


@compile_inline
def _group(where, position):
    _, token = _token(where, position)
    return where.places[4 * token + 2]


@compile_inline
def _end_of_group(where, position, most):
    """Return where another group than that at ``position`` begins, but ``most`` at most."""
    group, end = _group(where, position), position + 1
    while end < most and _group(where, end) == group:
        end += 1
    return end


@compile_inline
def _list_offsets(where, offsets):
    """List where a token's values lie, from its first."""
    for k in range(where.values):
        row, col, band = where.spots[3 * k], where.spots[3 * k + 1], where.spots[3 * k + 2]
        offsets[k] = row * where.strides[1] + col * where.strides[2] + band * where.strides[3]


@compile_inline
def _read(where, offsets, sample, token, u, at):
    """Write a token's normalised values to u[at], u[at + 6] ...; a band that is not there gives 0."""
    row, col = where.places[4 * token], where.places[4 * token + 1]
    group, band = where.places[4 * token + 2], where.places[4 * token + 3]
    count, listed, first = np.uint64(where.values), np.uint64(0), band * where.strides[3]
    if where.window > 0:
        top, left = where.corners[2 * sample], where.corners[2 * sample + 1]
        row, col = row + top, col + left
        inside = min(top, left) >= 0 and top + where.window <= where.size[0]
        if not (inside and left + where.window <= where.size[1]):
            listed = count
            _list_mirrored(where, row, col, offsets)
    if listed == 0:
        first += sample * where.strides[0] + row * where.strides[1] + col * where.strides[2]
    begin, of_group = np.uint64(first), np.uint64(group) * count
    short = band + where.spots[np.uint64(3) * count - np.uint64(1)] >= where.bands
    for k in range(count):
        if short and band + where.spots[np.uint64(3) * k + np.uint64(2)] >= where.bands:
            u[at] = 0
        elif where.normalised:
            mean, scale = where.mean[of_group + k], where.scale[of_group + k]
            u[at] = where.raw[begin + np.uint64(offsets[listed + k])]
            u[at] = (u[at] - mean) * scale
        else:
            u[at] = where.raw[begin + np.uint64(offsets[listed + k])]
        at += np.uint64(ROWS)


@compile_inline
def _list_mirrored(where, row, col, offsets):
    """List where values of a token at ``row`` and ``col`` lie in a cube, after those of all tokens."""
    for k in range(where.values):
        i = _mirror(row + where.spots[3 * k], where.size[0]) * where.strides[1]
        j = _mirror(col + where.spots[3 * k + 1], where.size[1]) * where.strides[2]
        offsets[where.values + k] = i + j + where.spots[3 * k + 2] * where.strides[3]


@compile_inline
def _mirror(index, size):
    """Reflect an index once at either border without repeating the edge; see `reference.cut_windows`."""
    index = abs(index)
    return min(index, 2 * (size - 1) - index)
