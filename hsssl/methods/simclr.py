"""SimCLR: tell the other view of a patch from all other patches of the batch."""

from __future__ import annotations

from torch import Tensor, nn

from hsssl.encoders.heads import mlp_head
from hsssl.views import Views
from hsssl_kernels import nt_xent

__all__ = ["SimCLR"]


class SimCLR(nn.Module):
    """Contrast the two views of each sample with all others by NT-Xent.

    With a jitter of the centre in the views, neighbours are positives: the encoder learns what
    a pixel shares with its surroundings.

    Parameters
    ----------
    encoder : nn.Module
        ``(x, wavelengths) -> (B, D)``, with ``embed_dim``.
    hidden, projection_dim : int
        Sizes of the projector.
    temperature : float
        Divides the cosine similarities.

    References
    ----------
    Chen et al. 2020, A Simple Framework for Contrastive Learning, arXiv 2002.05709.
    """

    reference = "Chen et al. 2020, arXiv 2002.05709"

    def __init__(
        self, encoder: nn.Module, hidden: int = 256, projection_dim: int = 128, temperature: float = 0.1
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.projector = mlp_head(int(encoder.embed_dim), hidden, projection_dim)  # type: ignore[arg-type]
        self.temperature = temperature

    def forward(self, views: Views) -> Tensor:
        """Return the loss of a batch, a scalar; the samples of all ranks are negatives."""
        a, b = (self.projector(self.encoder(x, views.wavelengths)) for x in views.pair)
        return nt_xent(a, b, temperature=self.temperature, gather_distributed=True)

    def after_step(self, progress: float) -> None:
        """Nothing follows a step."""
