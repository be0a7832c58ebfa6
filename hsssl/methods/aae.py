"""AAE: rebuild a patch from an embedding that a critic cannot tell from normal draws."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from hsssl.methods.reconstruction import reconstruction, targets
from hsssl.methods.values import ValueDecoder
from hsssl.views import Views

__all__ = ["AAE", "gradient_penalty", "reverse_gradient"]


class AAE(nn.Module):
    """Adversarial autoencoder with a Wasserstein critic: the second feature of Cao et al. 2021.

    ``loss = mean |decoder(z) - x|^2 + mean D(z) - mean D(n) + penalty * mean (|grad D| - 1)^2``, n ~ N(0, 1).
    The critic D descends on it; into the encoder the gradient of D(z) flows reversed and weighted by
    ``adversarial``, so one optimiser serves both sides.

    It assumes, like the VAE, few causes behind a pixel, but shapes the latent as a whole and adds no noise
    to a sample: reconstructions are sharper and less of the small variance is lost. Use it where a latent is
    wanted from which one can sample.

    Parameters
    ----------
    encoder : nn.Module
        ``(x, wavelengths) -> (B, D)``, with ``embed_dim``.
    latent : int
        Size of the latent, 128 in the paper.
    hidden : int
        Width of decoder and critic. A choice.
    adversarial : float
        Weight of the critic in the encoder. A choice: the release steps by 1e-4 of plain descent here and
        by 1e-3 of Adam on the reconstruction. Ten times as much takes directions away from the embedding.
    penalty : float
        Weight of the gradient penalty, 10 in Gulrajani et al. A choice: the release leaves its critic
        unbounded, with a learning rate of 5e-5.
    components : int
        Principal components of the batch that the error is weighed in, see `reconstruction`: the paper's
        15.
    neighbour : bool
        Rebuild the other view in place of the own. A choice: the paper rebuilds the own, which on single
        pixels teaches noise; the neighbour shares the material alone.

    References
    ----------
    Makhzani et al. 2016, Adversarial Autoencoders, arXiv 1511.05644.
    Gulrajani et al. 2017, Improved Training of Wasserstein GANs, arXiv 1704.00028.
    Cao et al. 2021, ContrastNet, Neurocomputing 460, arXiv 2203.07000.
    """

    reference = "Makhzani et al. 2016; on hyperspectral patches Cao et al. 2021, arXiv 2203.07000"

    def __init__(
        self,
        encoder: nn.Module,
        latent: int = 128,
        hidden: int = 256,
        adversarial: float = 0.001,
        penalty: float = 10.0,
        components: int = 15,
        neighbour: bool = True,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.latent = nn.Linear(int(encoder.embed_dim), latent)  # type: ignore[arg-type]
        self.decoder = ValueDecoder(latent, hidden)
        self.critic = nn.Sequential(
            nn.Linear(latent, hidden),
            nn.LeakyReLU(0.2),
            nn.Linear(hidden, hidden),
            nn.LeakyReLU(0.2),
            nn.Linear(hidden, 1),
        )
        self.adversarial = adversarial
        self.penalty = penalty
        self.components = components
        self.neighbour = neighbour

    def forward(self, views: Views) -> Tensor:
        """Return the loss of a batch, a scalar; normal draws come from torch's global generator."""
        losses = [
            self._loss(seen, wanted, views.wavelengths) for seen, wanted in targets(views, self.neighbour)
        ]
        return (losses[0] + losses[1]) / 2

    def _loss(self, x: Tensor, wanted: Tensor, wavelengths: Tensor) -> Tensor:
        z = self.latent(self.encoder(x, wavelengths))  # (B, latent)
        rebuilt = reconstruction(self.decoder(z, wavelengths, *wanted.shape[2:]), wanted, self.components)
        # the penalty's second derivative is small numbers: float32, under mixed precision too
        with torch.autocast(z.device.type, enabled=False):
            code = z.float()
            normal = torch.randn_like(code)
            told = self.critic(reverse_gradient(code, self.adversarial)).mean() - self.critic(normal).mean()
            share = torch.rand(len(code), 1, device=code.device)
            between = torch.lerp(normal, code.detach(), share)
            loss: Tensor = rebuilt + told + self.penalty * gradient_penalty(self.critic, between)
        return loss

    def after_step(self, progress: float) -> None:
        """Nothing follows a step."""


def gradient_penalty(critic: nn.Module, z: Tensor) -> Tensor:
    """Return ``mean (|d critic / d z| - 1)^2`` over rows of ``z`` (B, D), differentiable once more."""
    with torch.enable_grad():
        z = z.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(critic(z).sum(), z, create_graph=True)
    penalty: Tensor = (gradient.norm(dim=1) - 1).square().mean()
    return penalty


def reverse_gradient(x: Tensor, weight: float) -> Tensor:
    """Return ``x``; its gradient comes back times ``-weight`` (Ganin & Lempitsky, arXiv 1409.7495)."""
    out: Tensor = _Reverse.apply(x, weight)  # type: ignore[no-untyped-call]
    return out


class _Reverse(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: float) -> Tensor:
        ctx.weight = weight
        return x.view_as(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return -ctx.weight * gradients[0], None
