"""Two augmented views of patches cut from a resident cube, in plain torch, one operation per augmentation."""

from __future__ import annotations

import torch
from torch import Tensor

from hsssl_kernels.random import stream_key
from hsssl_kernels.spectral_views.draws import affine, draw
from hsssl_kernels.spectral_views.noise import element_noise
from hsssl_kernels.spectral_views.patch import inside_cut, patch_pixels, view_centres
from hsssl_kernels.spectral_views.spec import ViewSpec

__all__ = ["smooth_bands", "spectral_views_reference"]


def spectral_views_reference(
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
    key = stream_key(seed, step)
    ids = torch.arange(batch, device=cube.device) if sample_ids is None else sample_ids
    drawn = draw(spec, ids, bands, patch_size, key)
    both = centres.repeat(2, 1)  # (2B, 2)
    at = view_centres(both, drawn.shift, valid)
    pixel = patch_pixels(cube.shape[:2], at, patch_size, drawn.symmetry)
    slope, level = affine(drawn, mean, scale)
    x = cube.to(torch.float32).reshape(-1, bands)[pixel]  # (2B, P P, C)
    x = (x - mean) * slope.unsqueeze(1)
    if level is not None:
        x = x + level.unsqueeze(1)
    if drawn.smooth is not None:
        x = torch.where(drawn.smooth[:, None, None], smooth_bands(x), x)
    if spec.noise:
        x = x + element_noise(key, ids, bands, patch_size**2) * spec.noise
    # torch.where and not products: what is dropped may hold NaN
    if drawn.keep is not None:
        x = torch.where(drawn.keep.unsqueeze(1), x, 0.0)
    if drawn.cut is not None:
        x = torch.where(inside_cut(drawn.cut, patch_size).unsqueeze(2), 0.0, x)
    if valid is not None:
        x = torch.where(valid.reshape(-1)[pixel].unsqueeze(2), x, 0.0)
    views = x.transpose(1, 2).reshape(2 * batch, bands, patch_size, patch_size).to(dtype)
    return views[:batch].clone(), views[batch:].clone()


def smooth_bands(x: Tensor) -> Tensor:
    """Smooth (..., C) by (1, 2, 1) / 4 over bands; an edge band stands in for the missing one."""
    left = torch.cat([x[..., :1], x[..., :-1]], -1)
    right = torch.cat([x[..., 1:], x[..., -1:]], -1)
    return 0.5 * x + 0.25 * (left + right)
