"""Triton kernel: both views of every patch, from the raw cube to the normalised, augmented (B, C, P, P).

    view = keep (smooth((x - mean) slope + level) + sigma e)

Source: the definition in `spectral_views`. What is drawn per view and band, and where each pixel lies,
`choice_kernel` has found. A program makes some bands at a block of pixels of one view, eight bands at a
time: a thread loads the eight of a pixel at once, as the cube has them beside each other, and threads of
neighbouring pixels write band by band. With padded pixels nothing goes from thread to thread but noise, and
a band to be smoothed has its neighbours in the thread's own registers. Nothing is saved, and no patch is
stored in between. Moves 2 B P^2 C raw numbers and as many results, in 8 to 14 instructions a value, 8 more
where it is smoothed, and 35 to 45 more for noise (sm_90, 11 x 11 pixels, 16-bit numbers, padded pixels).
"""

# The bodies of @triton.jit functions hold no Python types.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from hsssl_kernels.random import stream_key
from hsssl_kernels.spectral_views.choice_kernel import launch_choices, two_normals
from hsssl_kernels.spectral_views.draws import NOISE
from hsssl_kernels.spectral_views.lines import AT_ONCE, filled, in_lines, is_padded
from hsssl_kernels.spectral_views.spec import ViewSpec
from hsssl_kernels.spectral_views.strengths import strengths_of

__all__ = ["VIEW_OPTIONS", "launch_spectral_views", "view_block"]

# Every product and sum is rounded by itself, as in the reference: both then have the same bits.
VIEW_OPTIONS = {"num_warps": 1, "enable_fp_fusion": False}

_STREAM = tl.constexpr(2 * NOISE)


@triton.jit
def _noise(key, sample_id, view, bands, groups, GROUPS: tl.constexpr, BLOCK_C: tl.constexpr):
    """Return normal numbers (bands, 8 groups): one Philox call gives eight neighbouring pixels of a band."""
    call = (bands[:, None] * GROUPS + groups[None, :]).to(tl.uint32)
    zero = call * 0
    low = zero + (sample_id & 0xFFFFFFFF).to(tl.uint32)
    high = zero + ((sample_id >> 32) & 0xFFFFFFFF).to(tl.uint32)
    w0, w1, w2, w3 = tl.philox(key, call, low, high, zero + (view + _STREAM).to(tl.uint32))
    n0, n1 = two_normals(w0)
    n2, n3 = two_normals(w1)
    n4, n5 = two_normals(w2)
    n6, n7 = two_normals(w3)
    # each join adds a last axis of two: the outermost digit of the pixel first
    even = tl.join(tl.join(n0, n4), tl.join(n2, n6))
    odd = tl.join(tl.join(n1, n5), tl.join(n3, n7))
    return tl.reshape(tl.join(even, odd), (BLOCK_C, 8 * groups.shape[0]))


@triton.jit
def _row(ptr, band, C: tl.constexpr, LAST: tl.constexpr):
    """Return what there is for each band; 0 past the last."""
    if LAST:
        return tl.load(ptr + band, mask=band < C, other=0)
    return tl.load(ptr + band)


@triton.jit
def _at_band(pixel_ptr, rows, band, BY_BAND: tl.constexpr):
    """Return the normalised values of one band (pixels)."""
    mean_ptr, slope_ptr, level_ptr, _ = rows
    x = (tl.load(pixel_ptr + band).to(tl.float32) - tl.load(mean_ptr + band)) * tl.load(slope_ptr + band)
    if BY_BAND:
        x = x + tl.load(level_ptr + band)
    return x


