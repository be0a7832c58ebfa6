"""What makes each block of views, worked out for many views at once: a block then takes few calls.

Threads of Python hold each other up at every call, and short calls cost more than what they do.
"""

from __future__ import annotations

from bisect import bisect_right
from itertools import accumulate
from typing import NamedTuple

import torch
from torch import Tensor

from hsssl_kernels.spectral_views.draws import Draws, affine
from hsssl_kernels.spectral_views.noise import noise_rows
from hsssl_kernels.spectral_views.patch import inside_cut, patch_pixels, view_centres

__all__ = ["Block", "Scene", "plan"]


class Scene(NamedTuple):
    """What all views are made of."""

    cube: Tensor  # (rows, cols, C)
    raw: Tensor  # (rows cols, C), its bits in a dtype that torch can index
    mean: Tensor  # (C,)
    scale: Tensor  # (C,)
    valid: Tensor | None  # (rows, cols) bool
    sigma: float  # of the noise
    table: Tensor | None  # (R, C), of the noise
    patch_size: int


class Block(NamedTuple):
    """What makes n views; (1, 1, C) or (1, 1, 1) where all have the same."""

    pixel: Tensor  # (n P P,) int64
    slope: Tensor  # (n, 1, C), as the level
    level: Tensor | None
    smooth: list[tuple[int, Tensor | None]]  # views to be smoothed, and 1 for their bands kept, (C,)
    noise: Tensor | None  # (n P P,) int64, rows of the table
    sigma: Tensor | None  # (n, 1, C), of the noise
    dropped: Tensor | None  # (n, 1, C) bool, where values may be NaN
    gone: Tensor | None  # (m,) int64, pixels to be 0


def plan(scene: Scene, drawn: Draws, centres: Tensor, sizes: list[int]) -> list[Block]:
    """Return blocks of these ``sizes`` from what is drawn for as many views around ``centres``."""
    pixels = scene.patch_size**2
    if scene.cube.shape[2] == 1:  # a band alone is smooth
        drawn = drawn._replace(smooth=None)
    at = view_centres(centres, drawn.shift, scene.valid)
    pixel = patch_pixels(scene.cube.shape[:2], at, scene.patch_size, drawn.symmetry)
    slope, level = _affine(scene, drawn)
    noise = sigma = dropped = None
    if scene.table is not None and drawn.table is not None:
        noise = noise_rows(drawn.table, pixels, len(scene.table)).view(-1)
        sigma = torch.full((1, 1), scene.sigma, dtype=torch.float32, device=at.device)
        sigma = (sigma if drawn.keep is None else drawn.keep * sigma).unsqueeze(1)
    if drawn.keep is not None and scene.cube.is_floating_point():
        dropped = ~drawn.keep.unsqueeze(1)
    rows = [n * pixels for n in sizes]
    each = (
        torch.split(pixel.view(-1), rows),
        _split(slope.unsqueeze(1), sizes),
        _split(None if level is None else level.unsqueeze(1), sizes),
        _smoothed(drawn, sizes),
        _split(noise, rows),
        _split(sigma, sizes),
        _split(dropped, sizes),
        _gone(scene, drawn, pixel, rows),
    )
    return [Block(*block) for block in zip(*each, strict=True)]


def _split(x: Tensor | None, sizes: list[int]) -> tuple[Tensor | None, ...]:
    return (x,) * len(sizes) if x is None or len(x) == 1 else torch.split(x, sizes)


def _affine(scene: Scene, drawn: Draws) -> tuple[Tensor, Tensor | None]:
    """Return slope and level; 0 in dropped bands, and a quarter where `Block.smooth` adds four up."""
    slope, level = affine(drawn, scene.mean, scene.scale)
    factor = None
    if drawn.keep is not None:
        # smoothing looks at dropped neighbours, so these go after it
        kept = drawn.keep if drawn.smooth is None else drawn.keep | drawn.smooth.unsqueeze(1)
        factor = kept.to(torch.float32)
    if drawn.smooth is not None:
        quarter = 1 - 0.75 * drawn.smooth.to(torch.float32).unsqueeze(1)
        factor = quarter if factor is None else factor.mul_(quarter)
    if factor is None:
        return slope, level
    return slope * factor, None if level is None else level * factor


def _smoothed(drawn: Draws, sizes: list[int]) -> list[list[tuple[int, Tensor | None]]]:
    """Return `Block.smooth` of every block."""
    found: list[list[tuple[int, Tensor | None]]] = [[] for _ in sizes]
    if drawn.smooth is not None:
        which, ends = drawn.smooth.nonzero().squeeze(1), list(accumulate(sizes))
        kept: list[Tensor | None] = [None] * len(which)
        if drawn.keep is not None:
            kept = list(drawn.keep.index_select(0, which).to(torch.float32).unbind(0))
        for view, bands in zip(which.tolist(), kept, strict=True):
            block = bisect_right(ends, view)
            found[block].append((view - ends[block] + sizes[block], bands))
    return found


def _gone(scene: Scene, drawn: Draws, pixel: Tensor, rows: list[int]) -> list[Tensor | None]:
    """Return `Block.gone` of every block, of which each has so many pixels."""
    gone = None if drawn.cut is None else inside_cut(drawn.cut, scene.patch_size)
    if scene.valid is not None:
        void = ~scene.valid.reshape(-1)[pixel]
        gone = void if gone is None else gone | void
    if gone is None:
        return [None] * len(rows)
    at = gone.view(-1).nonzero().squeeze(1)
    first = torch.tensor([0, *accumulate(rows)], device=at.device)
    block = torch.bucketize(at, first[1:], right=True)
    counts = torch.bincount(block, minlength=len(rows)).tolist()
    return [x if len(x) else None for x in torch.split(at - first[block], counts)]
