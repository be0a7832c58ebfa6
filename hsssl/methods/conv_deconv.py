"""Conv-deconv: rebuild a patch from its feature maps, unpooling where the encoder's maxima stood."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hsssl.encoders.residual_conv import Pool, ResidualConv, ResidualStage
from hsssl.encoders.wavelength import wavelength_position
from hsssl.methods.reconstruction import reconstruction, targets
from hsssl.methods.values import ValueDecoder
from hsssl.views import Views

__all__ = ["ConvDeconv", "Deconv"]


class ConvDeconv(nn.Module):
    """Mou et al. 2017's autoencoder: ``loss = mean |decoder(encoder(x)) - x|^2`` over both views.

    With the encoder ``"residual_conv"`` the decoder mirrors it: residual blocks of transposed convolutions,
    and unpooling by the indices that the encoder remembers. Any other encoder has no such indices; its
    embedding is decoded by `ValueDecoder`.

    It assumes that what is needed to rebuild a patch is what tells materials apart, which holds where the
    classes differ in the strong directions of variance. It cannot collapse and has no batch size to
    tune. Use it as the plain baseline, and when there are few pixels; where classes differ by little,
    as crops do, contrast does better.

    Parameters
    ----------
    encoder : nn.Module
        ``(x, wavelengths) -> (B, D)``, with ``embed_dim``.
    hidden : int
        Width of the decoder. A choice: the paper's abstract gives no layer table.
    components : int
        Principal components of the batch that the error is weighed in, see `reconstruction`: a choice.
    neighbour : bool
        Rebuild the other view in place of the own. A choice: the paper rebuilds the own, which on single
        pixels teaches noise; the neighbour shares the material alone.

    References
    ----------
    Mou, Ghamisi & Zhu 2018, Unsupervised Spectral-Spatial Feature Learning via Deep Residual Conv-Deconv
    Network for Hyperspectral Image Classification, doi:10.1109/TGRS.2017.2748160.
    """

    reference = "Mou et al. 2017, doi:10.1109/TGRS.2017.2748160"

    def __init__(
        self, encoder: nn.Module, hidden: int = 256, components: int = 15, neighbour: bool = True
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.components = components
        self.neighbour = neighbour
        self.decoder: Deconv | ValueDecoder = (
            Deconv(encoder)
            if isinstance(encoder, ResidualConv)
            else ValueDecoder(int(encoder.embed_dim), hidden)  # type: ignore[arg-type]
        )

    def forward(self, views: Views) -> Tensor:
        """Return the loss of a batch, a scalar."""
        losses = [
            reconstruction(self.decode(seen, views.wavelengths), wanted, self.components)
            for seen, wanted in targets(views, self.neighbour)
        ]
        return (losses[0] + losses[1]) / 2

    def decode(self, x: Tensor, wavelengths: Tensor) -> Tensor:
        """Return patches ``x`` (B, C, H, W) as the autoencoder rebuilds them."""
        if isinstance(self.decoder, Deconv):
            assert isinstance(self.encoder, ResidualConv)
            maps, pools = self.encoder.encode(x, wavelengths)
            out: Tensor = self.decoder(maps, pools, wavelengths)
        else:
            out = self.decoder(self.encoder(x, wavelengths), wavelengths, *x.shape[2:])
        return out

    def after_step(self, progress: float) -> None:
        """Nothing follows a step."""


class Deconv(nn.Module):
    """Mirror a `ResidualConv`: transposed residual blocks, and unpooling by remembered indices."""

    def __init__(self, encoder: ResidualConv) -> None:
        super().__init__()
        size = encoder.embed_dim, encoder.depth, encoder.kernel
        self.stages = nn.ModuleList(ResidualStage(nn.ConvTranspose2d, *size) for _ in encoder.stages)
        self.out = BandOutput(encoder.embed_dim)

    def forward(self, maps: Tensor, pools: list[Pool], wavelengths: Tensor) -> Tensor:
        """Return patches (B, C, H, W) of feature maps (B, D, h, w)."""
        x = self.stages[0](maps)
        for stage, pool in zip(self.stages[1:], reversed(pools), strict=True):
            x = stage(F.max_unpool2d(x, pool.indices, (2, 2), output_size=pool.size))
        out: Tensor = self.out(x, wavelengths)
        return out


class BandOutput(nn.Module):
    """A 1x1 convolution (B, D, H, W) to (B, C, H, W) whose weights are a network of the wavelengths."""

    def __init__(self, dim: int, place: int = 64) -> None:
        super().__init__()
        self.place = place
        self.weights = nn.Sequential(nn.Linear(place, dim), nn.GELU(), nn.Linear(dim, dim))

    def forward(self, maps: Tensor, wavelengths: Tensor) -> Tensor:
        """Return values at ``wavelengths`` (C,) in nm."""
        weights = self.weights(wavelength_position(wavelengths, self.place))  # (C, D)
        return torch.einsum("bdhw,cd->bchw", maps, weights)
