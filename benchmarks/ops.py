"""What is measured: every fused op, its inputs, its work, and the implementations it is compared with.

A peer is a function of the same arguments. The plain forms below are written as people write them;
`lightly_structure` follows the steps of lightly's NTXentLoss. Packages are compared with themselves
where they can be imported, and `unavailable` says why where they cannot.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from hsssl_kernels import (
    barlow_twins,
    cosine_regression,
    info_nce,
    linear_mixing,
    nt_xent,
    self_expression,
    sinkhorn,
    spectral_angle,
    sup_con,
    vicreg,
)
from hsssl_kernels.cosine_regression.reference import cosine_regression_reference
from hsssl_kernels.decorrelation.reference import barlow_twins_reference, vicreg_reference
from hsssl_kernels.info_nce.reference import info_nce_reference
from hsssl_kernels.linear_mixing.reference import linear_mixing_reference
from hsssl_kernels.nt_xent.reference import nt_xent_reference
from hsssl_kernels.self_expression.reference import self_expression_reference
from hsssl_kernels.sinkhorn.reference import sinkhorn_reference
from hsssl_kernels.spectral_angle.reference import spectral_angle_reference
from hsssl_kernels.sup_con.reference import sup_con_reference

__all__ = ["OPS", "OTHERS", "TEMPERATURE", "Op"]

TEMPERATURE = 0.1
QUEUE_ROWS = 256
PROTOTYPES = 512
MEMBERS = 5
LIBRARY = 32
Run = Callable[..., Tensor]


@dataclass(frozen=True)
class Op:
    """One row of the registry; ``inputs(n, D, dtype, device)`` gives the arguments, matrices first.

    ``flops``, ``exps`` and ``values`` count, for (n, D), the matrix operations, the exponentials and the
    values moved at least, forward and backward together. ``peers`` names functions that import and
    return one.
    """

    fused: Run
    reference: Run
    inputs: Callable[[int, int, torch.dtype, str], list[Tensor]]
    flops: Callable[[int, int], float]
    values: Callable[[int, int], float]
    plain: Run
    peers: dict[str, Callable[[], Run]] = field(default_factory=dict)
    differentiable: bool = True
    exps: Callable[[int, int], float] = lambda n, d: 0.0


def _pairs(n: int, d: int, dtype: torch.dtype, device: str) -> list[Tensor]:
    g = torch.Generator().manual_seed(n + d)
    common = torch.randn(n // 2, d, generator=g)
    return [(common + torch.randn(n // 2, d, generator=g)).to(device, dtype) for _ in range(2)]


def _towers(n: int, d: int, dtype: torch.dtype, device: str) -> list[Tensor]:
    return _pairs(2 * n, d, dtype, device)


def _queue(n: int, d: int, dtype: torch.dtype, device: str) -> list[Tensor]:
    g = torch.Generator().manual_seed(n)
    return [*_towers(min(QUEUE_ROWS, n), d, dtype, device), torch.randn(n, d, generator=g).to(device, dtype)]


def _labelled(n: int, d: int, dtype: torch.dtype, device: str) -> list[Tensor]:
    return [torch.cat(_pairs(n, d, dtype, device)), (torch.arange(n) % max(2, n // 64)).to(device)]


def _scores(n: int, d: int, dtype: torch.dtype, device: str) -> list[Tensor]:
    g = torch.Generator().manual_seed(n)
    return [torch.rand(n, PROTOTYPES, generator=g).mul(2).sub(1).to(device, dtype)]


def _mixtures(n: int, d: int, dtype: torch.dtype, device: str) -> list[Tensor]:
    """Logits, endmembers and pixels of a scene: what the pixels are is the third and no leaf."""
    g = torch.Generator().manual_seed(n + d)
    logits, e = torch.randn(n, MEMBERS, generator=g), torch.rand(MEMBERS, d, generator=g) + 0.05
    x = (logits + 0.3 * torch.randn(n, MEMBERS, generator=g)).softmax(1) @ e
    return [m.to(device, dtype) for m in (logits, e, x)]


def _library(n: int, d: int, dtype: torch.dtype, device: str) -> list[Tensor]:
    """Pixels of a scene, and the spectra of a library that each of them is compared with."""
    g = torch.Generator().manual_seed(n + d)
    return [(torch.rand(rows, d, generator=g) + 0.05).to(device, dtype) for rows in (n, LIBRARY)]


def naive_all_angles(x: Tensor, y: Tensor) -> Tensor:
    cosine = F.normalize(x) @ F.normalize(y).T
    return cosine.clamp(-1 + 1e-7, 1 - 1e-7).arccos().mean()


def naive_spectral_angle(x: Tensor, y: Tensor) -> Tensor:
    return F.cosine_similarity(x, y).clamp(-1 + 1e-7, 1 - 1e-7).arccos().mean()


def naive_mixing(logits: Tensor, e: Tensor, x: Tensor) -> Tensor:
    return naive_spectral_angle(logits.softmax(1) @ e, x.detach())


def _expressed(n: int, d: int, dtype: torch.dtype, device: str) -> list[Tensor]:
    g = torch.Generator().manual_seed(n + d)
    return [torch.randn(n, d, generator=g).mul(d**-0.5).to(device, dtype) for _ in range(3)]


def naive_nt_xent(z1: Tensor, z2: Tensor) -> Tensor:
    z = F.normalize(torch.cat([z1, z2]))
    similarity = z @ z.T / TEMPERATURE
    similarity = similarity.masked_fill(torch.eye(len(z), dtype=torch.bool, device=z.device), float("-inf"))
    return F.cross_entropy(similarity, torch.arange(len(z), device=z.device).roll(len(z1)))


def lightly_structure(z1: Tensor, z2: Tensor) -> Tensor:
    """Normalise each view, concatenate, cut the diagonal out by boolean indexing, cross-entropy."""
    b = len(z1)
    z = torch.cat([F.normalize(z1), F.normalize(z2)])
    logits = torch.einsum("nc,mc->nm", z, z) / TEMPERATURE
    others = ~torch.eye(2 * b, dtype=torch.bool, device=z.device)
    logits = logits[others].view(2 * b, 2 * b - 1)
    rows = torch.arange(b, device=z.device)
    return F.cross_entropy(logits, torch.cat([rows + b - 1, rows]))


def _lightly() -> Run:
    from lightly.loss import NTXentLoss

    return NTXentLoss(temperature=TEMPERATURE)


def _metric_learning() -> Run:
    from pytorch_metric_learning.losses import NTXentLoss, SelfSupervisedLoss

    return SelfSupervisedLoss(NTXentLoss(temperature=TEMPERATURE))


def _metric_learning_sup_con() -> Run:
    from pytorch_metric_learning.losses import SupConLoss

    return SupConLoss(temperature=TEMPERATURE)


def _inf_cl() -> Run:
    from inf_cl import cal_inf_loss

    scale = torch.tensor(1 / TEMPERATURE, device="cuda")
    return lambda q, k: cal_inf_loss(F.normalize(q), F.normalize(k), scale=scale)


def _naive_sinkhorn(scores: Tensor) -> Tensor:
    q = torch.exp(scores / 0.05)
    for _ in range(3):
        q = q / q.sum(0, keepdim=True)
        q = q / q.sum(1, keepdim=True)
    return q


def naive_barlow_twins(z1: Tensor, z2: Tensor) -> Tensor:
    a, b = (F.batch_norm(z, None, None, training=True) for z in (z1, z2))
    c = a.T @ b / len(a)
    on = (c.diagonal() - 1).square().sum()
    return on + 0.0051 * (c.square().sum() - c.diagonal().square().sum())


def naive_vicreg(z1: Tensor, z2: Tensor) -> Tensor:
    loss = 25 * F.mse_loss(z1, z2)
    for z in (z1, z2):
        c = (z - z.mean(0)).T @ (z - z.mean(0)) / (len(z) - 1)
        off = c.square().sum() - c.diagonal().square().sum()
        loss = loss + 12.5 * F.relu(1 - (z.var(0) + 1e-4).sqrt()).mean() + off / z.shape[1]
    return loss


def _with_temperature(f: Run, **options: object) -> Run:
    return lambda *x: f(*x, temperature=TEMPERATURE, **options)


def _with_queue(f: Run) -> Run:
    return lambda q, k, m: f(q, k, negatives=m, temperature=TEMPERATURE)


def _elastic_net(f: Callable[..., tuple[Tensor, Tensor, Tensor]]) -> Run:
    """Return the loss of a self-expressive network: about a quarter of the coefficients are not 0."""

    def loss(query: Tensor, key: Tensor, x: Tensor) -> Tensor:
        values, l1, l2 = f(query, key, x, threshold=0.1, scale=len(x) / 8)
        return (x - values).square().sum(1).mean() + 0.9 * l1.mean() + 0.05 * l2.mean()

    return loss


def _info_nce(symmetric: bool) -> Op:
    reference = _with_temperature(info_nce_reference, symmetric=symmetric)
    return Op(
        _with_temperature(info_nce, symmetric=symmetric),
        reference,
        _towers,
        flops=lambda n, d: 6.0 * n * n * d,
        values=lambda n, d: 6.0 * n * d,
        exps=lambda n, d: 2.0 * n * n,
        plain=reference,
        peers={} if symmetric else {"inf-cl": _inf_cl},
    )


OPS: dict[str, Op] = {
    "nt_xent": Op(
        _with_temperature(nt_xent),
        _with_temperature(nt_xent_reference),
        _pairs,
        flops=lambda n, d: 6.0 * n * n * d,
        values=lambda n, d: 3.0 * n * d,
        exps=lambda n, d: 2.0 * n * n,
        plain=naive_nt_xent,
        peers={
            "lightly structure": lambda: lightly_structure,
            "lightly": _lightly,
            "pytorch-metric-learning": _metric_learning,
        },
    ),
    "info_nce": _info_nce(symmetric=False),
    "info_nce_symmetric": _info_nce(symmetric=True),
    "info_nce_queue": Op(
        _with_queue(info_nce),
        _with_queue(info_nce_reference),
        _queue,
        flops=lambda n, d: 6.0 * min(QUEUE_ROWS, n) * n * d,
        values=lambda n, d: 2.0 * n * d,
        exps=lambda n, d: 2.0 * min(QUEUE_ROWS, n) * n,
        plain=_with_queue(info_nce_reference),
    ),
    "sup_con": Op(
        _with_temperature(sup_con),
        _with_temperature(sup_con_reference),
        _labelled,
        flops=lambda n, d: 6.0 * n * n * d,
        values=lambda n, d: 3.0 * n * d,
        exps=lambda n, d: 2.0 * n * n,
        plain=_with_temperature(sup_con_reference),
        peers={"pytorch-metric-learning": _metric_learning_sup_con},
    ),
    "barlow_twins": Op(
        barlow_twins,
        barlow_twins_reference,
        _towers,
        flops=lambda n, d: min(6.0 * n * d * d, 8.0 * n * n * d),
        values=lambda n, d: 6.0 * n * d,
        plain=naive_barlow_twins,
    ),
    "vicreg": Op(
        vicreg,
        vicreg_reference,
        _towers,
        flops=lambda n, d: 8.0 * n * d * min(n, d),
        values=lambda n, d: 6.0 * n * d,
        plain=naive_vicreg,
    ),
    "cosine_regression": Op(
        cosine_regression,
        cosine_regression_reference,
        _towers,
        flops=lambda n, d: 0.0,
        values=lambda n, d: 5.0 * n * d,
        plain=cosine_regression_reference,
    ),
    "self_expression": Op(
        _elastic_net(self_expression),
        _elastic_net(self_expression_reference),
        _expressed,
        flops=lambda n, d: 12.0 * n * n * d,
        values=lambda n, d: 9.0 * n * d,
        plain=_elastic_net(self_expression_reference),
    ),
    "sinkhorn": Op(
        sinkhorn,
        sinkhorn_reference,
        _scores,
        flops=lambda n, d: 0.0,
        values=lambda n, d: 2.0 * n * PROTOTYPES,
        exps=lambda n, d: 1.0 * n * PROTOTYPES,
        plain=_naive_sinkhorn,
        differentiable=False,
    ),
    "spectral_angle": Op(
        lambda x, y: spectral_angle(x, y, pairwise=False).mean(),
        lambda x, y: spectral_angle_reference(x, y, pairwise=False).mean(),
        _towers,
        flops=lambda n, d: 0.0,
        values=lambda n, d: 6.0 * n * d,
        plain=naive_spectral_angle,
    ),
    "spectral_angle_all": Op(
        lambda x, y: spectral_angle(x, y).mean(),
        lambda x, y: spectral_angle_reference(x, y).mean(),
        _library,
        flops=lambda n, d: 6.0 * n * LIBRARY * d,
        values=lambda n, d: 3.0 * n * d + 3.0 * n * LIBRARY,
        plain=naive_all_angles,
    ),
    "linear_mixing": Op(
        lambda a, e, x: linear_mixing(a, e, x, loss="sad", softmax=True),
        lambda a, e, x: linear_mixing_reference(a, e, x, loss="sad", softmax=True),
        _mixtures,
        flops=lambda n, d: 8.0 * n * MEMBERS * d,
        values=lambda n, d: 2.0 * n * d,
        plain=naive_mixing,
    ),
}

# Ops whose inputs are no (n, D) matrices: the module beside this one that has shapes, peers and a `main`.
OTHERS = {"spectral_views": "views", "spectral_patch_embed": "patch_embed", "embed_views": "embed_views"}
