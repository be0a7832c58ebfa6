"""VAE: rebuild a patch from a noisy embedding that is kept near a normal distribution."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hsssl.methods.reconstruction import reconstruction, targets
from hsssl.methods.values import ValueDecoder
from hsssl.views import Views

__all__ = ["VAE", "gaussian_kl"]


class VAE(nn.Module):
    """Variational autoencoder, as the first feature of Cao et al. 2021 (ContrastNet).

    ``loss = mean |decoder(mu + sigma eps) - x|^2 + kl_weight * mean KL(N(mu, sigma^2) | N(0, 1))``, the mean
    over samples and dimensions; mu is a linear map of the encoder's embedding, log sigma^2 another.

    It assumes that pixels come from a few smoothly varying causes with noise on top. Use it for smooth,
    compact features. The divergence empties the directions of small variance, in which similar crops or
    minerals differ; a contrastive method tells those apart better.

    Parameters
    ----------
    encoder : nn.Module
        ``(x, wavelengths) -> (B, D)``, with ``embed_dim``.
    latent : int
        Size of the latent, 128 in the paper.
    hidden : int
        Width of the decoder. A choice: the paper's mirrors its 3-D convolutions.
    kl_weight : float
        Weight of the divergence.
    components : int
        Principal components of the batch that the error is weighed in, see `reconstruction`: the paper's
        15.
    neighbour : bool
        Rebuild the other view in place of the own. A choice: the paper rebuilds the own, which on single
        pixels teaches noise; the neighbour shares the material alone.

    References
    ----------
    Kingma & Welling 2014, Auto-Encoding Variational Bayes, arXiv 1312.6114.
    Cao et al. 2021, ContrastNet, Neurocomputing 460, arXiv 2203.07000.
    """

    reference = "Kingma & Welling 2014; on hyperspectral patches Cao et al. 2021, arXiv 2203.07000"

    def __init__(
        self,
        encoder: nn.Module,
        latent: int = 128,
        hidden: int = 256,
        kl_weight: float = 1.0,
        components: int = 15,
        neighbour: bool = True,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        dim = int(encoder.embed_dim)  # type: ignore[arg-type]
        self.mean = nn.Linear(dim, latent)
        self.log_variance = nn.Linear(dim, latent)
        self.decoder = ValueDecoder(latent, hidden)
        self.kl_weight = kl_weight
        self.components = components
        self.neighbour = neighbour

    def forward(self, views: Views) -> Tensor:
        """Return the loss of a batch, a scalar; noise comes from torch's global generator."""
        losses = [
            self._loss(seen, wanted, views.wavelengths) for seen, wanted in targets(views, self.neighbour)
        ]
        return (losses[0] + losses[1]) / 2

    def _loss(self, x: Tensor, wanted: Tensor, wavelengths: Tensor) -> Tensor:
        features = self.encoder(x, wavelengths)
        mean, log_variance = self.mean(features).float(), self.log_variance(features).float()  # (B, latent)
        code = mean + torch.randn_like(mean) * torch.exp(log_variance / 2)
        decoded = self.decoder(code, wavelengths, *wanted.shape[2:])
        return reconstruction(decoded, wanted, self.components) + self.kl_weight * gaussian_kl(
            mean, log_variance
        )

    def after_step(self, progress: float) -> None:
        """Nothing follows a step."""


def gaussian_kl(mean: Tensor, log_variance: Tensor) -> Tensor:
    """Return ``mean 1/2 (mu^2 + sigma^2 - log sigma^2 - 1)``, the divergence from N(0, 1) an element."""
    return 0.5 * (mean.square() + log_variance.exp() - log_variance - 1).mean()
