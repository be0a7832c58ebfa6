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

# Values of a block: 0.75 MB in float32 on a CPU; elsewhere launches cost more than passes.
_BLOCK, _LARGE_BLOCK = 3 << 16, 1 << 26
# Values of a view that are worth a thread's start.
_PART = 1 << 20


class _Plan(NamedTuple):
    """What a block reads: rows of 2 B, view a first, or one row for all."""

    raw: Tensor  # (rows cols, C), the cube
    pixel: Tensor  # (2B, P P) int64
    mean: Tensor  # (C,)
    slope: Tensor  # (2B, C) or (1, C), as the level
    level: Tensor | None
    keep: Tensor | None  # (2B, C) bool
    smooth: list[bool]  # 2B, or none
    sigma: Tensor  # (2B, C) or (1, 1), of the noise
    noise: Tensor | None  # (2B, P P) int64, rows of the table
    table: Tensor | None
    gone: Tensor | None  # (2B, P P) bool, pixels to be 0


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
    if spec.noise:
        noise_table(bands, patch_size**2, cube.device)  # made once, before the threads ask for it

    def part(samples: slice) -> None:
        here = ids[samples]
        plan = _plan(cube, centres[samples], here, patch_size, mean, scale, spec, key, valid)
        _write(plan, [view[samples].flatten(2) for view in views], spec == ViewSpec.none())

    threads = torch.get_num_threads() if cube.device.type == "cpu" else 1
    # two parts a thread, so that one held up by another program leaves work to the others
    parts = 2 * threads if threads > 1 and 2 * batch * values >= threads * _PART else 1
    size = max(1, -(-batch // parts))
    run_apart(part, [slice(i, min(i + size, batch)) for i in range(0, batch, size)], threads)
    return views[0], views[1]


def _write(plan: _Plan, views: list[Tensor], same: bool) -> None:
    """Write both views (B, C, P P) block by block; where they are the ``same``, copy the first."""
    batch, bands, pixels = views[0].shape
    most = _BLOCK if views[0].device.type == "cpu" else _LARGE_BLOCK
    size = max(1, min(batch, most // (bands * pixels)))
    memory = torch.empty(2, size, pixels, bands, dtype=torch.float32, device=views[0].device)
    for i, view in enumerate(views[: 1 if same else 2]):
        for first in range(0, batch, size):
            last = min(first + size, batch)
            x, spare = memory[:, : last - first]
            _fill(plan, slice(i * batch + first, i * batch + last), x, spare)
            view[first:last] = _bands_first(x)
    if same:
        views[1].copy_(views[0])


def _plan(
    cube: Tensor,
    centres: Tensor,
    ids: Tensor,
    patch_size: int,
    mean: Tensor,
    scale: Tensor,
    spec: ViewSpec,
    key: int,
    valid: Tensor | None,
) -> _Plan:
    bands = cube.shape[2]
    drawn = draw(spec, ids, bands, patch_size, key)
    both = centres if spec == ViewSpec.none() else centres.repeat(2, 1)
    both = both if drawn.shift is None else both + drawn.shift
    pixel = patch_pixels(cube.shape[:2], both, patch_size, drawn.symmetry)
    slope, level = affine(drawn, mean, scale)
    sigma = torch.full((1, 1), spec.noise, dtype=torch.float32, device=cube.device)
    if drawn.keep is not None:
        sigma = drawn.keep * sigma
        # smoothing looks at dropped neighbours, so these go after it
        kept = drawn.keep if drawn.smooth is None else drawn.keep | drawn.smooth.unsqueeze(1)
        slope, level = slope * kept, None if level is None else level * kept
    gone = None if drawn.cut is None else inside_cut(drawn.cut, patch_size)
    if valid is not None:
        void = ~valid.reshape(-1)[pixel]
        gone = void if gone is None else gone | void
    noise = table = None
    if drawn.table is not None:
        table = noise_table(bands, patch_size**2, cube.device)
        noise = noise_rows(drawn.table, patch_size**2, len(table))
    raw = cube.reshape(-1, bands)
    smooth = [] if drawn.smooth is None else drawn.smooth.tolist()
    return _Plan(raw, pixel, mean, slope, level, drawn.keep, smooth, sigma, noise, table, gone)


def _fill(plan: _Plan, rows: slice, x: Tensor, spare: Tensor) -> None:
    """Write the views of some rows into x (n, P P, C); ``spare`` is memory of the same shape."""
    _gather(plan.raw, plan.pixel[rows], x)
    x -= plan.mean
    slope = _rows(plan.slope, rows)
    if plan.level is None:
        x *= slope
    else:
        torch.addcmul(_rows(plan.level, rows), x, slope, out=x)
    for i, smooth in enumerate(plan.smooth[rows]):
        if smooth:
            _smooth(x[i], None if plan.keep is None else plan.keep[rows.start + i], spare[0])
    if plan.table is not None and plan.noise is not None:
        torch.index_select(plan.table, 0, plan.noise[rows].flatten(), out=spare.view(-1, x.shape[2]))
        x.addcmul_(spare, _rows(plan.sigma, rows))
    if plan.keep is not None and plan.raw.is_floating_point():
        x.masked_fill_(~plan.keep[rows].unsqueeze(1), 0.0)  # 0 times NaN is NaN
    if plan.gone is not None:
        # index_fill_ by number: assigning through a mask costs thirty times as much
        x.view(-1, x.shape[2]).index_fill_(0, plan.gone[rows].flatten().nonzero().squeeze(1), 0.0)


def _rows(x: Tensor, rows: slice) -> Tensor:
    return (x if len(x) == 1 else x[rows]).unsqueeze(1)


def _gather(raw: Tensor, pixel: Tensor, x: Tensor) -> None:
    # torch indexes no uint16, but its bits
    bits = raw.view(torch.int16) if raw.dtype == torch.uint16 else raw
    x.view(-1, raw.shape[1]).copy_(bits.index_select(0, pixel.flatten()).view(raw.dtype))


def _smooth(x: Tensor, keep: Tensor | None, spare: Tensor) -> None:
    """Smooth x (P P, C) by (1, 2, 1) / 4 over bands in place: sums of neighbours, twice; then drop bands."""
    bands = x.shape[1]
    if bands > 1:
        sums = torch.add(x[:, :-1], x[:, 1:], out=spare.view(-1)[: x[:, 1:].numel()].view_as(x[:, 1:]))
        # an edge band stands in for the one it lacks; the slices are both edges at once
        x[:, :: bands - 1].mul_(2).add_(sums[:, :: max(1, bands - 2)])
        torch.add(sums[:, :-1], sums[:, 1:], out=x[:, 1:-1])
        x *= 0.25 if keep is None else 0.25 * keep
    elif keep is not None:
        x *= keep


def _bands_first(x: Tensor) -> Tensor:
    """Return x (n, P P, C) as (n, C, P P)."""
    n, pixels, bands = x.shape
    if x.device.type != "cpu" or min(pixels, bands) == 1:
        return x.transpose(1, 2)
    # Shuffling the "channels" (pixel, band) of n channels-last points in groups of a pixel each is this
    # transposition, with vector instructions: a third of the time of copying by strides.
    points = x.view(1, n, 1, pixels * bands).permute(0, 3, 1, 2)
    return torch.native_channel_shuffle(points, pixels).permute(0, 2, 3, 1).view(n, bands, pixels)
