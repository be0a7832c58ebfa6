"""Triton kernel: both views of every patch, from the raw cube to the normalised, augmented (B, C, P, P).

    view = keep (smooth((x - mean) slope + level) + sigma e)

Source: the definition in `spectral_views`. A program makes a block of bands at a block of pixels of
one view: it finds each pixel's place in the cube (shift, symmetry, mirrored border), gathers the raw
numbers band by band, as the cube has them, and writes pixel by pixel. Nothing is saved, and no patch
is stored in between; only a smoothed sample gathers neighbouring bands too, out of the cache. Moves
2 B P^2 C raw numbers and as many results; about 30 operations a value, most of them noise.
"""

# The bodies of @triton.jit functions hold no Python types.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from hsssl_kernels.launch import view_block
from hsssl_kernels.random import NORMAL_COEFFICIENTS, stream_key
from hsssl_kernels.spectral_views.draws import NOISE, Draws, affine, draw
from hsssl_kernels.spectral_views.patch import view_centres
from hsssl_kernels.spectral_views.spec import ViewSpec

__all__ = ["VIEW_OPTIONS", "launch_spectral_views"]

# Every product and sum is rounded by itself, as in the reference: both then have the same bits.
VIEW_OPTIONS = {"num_warps": 4, "enable_fp_fusion": False}

_A0 = tl.constexpr(NORMAL_COEFFICIENTS[0])
_A1 = tl.constexpr(NORMAL_COEFFICIENTS[1])
_A2 = tl.constexpr(NORMAL_COEFFICIENTS[2])
_A3 = tl.constexpr(NORMAL_COEFFICIENTS[3])
_A4 = tl.constexpr(NORMAL_COEFFICIENTS[4])
_STREAM = tl.constexpr(2 * NOISE)


@triton.jit
def _mirrored(index, size):
    # twice, as the remainder of a negative number may be negative
    period = tl.maximum(2 * (size - 1), 1)
    folded = (index % period + period) % period
    return tl.where(folded < size, folded, period - folded)


@triton.jit
def _bend(total):
    """Return a normal number from the sum of two bytes; see `hsssl_kernels.random.normals`."""
    s = (total.to(tl.int32) - 255).to(tl.float32)
    square = s * s
    # the tensor stands first, as Triton's interpreter wants it
    return ((((square * _A4 + _A3) * square + _A2) * square + _A1) * square + _A0) * s


@triton.jit
def _normals(word):
    sums = (word & 0xFF00FF) + ((word >> 8) & 0xFF00FF)
    return _bend(sums & 0x1FF), _bend(sums >> 16)


@triton.jit
def _noise(key, sample_id, view, bands, groups, GROUPS: tl.constexpr, BLOCK_C: tl.constexpr):
    """Return normal numbers (bands, 8 groups): one Philox call gives eight neighbouring pixels of a band."""
    call = (bands[:, None] * GROUPS + groups[None, :]).to(tl.uint32)
    zero = call * 0
    low = zero + (sample_id & 0xFFFFFFFF).to(tl.uint32)
    high = zero + ((sample_id >> 32) & 0xFFFFFFFF).to(tl.uint32)
    w0, w1, w2, w3 = tl.philox(key, call, low, high, zero + (view + _STREAM).to(tl.uint32))
    n0, n1 = _normals(w0)
    n2, n3 = _normals(w1)
    n4, n5 = _normals(w2)
    n6, n7 = _normals(w3)
    # each join adds a last axis of two: the outermost digit of the pixel first
    even = tl.join(tl.join(n0, n4), tl.join(n2, n6))
    odd = tl.join(tl.join(n1, n5), tl.join(n3, n7))
    return tl.reshape(tl.join(even, odd), (BLOCK_C, 8 * groups.shape[0]))


@triton.jit
def _values(
    cube_ptr, mean_ptr, slope_ptr, level_ptr, pixel, band, inside, C: tl.constexpr, HAS_LEVEL: tl.constexpr
):
    """Return (x - mean) slope + level, (bands, pixels), of bands that exist."""
    x = tl.load(cube_ptr + pixel[None, :] * C + band[:, None], mask=inside, other=0).to(tl.float32)
    x = (x - tl.load(mean_ptr + band)[:, None]) * tl.load(slope_ptr + band)[:, None]
    if HAS_LEVEL:
        x = x + tl.load(level_ptr + band)[:, None]
    return x


