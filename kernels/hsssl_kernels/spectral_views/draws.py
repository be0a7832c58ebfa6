"""All that is drawn per sample, view and band, by integer arithmetic: the same bits on every device.

Philox gives each (sample, view) 24 words; what each word decides is fixed, so that no strength
changes another's stream. Numbers per band come from two of a sample's words and the band, mixed
(`hsssl_kernels.random.mix_bits`), because Philox for every band would take longer than the views.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from hsssl_kernels.random import mix_bits, normals, philox
from hsssl_kernels.spectral_views.spec import ViewSpec

__all__ = [
    "CHOICES",
    "NOISE",
    "NOTHING",
    "WORDS",
    "Draws",
    "affine",
    "choose",
    "cosines",
    "draw",
    "draw_words",
]

# The last word of the counter is 2 x this + view.
NOISE, CHOICES = 0, 1
WORDS, _COSINES = 24, 4


class Draws(NamedTuple):
    """The choices of both views, rows of 2 B: view a first; None where there is nothing to choose."""

    shift: Tensor | None  # (2B, 2) int64, rows and columns
    symmetry: Tensor | None  # (2B, 3) bool: mirror rows, mirror columns, transpose
    gain: Tensor | None  # (2B, C) float32, relative gain on raw numbers less 1
    offset: Tensor | None  # (2B, C) float32, band standard deviations
    keep: Tensor | None  # (2B, C) bool, False where the band is dropped
    smooth: Tensor | None  # (2B,) bool
    cut: Tensor | None  # (2B, 4) int64: first and last + 1 row, first and last + 1 column
    table: Tensor | None  # (2B, 2) int64, random words: where `noise_rows` starts and how it steps


# What is drawn where nothing is chosen.
NOTHING = Draws(*[None] * len(Draws._fields))


def draw(spec: ViewSpec, ids: Tensor, bands: int, patch_size: int, key: int) -> Draws:
    """Draw the choices of both views of the samples named ``ids`` (B,) int64, on their device."""
    if spec == ViewSpec.none():
        return NOTHING
    return choose(spec, draw_words(ids, key).flatten(1), bands, patch_size)


def draw_words(ids: Tensor, key: int) -> Tensor:
    """Return the random words (24, 2, B) of both views of samples, 32 bits in int64."""
    call = torch.arange(WORDS // 4, device=ids.device)[:, None, None]
    view = torch.arange(2, device=ids.device)[:, None]
    words = torch.stack(philox(key, call, ids, ids >> 32, view + 2 * CHOICES))  # (4, calls, 2, B)
    return words.view(WORDS, 2, len(ids))


def choose(spec: ViewSpec, w: Tensor, bands: int, patch_size: int) -> Draws:
    """Return what the words ``w`` (24, n) of n views decide."""
    wanted = [bool(spec.gain or spec.offset), bool(spec.band_drop)]
    # both at once, as a dozen short operations cost more to call than to do
    bits = _band_bits(w[17:21].view(2, 2, -1)[wanted], bands)
    white = normals(bits[0]) if wanted[0] else None
    return Draws(
        shift=_below(w[0:2], 2 * int(spec.jitter) + 1).sub_(int(spec.jitter)).T if spec.jitter else None,
        symmetry=_symmetry(spec, w[2], w[3:5]) if spec.flip or spec.turn else None,
        gain=_gain(spec, w[13:17], white, bands),
        offset=white[1].mul_(spec.offset) if white is not None and spec.offset else None,
        keep=_keep(spec, w[6:9], bits[-1] if wanted[1] else None, bands)
        if spec.band_drop or spec.block_drop
        else None,
        smooth=_happens(w[5], spec.smooth) if spec.smooth else None,
        cut=_square(spec, w[9:13], patch_size) if spec.cutout else None,
        table=w[21:23].T if spec.noise else None,
    )


def affine(drawn: Draws, mean: Tensor, scale: Tensor) -> tuple[Tensor, Tensor | None]:
    """Return slope and level, (2B, C) or (1, C) and None, of a view ``(x - mean) slope + level``.

    With gain 1 + d this is ``(x (1 + d) - mean) scale + offset``, but takes the mean off first, which
    keeps large raw numbers exact.
    """
    if drawn.gain is None:
        return scale.unsqueeze(0), drawn.offset
    level = drawn.gain * (mean * scale)
    return drawn.gain * scale + scale, level if drawn.offset is None else level + drawn.offset


def _happens(word: Tensor, probability: float) -> Tensor:
    return word < round(probability * 2**32)


def _below(word: Tensor, n: int | Tensor) -> Tensor:
    """Return a whole number in 0 ... n - 1 from a 32-bit word."""
    return (word * n) >> 32


def _symmetry(spec: ViewSpec, turn: Tensor, mirror: Tensor) -> Tensor:
    quarter = _below(turn, 4) * int(spec.turn)
    rows, cols = _happens(mirror, spec.flip)
    # a quarter turn is a transposition and a mirror; half a turn mirrors both ways
    return torch.stack([rows ^ (quarter >= 2), cols ^ ((quarter + 1) % 4 >= 2), quarter % 2 == 1], 1)


def _band_bits(words: Tensor, bands: int) -> Tensor:
    """Return random int32 (k, n, C) from words (k, 2, n): counts from a number in an odd step, mixed."""
    start, step = words.to(torch.int32).unsqueeze(3).unbind(1)
    return mix_bits(torch.arange(bands, dtype=torch.int32, device=words.device) * (step | 1) + start)


def _gain(spec: ViewSpec, words: Tensor, white: tuple[Tensor, Tensor] | None, bands: int) -> Tensor | None:
    """Return (2B, C): white noise, and four cosines over the bands weighed by four words' normals."""
    gain = white[0].mul_(spec.gain) if white is not None and spec.gain else None
    if spec.illumination:
        weights = (normals(words)[0] * (0.5 * spec.illumination)).unsqueeze(2)  # (4, 2B, 1)
        for weight, cosine in zip(weights, cosines(bands, words.device), strict=True):
            # a product and a sum, not addcmul, which rounds once on some devices and twice on others
            gain = weight * cosine if gain is None else gain.add_(weight * cosine)
    return gain


