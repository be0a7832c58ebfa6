"""VICReg: equal embeddings of two views, held apart by variance and covariance alone."""

from __future__ import annotations

from torch import Tensor, nn

import hsssl_kernels
from hsssl.encoders.heads import mlp_head
from hsssl.methods.ranks import all_rows
from hsssl.views import Views

__all__ = ["VICReg"]


class VICReg(nn.Module):
    """Bring the two views' projections together, keep each dimension varying and no two alike.

    ``loss = invariance * mean (z_a - z_b)^2 + for each view: variance * hinge of the standard deviations
    under 1 + covariance * squares of the covariances off the diagonal`` (`hsssl_kernels.vicreg`).

    It assumes what Barlow Twins does. Use it in its place to trade one term for another: raise ``invariance``
    where neighbours nearly always share a class, ``covariance`` where the effective rank is low.

    Parameters
    ----------
    encoder : nn.Module
        ``(x, wavelengths) -> (B, D)``, with ``embed_dim``.
    projection_dim : int
        Size of the projector's three layers. A choice: the paper's 8,192 for a ResNet-50 is out
        of proportion here.
    invariance, variance, covariance : float
        Weights of the three terms, the paper's.

    References
    ----------
    Bardes, Ponce, LeCun 2022, VICReg: Variance-Invariance-Covariance Regularization, arXiv 2105.04906.
    """

    reference = "Bardes, Ponce, LeCun 2022, arXiv 2105.04906"

    def __init__(
        self,
        encoder: nn.Module,
        projection_dim: int = 512,
        invariance: float = 25.0,
        variance: float = 25.0,
        covariance: float = 1.0,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        dim = int(encoder.embed_dim)  # type: ignore[arg-type]
        self.projector = mlp_head(dim, projection_dim, projection_dim, depth=3)
        self.weights = {"invariance": invariance, "variance": variance, "covariance": covariance}

    def forward(self, views: Views) -> Tensor:
        """Return the loss of a batch, a scalar; the statistics are those over all ranks."""
        a, b = (all_rows(self.projector(self.encoder(x, views.wavelengths))) for x in views.pair)
        return hsssl_kernels.vicreg(a, b, **self.weights)

    def after_step(self, progress: float) -> None:
        """Nothing follows a step."""
