"""Views, then tokens, in plain torch."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from hsssl_kernels.spectral_patch_embed.reference import spectral_patch_embed_reference
from hsssl_kernels.spectral_views.reference import spectral_views_reference
from hsssl_kernels.spectral_views.spec import ViewSpec

__all__ = ["embed_views_reference"]


def embed_views_reference(
    cube: Tensor,
    centres: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    patch_size: int,
    patch: int,
    group: int,
    mean: Tensor,
    scale: Tensor,
    spec: ViewSpec,
    seed: int,
    step: int,
    sample_ids: Tensor | None = None,
    valid: Tensor | None = None,
    visible: Tensor | None = None,
    **sides: Any,
) -> tuple[Tensor, Tensor]:
    """Return the tokens of both views; parameters as in `embed_views`, differentiable by autograd."""
    views = spectral_views_reference(
        cube,
        centres,
        patch_size=patch_size,
        mean=mean,
        scale=scale,
        spec=spec,
        seed=seed,
        step=step,
        sample_ids=sample_ids,
        valid=valid,
        dtype=torch.float32,
    )
    a, b = (
        spectral_patch_embed_reference(
            view,
            weight,
            bias,
            patch=patch,
            group=group,
            visible=None if visible is None else visible[i],
            **sides,
        )
        for i, view in enumerate(views)
    )
    return a, b
