"""Views by loops that Numba compiles at the first call, and then keeps on disk.

What is drawn is what `draws` draws, to the bit. In torch a view's draws are a hundred short calls, in which
threads wait for each other; here they are loops too.

A tile of pixels is made bands last, as the cube is read, and turned to bands first while it is in the
cache. Every product and sum is rounded by itself. Sizes are unsigned: an index that may be negative, as in
Python, keeps loops from becoming vector instructions, at five times the cost.
"""

# The bodies of compiled functions hold no Python types.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from hsssl_kernels.lanes import address, take_turn, together
from hsssl_kernels.loops import NO_MEMORY, compile_and_keep, compile_inline, compile_part
from hsssl_kernels.random import NORMAL_COEFFICIENTS
from hsssl_kernels.spectral_views.draws import CHOICES, NOISE, WORDS
from hsssl_kernels.spectral_views.noise import GROUP
from hsssl_kernels.spectral_views.strengths import Strengths

__all__ = ["BUILT_ON", "make_some", "make_views", "memory_for_views", "typed"]

# Of lanes.py, which goes into what Numba keeps until this file changes; a test compares it.
BUILT_ON = "7a478ec4141407f1"

_LOW = 0xFFFFFFFF
_CALLS = WORDS // 4
_A0, _A1, _A2, _A3, _A4 = (np.float32(a) for a in NORMAL_COEFFICIENTS)
_HALF, _QUARTER, _ZERO = np.float32(0.5), np.float32(0.25), np.float32(0)
_0, _1, _2, _3, _GROUP = (np.uint64(n) for n in (0, 1, 2, 3, GROUP))
# Pixels made at once, whole groups of noise: 100 KB with 200 bands.
_TILE = np.uint64(16 * GROUP)


def typed(strengths: Strengths) -> Strengths:
    """Return the strengths with numbers in single precision, as the loops multiply."""
    return Strengths(*(np.float32(x) if isinstance(x, float) else x for x in strengths))  # type: ignore[arg-type]


class Memory(NamedTuple):
    """What a thread writes to on the way."""

    words: Any  # (24,) int64
    slope: Any  # (C,) float32
    level: Any
    keep: Any  # (C,) bool
    pixel: Any  # (P P,) uint64
    gone: Any  # (P P,) bool
    made: Any  # (128, C) float32
    white: Any  # (8, C) float32


@compile_and_keep
def make_views(team, taken, size, recipe, a, b):
    """Write views a and b (B, C, P P), of which the threads of a `parallel.Team` take ``size`` in turn.

    ``taken`` (1,) counts the turns.
    """
    if not together(team, _make_views, (taken, size, recipe, a, b)):
        raise MemoryError(NO_MEMORY)


@compile_part
def _make_views(taken, size, recipe, a, b):
    memory, batch = memory_for_views(recipe, a.shape[2]), len(recipe.centres)
    first = take_turn(address(taken)) * size
    while first < batch:
        last = min(first + size, batch)
        make_some(first, last, recipe, memory, a[first:last], b[first:last])
        first = take_turn(address(taken)) * size


@compile_part
def memory_for_views(recipe, pixels):
    """Return what `make_some` writes to on the way, for views of so many pixels."""
    bands = len(recipe.mean)
    return Memory(
        np.empty(WORDS, np.int64),
        np.empty(bands, np.float32),
        np.empty(bands, np.float32),
        np.empty(bands, np.bool_),
        np.empty(pixels, np.uint64),
        np.empty(pixels, np.bool_),
        np.empty((_TILE, bands), np.float32),
        np.empty((_GROUP, bands), np.float32),
    )


@compile_part
def make_some(begin, end, recipe, memory, a, b):
    """Write views a and b (n, C, P P) of samples ``begin`` ... ``end`` - 1."""
    rows, cols, bands = recipe.cube.shape
    pixels, strengths, mean, key = a.shape[2], recipe.strengths, recipe.mean, recipe.key
    raw = recipe.cube.reshape(rows * cols, bands)
    words, slope, level, keep, pixel, gone, made, white = memory
    for k in range(2 * begin, 2 * end):  # both views of a sample in turn: its pixels are in the cache then
        i, view = k // 2, k % 2
        sample, out = recipe.samples[i], b[i - begin] if view else a[i - begin]
        _draw_words(key, sample, view, words)
        _draw_bands(words, strengths, mean, recipe.scale, recipe.cosines, slope, level, keep)
        _draw_pixels(words, strengths, recipe.centres[i], rows, cols, recipe.valid, pixel, gone)
        smoothed = _is_smoothed(words, strengths)
        for first in range(_0, np.uint64(pixels), _TILE):
            n = min(_TILE, np.uint64(pixels) - first)
            _normalise(raw, pixel, first, n, mean, slope, level, made)
            if smoothed:
                _smooth(made, n)
            if strengths.noise > 0:
                _add_noise(made, n, white, strengths.noise, first, pixels, key, view, sample)
            _write(made, n, first, keep, gone, out)


