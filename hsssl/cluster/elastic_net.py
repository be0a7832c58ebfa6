"""Elastic-net self-expression at scale: two small networks in place of a coefficient for every pair."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hsssl.schedule import cosine_warmup
from hsssl_kernels import self_expression
from hsssl_kernels.random import stream_key

__all__ = ["SelfExpressiveNet", "fit_elastic_net"]

_NET = 6  # name of a random stream


class SelfExpressiveNet(nn.Module):
    """Coefficients as ``c_ij = soft_b(<q(x_i), k(x_j)>) / p``, after Zhang et al. 2021 (SENet).

    Two MLPs give queries and keys in (-1, 1)^p and b >= 0 is learnt, so that coefficients between any
    pixels, those never trained on too, cost two passes through a small network.

    Parameters
    ----------
    inputs : int
        Features a pixel.
    hidden, width : int
        Sizes of the two hidden layers and of queries and keys (p). A choice: the paper has 1024 for
        all, for images of digits.

    References
    ----------
    Zhang, You, Vidal and Li 2021, "Learning a self-expressive network for subspace clustering",
    arXiv:2110.04318.
    """

    def __init__(self, inputs: int, hidden: int = 128, width: int = 64) -> None:
        super().__init__()
        self.query, self.key = (
            nn.Sequential(
                nn.Linear(inputs, hidden),
                nn.ReLU(),
                nn.Linear(hidden, hidden),
                nn.ReLU(),
                nn.Linear(hidden, width),
            )
            for _ in range(2)
        )
        self.raw_threshold = nn.Parameter(torch.tensor(-4.0))
        self.width = width

    @property
    def threshold(self) -> Tensor:
        """The soft threshold b, above 0."""
        return nn.functional.softplus(self.raw_threshold)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return queries and keys (n, p) of pixels (n, d)."""
        return torch.tanh(self.query(x)), torch.tanh(self.key(x))

    @torch.no_grad()
    def encode(self, features: NDArray[np.floating[Any]]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return queries and keys (n, p) of pixels (n, d) of any length."""
        query, key = self(_unit(features))
        return query.numpy(), key.numpy()

    def loss(self, x: Tensor, rows: Tensor, *, fit: float, l1_share: float) -> Tensor:
        """Return the mean over rows of ``fit / 2 |x_i - (C x)_i|^2 + l1 |c_i|_1 + (1 - l1) / 2 |c_i|^2``.

        Parameters
        ----------
        x : Tensor, shape (n, d)
            All pixels of the subset, at unit length.
        rows : Tensor, shape (b,), int64
            Those that are expressed.
        fit, l1_share : float
            Weight of the error, and share of the L1 norm in the penalty.
        """
        key = torch.tanh(self.key(x))
        query = torch.tanh(self.query(x[rows]))
        found = self_expression(query, key, x, threshold=self.threshold, scale=float(self.width), own=rows)
        error = (x[rows] - found.values).square().sum(1)
        return (fit / 2 * error + l1_share * found.l1 + (1 - l1_share) / 2 * found.l2).mean()


def fit_elastic_net(
    features: NDArray[np.floating[Any]],
    *,
    seed: int = 0,
    subset: int = 1000,
    steps: int = 200,
    batch: int = 256,
    fit: float = 200.0,
    l1_share: float = 0.9,
    lr: float = 2e-3,
) -> SelfExpressiveNet:
    """Train on a subset of pixels.

    Parameters
    ----------
    features : ndarray, shape (n, d), real
        A pixel a row; rows are brought to unit length.
    seed : int
        Of the subset, the weights and the batches.
    subset : int
        Pixels that express each other in training.
    steps, batch : int
        Adam steps, and pixels expressed in each.
    fit, l1_share : float
        As in `SelfExpressiveNet.loss`; the share is the paper's, ``fit`` a choice.
    lr : float
        Peak learning rate; it falls as a cosine.

    Returns
    -------
    SelfExpressiveNet
        Its `SelfExpressiveNet.encode` takes any pixels.
    """
    x = _unit(features)
    generator = torch.Generator().manual_seed(stream_key(seed, 0, _NET))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream_key(seed, 1, _NET))
        net = SelfExpressiveNet(x.shape[1])
    seen = x[torch.randperm(len(x), generator=generator)[:subset]]
    optimizer = torch.optim.Adam(net.parameters(), lr=lr)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = lr * cosine_warmup(step, steps, math.ceil(steps / 20))
        rows = torch.randperm(len(seen), generator=generator)[:batch]
        loss = net.loss(seen, rows, fit=fit, l1_share=l1_share)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return net.requires_grad_(False)


def _unit(features: NDArray[np.floating[Any]]) -> Tensor:
    rows = torch.from_numpy(np.ascontiguousarray(features, dtype=np.float32))
    return nn.functional.normalize(rows, dim=1)
