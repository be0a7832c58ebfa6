"""Both views in blocks of samples that stay in the cache: every value passes through memory once.

A block is gathered as raw numbers, bands last, made a view there, turned to bands first and written.
Dropped bands cost nothing, as their slope and level are 0; smoothing, cut-outs and invalid pixels
cost what they touch.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from hsssl_kernels.pages import empty_again
from hsssl_kernels.parallel import run_apart
from hsssl_kernels.random import stream_key
from hsssl_kernels.spectral_views.draws import NOTHING, Draws, choose, draw_words
from hsssl_kernels.spectral_views.noise import noise_table
from hsssl_kernels.spectral_views.plan import Block, Scene, plan
from hsssl_kernels.spectral_views.spec import ViewSpec

__all__ = ["spectral_views_blocked"]

# Values of a block: 0.8 MB in float32 on a CPU; elsewhere launches cost more than passes.
_BLOCK, _LARGE_BLOCK = 3 << 16, 1 << 26
# Values of a view that are worth a thread's start.
_PART = 1 << 20


class _Line(NamedTuple):
    """A view (P P, C) as one line of values, cut once for all views made in its place."""

    left: Tensor  # all but the last
    right: Tensor  # all but the first
    inner: Tensor
    edges: Tensor  # (P P, 2), first and last band of each pixel


class _Memory(NamedTuple):
    """Where n views are made."""

    taken: Tensor  # (n P P, C), raw numbers; of float32 the same memory as x
    x: Tensor  # (n, P P, C) float32
    spare: Tensor  # as x
    lines: list[_Line]


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
    same, values = spec == ViewSpec.none(), bands * patch_size**2
    table = noise_table(bands, patch_size**2, cube.device) if spec.noise else None
    # torch indexes no uint16, but its bits
    raw = (cube.view(torch.int16) if cube.dtype == torch.uint16 else cube).reshape(-1, bands)
    scene = Scene(cube, raw, mean, scale, valid, spec.noise, table, patch_size)
    words = None if same else draw_words(ids, stream_key(seed, step))
    shape = (batch, bands, patch_size, patch_size)
    views = [empty_again(shape, dtype, cube.device) for _ in range(2)]

    def part(samples: slice) -> None:
        targets = [view[samples].flatten(2) for view in views]
        if words is None:
            _write(scene, NOTHING, centres[samples], targets[:1])
            targets[1].copy_(targets[0])
        else:
            drawn = choose(spec, words[:, :, samples].flatten(1), bands, patch_size)
            _write(scene, drawn, centres[samples].repeat(2, 1), targets)

    threads = torch.get_num_threads() if cube.device.type == "cpu" else 1
    # two parts a thread, so that one held up by another program leaves work to the others
    parts = 2 * threads if threads > 1 and 2 * batch * values >= threads * _PART else 1
    size = max(1, -(-batch // parts))
    run_apart(part, [slice(i, min(i + size, batch)) for i in range(0, batch, size)], threads)
    return views[0], views[1]


def _write(scene: Scene, drawn: Draws, centres: Tensor, targets: list[Tensor]) -> None:
    """Write one or two views (B, C, P P) of the same samples block by block."""
    batch, bands, pixels = targets[0].shape
    most = _BLOCK if centres.device.type == "cpu" else _LARGE_BLOCK
    size = max(1, min(batch, most // (bands * pixels)))
    places = [place for target in targets for place in torch.split(target, size)]
    blocks = plan(scene, drawn, centres, [len(place) for place in places])
    memory = {n: _memory(scene.raw, n, pixels) for n in {len(place) for place in places}}
    for block, place in zip(blocks, places, strict=True):
        _fill(scene, block, memory[len(place)])
        place.copy_(_bands_first(memory[len(place)].x))


def _memory(raw: Tensor, n: int, pixels: int) -> _Memory:
    bands = raw.shape[1]
    x, spare = torch.empty(2, n, pixels, bands, dtype=torch.float32, device=raw.device)
    taken = x.view(-1, bands) if raw.dtype == x.dtype else raw.new_empty(n * pixels, bands)
    lines = []
    for view in x if bands > 1 else ():
        line = view.view(-1)
        lines.append(_Line(line[:-1], line[1:], line[1:-1], view[:, :: bands - 1]))
    return _Memory(taken, x, spare, lines)


def _fill(scene: Scene, block: Block, memory: _Memory) -> None:
    """Make the views of a block in ``memory.x``."""
    taken, x, spare, lines = memory
    pixels = x.view(-1, x.shape[2])
    torch.index_select(scene.raw, 0, block.pixel, out=taken)
    if taken.dtype != x.dtype:
        pixels.copy_(taken.view(scene.cube.dtype))
    x -= scene.mean
    if block.level is None:
        x *= block.slope
    else:
        torch.addcmul(block.level, x, block.slope, out=x)
    for i, bands in block.smooth:
        _smooth(lines[i], spare.view(-1), x[i], bands)
    if scene.table is not None and block.noise is not None and block.sigma is not None:
        torch.index_select(scene.table, 0, block.noise, out=spare.view_as(pixels))
        x.addcmul_(spare, block.sigma)
    if block.dropped is not None:
        x.masked_fill_(block.dropped, 0.0)  # 0 times NaN is NaN
    if block.gone is not None:
        # by number: assigning through a mask costs thirty times as much
        pixels.index_fill_(0, block.gone, 0.0)


def _smooth(line: _Line, spare: Tensor, x: Tensor, kept: Tensor | None) -> None:
    """Replace a view x (P P, C) by four times its bands smoothed by (1, 2, 1) / 4, where ``kept``."""
    # Sums of neighbours, twice, along all of the memory: ten times as fast as band by band. What mixes
    # two pixels are the edge bands, for each of which itself stands in for the one it lacks.
    pixels, bands = x.shape
    sums = torch.add(line.left, line.right, out=spare[: len(line.left)])
    edges = torch.add(sums.as_strided((pixels, 2), (bands, bands - 2)), line.edges, alpha=2)
    torch.add(sums[1:], sums[:-1], out=line.inner)
    line.edges.copy_(edges)
    if kept is not None:
        x *= kept


def _bands_first(x: Tensor) -> Tensor:
    """Return x (n, P P, C) as (n, C, P P)."""
    n, pixels, bands = x.shape
    if x.device.type != "cpu" or min(pixels, bands) == 1:
        return x.transpose(1, 2)
    # Shuffling the "channels" (pixel, band) of n channels-last points in groups of a pixel each is this
    # transposition, with vector instructions: a third of the time of copying by strides.
    points = x.view(1, n, 1, pixels * bands).permute(0, 3, 1, 2)
    return torch.native_channel_shuffle(points, pixels).permute(0, 2, 3, 1).view(n, bands, pixels)
