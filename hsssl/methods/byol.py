"""BYOL: predict the teacher's view of a patch from the student's view of it; no negatives."""

from __future__ import annotations

from torch import Tensor, nn

from hsssl.encoders.heads import mlp_head
from hsssl.methods.teacher import Teacher, cosine_momentum
from hsssl.views import Views
from hsssl_kernels import cosine_regression

__all__ = ["BYOL"]


class BYOL(nn.Module):
    """Bootstrap your own latent, as Hu et al. 2021 use it on hyperspectral patches.

    ``loss = sum over both orders of mean |q(p(f(a))) - p'(f'(b))|^2`` on unit vectors; f', p'
    are moving averages of encoder f and projector p. The predictor q and the stop of the gradient keep it
    from collapsing. The projector ends in a batch norm without weights, as in SimSiam and MoCo v3: what all
    samples of a batch have in common leaves the targets, which are otherwise alike from the start.

    Hu et al. train a spectral-spatial transformer so (``encoder="spectral_spatial_vit"``) and classify its
    frozen features; the abstract gives neither patch nor depth nor momentum. A transformer wants a lower
    learning rate (``lr=1e-3``) and more steps than the default encoder.

    It assumes that the two views of a sample, and nothing else, say what must stay the same: there are no
    negatives that push similar classes apart. Use it with small batches and where many pixels are nearly
    alike. It keeps the directions that the untrained encoder already has; an encoder that starts
    with few of them, as a transformer does, learns more by contrast in short runs.

    Parameters
    ----------
    encoder : nn.Module
        Student encoder f, ``(x, wavelengths) -> (B, D)``, with ``embed_dim``.
    hidden, projection_dim : int
        Sizes of projector and predictor. A choice: the paper's abstract gives none.
    momentum : float
        Momentum of the teacher at the start; it rises to 1 along a cosine. A choice: .99, which
        BYOL recommends for short runs.

    References
    ----------
    Grill et al. 2020, Bootstrap Your Own Latent, arXiv 2006.07733.
    Hu et al. 2021, Contrastive Learning Based on Transformer for Hyperspectral Image
    Classification, doi:10.3390/app11188670.
    """

    reference = "Grill et al. 2020; on hyperspectral transformers Hu et al. 2021, doi:10.3390/app11188670"

    def __init__(
        self, encoder: nn.Module, hidden: int = 512, projection_dim: int = 128, momentum: float = 0.99
    ) -> None:
        super().__init__()
        self.encoder = encoder
        dim = int(encoder.embed_dim)  # type: ignore[arg-type]
        self.projector = mlp_head(dim, hidden, projection_dim, norm_last=True)
        self.predictor = mlp_head(projection_dim, hidden, projection_dim)
        self.teacher_encoder = Teacher(self.encoder)
        self.teacher_projector = Teacher(self.projector)
        self.momentum = momentum

    def forward(self, views: Views) -> Tensor:
        """Return the loss of a batch, a scalar."""
        predicted = [self.predictor(self.projector(self.encoder(x, views.wavelengths))) for x in views.pair]
        target = [self.teacher_projector(self.teacher_encoder(x, views.wavelengths)) for x in views.pair]
        return cosine_regression(predicted[0], target[1]) + cosine_regression(predicted[1], target[0])

    def after_step(self, progress: float) -> None:
        """Let the teacher follow; ``progress`` is the share of the run that is done."""
        momentum = cosine_momentum(self.momentum, progress)
        self.teacher_encoder.update(self.encoder, momentum)
        self.teacher_projector.update(self.projector, momentum)
