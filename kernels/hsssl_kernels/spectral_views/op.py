"""The public op: two band-aware views of every patch, cut from the cube where it lies."""

from __future__ import annotations

import torch
from torch import Tensor

from hsssl_kernels.dispatch import Backend, choose_backend, register, send
from hsssl_kernels.spectral_views.checks import check_centres, check_views
from hsssl_kernels.spectral_views.paths import views_by
from hsssl_kernels.spectral_views.spec import ViewSpec

__all__ = ["spectral_views"]


def spectral_views(
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
    backend: Backend = "auto",
) -> tuple[Tensor, Tensor]:
    """Cut a patch around every centre and return two independently augmented views of it.

    With raw numbers x, gain g, offset o and noise e of a view,
    ``view = keep * (smooth((x g - mean) scale + o) + e)``, where ``keep`` is 0 in dropped bands,
    cut-out and invalid pixels. What varies, and how strongly, is said by `ViewSpec`. Patches
    are mirrored at the scene's border. Views have no gradient.

    The random numbers come from counters: Philox keyed by ``(seed, step)``, counting samples by their
    id, views and elements. So a resumed run draws what the unbroken one would have drawn, and a
    sample with an id of its own gets the same views wherever it stands in a batch. What is drawn per
    sample or band has the same bits on every device, and so has the white noise, one number for each
    element, with Triton and with loops compiled by Numba. Without Numba each pixel takes a row of a fixed
    table of about a million normal numbers instead, the first row and the step between rows drawn
    for each view: the same distribution, but two views in a batch may share rows at different pixels.

    Parameters
    ----------
    cube : Tensor, shape (rows, cols, bands)
        Resident cube, bands last: uint8, int16, uint16, int32 or float raw numbers. On a GPU views of one
        that `resident_cube` has put there are made fastest.
    centres : Tensor, shape (B, 2), int64
        Row and column of each patch's centre, on the cube's device or on the CPU. On a GPU their check
        waits for the device; on the CPU it does not.
    patch_size : int
        Side of the patch in pixels; an even patch reaches one pixel further down and right.
    mean, scale : Tensor, shape (bands,), floating point
        Normalisation of each band: (x - mean) * scale, in float32.
    spec : ViewSpec
        Strengths of the augmentations.
    seed, step : int
        Key of the random stream.
    sample_ids : Tensor, shape (B,), int64, optional
        What names each sample in the random stream; None takes its position in the batch.
    valid : Tensor, shape (rows, cols), bool, optional
        Pixels where it is False are 0 in the views, whatever the cube holds there.
    dtype : torch.dtype
        float32, float16 or bfloat16 views; computed in float32.
    backend : {"auto", "triton", "torch"}
        "auto" is Triton on CUDA and ROCm, "torch" elsewhere. That is loops compiled by Numba, at the first
        call of each dtype, for a cube on the CPU that is not float16; blocked torch elsewhere, or
        without Numba.

    Returns
    -------
    view_a, view_b : Tensor, shape (B, bands, patch_size, patch_size), ``dtype``
        The two views, on the cube's device. On the CPU of a Linux machine the memory of the last four views
        or tokens of 4 MiB or more that are gone, up to 1 GiB, is kept for the next ones.

    Raises
    ------
    ValueError, TypeError
        If shapes, dtypes or devices disagree, a centre lies outside, or the patch is larger than the scene.

    References
    ----------
    Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3", doi:10.1145/2063384.2063405.

    Examples
    --------
    >>> cube = torch.rand(32, 32, 100)
    >>> a, b = spectral_views(cube, torch.tensor([[4, 5]]), patch_size=7, mean=cube.mean((0, 1)),
    ...                       scale=1 / cube.std((0, 1)), spec=ViewSpec(), seed=0, step=0)
    >>> a.shape
    torch.Size([1, 100, 7, 7])
    """
    check_views(cube, centres, patch_size, mean, scale, spec, seed, step, sample_ids, valid, dtype)
    chosen = choose_backend("spectral_views", backend, torch.empty(1, dtype=dtype, device=cube.device))
    cube, mean, scale = cube.detach(), mean.detach(), scale.detach()
    a, b = _op(
        cube, centres, mean, scale, sample_ids, valid, patch_size, spec.strengths(), seed, step, dtype, chosen
    )
    return a, b


def _views(
    cube: Tensor,
    centres: Tensor,
    mean: Tensor,
    scale: Tensor,
    sample_ids: Tensor | None,
    valid: Tensor | None,
    patch_size: int,
    strengths: list[float],
    seed: int,
    step: int,
    dtype: torch.dtype,
    backend: str,
) -> tuple[Tensor, Tensor]:
    check_centres(cube, centres)
    return views_by(backend, cube)(
        cube,
        send(centres, cube.device),
        patch_size=patch_size,
        mean=mean.to(torch.float32),
        scale=scale.to(torch.float32),
        spec=ViewSpec.of(strengths),
        seed=seed,
        step=step,
        sample_ids=None if sample_ids is None else send(sample_ids, cube.device),
        valid=valid,
        dtype=dtype,
    )


def _views_fake(
    cube: Tensor,
    centres: Tensor,
    mean: Tensor,
    scale: Tensor,
    sample_ids: Tensor | None,
    valid: Tensor | None,
    patch_size: int,
    strengths: list[float],
    seed: int,
    step: int,
    dtype: torch.dtype,
    backend: str,
) -> tuple[Tensor, Tensor]:
    shape = (centres.shape[0], cube.shape[2], patch_size, patch_size)
    return cube.new_empty(shape, dtype=dtype), cube.new_empty(shape, dtype=dtype)


# spectral_views(...) -> two views (B, C, P, P); SymInt, so that a new step compiles nothing anew
_op = register(
    "spectral_views(Tensor cube, Tensor centres, Tensor mean, Tensor scale, Tensor? sample_ids,"
    " Tensor? valid, SymInt patch_size, float[] strengths, SymInt seed, SymInt step, ScalarType dtype,"
    " str backend) -> (Tensor, Tensor)",
    _views,
    _views_fake,
)
