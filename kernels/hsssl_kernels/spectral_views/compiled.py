"""Both views by compiled loops, samples shared among threads: a value is read once and written once.

They have the bits of the reference and of the Triton kernel, noise included.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from hsssl_kernels.pages import empty_again
from hsssl_kernels.parallel import run_apart
from hsssl_kernels.random import stream_key
from hsssl_kernels.spectral_views.draws import cosines
from hsssl_kernels.spectral_views.spec import ViewSpec
from hsssl_kernels.spectral_views.strengths import Strengths, strengths_of

__all__ = ["spectral_views_compiled", "view_maker"]

# Values of a view that are worth a thread's start.
_PART = 1 << 18
# Views made before they are narrowed to 16 bits.
_NARROWED = 8


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
    batch, shape = len(centres), (len(centres), cube.shape[2], patch_size, patch_size)
    strengths = strengths_of(spec, cube.shape[2], patch_size)
    make = view_maker(cube, centres, mean, scale, strengths, stream_key(seed, step), sample_ids, valid)
    views = [empty_again(shape, dtype, cube.device) for _ in range(2)]

    def part(samples: slice) -> None:
        for block in _blocks(samples, dtype):
            pair = [view[block] for view in views]
            wide = [x if dtype == torch.float32 else torch.empty(x.shape) for x in pair]
            make(block, *wide)
            if dtype != torch.float32:
                for x, y in zip(pair, wide, strict=True):
                    x.copy_(y)

    threads = torch.get_num_threads()
    # two parts a thread, so that one held up by another program leaves work to the others
    parts = 2 * threads if threads > 1 and views[0].numel() >= threads * _PART else 1
    size = max(1, -(-batch // parts))
    slices = [slice(i, min(i + size, batch)) for i in range(0, batch, size)]
    run_apart(part, slices, threads, here_too=dtype == torch.float32)  # torch narrows
    return views[0], views[1]


def view_maker(
    cube: Tensor,
    centres: Tensor,
    mean: Tensor,
    scale: Tensor,
    strengths: Strengths,
    key: int,
    sample_ids: Tensor | None,
    valid: Tensor | None,
) -> Callable[[slice, Tensor, Tensor], None]:
    """Return ``make(samples, a, b)``, which writes both views (n, C, P, P) of some samples, in float32."""
    from hsssl_kernels.spectral_views.loops import make_views, typed

    ids = torch.arange(len(centres)) if sample_ids is None else sample_ids
    void = torch.empty(0, dtype=torch.bool) if valid is None else valid.reshape(-1)
    every = [x.contiguous().numpy() for x in (cube, void, mean, scale, cosines(cube.shape[2], cube.device))]
    said, places, names = typed(strengths), centres.contiguous().numpy(), ids.contiguous().numpy()

    def make(samples: slice, a: Tensor, b: Tensor) -> None:
        make_views(
            *every, said, key, places[samples], names[samples], *(x.flatten(2).numpy() for x in (a, b))
        )

    return make


def _blocks(samples: slice, dtype: torch.dtype) -> list[slice]:
    """Return the samples of a part, a few at a time if their views are narrowed."""
    if dtype == torch.float32:
        return [samples]
    starts = range(samples.start, samples.stop, _NARROWED)
    return [slice(i, min(i + _NARROWED, samples.stop)) for i in starts]
