"""Both views by compiled loops, samples shared among threads: a value is read once and written once.

They have the bits of the reference and of the Triton kernel, noise included.
"""

from __future__ import annotations

import torch
from torch import Tensor

from hsssl_kernels.pages import empty_again
from hsssl_kernels.parallel import run_apart
from hsssl_kernels.random import stream_key
from hsssl_kernels.spectral_views.draws import cosines
from hsssl_kernels.spectral_views.spec import ViewSpec
from hsssl_kernels.spectral_views.strengths import strengths_of

__all__ = ["spectral_views_compiled"]

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
    from hsssl_kernels.spectral_views.loops import make_views, typed

    batch, bands = len(centres), cube.shape[2]
    ids = torch.arange(batch) if sample_ids is None else sample_ids
    void = torch.empty(0, dtype=torch.bool) if valid is None else valid.reshape(-1)
    every = [x.contiguous().numpy() for x in (cube, void, mean, scale, cosines(bands, cube.device))]
    strengths, key = typed(strengths_of(spec, bands, patch_size)), stream_key(seed, step)
    places, names = centres.contiguous().numpy(), ids.contiguous().numpy()
    shape = (batch, bands, patch_size, patch_size)
    views = [empty_again(shape, dtype, cube.device) for _ in range(2)]

    def part(samples: slice) -> None:
        for block in _blocks(samples, dtype):
            pair = [view[block].flatten(2) for view in views]
            wide = [x if dtype == torch.float32 else torch.empty(x.shape) for x in pair]
            make_views(*every, strengths, key, places[block], names[block], *(x.numpy() for x in wide))
            if dtype != torch.float32:
                for x, y in zip(pair, wide, strict=True):
                    x.copy_(y)

    threads = torch.get_num_threads()
    # two parts a thread, so that one held up by another program leaves work to the others
    parts = 2 * threads if threads > 1 and views[0].numel() >= threads * _PART else 1
    size = max(1, -(-batch // parts))
    run_apart(part, [slice(i, min(i + size, batch)) for i in range(0, batch, size)], threads)
    return views[0], views[1]


def _blocks(samples: slice, dtype: torch.dtype) -> list[slice]:
    """Return the samples of a part, a few at a time if their views are narrowed."""
    if dtype == torch.float32:
        return [samples]
    starts = range(samples.start, samples.stop, _NARROWED)
    return [slice(i, min(i + _NARROWED, samples.stop)) for i in starts]
