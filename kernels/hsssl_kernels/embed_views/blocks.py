"""Both passes block by block: views of some samples are made, used, and overwritten by the next ones.

Forward and backward make the same views: what is drawn depends on seed, step and sample alone.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from hsssl_kernels.checks import compute_dtype
from hsssl_kernels.embed_views.source import Source, run_parts
from hsssl_kernels.pages import empty_again
from hsssl_kernels.spectral_patch_embed.grouping import group_visible
from hsssl_kernels.spectral_patch_embed.registered import embed, weight_grad
from hsssl_kernels.spectral_patch_embed.work import Work
from hsssl_kernels.spectral_views.paths import views_by
from hsssl_kernels.spectral_views.spec import ViewSpec

__all__ = ["embed_in_blocks", "grad_in_blocks"]

# Values of both views of a block: 8 MB in float32 on a CPU, where smaller blocks draw too often; elsewhere
# 32 MB in bfloat16, which the second-level cache of a large GPU holds.
_VALUES, _LARGE = 2**21, 2**24


def embed_in_blocks(
    source: Source, weight: Tensor, table: Tensor | None, backend: str
) -> tuple[Tensor, Tensor]:
    """Return tokens (B, V, D) of view a and of view b."""
    shape = (len(source.centres), source.tokens, weight.shape[1])
    tokens = [empty_again(shape, weight.dtype, weight.device) for _ in range(2)]

    @torch.no_grad()  # the mode is a thread's own
    def part(samples: slice) -> None:
        for view, block, work in _blocks(source, samples, weight.dtype, len(weight) > 1, backend):
            tokens[view][block] = embed(*work, weight, table, None, None, 0.0, False, backend)[0]

    run_parts(source, part, alone=backend == "triton")
    return tokens[0], tokens[1]


def grad_in_blocks(
    source: Source, pair: tuple[Tensor, Tensor], grouped: bool, rows: int, backend: str
) -> tuple[Tensor, Tensor]:
    """Return gradients by the weight (1 or G, D, K) and by the table (rows, D), from two of (B, V, D)."""
    gradient = pair[0]
    dim, wide = gradient.shape[2], compute_dtype(gradient)
    groups = source.groups if grouped else 1
    by_weight = gradient.new_zeros(groups, dim, source.patch**2 * source.group, dtype=wide)
    by_table = gradient.new_zeros(rows, dim, dtype=wide)
    found: dict[int, tuple[Tensor, Tensor]] = {}

    @torch.no_grad()
    def part(samples: slice) -> None:
        sums = torch.zeros_like(by_weight), torch.zeros_like(by_table)
        for view, block, work in _blocks(source, samples, gradient.dtype, grouped, backend):
            more = weight_grad(*work, pair[view][block], grouped, rows, backend)
            for total, one in zip(sums, more, strict=True):
                total += one
        found[samples.start] = sums

    run_parts(source, part, alone=backend == "triton")
    for first in sorted(found):  # in order: the same bits every time
        by_weight += found[first][0]
        by_table += found[first][1]
    return by_weight, by_table


def _blocks(
    source: Source, samples: slice, dtype: torch.dtype, grouped: bool, backend: str
) -> Iterator[tuple[int, slice, Work]]:
    """Yield which view, samples, and their views as `spectral_patch_embed` takes them."""
    make = views_by(backend, source.cube)
    cube, ids = source.cube, source.ids
    ids = torch.arange(len(source.centres), device=cube.device) if ids is None else ids
    most = _VALUES if cube.device.type == "cpu" else _LARGE
    size = max(1, most // (2 * cube.shape[2] * source.patch_size**2))
    for first in range(samples.start, samples.stop, size):
        block = slice(first, min(first + size, samples.stop))
        pair = make(
            cube,
            source.centres[block],
            patch_size=source.patch_size,
            mean=source.mean,
            scale=source.scale,
            spec=ViewSpec.of(source.strengths),
            seed=source.seed,
            step=source.step,
            sample_ids=ids[block],
            valid=source.valid,
            # plain torch computes tokens in float32 whatever the weight's dtype is
            dtype=dtype if backend == "triton" else torch.float32,
        )
        for i, x in enumerate(pair):
            visible = order = starts = None
            if source.visible is not None:
                visible = source.visible[i, block]
                if grouped:
                    order, starts = group_visible(visible, source.groups, source.space)
            x = x.permute(0, 2, 3, 1)
            yield i, block, Work(x, None, None, None, visible, order, starts, source.patch, source.group, 0)
