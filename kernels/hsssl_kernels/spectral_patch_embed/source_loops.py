"""Reading a `Source` in compiled loops: which token stands where, its values, and what to fetch ahead."""

# The bodies of compiled functions hold no Python types.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"

from __future__ import annotations

import numpy as np

from hsssl_kernels.lanes import address, fetch
from hsssl_kernels.loops import compile_inline
from hsssl_kernels.spectral_patch_embed.arguments import ROWS, Source

__all__ = [
    "addresses",
    "end_of_group",
    "fetch_lines",
    "group_of",
    "lines_ahead",
    "list_offsets",
    "read_token",
    "token_at",
]


@compile_inline
def addresses(source):
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
def token_at(where, position):
    """Return a slot, its sample and its token, from its position in order."""
    slot = where.order[position] if where.ordered else position
    sample = slot // where.kept
    token = where.visible[slot] if where.some else slot - sample * where.kept
    return slot, sample, token


@compile_inline
def lines_ahead(where, at, end, most, times):
    """Return where what slots should fetch of a sample to come begins, and how many lines at a time.

    Tokens wanted here and there would wait for the memory one by one; lines fetched all at once would wait
    for each other. Up to ``most`` slots after these are read before the next products.
    """
    distance = (most + where.kept - 1) // where.kept * where.kept
    count, a_time = np.uint64((end - at) * where.ahead), np.uint64(where.line) * times
    return np.uint64((at + distance) * where.ahead), (count + a_time - np.uint64(1)) // a_time


@compile_inline
def fetch_lines(where, begin, lines):
    """Fetch so many lines; return where the next begin."""
    end = begin + lines * np.uint64(where.line)
    for n in range(begin, min(end, np.uint64(where.length)), np.uint64(where.line)):
        fetch(where.raw, n)
    return end


@compile_inline
def group_of(where, position):
    """Return the group of bands of the token at a position in order."""
    _, _, token = token_at(where, position)
    return where.places[4 * token + 2]


@compile_inline
def end_of_group(where, position, most):
    """Return where another group than that at ``position`` begins, but ``most`` at most."""
    group, end = group_of(where, position), position + 1
    while end < most and group_of(where, end) == group:
        end += 1
    return end


@compile_inline
def list_offsets(where, offsets):
    """List where a token's values lie, from its first."""
    for k in range(where.values):
        row, col, band = where.spots[3 * k], where.spots[3 * k + 1], where.spots[3 * k + 2]
        offsets[k] = row * where.strides[1] + col * where.strides[2] + band * where.strides[3]


@compile_inline
def read_token(where, offsets, sample, token, u, at):
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
