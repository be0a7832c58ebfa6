"""Methods: name -> class, each in its file. Encoder in, views in, loss out."""

from __future__ import annotations

from typing import Any, Protocol

from torch import Tensor, nn

from hsssl.messages import unknown_name
from hsssl.methods.aae import AAE
from hsssl.methods.ae_subspace import AESubspace
from hsssl.methods.barlow_twins import BarlowTwins
from hsssl.methods.byol import BYOL
from hsssl.methods.cmc import CMC
from hsssl.methods.contrastive_clustering import ContrastiveClustering
from hsssl.methods.conv_deconv import ConvDeconv
from hsssl.methods.denoising_ae import DenoisingAE
from hsssl.methods.dino import DINO
from hsssl.methods.mae import MAE
from hsssl.methods.moco import MoCo
from hsssl.methods.pcl import PCL
from hsssl.methods.simclr import SimCLR
from hsssl.methods.simsiam import SimSiam
from hsssl.methods.swav import SwAV
from hsssl.methods.vae import VAE
from hsssl.methods.vicreg import VICReg
from hsssl.options import check_options
from hsssl.views import Views

__all__ = ["METHODS", "Method", "Views", "build_method"]

METHODS: dict[str, type[nn.Module]] = {
    "aae": AAE,
    "ae_subspace": AESubspace,
    "barlow_twins": BarlowTwins,
    "byol": BYOL,
    "cmc": CMC,
    "contrastive_clustering": ContrastiveClustering,
    "conv_deconv": ConvDeconv,
    "denoising_ae": DenoisingAE,
    "dino": DINO,
    "mae": MAE,
    "moco": MoCo,
    "pcl": PCL,
    "simclr": SimCLR,
    "simsiam": SimSiam,
    "swav": SwAV,
    "vae": VAE,
    "vicreg": VICReg,
}


class Method(Protocol):
    """What the training loop, or anyone's own loop, needs of a method: an `nn.Module` with these."""

    encoder: nn.Module

    def __call__(self, views: Views) -> Tensor:
        """Return the loss of a batch, a scalar."""

    def after_step(self, progress: float) -> None:
        """Update teacher, queue and centres; ``progress`` in 0 ... 1 is the share of the run done."""


def build_method(name: str, encoder: nn.Module, **options: Any) -> nn.Module:
    """Return a new method by name around ``encoder``.

    Raises
    ------
    ValueError
        If there is no such method (the nearest names are offered), no such option, or it is of another kind.
    """
    if name not in METHODS:
        raise unknown_name("method", name, METHODS)
    check_options(f"method {name}", METHODS[name], options)
    try:
        return METHODS[name](encoder, **options)
    except TypeError as error:
        raise ValueError(f"method {name}: {error}") from error
