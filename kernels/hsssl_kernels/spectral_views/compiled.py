"""Both views by compiled loops, samples shared among threads: a value is read once and written once.

They have the bits of the reference and of the Triton kernel, noise included.
"""

from __future__ import annotations

from math import prod

import torch
from torch import Tensor

from hsssl_kernels.pages import empty_again
from hsssl_kernels.parallel import run_loop
from hsssl_kernels.random import stream_key
from hsssl_kernels.spectral_views.arguments import Recipe
from hsssl_kernels.spectral_views.draws import cosines
from hsssl_kernels.spectral_views.spec import ViewSpec
from hsssl_kernels.spectral_views.strengths import strengths_of

__all__ = ["recipe_of", "spectral_views_compiled"]

# Values of a view that are worth a start of threads, and the turns that each takes of them.
_PART, _TURNS = 1 << 16, 4
# Values of a view that are made before they are narrowed to 16 bits.
_NARROWED = 1 << 20


def spectral_views_compiled(
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
    from hsssl_kernels.spectral_views.loops import make_views

    shape = len(centres), cube.shape[2], patch_size, patch_size
    recipe = recipe_of(
        cube, centres, mean, scale, spec, patch_size, stream_key(seed, step), sample_ids, valid
    )
    views = [empty_again(shape, dtype, cube.device) for _ in range(2)]
    threads = torch.get_num_threads() if views[0].numel() >= _PART else 1
    wide, count = views, shape[0]
    if dtype != torch.float32:
        count = max(1, min(count, _NARROWED // max(1, prod(shape[1:]))))
        wide = [torch.empty(count, *shape[1:]) for _ in views]
    # several turns a thread, so that one held up by another program leaves work to the others
    size = max(1, -(-count // (_TURNS * threads)))
    for first in range(0, shape[0], max(1, count)):
        some = slice(first, min(first + count, shape[0]))
        taken = torch.zeros(1, dtype=torch.int64)
        given = taken.numpy(), size, recipe.some(some), *(x.flatten(2).numpy() for x in wide)
        run_loop(make_views, given, threads)
        if wide is not views:
            for view, made in zip(views, wide, strict=True):
                view[some] = made[: some.stop - first]
    return views[0], views[1]


def recipe_of(
    cube: Tensor,
    centres: Tensor,
    mean: Tensor,
    scale: Tensor,
    spec: ViewSpec,
    patch_size: int,
    key: int,
    sample_ids: Tensor | None,
    valid: Tensor | None,
) -> Recipe:
    """Return what the loops make views from."""
    from hsssl_kernels.spectral_views.loops import typed

    ids = torch.arange(len(centres)) if sample_ids is None else sample_ids
    void = torch.empty(0, dtype=torch.bool) if valid is None else valid.reshape(-1)
    return Recipe(
        cube=cube.contiguous().numpy(),
        valid=void.contiguous().numpy(),
        mean=mean.contiguous().numpy(),
        scale=scale.contiguous().numpy(),
        cosines=cosines(cube.shape[2], cube.device).numpy(),
        strengths=typed(strengths_of(spec, cube.shape[2], patch_size)),
        key=key,
        centres=centres.contiguous().numpy(),
        samples=ids.contiguous().numpy(),
    )
