"""What an autoencoder of spectra should rebuild, and how its error is weighed."""

from __future__ import annotations

import torch
from torch import Tensor

from hsssl.views import Views

__all__ = ["reconstruction", "targets"]

_FLOOR = 1e-5  # of the first variance: what is smaller is rounding, not spectra


def reconstruction(decoded: Tensor, patch: Tensor, components: int) -> Tensor:
    """Return the mean squared difference in the patch's principal components, each of variance 1.

    ``loss = mean_i mean_k <decoded_i - patch_i, v_k>^2 / l_k`` over pixels i and the first ``components``
    eigenvectors v_k of the covariance of the batch's pixels, with variances l_k: 1 is no skill.
    Neighbouring bands say nearly the same, so a plain mean over bands is all brightness, and an encoder
    trained on it forgets the weak directions in which crops differ.

    Parameters
    ----------
    decoded, patch : Tensor, shape (B, C, H, W)
        What was rebuilt, and what it should be. No gradient flows into ``patch``.
    components : int
        At most so many, at most C, and fewer than the pixels of the batch. 0 takes the plain mean over bands.

    Returns
    -------
    Tensor, scalar, float32
    """
    with torch.autocast(patch.device.type, enabled=False):
        difference = decoded.float() - patch.float()
        if components < 1:
            return difference.square().mean()
        whitening = _whitening(patch.detach().float(), components)  # (C, components)
        return (difference.flatten(2).mT @ whitening).square().mean()


def _whitening(patch: Tensor, components: int) -> Tensor:
    """Return the first eigenvectors of the bands' covariance as columns, divided by their deviations."""
    pixels = patch.movedim(1, 3).flatten(0, 2)  # (B H W, C)
    pixels = pixels - pixels.mean(0)
    count = min(components, pixels.shape[1], len(pixels) - 1)
    variance, vectors = torch.linalg.eigh(pixels.T @ pixels / len(pixels))  # ascending
    scale = variance[-count:].clamp_min(_FLOOR * float(variance[-1])).rsqrt()
    whitening: Tensor = vectors[:, -count:] * scale
    return whitening


def targets(views: Views, neighbour: bool) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Return (seen, to rebuild) for both views: each itself, or with ``neighbour`` the other one."""
    a, b = views.pair
    return ((a, b), (b, a)) if neighbour else ((a, a), (b, b))
