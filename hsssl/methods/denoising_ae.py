"""Denoising autoencoder: clean values out of noisy ones with bands missing."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hsssl.methods.reconstruction import reconstruction, targets
from hsssl.methods.values import ValueDecoder
from hsssl.views import Views

__all__ = ["DenoisingAE"]


class DenoisingAE(nn.Module):
    """Restore all values of a patch from its embedding, after noise was added and bands were dropped.

    ``loss = mean (x - decode(f(corrupt(x))))^2``, weighed by principal components; corrupt adds
    Gaussian noise to every value and sets dropped bands to 0, which is their mean over the scene.

    It assumes that bands depend on each other, and keeps whatever explains variance. Use it where spectra are
    noisy or bands missing; with ``neighbour=False`` it needs no positives at all, which suits coarse pixels
    and small fields, at the price of learning each pixel's own noise too.

    Parameters
    ----------
    encoder : nn.Module
        ``(x, wavelengths) -> (B, D)``, with ``embed_dim``.
    noise : float
        Standard deviation of the noise, in units of each band's own. A choice.
    drop : float
        Share of bands set to 0, drawn anew for each sample. The paper drops .1 to .4 of its inputs; of .1 and
        .25 the first did better on Indian Pines, by the accuracy of a linear classifier there.
    hidden : int
        Size of the decoder's layers. A choice.
    components : int
        Principal components of the batch that the error is weighed in, see `reconstruction`: a choice;
        0 is the paper's plain mean over values.
    neighbour : bool
        Restore the other view's values in place of its own: a second, independent measurement is
        cleaner than the one that was corrupted. A choice; False is the paper's.

    References
    ----------
    Vincent et al. 2008, Extracting and Composing Robust Features with Denoising Autoencoders,
    doi:10.1145/1390156.1390294 (values dropped); noise: Vincent et al. 2010, JMLR 11:3371-3408.
    """

    reference = "Vincent et al. 2008, doi:10.1145/1390156.1390294"

    def __init__(
        self,
        encoder: nn.Module,
        noise: float = 0.1,
        drop: float = 0.1,
        hidden: int = 256,
        *,
        components: int = 15,
        neighbour: bool = True,
    ) -> None:
        super().__init__()
        if noise < 0 or not 0 <= drop < 1:
            raise ValueError(
                f"denoising_ae: noise must be at least 0 and drop in 0 ... 1, got {noise}, {drop}"
            )
        self.encoder = encoder
        self.decoder = ValueDecoder(int(encoder.embed_dim), hidden)  # type: ignore[arg-type]
        self.noise = noise
        self.drop = drop
        self.components = components
        self.neighbour = neighbour

    def forward(self, views: Views) -> Tensor:
        """Return the loss of a batch, a scalar; both views are samples."""
        (a, clean_a), (b, clean_b) = targets(views, self.neighbour)
        x, clean = torch.cat([a, b]), torch.cat([clean_a, clean_b])  # (2 B, C, H, W)
        embedding = self.encoder(self.corrupt(x), views.wavelengths)
        restored = self.decoder(embedding, views.wavelengths, *x.shape[2:])
        return reconstruction(restored, clean, self.components)

    def corrupt(self, x: Tensor) -> Tensor:
        """Return ``x`` (B, C, H, W) with noise on every value and whole bands at 0."""
        kept = torch.rand(x.shape[:2], device=x.device) >= self.drop  # (B, C)
        return (x + self.noise * torch.randn_like(x)) * kept[:, :, None, None]

    def after_step(self, progress: float) -> None:
        """Nothing follows a step."""
