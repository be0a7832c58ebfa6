"""CMC: tell from one half of the bands which pixel the other half belongs to."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from hsssl.encoders.band_groups import BandGroups, halves
from hsssl.encoders.heads import mlp_head
from hsssl.encoders.plain import PlainEncoder
from hsssl.views import Views
from hsssl_kernels import info_nce

__all__ = ["CMC"]


class CMC(nn.Module):
    """Contrast the short with the long half of the spectrum, an encoder a half, as in Liu et al. 2020.

    ``loss = InfoNCE(s(a), l(b)) + InfoNCE(s(b), l(a))``, both directions in each: s and l are the projected
    embeddings of the bands below and above the median wavelength, a and b the views of a sample. The paper's
    two views are principal components of band groups; here the encoder's first layer takes their place, a
    choice.

    With the encoder ``"band_groups"`` each of its streams sees one half and both are kept. Any other encoder
    is joined by a second one, of which nothing is kept; from batch to batch the two exchange halves, so
    that the kept one knows all bands. A module of fixed bands sees zeros, the mean, in place of the other
    half.

    It assumes that either half suffices to know the material: what shows in one half only is lost. Use it
    where both halves carry signal, as with a visible and a short-wave detector, and where spatial neighbours
    are no safe positives.

    Parameters
    ----------
    encoder : nn.Module
        ``(x, wavelengths) -> (B, D)``, with ``embed_dim``.
    hidden, projection_dim : int
        Sizes of the projectors. A choice.
    temperature : float
        .07 in contrastive multiview coding (Tian et al. 2020); the paper's abstract gives none.

    References
    ----------
    Liu et al. 2020, Deep Multiview Learning for Hyperspectral Image Classification, IEEE TGRS 59(9).
    Tian et al. 2020, Contrastive Multiview Coding, arXiv 1906.05849.
    """

    reference = "Liu et al. 2020, IEEE TGRS 59(9); Tian et al. 2020, arXiv 1906.05849"
    exchanged: Tensor

    def __init__(
        self, encoder: nn.Module, hidden: int = 256, projection_dim: int = 128, temperature: float = 0.07
    ) -> None:
        super().__init__()
        self.encoder = encoder
        dim = int(encoder.embed_dim)  # type: ignore[arg-type]
        if isinstance(encoder, BandGroups):
            self.second = None
            dim //= 2
        else:
            self.second = copy.deepcopy(encoder)
        self.projectors = nn.ModuleList(mlp_head(dim, hidden, projection_dim) for _ in range(2))
        self.temperature = temperature
        self.register_buffer("exchanged", torch.zeros((), dtype=torch.bool))  # by turns, on all ranks alike

    def forward(self, views: Views) -> Tensor:
        """Return the loss of a batch, a scalar; the samples of all ranks are negatives."""
        groups = halves(views.wavelengths)
        if self.second is not None and bool(self.exchanged):
            groups = groups[::-1]
        z = [self._project(x, views.wavelengths, groups) for x in views.pair]
        options = {"temperature": self.temperature, "symmetric": True, "gather_distributed": True}
        return info_nce(z[0][0], z[1][1], **options) + info_nce(z[1][0], z[0][1], **options)  # type: ignore[arg-type]

    def _project(self, x: Tensor, wavelengths: Tensor, groups: tuple[Tensor, ...]) -> list[Tensor]:
        """Return the projections (B, P) of both halves of ``x``, one by each encoder."""
        if self.second is None:
            parts = self.encoder(x, wavelengths).chunk(2, 1)
        else:
            encoders = (self.encoder, self.second)
            parts = [part(f, x, wavelengths, i) for f, i in zip(encoders, groups, strict=True)]
        return [project(f) for project, f in zip(self.projectors, parts, strict=True)]

    def after_step(self, progress: float) -> None:
        """Let the encoders exchange their halves."""
        self.exchanged.logical_not_()


def part(encoder: nn.Module, x: Tensor, wavelengths: Tensor, bands: Tensor) -> Tensor:
    """Return the embedding (B, D) of ``bands`` of ``x``; a module of fixed bands sees the others as 0."""
    if isinstance(encoder, PlainEncoder):
        kept = torch.zeros_like(x)
        kept[:, bands] = x[:, bands]
        x = kept
    else:
        x, wavelengths = x[:, bands], wavelengths[bands]
    out: Tensor = encoder(x, wavelengths)
    return out
