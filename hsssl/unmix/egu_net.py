"""EGU-Net: unmixing guided by pseudo-endmembers, in two streams that share their encoder."""

from __future__ import annotations

import math
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from hsssl.cube import Cube
from hsssl.rows import unit_rows
from hsssl.unmix.learned import Learned
from hsssl.unmix.pixels import sample_pixels
from hsssl.unmix.pseudo import pseudo_endmembers
from hsssl.unmix.training import steps_bar, unit_scale

__all__ = ["EGUNet", "fit_egu_net"]

_BATCH = 1024
# Squares of a batch and their side: many small ones, for batch norm wants pixels from all over the scene.
_SQUARES, _SIDE = 8, 12
# Batches from which batch norm takes what it uses afterwards.
_SETTLING = 20


class EGUNet(nn.Module):
    """The pure stream learns shares from pseudo-endmembers, the mixed stream rebuilds the scene; one encoder.

    Encoder: bands - 256 - 128 - 32 - p with batch norm, dropout and tanh, tanh, ReLU, softmax. Decoder of the
    mixed stream: p - 32 - 128 - 256 - bands with batch norm and sigmoid. Loss: cross-entropy of the pure
    stream + mean squared error of the mixed one + 0.0025 |W|^2. The decoder is not linear: no endmember
    matrix comes out.

    As 1 x 1 convolutions on single pixels this is EGU-Net-pw. With ``spatial`` the mixed stream averages
    3 x 3 neighbourhoods after the first layer, each channel by weights of its own that sum to one, at full
    resolution, and shares the rest of the encoder: what the paper means by EGU-Net-ss, for the released one
    fills 1 pixel in 64. Averages are a choice: with free 3 x 3 weights the pure stream no longer guided the
    mixed one, and two of three seeds collapsed on Samson (RMSE .45). The abundances are the mixed stream's.

    Parameters
    ----------
    bands, endmembers : int
        Sizes.
    spatial : bool
        Let the mixed stream see neighbours.

    References
    ----------
    Hong et al. 2021, "Endmember-guided unmixing network (EGU-Net): a general deep learning framework for
    self-supervised hyperspectral unmixing", doi:10.1109/TNNLS.2021.3082289, arXiv:2105.10194.
    """

    def __init__(self, bands: int, endmembers: int, *, spatial: bool = False) -> None:
        super().__init__()
        conv = partial(nn.Conv2d, kernel_size=1)
        self.first = nn.Sequential(conv(bands, 256), nn.BatchNorm2d(256), nn.Dropout(0.1), nn.Tanh())
        # starts near the identity: neighbours come in as far as they help
        self.around = nn.Parameter(torch.zeros(256, 9)) if spatial else None
        if self.around is not None:
            nn.init.constant_(self.around[:, 4], 4.0)
        self.rest = nn.Sequential(
            conv(256, 128), nn.BatchNorm2d(128), nn.Tanh(),
            conv(128, 32), nn.BatchNorm2d(32), nn.ReLU(),
            conv(32, endmembers),
        )  # fmt: skip
        sizes = [endmembers, 32, 128, 256, bands]
        layers: list[nn.Module] = []
        for before, after in pairwise(sizes):
            layers += [conv(before, after), nn.BatchNorm2d(after), nn.Sigmoid()]
        self.decoder = nn.Sequential(*layers)

    def logits(self, x: Tensor, *, pure: bool = False) -> Tensor:
        """Return the logits (B, p, H, W) of the shares; ``pure`` spectra have no neighbours."""
        hidden = self.first(x)
        if self.around is not None and not pure:
            # weights that sum to one: a pixel among its like looks as the pure stream sees it
            kernel = self.around.softmax(1).view(-1, 1, 3, 3)
            hidden = F.conv2d(F.pad(hidden, (1, 1, 1, 1), mode="replicate"), kernel, groups=len(kernel))
        out: Tensor = self.rest(hidden)
        return out

    def forward(self, mixed: Tensor, pure: Tensor, shares: Tensor) -> Tensor:
        """Return the loss of mixed pixels (B, bands, H, W) and pure spectra (n, bands) of shares (n, p)."""
        guided = F.cross_entropy(self.logits(_row(pure), pure=True)[0, :, 0].T, shares)
        rebuilt = self.decoder(self.logits(mixed).softmax(1))
        weights = sum(w.square().sum() for w in self.parameters() if w.ndim == 4 and w.shape[1] > 1)
        loss: Tensor = guided + (rebuilt - mixed).square().mean() + 0.0025 * weights
        return loss

    @torch.no_grad()
    def unmix(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return shares (B, p, H, W) and the reconstruction (B, bands, H, W)."""
        shares = self.logits(x).softmax(1)
        return shares, self.decoder(shares)


def fit_egu_net(
    cube: Cube,
    measured: NDArray[np.bool_],
    endmembers: int,
    *,
    spatial: bool = False,
    seed: int = 0,
    progress: bool | None = None,
    steps: int = 400,
) -> Learned:
    """Train `EGUNet` on a scene.

    Spectra are scaled to length one, so that they lie in 0 ... 1, and brightness plays no part. Adam at
    0.003, falling to 0 by a cosine. At the end batch norm takes its means from the mixed stream's
    batches.

    Parameters
    ----------
    cube, measured, endmembers, seed, progress
        As in `hsssl.unmix.daeu.fit_daeu`.
    spatial : bool
        Train on squares of 12 x 12 pixels, and let each see its neighbours.
    steps : int
        Steps of training.

    Returns
    -------
    Learned
        With the pseudo-endmembers, so labelled, and the network.
    """
    found, spectra, shares = pseudo_endmembers(cube, measured, endmembers, seed=seed)
    pure, target = torch.from_numpy(spectra).float(), torch.from_numpy(shares).float()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = EGUNet(cube.bands, endmembers, spatial=spatial)
        optimiser = torch.optim.Adam(model.parameters(), lr=3e-3)
        units = None if spatial else unit_scale(sample_pixels(cube, measured, seed=seed))
        for step in steps_bar(steps, "egu_net", progress):
            optimiser.param_groups[0]["lr"] = 3e-3 * 0.5 * (1 + math.cos(math.pi * step / steps))
            loss = model(_mixed(cube, measured, units), pure, target)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
        _settle(model, [_mixed(cube, measured, units) for _ in range(_SETTLING)])
    return Learned(found, pseudo=True, model=partial(_apply, model), margin=1 if spatial else 0)


def _mixed(cube: Cube, measured: NDArray[np.bool_], units: Tensor | None) -> Tensor:
    """Draw a batch of the mixed stream: single pixels of ``units``, or squares of the scene."""
    if units is not None:
        return _row(units[torch.randint(len(units), (min(_BATCH, len(units)),))])
    return torch.cat([_square(cube, measured) for _ in range(_SQUARES)])


def _row(pixels: Tensor) -> Tensor:
    """Return pixels (n, bands) as one image of a single row, (1, bands, 1, n)."""
    return pixels.T[None, :, None].contiguous()


@torch.no_grad()
def _settle(model: EGUNet, batches: list[Tensor]) -> None:
    """Take batch norm's means and variances from the mixed stream alone; training mixes both streams'."""
    norms = [layer for layer in model.modules() if isinstance(layer, nn.BatchNorm2d)]
    model.eval()
    for norm in norms:
        norm.train().reset_running_stats()
        norm.momentum = None  # averages over all batches
    for batch in batches:
        model.unmix(batch)
    model.eval()


def _square(cube: Cube, measured: NDArray[np.bool_]) -> Tensor:
    """Draw a square of the scene (1, bands, H, W) around a measured pixel; what was not measured is 0."""
    places = np.flatnonzero(measured)
    centre = int(places[int(torch.randint(len(places), ()))])
    row, col = (
        min(max(0, at - _SIDE // 2), max(0, length - _SIDE))
        for at, length in zip(divmod(centre, cube.cols), (cube.rows, cube.cols), strict=True)
    )
    part = slice(row, row + _SIDE), slice(col, col + _SIDE)
    values = np.where(measured[part][:, :, None], cube.values[part], 0)
    return _as_images(values)[0]


def _as_images(values: NDArray[Any]) -> tuple[Tensor, NDArray[np.float64]]:
    """Return a strip (1, bands, rows, cols) with spectra of length one, and the lengths (rows, cols)."""
    rows, cols, bands = values.shape
    flat = values.reshape(-1, bands)
    units = unit_rows(flat).astype(np.float32).reshape(rows, cols, bands)
    lengths = np.linalg.norm(flat.astype(np.float64), axis=1).reshape(rows, cols)
    return torch.from_numpy(units).permute(2, 0, 1)[None].contiguous(), lengths


def _apply(model: EGUNet, values: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return abundances (rows, cols, p) and reconstruction (rows, cols, bands) of a strip, in raw numbers."""
    image, lengths = _as_images(values)
    shares, rebuilt = (part[0].permute(1, 2, 0).numpy() for part in model.unmix(image))
    return shares, (rebuilt * lengths[:, :, None]).astype(np.float32)