@compile_part
def _normalise(raw, pixel, first, n, mean, slope, level, made):
    for p in range(n):
        at = pixel[first + p]
        for c in range(np.uint64(len(mean))):
            made[p, c] = (np.float32(raw[at, c]) - mean[c]) * slope[c] + level[c]


@compile_part
def _smooth(made, n):
    """Smooth n spectra by (1, 2, 1) / 4 over bands; an edge band stands in for the missing one."""
    last = np.uint64(made.shape[1]) - _1
    for p in range(n):
        before = here = made[p, _0]
        for c in range(last):
            after = made[p, c + _1]
            made[p, c] = _HALF * here + _QUARTER * (before + after)
            before, here = here, after
        made[p, last] = _HALF * here + _QUARTER * (before + here)


@compile_part
def _add_noise(made, n, white, noise, first, pixels, key, view, sample):
    for p in range(_0, n, _GROUP):
        _draw_noise(white, (first + p) // _GROUP, pixels, key, view, sample)
        for q in range(min(_GROUP, n - p)):
            for c in range(np.uint64(made.shape[1])):
                made[p + q, c] += white[q, c] * noise


@compile_part
def _draw_noise(white, group, pixels, key, view, sample):
    """Draw normal numbers (8, C) of a group of pixels; see `noise.element_noise`."""
    group, groups = np.int64(group), (pixels + GROUP - 1) // GROUP
    low, high = sample & _LOW, (sample >> 32) & _LOW
    for c in range(white.shape[1]):
        a, b, d, e = _philox(key, (c * groups + group) & _LOW, low, high, view + 2 * NOISE)
        white[0, c], white[1, c] = _normals(a)
        white[2, c], white[3, c] = _normals(b)
        white[4, c], white[5, c] = _normals(d)
        white[6, c], white[7, c] = _normals(e)


@compile_part
def _write(made, n, first, keep, gone, out):
    for p in range(n):
        if gone[first + p]:
            made[p] = 0
    for c in range(np.uint64(len(keep))):  # band after band, as memory likes to be written in order
        if keep[c]:
            for p in range(n):
                out[c, first + p] = made[p, c]
        else:
            for p in range(n):
                out[c, first + p] = _ZERO


@compile_part
def _draw_words(key, sample, view, words):
    """Fill ``words`` (24,) int64; see `draws.draw_words`."""
    for call in range(_CALLS):
        found = _philox(key, call, sample & _LOW, (sample >> 32) & _LOW, view + 2 * CHOICES)
        for k in range(4):
            words[k * _CALLS + call] = found[k]


@compile_part
def _is_smoothed(words, strengths):
    """Return whether the view's spectra are smoothed."""
    return words[5] < strengths.smooth


@compile_part
def _draw_bands(words, strengths, mean, scale, cosines, slope, level, keep):
    """Fill slope, level and keep, all (C,), of ``keep ((x - mean) slope + level)``; see `draws.affine`."""
    bands = len(mean)
    varied = strengths.gain != 0 or strengths.illumination != 0
    w0, w1 = _normals(words[13])[0] * strengths.illumination, _normals(words[14])[0] * strengths.illumination
    w2, w3 = _normals(words[15])[0] * strengths.illumination, _normals(words[16])[0] * strengths.illumination
    start, step = words[17], words[18] | 1
    for c in range(np.uint64(bands)):
        low, high = _normals(_mix_bits(np.int64(c) * step + start))
        gain = low * strengths.gain + w0 * cosines[_0, c] + w1 * cosines[_1, c]
        gain = gain + w2 * cosines[_2, c] + w3 * cosines[_3, c]
        by_gain = gain * (mean[c] * scale[c]) if varied else np.float32(0)
        level[c] = by_gain + high * strengths.offset
        slope[c] = gain * scale[c] + scale[c]
    length = 1 + _below(words[7], strengths.block) if words[6] < strengths.block_drop else 0
    first = _below(words[8], bands - length + 1)
    start, step = words[19], words[20] | 1
    for c in range(np.uint64(bands)):
        # the bits stand for a signed number, which is to lie above its lowest by the chance
        keep[c] = _mix_bits(np.int64(c) * step + start) ^ 0x80000000 >= strengths.band_drop
    keep[first : first + length] = False


@compile_part
def _draw_pixels(words, strengths, centre, rows, cols, valid, pixel, gone):
    """Fill the flat numbers of a patch's pixels, and which are to be 0, both (P P,); see `patch`."""
    size = round(np.sqrt(len(pixel)))
    reach = (size - 1) // 2
    row = centre[0] + _below(words[0], 2 * strengths.jitter + 1) - strengths.jitter
    col = centre[1] + _below(words[1], 2 * strengths.jitter + 1) - strengths.jitter
    if len(valid) > 0 and not valid[_mirror(row, rows) * cols + _mirror(col, cols)]:
        row, col = centre[0], centre[1]
    row, col = row - reach, col - reach
    quarter = _below(words[2], 4) * strengths.turn
    # a quarter turn is a transposition and a mirror; half a turn mirrors both ways
    mirror_rows = (words[3] < strengths.flip) != (quarter >= 2)
    mirror_cols = (words[4] < strengths.flip) != ((quarter + 1) % 4 >= 2)
    side = 1 + _below(words[10], strengths.side) if words[9] < strengths.cutout else 0
    top, left = _below(words[11], size - side + 1), _below(words[12], size - side + 1)
    for a in range(size):
        for b in range(size):
            i, j = (b, a) if quarter % 2 == 1 else (a, b)
            i = size - 1 - i if mirror_rows else i
            j = size - 1 - j if mirror_cols else j
            at = _mirror(row + i, rows) * cols + _mirror(col + j, cols)
            cut = top <= a < top + side and left <= b < left + side and not (a == reach and b == reach)
            pixel[a * size + b] = at
            gone[a * size + b] = cut or (len(valid) > 0 and not valid[at])


@compile_part
def _below(word, n):
    """Return a whole number in 0 ... n - 1 from a 32-bit word."""
    return (word * n) >> 32


@compile_part
def _mirror(index, size):
    """Reflect an index into 0 ... size - 1 without repeating the edge."""
    if size == 1:
        return 0
    period = 2 * (size - 1)
    folded = index % period
    return folded if folded < size else period - folded


@compile_inline
def _philox(key, c0, c1, c2, c3):
    """Return four words of a counter of four words; see `hsssl_kernels.random.philox`."""
    k0, k1 = key & _LOW, (key >> 32) & _LOW
    for _ in range(10):
        # int64 wraps, and its upper half is that of the unsigned product once the sign is masked off
        a, b = c0 * 0xD2511F53, c2 * 0xCD9E8D57
        c0, c2 = ((b >> 32) & _LOW) ^ c1 ^ k0, ((a >> 32) & _LOW) ^ c3 ^ k1
        c1, c3 = b & _LOW, a & _LOW
        k0, k1 = (k0 + 0x9E3779B9) & _LOW, (k1 + 0xBB67AE85) & _LOW
    return c0, c1, c2, c3


@compile_inline
def _mix_bits(word):
    """Mix the low 32 bits of a word; see `hsssl_kernels.random.mix_bits`."""
    x = word & _LOW
    x = ((x ^ (x >> 17)) * 0xED5AD4BB) & _LOW
    x = ((x ^ (x >> 11)) * 0xAC4C1B51) & _LOW
    x = ((x ^ (x >> 15)) * 0x31848BAB) & _LOW
    return x ^ (x >> 14)


@compile_inline
def _normals(word):
    """Return the normal numbers of a word's low and high half; see `hsssl_kernels.random.normals`."""
    sums = (word & 0xFF00FF) + ((word >> 8) & 0xFF00FF)
    return _bend(sums & 0x1FF), _bend(sums >> 16)


@compile_inline
def _bend(total):
    s = np.float32(total - 255)
    square = s * s
    return ((((square * _A4 + _A3) * square + _A2) * square + _A1) * square + _A0) * s
