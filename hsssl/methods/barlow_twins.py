"""Barlow Twins: two views give the same embedding, whose dimensions do not repeat each other."""

from __future__ import annotations

from torch import Tensor, nn

import hsssl_kernels
from hsssl.encoders.heads import mlp_head
from hsssl.methods.ranks import all_rows
from hsssl.views import Views

__all__ = ["BarlowTwins"]


class BarlowTwins(nn.Module):
    """Bring the cross-correlation of the two views' projections to the identity.

    ``loss = sum_i (1 - C_ii)^2 + redundancy * sum_(i != j) C_ij^2`` over the batch.

    It assumes that what a neighbourhood shares has many independent directions; no pixel is pushed away
    from another, so classes of any size fare alike. Use it as a first choice beside SimCLR: it is steady,
    without teacher or queue. It wants wide projections and batches of a few hundred or more.

    Parameters
    ----------
    encoder : nn.Module
        ``(x, wavelengths) -> (B, D)``, with ``embed_dim``.
    projection_dim : int
        Size of the projector's three layers. A choice: the paper's 8,192 for a ResNet-50 is out
        of proportion here.
    redundancy : float
        Weight of the terms off the diagonal.

    References
    ----------
    Zbontar et al. 2021, Barlow Twins, arXiv 2103.03230.
    """

    reference = "Zbontar et al. 2021, arXiv 2103.03230"

    def __init__(self, encoder: nn.Module, projection_dim: int = 512, redundancy: float = 0.0051) -> None:
        super().__init__()
        self.encoder = encoder
        dim = int(encoder.embed_dim)  # type: ignore[arg-type]
        self.projector = mlp_head(dim, projection_dim, projection_dim, depth=3)
        self.redundancy = redundancy

    def forward(self, views: Views) -> Tensor:
        """Return the loss of a batch, a scalar; the correlations are those over all ranks."""
        a, b = (all_rows(self.projector(self.encoder(x, views.wavelengths))) for x in views.pair)
        return hsssl_kernels.barlow_twins(a, b, redundancy=self.redundancy)

    def after_step(self, progress: float) -> None:
        """Nothing follows a step."""