@cache
def cosines(bands: int, device: torch.device) -> Tensor:
    """Return (4, C) float32: a constant and the first three cosines over the bands."""
    position = (torch.arange(bands, dtype=torch.float64) + 0.5) * (torch.pi / bands)
    return torch.cos(torch.arange(_COSINES)[:, None] * position).to(torch.float32).to(device)


def _keep(spec: ViewSpec, block: Tensor, bits: Tensor | None, bands: int) -> Tensor:
    """Return (n, C) bool from three words of a view and, where single bands are dropped, ``bits`` (n, C)."""
    keep = torch.ones(block.shape[1], bands, dtype=torch.bool, device=block.device)
    if bits is not None:
        # signed words are uniform over -2^31 ... 2^31 - 1
        keep = bits > round(spec.band_drop * 2**32) - 2**31 - 1
    longest = int(spec.block_size * bands)
    if spec.block_drop and longest:
        length = torch.where(_happens(block[0], spec.block_drop), 1 + _below(block[1], longest), 0)
        first = _below(block[2], bands - length + 1)
        first, last = torch.stack([first, first + length]).to(torch.int32).unsqueeze(2)
        band = torch.arange(bands, dtype=torch.int32, device=block.device)
        keep &= (band < first) | (band >= last)
    return keep


def _square(spec: ViewSpec, words: Tensor, patch_size: int) -> Tensor:
    """Return (2B, 4) row and column bounds of the cut-out; empty ones have equal bounds."""
    longest = int(spec.cutout_size * patch_size) if patch_size > 1 else 0
    side = torch.where(_happens(words[0], spec.cutout), 1 + _below(words[1], longest), 0) * (longest > 0)
    first = _below(words[2:4], patch_size - side + 1)  # (2, 2B)
    last = first + side
    return torch.stack([first[0], last[0], first[1], last[1]], 1)