# a key that happens to be a multiple of 16 is no reason to compile again
@triton.jit(do_not_specialize=["key", "batch"])
def _spectral_views_kernel(
    cube_ptr,  # (rows, cols, C), raw numbers
    choice_ptr,  # (2B, 8) int32: row, column, symmetry, whether to smooth, bounds of the cut-out
    mean_ptr,  # (C,)
    slope_ptr,  # (2B, C), or (C,) with a step of 0; as the level
    level_ptr,
    keep_ptr,  # (2B, C) uint8
    valid_ptr,  # (rows, cols) uint8
    id_ptr,  # (B,) int64
    a_ptr,  # (B, C, P, P)
    b_ptr,
    batch,
    rows,
    cols,
    slope_step,
    level_step,
    key,
    sigma,
    C: tl.constexpr,
    P: tl.constexpr,
    HAS_LEVEL: tl.constexpr,
    HAS_KEEP: tl.constexpr,
    HAS_VALID: tl.constexpr,
    MAY_SMOOTH: tl.constexpr,
    HAS_NOISE: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_P: tl.constexpr,
):
    blocks: tl.constexpr = (P * P + BLOCK_P - 1) // BLOCK_P
    sample = tl.program_id(0) // blocks  # of both views
    first = tl.program_id(0) % blocks * BLOCK_P
    at = first + tl.arange(0, BLOCK_P)
    bands = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    band = tl.minimum(bands, C - 1)
    view = sample // batch

    # where the pixels lie
    p, q = at // P, at % P
    choice_ptr += sample.to(tl.int64) * 8
    symmetry = tl.load(choice_ptr + 2)
    row = tl.where((symmetry & 4) != 0, q, p)
    col = tl.where((symmetry & 4) != 0, p, q)
    row = tl.where((symmetry & 1) != 0, P - 1 - row, row) - (P - 1) // 2
    col = tl.where((symmetry & 2) != 0, P - 1 - col, col) - (P - 1) // 2
    row = _mirrored(row + tl.load(choice_ptr), rows).to(tl.int64)
    pixel = row * cols + _mirrored(col + tl.load(choice_ptr + 1), cols)

    exists = at < P * P
    inside = (bands < C)[:, None] & exists[None, :]
    slope_ptr += sample.to(tl.int64) * slope_step
    level_ptr += sample.to(tl.int64) * level_step
    x = _values(cube_ptr, mean_ptr, slope_ptr, level_ptr, pixel, band, inside, C, HAS_LEVEL)
    if MAY_SMOOTH:  # noqa: SIM102  # the first is decided when compiling
        if tl.load(choice_ptr + 3) != 0:
            left, right = tl.maximum(band - 1, 0), tl.minimum(band + 1, C - 1)
            below = _values(cube_ptr, mean_ptr, slope_ptr, level_ptr, pixel, left, inside, C, HAS_LEVEL)
            above = _values(cube_ptr, mean_ptr, slope_ptr, level_ptr, pixel, right, inside, C, HAS_LEVEL)
            x = 0.5 * x + 0.25 * (below + above)
    if HAS_NOISE:
        groups = first // 8 + tl.arange(0, BLOCK_P // 8)
        sample_id = tl.load(id_ptr + sample % batch)
        x += _noise(key, sample_id, view, bands, groups, (P * P + 7) // 8, BLOCK_C) * sigma

    # what is dropped may hold NaN
    centre: tl.constexpr = (P - 1) // 2 * (P + 1)
    cut = (p >= tl.load(choice_ptr + 4)) & (p < tl.load(choice_ptr + 5))
    cut = cut & (q >= tl.load(choice_ptr + 6)) & (q < tl.load(choice_ptr + 7)) & (at != centre)
    if HAS_VALID:
        cut = cut | (tl.load(valid_ptr + pixel, mask=exists, other=0) == 0)
    x = tl.where(cut[None, :], 0.0, x)
    if HAS_KEEP:
        kept = tl.load(keep_ptr + sample.to(tl.int64) * C + band)
        x = tl.where((kept != 0)[:, None], x, 0.0)
    out_ptr = tl.where(view == 0, a_ptr, b_ptr) + (sample % batch).to(tl.int64) * (C * P * P)
    tl.store(out_ptr + bands[:, None] * (P * P) + at[None, :], x, mask=inside)


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
    ids = torch.arange(batch, device=cube.device) if sample_ids is None else sample_ids.contiguous()
    key = stream_key(seed, step)
    drawn = draw(spec, ids, bands, patch_size, key)
    slope, level = affine(drawn, mean, scale)
    block_c, block_p = view_block(patch_size**2)
    grid = (2 * batch * triton.cdiv(patch_size**2, block_p), triton.cdiv(bands, block_c))
    _spectral_views_kernel[grid](
        cube_ptr=cube.contiguous(),
        choice_ptr=_choices(drawn, view_centres(centres.repeat(2, 1), drawn.shift, valid)),
        mean_ptr=mean.contiguous(),
        slope_ptr=slope.contiguous(),
        level_ptr=slope if level is None else level.contiguous(),
        keep_ptr=mean if drawn.keep is None else drawn.keep.view(torch.uint8),
        valid_ptr=mean if valid is None else valid.contiguous().view(torch.uint8),
        id_ptr=ids,
        a_ptr=a,
        b_ptr=b,
        batch=batch,
        rows=rows,
        cols=cols,
        slope_step=bands if len(slope) > 1 else 0,
        level_step=bands,
        key=key,
        sigma=spec.noise,
        C=bands,
        P=patch_size,
        HAS_LEVEL=level is not None,
        HAS_KEEP=drawn.keep is not None,
        HAS_VALID=valid is not None,
        MAY_SMOOTH=drawn.smooth is not None,
        HAS_NOISE=spec.noise > 0,
        BLOCK_C=block_c,
        BLOCK_P=block_p,
        **VIEW_OPTIONS,
    )
    return a, b


def _choices(drawn: Draws, at: Tensor) -> Tensor:
    """Return (2B, 8) int32: shifted centre, symmetry in three bits, whether to smooth, the cut-out."""
    choices = torch.zeros(len(at), 8, dtype=torch.int32, device=at.device)
    choices[:, :2] = at
    if drawn.symmetry is not None:
        choices[:, 2] = drawn.symmetry[:, 0] + 2 * drawn.symmetry[:, 1] + 4 * drawn.symmetry[:, 2]
    if drawn.smooth is not None:
        choices[:, 3] = drawn.smooth
    if drawn.cut is not None:
        choices[:, 4:] = drawn.cut
    return choices
