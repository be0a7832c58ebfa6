"""Two augmented views of patches cut from a resident cube, in plain torch."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from hsssl_kernels.random import stream_key
from hsssl_kernels.spectral_views.spec import ViewSpec

__all__ = ["Draws", "draw", "patch_pixels", "spectral_views_reference"]

_COSINES = 4


class Draws(NamedTuple):
    """All that is drawn per sample and view (rows of 2 B: view a first), on the cube's device."""

    shift: Tensor  # (2B, 2) int64, rows and columns
    symmetry: Tensor  # (2B, 3) bool: mirror rows, mirror columns, transpose
    gain: Tensor  # (2B, C) float32, relative gain on raw numbers, around 1
    offset: Tensor  # (2B, C) float32, band standard deviations
    keep: Tensor  # (2B, C) float32, 0 where the band is dropped
    smooth: Tensor  # (2B,) bool
    cut: Tensor  # (2B, 4) int64: first and last + 1 row, first and last + 1 column


def spectral_views_reference(
    cube: Tensor,
    centres: Tensor,
    *,
    patch_size: int,
    mean: Tensor,
    scale: Tensor,
    spec: ViewSpec,
    seed: int,
    step: int,
    valid: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Return the two views; parameters as in `spectral_views`."""
    batch, bands = len(centres), cube.shape[2]
    drawn = draw(spec, batch, bands, patch_size, stream_key(seed, step), cube.device)
    pixel = patch_pixels(cube.shape[:2], centres.repeat(2, 1) + drawn.shift, patch_size, drawn.symmetry)
    x = cube.reshape(-1, bands)[pixel.reshape(-1)]  # (2B P P, C), the one gather
    x = x.to(torch.float32).reshape(2 * batch, patch_size * patch_size, bands)
    slope = drawn.gain * scale  # raw * slope + level = (raw * gain - mean) * scale + offset
    x = torch.addcmul((drawn.offset - mean * scale).unsqueeze(1), x, slope.unsqueeze(1))
    if spec.smooth:
        x = torch.where(drawn.smooth[:, None, None], _smooth_bands(x), x)
    if spec.noise:
        generator = torch.Generator(cube.device).manual_seed(stream_key(seed, step, 1))
        x.add_(torch.empty_like(x).normal_(0.0, spec.noise, generator=generator))
    keep_pixel = ~_inside(drawn.cut, patch_size)  # (2B, P P)
    if valid is not None:
        keep_pixel &= valid.reshape(-1)[pixel]
    # torch.where and not a product: an invalid pixel may hold NaN
    keep = keep_pixel.unsqueeze(2) & drawn.keep.bool().unsqueeze(1)
    x = torch.where(keep, x, 0.0)
    views = x.transpose(1, 2).reshape(2 * batch, bands, patch_size, patch_size)
    return views[:batch].contiguous(), views[batch:].contiguous()


def draw(spec: ViewSpec, batch: int, bands: int, patch_size: int, key: int, device: torch.device) -> Draws:
    """Draw every per-sample and per-band choice of both views, on the CPU, from the one key."""
    g = torch.Generator().manual_seed(key)
    n = 2 * batch

    def uniform(*shape: int) -> Tensor:
        return torch.rand(shape, generator=g)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=g)

    # every number is drawn whether it is used or not: one strength does not change another's stream
    shift = torch.floor(uniform(n, 2) * (2 * spec.jitter + 1)).long() - spec.jitter
    turn = torch.floor(uniform(n) * 4).long() * int(spec.turn)
    mirror = uniform(n, 2) < spec.flip
    # a quarter turn is a transposition and a mirror; half a turn mirrors both ways
    symmetry = torch.stack(
        [mirror[:, 0] ^ (turn >= 2), mirror[:, 1] ^ ((turn + 1) % 4 >= 2), turn % 2 == 1], 1
    )
    position = (torch.arange(bands) + 0.5) * (torch.pi / bands)
    cosines = torch.cos(torch.arange(_COSINES)[:, None] * position)  # (4, C)
    gain = 1 + spec.gain * normal(n, bands) + spec.illumination * (normal(n, _COSINES) @ cosines) / 2
    offset = spec.offset * normal(n, bands)
    keep = (uniform(n, bands) >= spec.band_drop) & ~_drawn_block(spec, uniform(n, 3), bands)
    cut = _drawn_square(spec, uniform(n, 4), patch_size)
    drawn = Draws(shift, symmetry, gain, offset, keep.float(), uniform(n) < spec.smooth, cut)
    return Draws(*(t.to(device) for t in drawn))


def _drawn_block(spec: ViewSpec, u: Tensor, bands: int) -> Tensor:
    """Return (n, bands) bool: the contiguous block to drop; ``u`` (n, 3) uniform."""
    longest = int(spec.block_size * bands)
    length = 1 + torch.floor(u[:, 1] * longest).clamp(max=max(longest - 1, 0))
    length = torch.where((u[:, 0] < spec.block_drop) & (longest > 0), length, 0.0)
    first = torch.floor(u[:, 2] * (bands - length + 1))
    band = torch.arange(bands)
    return (band >= first[:, None]) & (band < (first + length)[:, None])


def _drawn_square(spec: ViewSpec, u: Tensor, patch_size: int) -> Tensor:
    """Return (n, 4) int64 row and column bounds of the cut-out; empty ones have equal bounds."""
    longest = int(spec.cutout_size * patch_size)
    side = 1 + torch.floor(u[:, 1] * longest).clamp(max=max(longest - 1, 0))
    side = torch.where((u[:, 0] < spec.cutout) & (longest > 0) & (patch_size > 1), side, 0.0)
    first = torch.floor(u[:, 2:] * (patch_size - side + 1)[:, None]).long()  # (n, 2)
    last = first + side.long()[:, None]
    return torch.stack([first[:, 0], last[:, 0], first[:, 1], last[:, 1]], 1)


def patch_pixels(
    size: torch.Size, centres: Tensor, patch_size: int, symmetry: Tensor | None = None
) -> Tensor:
    """Return (B, P P) int64 flat pixel numbers of the patches, mirrored at the scene's border."""
    rows, cols = size
    reach = torch.arange(patch_size, device=centres.device) - (patch_size - 1) // 2
    row = reach.expand(len(centres), patch_size)
    col = row
    i, j = _mirror(centres[:, :1] + row, rows), _mirror(centres[:, 1:] + col, cols)  # (B, P) each
    if symmetry is None:
        return (i.unsqueeze(2) * cols + j.unsqueeze(1)).flatten(1)
    i = torch.where(symmetry[:, 0:1], i.flip(1), i)
    j = torch.where(symmetry[:, 1:2], j.flip(1), j)
    grid = i.unsqueeze(2) * cols + j.unsqueeze(1)  # (B, P, P)
    return torch.where(symmetry[:, 2, None, None], grid.transpose(1, 2), grid).flatten(1)


def _mirror(index: Tensor, size: int) -> Tensor:
    """Reflect indices into 0 ... size - 1 without repeating the edge: -1 is 1, size is size - 2."""
    if size == 1:
        return torch.zeros_like(index)
    period = 2 * (size - 1)
    folded = index.remainder(period)
    return torch.where(folded < size, folded, period - folded)


def _smooth_bands(x: Tensor) -> Tensor:
    """Smooth (..., C) by (1, 2, 1) / 4 over bands; an edge band stands in for the missing one."""
    left = torch.cat([x[..., :1], x[..., :-1]], -1)
    right = torch.cat([x[..., 1:], x[..., -1:]], -1)
    return 0.5 * x + 0.25 * (left + right)


def _inside(cut: Tensor, patch_size: int) -> Tensor:
    """Return (n, P P) bool: True in the cut-out square, but never at the patch's centre."""
    at = torch.arange(patch_size, device=cut.device)
    row = (at >= cut[:, 0:1]) & (at < cut[:, 1:2])
    col = (at >= cut[:, 2:3]) & (at < cut[:, 3:4])
    inside = (row.unsqueeze(2) & col.unsqueeze(1)).flatten(1)
    inside[:, (patch_size - 1) // 2 * (patch_size + 1)] = False
    return inside
