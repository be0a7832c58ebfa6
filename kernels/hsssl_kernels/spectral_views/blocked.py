"""Both views in blocks of samples that stay in the cache: every value passes through memory once.

A block is gathered as raw numbers, bands last, made a view there, turned to bands first and written.
Dropped bands cost nothing, as their slope and level are 0; smoothing, cut-outs and invalid pixels
cost what they touch.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from hsssl_kernels.random import stream_key
from hsssl_kernels.spectral_views.draws import affine, draw
from hsssl_kernels.spectral_views.noise import noise_rows, noise_table
from hsssl_kernels.spectral_views.pages import use_large_pages
from hsssl_kernels.spectral_views.parallel import run_apart
from hsssl_kernels.spectral_views.patch import inside_cut, patch_pixels
from hsssl_kernels.spectral_views.spec import ViewSpec

__all__ = ["spectral_views_blocked"]

# Values of a block: 1.5 MB in float32 on a CPU; elsewhere launches cost more than passes.
_BLOCK, _LARGE_BLOCK = 3 << 17, 1 << 26
# Values of a view that are worth a thread's start.
_PART = 1 << 20


class _Scene(NamedTuple):
    """What all views are made of."""

    raw: Tensor  # (rows cols, C), the cube
    mean: Tensor  # (C,)
    table: Tensor | None  # of the noise


class _Samples(NamedTuple):
    """What makes the views of n samples; (1, 1, C) or (1, 1, 1) where all have the same."""

    pixel: Tensor  # (n, P P) int64
    slope: Tensor  # (n, 1, C), as the level
    level: Tensor | None
    keep: Tensor | None  # (n, 1, C) bool
    smooth: Tensor | None  # (n,) bool
    noise: Tensor | None  # (n, P P) int64, rows of the table
    sigma: Tensor | None  # (n, 1, C), of the noise
    gone: Tensor | None  # (n, P P) bool, pixels to be 0

    def split(self, sizes: list[int]) -> list[_Samples]:
        """Return parts of these sizes."""
        each = [[x] * len(sizes) if x is None or len(x) == 1 else torch.split(x, sizes) for x in self]
        return [_Samples(*part) for part in zip(*each, strict=True)]


def spectral_views_blocked(
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
    batch, bands = len(centres), cube.shape[2]
    ids = torch.arange(batch, device=cube.device) if sample_ids is None else sample_ids
    key, values = stream_key(seed, step), bands * patch_size**2
    shape = (batch, bands, patch_size, patch_size)
    views = [use_large_pages(torch.empty(shape, dtype=dtype, device=cube.device)) for _ in range(2)]
    table = noise_table(bands, patch_size**2, cube.device) if spec.noise else None
    resident = _Scene(cube.reshape(-1, bands), mean, table)

    def part(samples: slice) -> None:
        here = ids[samples]
        drawn = _samples(cube, centres[samples], here, patch_size, mean, scale, spec, key, valid)
        _write(resident, drawn, [view[samples].flatten(2) for view in views], spec == ViewSpec.none())

    threads = torch.get_num_threads() if cube.device.type == "cpu" else 1
    # two parts a thread, so that one held up by another program leaves work to the others
    parts = 2 * threads if threads > 1 and 2 * batch * values >= threads * _PART else 1
    size = max(1, -(-batch // parts))
    run_apart(part, [slice(i, min(i + size, batch)) for i in range(0, batch, size)], threads)
    return views[0], views[1]


def _write(scene: _Scene, drawn: _Samples, views: list[Tensor], same: bool) -> None:
    """Write both views (B, C, P P) block by block; where they are the ``same``, copy the first."""
    batch, bands, pixels = views[0].shape
    most = _BLOCK if views[0].device.type == "cpu" else _LARGE_BLOCK
    size = max(1, min(batch, most // (bands * pixels)))
    memory = torch.empty(2, size, pixels, bands, dtype=torch.float32, device=views[0].device)
    # cut all at once, as calls of Python are what threads hold each other up with
    targets = [block for view in views[: 1 if same else 2] for block in torch.split(view, size)]
    for target, block in zip(targets, drawn.split([len(t) for t in targets]), strict=True):
        x, spare = memory if len(target) == size else memory[:, : len(target)]
        _fill(scene, block, x, spare)
        target.copy_(_bands_first(x))
    if same:
        views[1].copy_(views[0])


def _samples(
    cube: Tensor,
    centres: Tensor,
    ids: Tensor,
    patch_size: int,
    mean: Tensor,
    scale: Tensor,
    spec: ViewSpec,
    key: int,
    valid: Tensor | None,
) -> _Samples:
    """Draw what makes both views of the samples, view a first, or one view where both are the same."""
    drawn = draw(spec, ids, cube.shape[2], patch_size, key)
    both = centres if spec == ViewSpec.none() else centres.repeat(2, 1)
    both = both if drawn.shift is None else both + drawn.shift
    pixel = patch_pixels(cube.shape[:2], both, patch_size, drawn.symmetry)
    slope, level = affine(drawn, mean, scale)
    if drawn.keep is not None:
        # smoothing looks at dropped neighbours, so these go after it
        kept = drawn.keep if drawn.smooth is None else drawn.keep | drawn.smooth.unsqueeze(1)
        slope, level = slope * kept, None if level is None else level * kept
    gone = None if drawn.cut is None else inside_cut(drawn.cut, patch_size)
    if valid is not None:
        void = ~valid.reshape(-1)[pixel]
        gone = void if gone is None else gone | void
    noise = sigma = None
    if drawn.table is not None:
        table_rows = len(noise_table(cube.shape[2], patch_size**2, cube.device))
        noise = noise_rows(drawn.table, patch_size**2, table_rows)
        sigma = torch.full((1, 1), spec.noise, dtype=torch.float32, device=cube.device)
        sigma = sigma if drawn.keep is None else drawn.keep * sigma
    level, keep, sigma = (None if t is None else t.unsqueeze(1) for t in (level, drawn.keep, sigma))
    return _Samples(pixel, slope.unsqueeze(1), level, keep, drawn.smooth, noise, sigma, gone)


def _fill(scene: _Scene, drawn: _Samples, x: Tensor, spare: Tensor) -> None:
    """Write the views of some samples into x (n, P P, C); ``spare`` is memory of the same shape."""
    pixels = x.view(-1, x.shape[2])
    pixels.copy_(_gather(scene.raw, drawn.pixel.flatten()))
    x -= scene.mean
    if drawn.level is None:
        x *= drawn.slope
    else:
        torch.addcmul(drawn.level, x, drawn.slope, out=x)
    if drawn.smooth is not None:
        which = drawn.smooth.nonzero().squeeze(1)
        weight = 0.25 if drawn.keep is None else 0.25 * drawn.keep.index_select(0, which)
        x.index_copy_(0, which, _smooth(x.index_select(0, which)).mul_(weight))
    if scene.table is not None and drawn.noise is not None and drawn.sigma is not None:
        torch.index_select(scene.table, 0, drawn.noise.flatten(), out=spare.view_as(pixels))
        x.addcmul_(spare, drawn.sigma)
    if drawn.keep is not None and scene.raw.is_floating_point():
        x.masked_fill_(~drawn.keep, 0.0)  # 0 times NaN is NaN
    if drawn.gone is not None:
        # index_fill_ by number: assigning through a mask costs thirty times as much
        pixels.index_fill_(0, drawn.gone.flatten().nonzero().squeeze(1), 0.0)


def _gather(raw: Tensor, pixel: Tensor) -> Tensor:
    # torch indexes no uint16, but its bits
    bits = raw.view(torch.int16) if raw.dtype == torch.uint16 else raw
    return bits.index_select(0, pixel).view(raw.dtype)


def _smooth(x: Tensor) -> Tensor:
    """Return x (n, P P, C) smoothed by (1, 2, 1) over bands."""
    bands = x.shape[2]
    if bands == 1:
        return 4 * x
    # Sums of neighbours, twice, along all of the memory: ten times as fast as band by band. What mixes
    # two pixels are the edge bands, which come after.
    line, smooth = x.view(-1), torch.empty_like(x)
    sums = line[1:] + line[:-1]
    torch.add(sums[1:], sums[:-1], out=smooth.view(-1)[1:-1])
    # an edge band stands in for the one it lacks
    smooth[..., 0] = 3 * x[..., 0] + x[..., 1]
    smooth[..., -1] = 3 * x[..., -1] + x[..., -2]
    return smooth


def _bands_first(x: Tensor) -> Tensor:
    """Return x (n, P P, C) as (n, C, P P)."""
    n, pixels, bands = x.shape
    if x.device.type != "cpu" or min(pixels, bands) == 1:
        return x.transpose(1, 2)
    # Shuffling the "channels" (pixel, band) of n channels-last points in groups of a pixel each is this
    # transposition, with vector instructions: a third of the time of copying by strides.
    points = x.view(1, n, 1, pixels * bands).permute(0, 3, 1, 2)
    return torch.native_channel_shuffle(points, pixels).permute(0, 2, 3, 1).view(n, bands, pixels)
