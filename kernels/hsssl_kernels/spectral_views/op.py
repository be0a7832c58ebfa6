"""The public op: two band-aware views of every patch, cut from the cube where it lies."""

from __future__ import annotations

import torch
from torch import Tensor

from hsssl_kernels.spectral_views.reference import spectral_views_reference
from hsssl_kernels.spectral_views.spec import ViewSpec

__all__ = ["spectral_views"]

_DTYPES = (torch.uint8, torch.int16, torch.uint16, torch.int32, torch.float16, torch.float32, torch.float64)


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
    valid: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Cut a patch around every centre and return two independently augmented views of it.

    With raw numbers x, gain g, offset o and noise e of a view,
    ``view = keep * (smooth((x g - mean) scale + o) + e)``, where ``keep`` is 0 in dropped bands,
    cut-out and invalid pixels. What varies, and how strongly, is said by `ViewSpec`. Patches
    are mirrored at the scene's border. The random numbers depend on ``(seed, step)`` alone, so a
    resumed run draws what the unbroken one would have drawn.

    Parameters
    ----------
    cube : Tensor, shape (rows, cols, bands)
        Resident cube, bands last: integer or float raw numbers.
    centres : Tensor, shape (B, 2), int64
        Row and column of each patch's centre.
    patch_size : int
        Side of the patch in pixels; an even patch reaches one pixel further down and right.
    mean, scale : Tensor, shape (bands,), float32
        Normalisation of each band: (x - mean) * scale.
    spec : ViewSpec
        Strengths of the augmentations.
    seed, step : int
        Key of the random stream.
    valid : Tensor, shape (rows, cols), bool, optional
        Pixels where it is False are 0 in the views, whatever the cube holds there.

    Returns
    -------
    view_a, view_b : Tensor, shape (B, bands, patch_size, patch_size), float32
        The two views, on the cube's device.

    Raises
    ------
    ValueError, TypeError
        If shapes disagree, a centre lies outside, or the patch is larger than the scene.

    Examples
    --------
    >>> cube = torch.rand(32, 32, 100)
    >>> a, b = spectral_views(cube, torch.tensor([[4, 5]]), patch_size=7, mean=cube.mean((0, 1)),
    ...                       scale=1 / cube.std((0, 1)), spec=ViewSpec(), seed=0, step=0)
    >>> a.shape
    torch.Size([1, 100, 7, 7])
    """
    _check(cube, centres, patch_size, mean, scale, valid)
    return spectral_views_reference(
        cube,
        centres,
        patch_size=patch_size,
        mean=mean,
        scale=scale,
        spec=spec,
        seed=seed,
        step=step,
        valid=valid,
    )


def _check(
    cube: Tensor, centres: Tensor, patch_size: int, mean: Tensor, scale: Tensor, valid: Tensor | None
) -> None:
    if cube.ndim != 3:
        raise ValueError(f"spectral_views: `cube` must be (rows, cols, bands), got {tuple(cube.shape)}")
    if cube.dtype not in _DTYPES:
        raise TypeError(
            f"spectral_views: `cube` must hold integers or floats, got {cube.dtype}; cast it first"
        )
    rows, cols, bands = cube.shape
    if not 1 <= patch_size <= min(rows, cols):
        raise ValueError(
            f"spectral_views: `patch_size` must lie in 1 ... {min(rows, cols)} for a scene of "
            f"{rows} x {cols} pixels, got {patch_size}"
        )
    if centres.ndim != 2 or centres.shape[1] != 2 or centres.dtype != torch.int64:
        raise ValueError(
            f"spectral_views: `centres` must be int64 (B, 2), got {centres.dtype} {tuple(centres.shape)}"
        )
    if len(centres) and not bool(
        ((centres >= 0) & (centres < torch.tensor([rows, cols], device=centres.device))).all()
    ):
        raise ValueError(f"spectral_views: a centre lies outside the scene of {rows} x {cols} pixels")
    for name, value in (("mean", mean), ("scale", scale)):
        if value.shape != (bands,):
            raise ValueError(f"spectral_views: `{name}` must be ({bands},), got {tuple(value.shape)}")
    if valid is not None and (valid.shape != (rows, cols) or valid.dtype != torch.bool):
        raise ValueError(
            f"spectral_views: `valid` must be bool ({rows}, {cols}), got {valid.dtype} {tuple(valid.shape)}"
        )
