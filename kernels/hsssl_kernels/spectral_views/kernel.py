"""Triton kernel: both views of every patch, from the raw cube to the normalised, augmented (B, C, P, P).

    view = keep (smooth((x - mean) slope + level) + sigma e)

Source: the definition in `spectral_views`. What is drawn per view and band, and where each pixel lies,
`choice_kernel` has found. A program makes a block of bands at a block of pixels of one view: it gathers the
raw numbers band by band, as the cube has them, and writes pixel by pixel. Nothing is saved, and no patch is
stored in between; only a smoothed sample gathers neighbouring bands too, out of the cache. Moves 2 B P^2 C
raw numbers and as many results; about 30 operations a value, most of them noise.
"""

# The bodies of @triton.jit functions hold no Python types.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from hsssl_kernels.launch import view_block
from hsssl_kernels.random import stream_key
from hsssl_kernels.spectral_views.choice_kernel import launch_choices, two_normals
from hsssl_kernels.spectral_views.draws import NOISE
from hsssl_kernels.spectral_views.spec import ViewSpec
from hsssl_kernels.spectral_views.strengths import strengths_of

__all__ = ["VIEW_OPTIONS", "launch_spectral_views"]

# Every product and sum is rounded by itself, as in the reference: both then have the same bits.
VIEW_OPTIONS = {"enable_fp_fusion": False}

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
def _values(
    cube_ptr, mean_ptr, slope_ptr, level_ptr, pixel, band, inside, C: tl.constexpr, BY_BAND: tl.constexpr
):
    """Return (x - mean) slope + level, (bands, pixels); whatever where there is nothing."""
    there = (band >= 0) & (band < C)
    x = tl.load(cube_ptr + pixel[None, :] * C + band[:, None], mask=inside, other=0).to(tl.float32)
    mean = tl.load(mean_ptr + band, mask=there, other=0.0)
    x = (x - mean[:, None]) * tl.load(slope_ptr + band, mask=there, other=0.0)[:, None]
    if BY_BAND:
        x = x + tl.load(level_ptr + band, mask=there, other=0.0)[:, None]
    return x


# a key that happens to be a multiple of 16 is no reason to compile again
@triton.jit(do_not_specialize=["key", "batch"])
def _spectral_views_kernel(
    cube_ptr,  # (rows cols, C), raw numbers
    pixel_ptr,  # (2B, P P) int32, as `Choices` has them, and the next four
    smooth_ptr,  # (2B,) int32
    slope_ptr,  # (2B, C), or (C,) where not BY_BAND
    level_ptr,  # (2B, C), read where BY_BAND, as the next
    keep_ptr,  # (2B, C) uint8
    mean_ptr,  # (C,)
    id_ptr,  # (B,) int64, read where HAS_IDS
    a_ptr,  # (B, C, P, P)
    b_ptr,
    batch,
    key,
    sigma,
    C: tl.constexpr,
    P: tl.constexpr,
    BY_BAND: tl.constexpr,
    HAS_IDS: tl.constexpr,
    WHICH: tl.constexpr,  # views to make: those smoothed, those not, or all, none smoothed
    HAS_NOISE: tl.constexpr,
    FAR: tl.constexpr,  # more raw numbers than 32 bits count
    BLOCK_C: tl.constexpr,
    BLOCK_P: tl.constexpr,
):
    blocks: tl.constexpr = (P * P + BLOCK_P - 1) // BLOCK_P
    band_blocks: tl.constexpr = (C + BLOCK_C - 1) // BLOCK_C
    # bands of a patch in turn: their pixels are in the cache then
    sample = tl.program_id(0) // (blocks * band_blocks)  # of both views
    if WHICH != "all":  # noqa: SIM102  # the first is decided when compiling
        if (tl.load(smooth_ptr + sample) != 0) != (WHICH == "smoothed"):
            return
    first = tl.program_id(0) // band_blocks % blocks * BLOCK_P
    at = first + tl.arange(0, BLOCK_P)
    band = tl.program_id(0) % band_blocks * BLOCK_C + tl.arange(0, BLOCK_C)
    view = sample // batch

    pixel = tl.load(pixel_ptr + sample.to(tl.int64) * (P * P) + at, mask=at < P * P, other=0)
    gone = pixel < 0
    pixel = tl.where(gone, -1 - pixel, pixel)
    if FAR:
        pixel = pixel.to(tl.int64)
    inside = (band < C)[:, None] & (at < P * P)[None, :]
    if BY_BAND:
        slope_ptr += sample.to(tl.int64) * C
        level_ptr += sample.to(tl.int64) * C
    x = _values(cube_ptr, mean_ptr, slope_ptr, level_ptr, pixel, band, inside, C, BY_BAND)
    if WHICH == "smoothed":
        around = tl.zeros([BLOCK_C, BLOCK_P], dtype=tl.float32)
        for i in tl.range(0, 2, num_stages=1):  # in turn, so that registers are few
            beside = band + 2 * i - 1
            there = ((beside >= 0) & (beside < C))[:, None]
            y = _values(cube_ptr, mean_ptr, slope_ptr, level_ptr, pixel, beside, inside & there, C, BY_BAND)
            around += tl.where(there, y, x)  # an edge band stands in for the missing one
        x = 0.5 * x + 0.25 * around
    if HAS_NOISE:
        groups = first // 8 + tl.arange(0, BLOCK_P // 8)
        sample_id = (sample % batch).to(tl.int64)
        if HAS_IDS:
            sample_id = tl.load(id_ptr + sample % batch)
        x += _noise(key, sample_id, view, band, groups, (P * P + 7) // 8, BLOCK_C) * sigma
    # what is dropped may hold NaN
    x = tl.where(gone[None, :], 0.0, x)
    if BY_BAND:
        kept = tl.load(keep_ptr + sample.to(tl.int64) * C + band, mask=band < C, other=0)
        x = tl.where((kept != 0)[:, None], x, 0.0)
    out_ptr = tl.where(view == 0, a_ptr, b_ptr) + (sample % batch).to(tl.int64) * (C * P * P)
    tl.store(out_ptr + band[:, None] * (P * P) + at[None, :], x, mask=inside)


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
    cube, centres, mean, scale = (x.contiguous() for x in (cube, centres, mean, scale))
    ids = None if sample_ids is None else sample_ids.contiguous()
    valid = None if valid is None else valid.contiguous().view(torch.uint8)
    key, strengths = stream_key(seed, step), strengths_of(spec, bands, patch_size)
    drawn = launch_choices(strengths, key, centres, ids, (rows, cols), patch_size, mean, scale, valid)
    # smoothing takes so many registers that it would slow the others down
    kinds = ("smoothed",) if strengths.smooth == 2**32 else ("others", "smoothed")
    for which in kinds if strengths.smooth else ("all",):
        block_c, block_p, warps = view_block(patch_size**2, strengths.noise > 0, which == "smoothed")
        grid = (2 * batch * triton.cdiv(patch_size**2, block_p) * triton.cdiv(bands, block_c),)
        _spectral_views_kernel[grid](
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
            BY_BAND=strengths.by_band,
            HAS_IDS=ids is not None,
            WHICH=which,
            HAS_NOISE=strengths.noise > 0,
            FAR=cube.numel() >= 2**31,
            BLOCK_C=block_c,
            BLOCK_P=block_p,
            num_warps=warps,
            **VIEW_OPTIONS,
        )
    return a, b