@triton.jit
def _halves(x, n: tl.constexpr):
    """Return the even and the odd of n columns."""
    return tl.split(tl.reshape(x, (x.shape[0], n // 2, 2)))


@triton.jit
def _woven(even, odd, n: tl.constexpr):
    """Return the n columns that `_halves` has halved."""
    return tl.reshape(tl.join(even, odd), (even.shape[0], n))


@triton.jit
def _sum_beside(x, before, after):
    """Return for each of eight columns the sum of those beside it; a digit below names a column."""
    x0246, x1357 = _halves(x, 8)
    x04, x26 = _halves(x0246, 4)
    x15, x37 = _halves(x1357, 4)
    _, x4 = tl.split(x04)
    x3, _ = tl.split(x37)
    left = _woven(tl.join(before, x3), x15, 4)  # of 0, 2, 4 and 6
    right = _woven(x26, tl.join(x4, after), 4)  # of 1, 3, 5 and 7
    return _woven(left + x1357, x0246 + right, 8)


@triton.jit
def _write_bands(
    first,
    first_pixel,
    cube_ptr,
    pixel,  # (pixels) where raw numbers of each begin
    gone,  # (pixels) whether they are to be 0
    rows,  # where means, slopes, levels and what is kept begin
    smooth,
    stream,  # key, sample id and view, of the noise
    sigma,
    out_ptr,
    C: tl.constexpr,
    PIXELS: tl.constexpr,
    PADDED: tl.constexpr,
    BY_BAND: tl.constexpr,
    SMOOTHS: tl.constexpr,
    HAS_NOISE: tl.constexpr,
    LAST: tl.constexpr,  # whether the scene's last bands are fewer
    BLOCK_C: tl.constexpr,
):
    """Write BLOCK_C bands of a view's pixels, from the first on of both."""
    mean_ptr, slope_ptr, level_ptr, keep_ptr = rows
    band = first + tl.arange(0, BLOCK_C)
    at = first_pixel + tl.arange(0, pixel.shape[0])
    x_ptr = cube_ptr + pixel[:, None] + band[None, :]
    if PADDED or not LAST:
        x = tl.load(x_ptr).to(tl.float32)
    else:
        x = tl.load(x_ptr, mask=(band < C)[None, :], other=0).to(tl.float32)
    x = x - _row(mean_ptr, band, C, LAST)[None, :]
    x = x * _row(slope_ptr, band, C, LAST)[None, :]
    if BY_BAND:
        x = x + _row(level_ptr, band, C, LAST)[None, :]
    if SMOOTHS:  # noqa: SIM102  # the first is decided when compiling
        if smooth:
            # an edge band stands in for the missing one
            before = _at_band(cube_ptr + pixel, rows, tl.maximum(first - 1, 0), BY_BAND)
            after = _at_band(cube_ptr + pixel, rows, tl.minimum(first + BLOCK_C, C - 1), BY_BAND)
            if LAST:
                x = tl.where((band < C)[None, :], x, after[:, None])
            x = 0.5 * x + 0.25 * _sum_beside(x, before, after)
    if HAS_NOISE:
        key, sample_id, view = stream
        groups = first_pixel // 8 + tl.arange(0, pixel.shape[0] // 8)
        noise = _noise(key, sample_id, view, band, groups, (PIXELS + 7) // 8, BLOCK_C)
        x += tl.trans(noise) * sigma
    # what is dropped may hold NaN
    x = tl.where(gone[:, None], 0.0, x)
    if BY_BAND:
        x = tl.where((_row(keep_ptr, band, C, LAST) != 0)[None, :], x, 0.0)
    inside = (at < PIXELS)[:, None]
    if LAST:
        inside = inside & (band < C)[None, :]
    tl.store(out_ptr + band[None, :] * PIXELS + at[:, None], x, mask=inside)


# a key that happens to be a multiple of 16 is no reason to compile again
@triton.jit(do_not_specialize=["key", "batch"])
def _spectral_views_kernel(
    cube_ptr,  # (rows cols, LINE), raw numbers
    pixel_ptr,  # (2B, P P) int32, as `Choices` has them, and the next four
    smooth_ptr,  # (2B,) int32, read where SMOOTHS
    slope_ptr,  # (2B, WIDE), or (C,) where not BY_BAND
    level_ptr,  # (2B, WIDE), read where BY_BAND, as the next
    keep_ptr,  # (2B, WIDE) uint8
    mean_ptr,  # (C,)
    id_ptr,  # (B,) int64, read where HAS_IDS
    a_ptr,  # (B, C, P, P)
    b_ptr,
    batch,
    key,
    sigma,
    C: tl.constexpr,
    P: tl.constexpr,
    LINE: tl.constexpr,  # raw numbers from pixel to pixel, C or more
    WIDE: tl.constexpr,  # C filled up to a multiple of BLOCK_C
    PADDED: tl.constexpr,  # whether each pixel has WIDE raw numbers to read
    BY_BAND: tl.constexpr,
    HAS_IDS: tl.constexpr,
    SMOOTHS: tl.constexpr,  # whether any view is smoothed
    HAS_NOISE: tl.constexpr,
    FAR: tl.constexpr,  # more raw numbers than 32 bits count
    SPAN: tl.constexpr,  # bands of a program, a multiple of BLOCK_C
    BLOCK_C: tl.constexpr,  # 8, as `_sum_beside` takes them
    BLOCK_P: tl.constexpr,
):
    PIXELS: tl.constexpr = P * P
    blocks: tl.constexpr = (PIXELS + BLOCK_P - 1) // BLOCK_P
    spans: tl.constexpr = (C + SPAN - 1) // SPAN
    # bands of a patch in turn: their pixels are in the cache then
    sample = tl.program_id(0) // (blocks * spans)  # of both views
    first_pixel = tl.program_id(0) // spans % blocks * BLOCK_P
    begin = tl.program_id(0) % spans * SPAN
    end = begin + SPAN
    view, own = sample // batch, sample % batch

    at = first_pixel + tl.arange(0, BLOCK_P)
    pixel = tl.load(pixel_ptr + sample.to(tl.int64) * PIXELS + at, mask=at < PIXELS, other=0)
    gone = pixel < 0
    pixel = tl.where(gone, -1 - pixel, pixel)
    if FAR:
        pixel = pixel.to(tl.int64)
    pixel *= LINE
    if BY_BAND:
        slope_ptr += sample.to(tl.int64) * WIDE
        level_ptr += sample.to(tl.int64) * WIDE
        keep_ptr += sample.to(tl.int64) * WIDE
    rows = (mean_ptr, slope_ptr, level_ptr, keep_ptr)
    smooth = False
    if SMOOTHS:
        smooth = tl.load(smooth_ptr + sample) != 0
    sample_id = own.to(tl.int64)
    out_ptr = tl.where(view == 0, a_ptr, b_ptr) + sample_id * (C * PIXELS)
    if HAS_IDS:
        sample_id = tl.load(id_ptr + own)
    stream = (key, sample_id, view)
    whole: tl.constexpr = C // BLOCK_C * BLOCK_C
    for first in tl.range(begin, tl.minimum(end, whole), BLOCK_C):
        _write_bands(
            first, first_pixel, cube_ptr, pixel, gone, rows, smooth, stream, sigma, out_ptr,
            C, PIXELS, PADDED, BY_BAND, SMOOTHS, HAS_NOISE, False, BLOCK_C,
        )  # fmt: skip
    if whole < C:
        # a loop, as Triton 3.7 has compiled masked stores within a condition wrongly
        for first in tl.range(tl.maximum(begin, whole), tl.minimum(end, C), BLOCK_C):
            _write_bands(
                first, first_pixel, cube_ptr, pixel, gone, rows, smooth, stream, sigma, out_ptr,
                C, PIXELS, PADDED, BY_BAND, SMOOTHS, HAS_NOISE, True, BLOCK_C,
            )  # fmt: skip


def view_block(bands: int, pixels: int, light: bool) -> tuple[int, int]:
    """Return bands and pixels of a program, of one warp.

    Fewer pixels where it takes many registers, that is with noise or unpadded pixels.
    """
    # a chunk of bands takes about 10 pixels' instructions beside those of its pixels
    sizes = (16, 32, 64, 128) if light else (16, 32, 64)
    block_p = min(sizes, key=lambda size: -(-pixels // size) * (size + 10))
    chunks = -(-bands // AT_ONCE)
    return AT_ONCE * -(-chunks // max(1, round(chunks / 8))), block_p


def launch_spectral_views(
    cube: Tensor,
    centres: Tensor,
    *,
    patch_size: int,
    mean: Tensor,
    scale: Tensor,
    spec: ViewSpec,
    seed: int,
    step: int,
    sample_ids: Tensor | None = None,
    valid: Tensor | None = None,
    dtype: torch.dtype = torch.float32,
) -> tuple[Tensor, Tensor]:
    """Return the two views; parameters as in `spectral_views`."""
    batch, (rows, cols, bands) = len(centres), cube.shape
    shape = (batch, bands, patch_size, patch_size)
    a, b = (torch.empty(shape, dtype=dtype, device=cube.device) for _ in range(2))
    if batch == 0:
        return a, b
    cube, line = in_lines(cube)
    centres, mean, scale = (x.contiguous() for x in (centres, mean, scale))
    ids = None if sample_ids is None else sample_ids.contiguous()
    valid = None if valid is None else valid.contiguous().view(torch.uint8)
    key, strengths = stream_key(seed, step), strengths_of(spec, bands, patch_size)
    drawn = launch_choices(strengths, key, centres, ids, (rows, cols), patch_size, mean, scale, valid)
    padded, noisy = is_padded(cube, line), strengths.noise > 0
    span, block_p = view_block(bands, patch_size**2, padded and not noisy)
    _spectral_views_kernel[(2 * batch * triton.cdiv(patch_size**2, block_p) * triton.cdiv(bands, span),)](
        cube_ptr=cube,
        pixel_ptr=drawn.pixel,
        smooth_ptr=drawn.smooth,
        slope_ptr=drawn.slope,
        level_ptr=drawn.level,
        keep_ptr=drawn.keep,
        mean_ptr=mean,
        id_ptr=centres if ids is None else ids,
        a_ptr=a,
        b_ptr=b,
        batch=batch,
        key=key,
        sigma=strengths.noise,
        C=bands,
        P=patch_size,
        LINE=line,
        WIDE=filled(bands),
        PADDED=padded,
        BY_BAND=strengths.by_band,
        HAS_IDS=ids is not None,
        SMOOTHS=strengths.smooth > 0,
        HAS_NOISE=noisy,
        FAR=rows * cols * line >= 2**31,
        SPAN=span,
        BLOCK_C=AT_ONCE,
        BLOCK_P=block_p,
        **VIEW_OPTIONS,
    )
    return a, b
