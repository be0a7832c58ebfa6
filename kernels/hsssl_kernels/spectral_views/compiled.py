"""Both views by compiled loops, samples shared among threads: a value is read once and written once.

They have the bits of the reference and of the Triton kernel, noise included.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import torch
from torch import Tensor

from hsssl_kernels.pages import empty_again
from hsssl_kernels.parallel import ALONE, Team, run_apart, run_loop
from hsssl_kernels.random import stream_key
from hsssl_kernels.spectral_views.draws import cosines
from hsssl_kernels.spectral_views.spec import ViewSpec
from hsssl_kernels.spectral_views.strengths import Strengths, strengths_of

__all__ = ["spectral_views_compiled", "view_maker"]

# Values of a view that are worth a start of threads, and the turns that each takes of them.
_PART, _TURNS = 1 << 16, 4
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
    batch = len(centres)
    shape = batch, cube.shape[2], patch_size, patch_size
    strengths = strengths_of(spec, cube.shape[2], patch_size)
    make = view_maker(cube, centres, mean, scale, strengths, stream_key(seed, step), sample_ids, valid)
    views = [empty_again(shape, dtype, cube.device) for _ in range(2)]
    threads = torch.get_num_threads() if views[0].numel() >= _PART else 1
    # several turns a thread, so that one held up by another program leaves work to the others
    size = max(1, -(-batch // (_TURNS * threads)))
    if dtype == torch.float32:
        run_loop(make(slice(0, batch), *views, size), threads)
        return views[0], views[1]

    def part(samples: slice) -> None:
        a, b = (torch.empty(samples.stop - samples.start, *shape[1:]) for _ in views)
        make(samples, a, b)(ALONE)
        for view, wide in zip(views, (a, b), strict=True):
            view[samples] = wide

    size = min(size, _NARROWED)
    run_apart(part, [slice(i, min(i + size, batch)) for i in range(0, batch, size)], threads)
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
) -> Callable[..., Callable[[Team], None]]:
    """Return ``make(samples, a, b, size)``, whose result is the loop that writes both views of some samples.

    They are (n, C, P, P) in float32; a thread takes ``size`` samples at once, all of them if not said.
    """
    from hsssl_kernels.spectral_views.loops import make_views, typed

    ids = torch.arange(len(centres)) if sample_ids is None else sample_ids
    void = torch.empty(0, dtype=torch.bool) if valid is None else valid.reshape(-1)
    every = [x.contiguous().numpy() for x in (cube, void, mean, scale, cosines(cube.shape[2], cube.device))]
    said, places, names = typed(strengths), centres.contiguous().numpy(), ids.contiguous().numpy()

    def make(samples: slice, a: Tensor, b: Tensor, size: int = sys.maxsize) -> Callable[[Team], None]:
        pair = (x.flatten(2).numpy() for x in (a, b))
        taken = torch.zeros(1, dtype=torch.int64).numpy()
        size = min(size, samples.stop - samples.start)
        given = taken, size, *every, said, key, places[samples], names[samples], *pair
        return lambda team: make_views(team, *given)

    return make
