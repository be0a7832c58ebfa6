"""DAEU: an autoencoder whose decoder is a linear mixing model, trained on the spectral angle."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from hsssl.cube import Cube
from hsssl.unmix.learned import Learned
from hsssl.unmix.pixels import sample_pixels
from hsssl.unmix.pure_pixels import brightness, pure_pixels
from hsssl.unmix.training import steps_bar, unit_scale
from hsssl_kernels import linear_mixing

__all__ = ["DAEU", "fit_daeu"]

_BATCH, _STEPS = 256, 600


class DAEU(nn.Module):
    """Encoder from spectra to shares, and endmembers as the weights of a linear decoder.

    Layers of 9p, 6p, 3p and p units with leaky ReLU, batch norm and softmax, as in Palsson et al. 2018; the
    loss is the mean spectral angle between pixels and mixtures. Choices of this package: the decoder starts
    at given endmembers and stays non-negative (their logarithms are learnt), the encoder starts by being
    taught their shares, and a penalty on the squared angle from the start keeps the endmembers where data do
    not say otherwise; without these one seed in three collapsed.

    Parameters
    ----------
    start : Tensor, shape (p, bands)
        Endmembers to start at, positive somewhere.
    anchor : float
        Weight of the penalty.

    References
    ----------
    Palsson et al. 2018, "Hyperspectral unmixing using a neural network autoencoder",
    doi:10.1109/ACCESS.2018.2818280.
    """

    def __init__(self, start: Tensor, *, anchor: float = 1.0) -> None:
        super().__init__()
        p, bands = start.shape
        self.anchor = anchor
        self.start: Tensor
        self.register_buffer("start", F.normalize(start.clamp_min(0), dim=1))
        # spectra have values of 0, whose logarithm would never move
        self.log_endmembers = nn.Parameter(self.start.clamp_min(1e-4).log())
        sizes = [bands, 9 * p, 6 * p, 3 * p, p]
        layers: list[nn.Module] = []
        for before, after in pairwise(sizes):
            layers += [nn.Linear(before, after), nn.LeakyReLU(0.02)]
        self.encoder = nn.Sequential(*layers[:-1], nn.BatchNorm1d(p))

    @property
    def endmembers(self) -> Tensor:
        """Endmembers (p, bands), of length one."""
        return F.normalize(self.log_endmembers.exp(), dim=1)

    def forward(self, pixels: Tensor) -> Tensor:
        """Return the loss of a batch (n, bands)."""
        e = self.endmembers
        angle = linear_mixing(self.encoder(pixels), e, pixels, loss="sad", softmax=True)
        drift = (2 - 2 * (e * self.start).sum(1)).mean()  # about the squared angle
        return angle + self.anchor * drift

    def teach(self, pixels: Tensor, shares: Tensor) -> Tensor:
        """Return the cross-entropy of the encoder's shares with given ones (n, p)."""
        return F.cross_entropy(self.encoder(pixels), shares)


def fit_daeu(
    cube: Cube,
    measured: NDArray[np.bool_],
    endmembers: int,
    *,
    seed: int = 0,
    progress: bool | None = None,
    steps: int = _STEPS,
) -> Learned:
    """Learn endmembers by `DAEU`, from a start at `hsssl.unmix.pure_pixels`.

    Spectra are scaled to length one: the loss does not see brightness, and nor should the encoder. The
    abundances of the result come from its endmembers by the rule "signal" and not from the encoder, which
    approximates them.

    Parameters
    ----------
    cube : Cube
        Prepared.
    measured : ndarray, shape (rows, cols), bool
        Pixels to learn from.
    endmembers : int
        How many.
    seed : int
        Of the encoder's weights and the batches.
    progress : bool, optional
        Show a progress bar; None shows it on a terminal.
    steps : int
        Steps of training, of 256 pixels each; a fifth of them teach the encoder its start.

    Returns
    -------
    Learned
        Endmembers (p, bands) in raw numbers.
    """
    from hsssl.unmix.learned import abundances_of

    pixels = sample_pixels(cube, measured, seed=seed)
    start = pure_pixels(pixels, endmembers)
    units = unit_scale(pixels)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = DAEU(torch.from_numpy(start).float())
        optimiser = torch.optim.Adam(
            [
                {"params": model.encoder.parameters(), "lr": 1e-3},
                {"params": [model.log_endmembers], "lr": 3e-3},
            ]
        )
        taught = max(1, steps // 5)
        for step in steps_bar(steps, "daeu", progress):
            batch = units[torch.randint(len(units), (min(_BATCH, len(units)),))]
            if step < taught:
                shares = torch.from_numpy(abundances_of(batch.numpy(), start, "signal")[0])
                loss: Any = model.teach(batch, shares)
            else:
                loss = model(batch)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
    found = model.endmembers.detach().double().numpy()
    return Learned(found * brightness(pixels, found)[:, None])
