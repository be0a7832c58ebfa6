"""The public ops: Barlow Twins and VICReg, compositions on torch's own matrix products."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from hsssl_kernels.checks import check_number, check_pair, compute_dtype, log_dtype
from hsssl_kernels.decorrelation.energy import cross_energy, own_energy

__all__ = ["barlow_twins", "vicreg"]


def barlow_twins(z1: Tensor, z2: Tensor, *, redundancy: float = 0.0051, eps: float = 1e-5) -> Tensor:
    """Return the redundancy-reducing loss of Barlow Twins.

    With a, b the embeddings standardised over the batch (biased variance plus ``eps``) and
    ``C = a^T b / B``, ``loss = sum_i (1 - C_ii)^2 + redundancy * sum_(i != j) C_ij^2``.
    Where B < 3/4 D, C is not formed: time O(B^2 D), memory O(B D + B^2).

    Parameters
    ----------
    z1, z2 : Tensor, shape (B, D), float64, float32, float16 or bfloat16
        Embeddings of the two views, B >= 2; not normalised. Any strides.
    redundancy : float
        Weight of the terms off the diagonal.
    eps : float
        Added to the variance.

    Returns
    -------
    loss : Tensor, scalar, float32 (float64 for float64)
        Over the batch of this process.

    Raises
    ------
    ValueError, TypeError
        If shapes, dtypes or devices disagree, B < 2, or a weight is negative or not finite.

    References
    ----------
    Zbontar et al. 2021, "Barlow Twins: self-supervised learning via redundancy reduction",
    arXiv:2103.03230.

    Examples
    --------
    >>> z = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
    >>> round(barlow_twins(z, -z).item(), 2)  # two dimensions, each (1 - (-1))^2
    8.0
    """
    _check("barlow_twins", z1, z2, redundancy=redundancy, eps=eps)
    wide = compute_dtype(z1)
    with torch.autocast(z1.device.type, enabled=False):
        a, b = (F.batch_norm(z.to(wide), None, None, training=True, eps=eps) for z in (z1, z2))
        diagonal = (a * b).mean(0)  # (D,)
        # the diagonal is most of it: the difference is formed before it is rounded
        off = cross_energy(a, b) / len(a) ** 2 - diagonal.to(log_dtype(a)).square().sum()
        return (1 - diagonal).square().sum() + redundancy * off.to(wide)


def vicreg(
    z1: Tensor,
    z2: Tensor,
    *,
    invariance: float = 25.0,
    variance: float = 25.0,
    covariance: float = 1.0,
    eps: float = 1e-4,
) -> Tensor:
    """Return the variance-invariance-covariance loss.

    ``loss = invariance * mean (z1 - z2)^2 + sum over both views z of
    [ variance / 2 * mean_j max(0, 1 - sqrt(var_j + eps)) + covariance / D * sum_(i != j) C_ij^2 ]``
    with unbiased variances and ``C`` the covariance of z. Where B < D, C is not formed:
    time O(B^2 D), memory O(B D + B^2).

    Parameters
    ----------
    z1, z2 : Tensor, shape (B, D), float64, float32, float16 or bfloat16
        Embeddings of the two views, B >= 2; not normalised. Any strides.
    invariance, variance, covariance : float
        Weights of the three terms.
    eps : float
        Added to the variance.

    Returns
    -------
    loss : Tensor, scalar, float32 (float64 for float64)
        Over the batch of this process.

    Raises
    ------
    ValueError, TypeError
        If shapes, dtypes or devices disagree, B < 2, or a weight is negative or not finite.

    References
    ----------
    Bardes, Ponce, LeCun 2022, "VICReg: variance-invariance-covariance regularization for
    self-supervised learning", arXiv:2105.04906.

    Examples
    --------
    >>> z = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
    >>> vicreg(z, z).item()  # equal views, standard deviations above 1, nothing correlated
    0.0
    """
    weights = {"invariance": invariance, "variance": variance, "covariance": covariance}
    _check("vicreg", z1, z2, **weights, eps=eps)
    wide = compute_dtype(z1)
    with torch.autocast(z1.device.type, enabled=False):
        x, y = z1.to(wide), z2.to(wide)
        return invariance * F.mse_loss(x, y) + sum(_spread(z, variance, covariance, eps) for z in (x, y))


def _spread(z: Tensor, variance: float, covariance: float, eps: float) -> Tensor:
    """Return the hinge on standard deviations and the covariances off the diagonal of one view."""
    n, columns = z.shape
    centred = z - z.mean(0)
    spread = centred.square().sum(0) / (n - 1)  # (D,)
    hinge = F.relu(1 - (spread + eps).sqrt()).mean() / 2
    off = own_energy(centred) / (n - 1) ** 2 - spread.to(log_dtype(z)).square().sum()
    return variance * hinge + covariance * off.to(z.dtype) / columns


def _check(op: str, z1: Tensor, z2: Tensor, **weights: float) -> None:
    check_pair(op, "z1", z1, "z2", z2)
    if len(z1) < 2:
        raise ValueError(f"{op}: one pair has no spread over the batch, got B=1; bring a larger batch")
    for name, weight in weights.items():
        check_number(op, name, weight)
        if name == "eps" and weight == 0:
            raise ValueError(f"{op}: `eps` must be above 0, got 0; a constant column has no other spread")
        if not (math.isfinite(weight) and weight >= 0):
            raise ValueError(f"{op}: `{name}` must be finite and not negative, got {weight}; 0 drops it")
