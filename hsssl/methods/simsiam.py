"""SimSiam: predict one view from the other with one network; no teacher and no negatives."""

from __future__ import annotations

from torch import Tensor, nn

from hsssl.encoders.heads import mlp_head
from hsssl.views import Views
from hsssl_kernels import cosine_regression

__all__ = ["SimSiam"]


class SimSiam(nn.Module):
    """Predict each view's projection from the other's; the stopped gradient keeps it from collapsing.

    ``loss = 1/2 [ |p(z_a) - sg z_b|^2 + |p(z_b) - sg z_a|^2 ]`` on unit vectors, z the projections, p a
    predictor with a bottleneck and sg the stop of the gradient; this is 2 + 2 L with the paper's L.

    It assumes only that the two views show the same thing; without negatives, pixels of one
    class are not pushed apart. Use it where memory is short (one network, no teacher) or classes are
    few; it is the least steady of its kind, so watch the effective rank.

    Parameters
    ----------
    encoder : nn.Module
        ``(x, wavelengths) -> (B, D)``, with ``embed_dim``.
    projection_dim : int
        Size of the projection and of the projector's hidden layers. A choice: the paper's 2,048 for
        a ResNet-50 is out of proportion here.
    bottleneck : int
        Hidden size of the predictor, a quarter of the projection as in the paper.

    References
    ----------
    Chen, He 2021, Exploring Simple Siamese Representation Learning, arXiv 2011.10566.
    """

    reference = "Chen, He 2021, arXiv 2011.10566"

    def __init__(self, encoder: nn.Module, projection_dim: int = 512, bottleneck: int = 128) -> None:
        super().__init__()
        self.encoder = encoder
        self.projector = mlp_head(
            int(encoder.embed_dim),  # type: ignore[arg-type]
            projection_dim,
            projection_dim,
            depth=3,
            norm_last=True,
        )
        self.predictor = mlp_head(projection_dim, bottleneck, projection_dim)

    def forward(self, views: Views) -> Tensor:
        """Return the loss of a batch, a scalar."""
        a, b = (self.projector(self.encoder(x, views.wavelengths)).float() for x in views.pair)
        loss = cosine_regression(self.predictor(a).float(), b) + cosine_regression(
            self.predictor(b).float(), a
        )
        return loss / 2

    def after_step(self, progress: float) -> None:
        """Nothing follows a step."""
