"""Triton kernel: all that is drawn per view and per band, in one launch.

What is drawn is what `draws` draws, to the bit, and what `loops` draws on a CPU: Philox gives a view 24
words, and bits per band are two words' counts, mixed. A program draws for a view and finds where a block of
its pixels lies; 2 B P^2 numbers of pixels are written, and 18 B C bytes more where bands differ.
Source: the definitions in `draws` and `patch`; Salmon et al. 2011, doi:10.1145/2063384.2063405.
"""

# The bodies of @triton.jit functions hold no Python types.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from hsssl_kernels.random import NORMAL_COEFFICIENTS
from hsssl_kernels.spectral_views.draws import CHOICES, WORDS, cosines
from hsssl_kernels.spectral_views.lines import filled
from hsssl_kernels.spectral_views.strengths import Strengths

__all__ = ["CHOICE_OPTIONS", "Choices", "launch_choices", "two_normals"]

# Every product and sum is rounded by itself, as in the reference: both then have the same bits.
CHOICE_OPTIONS = {"num_warps": 1, "enable_fp_fusion": False}

# Pixels that a program finds.
_PIXELS = 128

_A0 = tl.constexpr(NORMAL_COEFFICIENTS[0])
_A1 = tl.constexpr(NORMAL_COEFFICIENTS[1])
_A2 = tl.constexpr(NORMAL_COEFFICIENTS[2])
_A3 = tl.constexpr(NORMAL_COEFFICIENTS[3])
_A4 = tl.constexpr(NORMAL_COEFFICIENTS[4])
_STREAM = tl.constexpr(2 * CHOICES)
_CALLS = tl.constexpr(WORDS // 4)

# A number that happens to be 1 or a multiple of 16 is no reason to compile again.
_AS_THEY_ARE = ["key", "batch", "flip", "turn", "jitter", "band_drop", "block_drop", "block", "smooth"]
_AS_THEY_ARE += ["cutout", "side"]


class Choices(NamedTuple):
    """What makes 2 B views, view a first."""

    pixel: Tensor  # (2B, P P) int32: its number in the scene, and -1 less that where the view is to be 0
    smooth: Tensor  # (2B,) int32, whether to smooth
    slope: Tensor  # (2B, W) float32, W >= C as `filled` says, or the scale (C,), the same for all
    level: Tensor  # (2B, W) float32, read where bands differ, as the next
    keep: Tensor  # (2B, W) uint8


@triton.jit
def _bend(total):
    """Return a normal number from the sum of two bytes; see `hsssl_kernels.random.normals`."""
    s = (total.to(tl.int32) - 255).to(tl.float32)
    square = s * s
    # the tensor stands first, as Triton's interpreter wants it
    return ((((square * _A4 + _A3) * square + _A2) * square + _A1) * square + _A0) * s


@triton.jit
def two_normals(word):
    """Return the normal numbers of a word's low and high half."""
    sums = (word & 0xFF00FF) + ((word >> 8) & 0xFF00FF)
    return _bend(sums & 0x1FF), _bend(sums >> 16)


@triton.jit
def _mix_bits(x):
    """Return the bits of x, uint32, mixed; see `hsssl_kernels.random.mix_bits`."""
    x = (x ^ (x >> 17)) * 0xED5AD4BB
    x = (x ^ (x >> 11)) * 0xAC4C1B51
    x = (x ^ (x >> 15)) * 0x31848BAB
    return x ^ (x >> 14)


@triton.jit
def _word(words, calls, i: tl.constexpr):
    """Return word ``i`` of a view, int64. Of the words that each call gives, all the first come first."""
    which: tl.constexpr = i // _CALLS
    return tl.sum(tl.where(calls == i - which * _CALLS, words[which], 0), 0).to(tl.int64)


@triton.jit
def _below(word, n):
    """Return a whole number in 0 ... n - 1, int32, from a 32-bit word in int64."""
    return ((word * n) >> 32).to(tl.int32)


@triton.jit
def _folded(index, size):
    """Return an index that mirrors to the same pixel, in 0 ... 2 size - 3."""
    period = tl.maximum(2 * (size - 1), 1)
    # twice, as the remainder of a negative number may be negative
    return (index % period + period) % period


@triton.jit
def _reflected(index, size):
    """Return the pixel that a folded index stands for."""
    return tl.minimum(index, tl.maximum(2 * (size - 1), 1) - index)


@triton.jit
def _near(index, size):
    """Return the pixel at an index less than a patch off a folded one: no division is needed then."""
    period = tl.maximum(2 * (size - 1), 1)
    index = tl.abs(index)
    return _reflected(tl.where(index >= period, index - period, index), size)


@triton.jit(do_not_specialize=_AS_THEY_ARE)
def _choose_kernel(
    centre_ptr,  # (B, 2) int64
    id_ptr,  # (B,) int64, read where HAS_IDS
    valid_ptr,  # (rows, cols) uint8, read where HAS_VALID
    mean_ptr,  # (C,) float32, read where BY_BAND, as the next two
    scale_ptr,
    cosine_ptr,  # (4, C)
    pixel_ptr,  # (2B, P P) int32
    smooth_ptr,  # (2B,) int32
    slope_ptr,  # (2B, WIDE) float32, written where BY_BAND, as the next two
    level_ptr,
    keep_ptr,  # (2B, WIDE) uint8
    batch,
    rows,
    cols,
    key,
    flip,
    turn,
    jitter,
    gain,
    offset,
    illumination,
    band_drop,
    block_drop,
    block,
    smooth,
    cutout,
    side,
    C: tl.constexpr,
    P: tl.constexpr,
    WIDE: tl.constexpr,
    HAS_IDS: tl.constexpr,
    HAS_VALID: tl.constexpr,
    BY_BAND: tl.constexpr,
    VARIED: tl.constexpr,  # whether there is a gain
    BLOCK_C: tl.constexpr,
    BLOCK_P: tl.constexpr,
):
    sample = tl.program_id(0)  # of both views
    view, own = sample // batch, sample % batch
    sample_id = own.to(tl.int64)
    if HAS_IDS:
        sample_id = tl.load(id_ptr + own)
    calls = tl.arange(0, 8)
    call = calls.to(tl.uint32)
    low = call * 0 + (sample_id & 0xFFFFFFFF).to(tl.uint32)
    high = call * 0 + ((sample_id >> 32) & 0xFFFFFFFF).to(tl.uint32)
    words = tl.philox(key, call, low, high, call * 0 + (view + _STREAM).to(tl.uint32))

    # where the patch lies
    row, col = tl.load(centre_ptr + 2 * own).to(tl.int32), tl.load(centre_ptr + 2 * own + 1).to(tl.int32)
    down = _folded(row + _below(_word(words, calls, 0), 2 * jitter + 1) - jitter, rows)
    right = _folded(col + _below(_word(words, calls, 1), 2 * jitter + 1) - jitter, cols)
    if HAS_VALID:
        good = tl.load(valid_ptr + _reflected(down, rows) * cols + _reflected(right, cols)) != 0
        down, right = tl.where(good, down, row), tl.where(good, right, col)
    quarter = _below(_word(words, calls, 2), 4) * turn
    # a quarter turn is a transposition and a mirror; half a turn mirrors both ways
    mirror_rows = (_word(words, calls, 3) < flip) != (quarter >= 2)
    mirror_cols = (_word(words, calls, 4) < flip) != ((quarter + 1) % 4 >= 2)
    cut = tl.where(_word(words, calls, 9) < cutout, 1 + _below(_word(words, calls, 10), side), 0)
    top = _below(_word(words, calls, 11), P - cut + 1)
    left = _below(_word(words, calls, 12), P - cut + 1)

    # each pixel of the block: rows and columns of the scene are linear in those of the view
    at = tl.program_id(1) * BLOCK_P + tl.arange(0, BLOCK_P)
    p, q, turned = at // P, at % P, quarter % 2
    row = down - (P - 1) // 2 + tl.where(turned != 0, q, p)
    col = right - (P - 1) // 2 + tl.where(turned != 0, p, q)
    row = tl.where(mirror_rows, 2 * down + 1 - P % 2 - row, row)
    col = tl.where(mirror_cols, 2 * right + 1 - P % 2 - col, col)
    pixel = _near(row, rows) * cols + _near(col, cols)
    centre: tl.constexpr = (P - 1) // 2 * (P + 1)
    gone = (p >= top) & (p < top + cut) & (q >= left) & (q < left + cut) & (at != centre)
    if HAS_VALID:
        gone = gone | (tl.load(valid_ptr + pixel, mask=at < P * P, other=0) == 0)
    pixel_ptr += sample.to(tl.int64) * (P * P)
    tl.store(pixel_ptr + at, tl.where(gone, -1 - pixel, pixel), mask=at < P * P)
    if tl.program_id(1) > 0:
        return
    tl.store(smooth_ptr + sample, (_word(words, calls, 5) < smooth).to(tl.int32))
    if BY_BAND:
        band = tl.arange(0, BLOCK_C)
        inside = band < C
        count = band.to(tl.uint32)
        step = (_word(words, calls, 18) | 1).to(tl.uint32)
        low_normal, high_normal = two_normals(_mix_bits(count * step + _word(words, calls, 17).to(tl.uint32)))
        scale = tl.load(scale_ptr + band, mask=inside, other=0.0)
        slope, level = scale, high_normal * offset
        if VARIED:
            change = low_normal * gain
            for i in tl.static_range(4):
                weight = two_normals(_word(words, calls, 13 + i).to(tl.uint32))[0] * illumination
                change += weight * tl.load(cosine_ptr + i * C + band, mask=inside, other=0.0)
            mean = tl.load(mean_ptr + band, mask=inside, other=0.0)
            level = change * (mean * scale) + level
            slope = change * scale + scale
        length = tl.where(_word(words, calls, 6) < block_drop, 1 + _below(_word(words, calls, 7), block), 0)
        first = _below(_word(words, calls, 8), C - length + 1)
        step = (_word(words, calls, 20) | 1).to(tl.uint32)
        bits = _mix_bits(count * step + _word(words, calls, 19).to(tl.uint32))
        # the bits stand for a signed number, which is to lie above its lowest by the chance
        kept = (bits ^ 0x80000000).to(tl.int64) >= band_drop
        kept = kept & ((band < first) | (band >= first + length))
        at = sample.to(tl.int64) * WIDE + band
        tl.store(slope_ptr + at, slope, mask=band < WIDE)
        tl.store(level_ptr + at, level, mask=band < WIDE)
        tl.store(keep_ptr + at, kept.to(tl.uint8), mask=band < WIDE)


def launch_choices(
    strengths: Strengths,
    key: int,
    centres: Tensor,
    ids: Tensor | None,
    size: tuple[int, int],
    patch_size: int,
    mean: Tensor,
    scale: Tensor,
    valid: Tensor | None,
) -> Choices:
    """Return what is drawn for both views of samples around ``centres`` in a scene of ``size`` pixels."""
    views, bands, device = 2 * len(centres), len(mean), centres.device
    pixel = torch.empty(views, patch_size**2, dtype=torch.int32, device=device)
    smooth = torch.empty(views, dtype=torch.int32, device=device)
    shape = (views if strengths.by_band else 0, filled(bands))
    slope, level = torch.empty(2, *shape, dtype=torch.float32, device=device).unbind()
    keep = torch.empty(shape, dtype=torch.uint8, device=device)
    _choose_kernel[(views, triton.cdiv(patch_size**2, _PIXELS))](
        centre_ptr=centres,
        id_ptr=centres if ids is None else ids,
        valid_ptr=smooth if valid is None else valid,
        mean_ptr=mean,
        scale_ptr=scale,
        cosine_ptr=cosines(bands, device),
        pixel_ptr=pixel,
        smooth_ptr=smooth,
        slope_ptr=slope,
        level_ptr=level,
        keep_ptr=keep,
        batch=len(centres),
        rows=size[0],
        cols=size[1],
        key=key,
        flip=strengths.flip,
        turn=strengths.turn,
        jitter=strengths.jitter,
        gain=strengths.gain,
        offset=strengths.offset,
        illumination=strengths.illumination,
        band_drop=strengths.band_drop,
        block_drop=strengths.block_drop,
        block=strengths.block,
        smooth=strengths.smooth,
        cutout=strengths.cutout,
        side=strengths.side,
        C=bands,
        P=patch_size,
        WIDE=shape[1],
        HAS_IDS=ids is not None,
        HAS_VALID=valid is not None,
        BY_BAND=strengths.by_band,
        VARIED=bool(strengths.gain or strengths.illumination),
        BLOCK_C=max(32, triton.next_power_of_2(bands)),
        BLOCK_P=_PIXELS,
        **CHOICE_OPTIONS,
    )
    return Choices(pixel, smooth, slope if strengths.by_band else scale, level, keep)
