"""The public op: InfoNCE, exact in O((n + m) D) memory."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from hsssl_kernels.checks import check_flag, check_pair, check_reduction, check_temperature
from hsssl_kernels.dispatch import Backend, choose_backend
from hsssl_kernels.distributed import described, mean_over_ranks, rank_and_world, together
from hsssl_kernels.info_nce.queue import QueueRows
from hsssl_kernels.info_nce.towers import TowerOptions, TowerRows

__all__ = ["info_nce"]


def info_nce(
    query: Tensor,
    key: Tensor,
    *,
    temperature: float | Tensor = 0.07,
    negatives: Tensor | None = None,
    symmetric: bool = False,
    reduction: Literal["mean", "sum", "none"] = "mean",
    normalize: bool = True,
    gather_distributed: bool = False,
    backend: Backend = "auto",
) -> Tensor:
    """Return the contrastive loss that finds each query's key among all keys, or against a queue.

    With rows of norm 1, ``loss_i = log sum_j exp(<q_i, k_j> / t) - <q_i, k_i> / t`` over the keys of
    the batch. With ``negatives`` the sum runs over k_i and the queue instead (MoCo). With
    ``symmetric`` it is the mean of this and of the loss with queries and keys swapped (CLIP).
    The value is exact at any n and m, and similarities are held tile by tile; those of up to 4,096 pairs in
    both directions in blocked torch all at once (64 MiB at most, in float64 128).

    Parameters
    ----------
    query, key : Tensor, shape (n, D), float64, float32, float16 or bfloat16
        Row i of both is a pair. Any strides.
    temperature : float or Tensor of one element
        t > 0; a tensor may require a gradient, which for float32 takes one more sweep, in float64:
        rows cancel in it. Reading a tensor waits for the GPU once a call.
    negatives : Tensor, shape (m, D), optional
        A queue; it may require a gradient, though MoCo's does not.
    symmetric : bool
        Both directions; not together with ``negatives``.
    reduction : {"mean", "sum", "none"}
        Over the n rows; "none" gives (n,).
    normalize : bool
        Divide every row by its norm; False takes the rows as they are.
    gather_distributed : bool
        Contrast with the keys (and queries) of all ranks, which must bring equal shapes. Each rank
        returns the mean over all ranks' rows, and the mean over ranks of the parameters' gradients,
        as DistributedDataParallel takes it, is that of one process with the whole batch. Needs
        ``reduction="mean"`` and no ``negatives``; without a process group this changes nothing.
    backend : {"auto", "triton", "torch"}
        "auto" is Triton on CUDA and ROCm, blocked torch elsewhere.

    Returns
    -------
    loss : Tensor, scalar or (n,), float32 (float64 for float64)

    Raises
    ------
    ValueError, TypeError
        If shapes, dtypes or devices disagree, the batch is empty or differs between ranks, there
        is nothing to contrast with, or the temperature is not a positive finite number.

    References
    ----------
    van den Oord et al. 2018, "Representation learning with contrastive predictive coding", arXiv:1807.03748.
    He et al. 2020, "Momentum contrast", arXiv:1911.05722. Radford et al. 2021, "CLIP", arXiv:2103.00020.

    Examples
    --------
    >>> import torch
    >>> z = torch.eye(2)
    >>> round(info_nce(z, z, temperature=1.0).item(), 4)  # log(e + 1) - 1
    0.3133
    """
    world = rank_and_world(gather_distributed)[1]

    def say(found: tuple[Tensor, str]) -> str:
        return described(query, found[0], symmetric=symmetric, normalize=normalize)

    def check() -> tuple[Tensor, str]:
        check_flag("info_nce", "gather_distributed", gather_distributed)
        check_pair("info_nce", "query", query, "key", key)
        check_flag("info_nce", "symmetric", symmetric)
        check_flag("info_nce", "normalize", normalize)
        check_reduction("info_nce", reduction)
        _check_options(query, negatives, symmetric, reduction, gather_distributed, world)
        return check_temperature("info_nce", temperature), choose_backend("info_nce", backend, query)

    value, chosen = together("info_nce", world, check, say)
    # sums then have the same bits whatever the strides were
    query, key = query.contiguous(), key.contiguous()
    if negatives is not None:
        queue = negatives.contiguous()
        rows: Tensor = QueueRows.apply(query, key, queue, value, normalize, chosen, torch.is_grad_enabled())  # type: ignore[no-untyped-call]
    else:
        even = reduction != "none" and torch.is_grad_enabled()
        options = TowerOptions(symmetric, normalize, even, world > 1, chosen)
        rows = TowerRows.apply(query, key, value, options)  # type: ignore[no-untyped-call]
    if reduction == "none":
        return rows
    if reduction == "sum":
        return rows.sum()
    return mean_over_ranks(rows.mean()) if world > 1 else rows.mean()


def _check_options(
    query: Tensor, negatives: Tensor | None, symmetric: bool, reduction: str, gathering: bool, world: int
) -> None:
    if negatives is None:
        if len(query) * world == 1:
            raise ValueError(
                "info_nce: one pair has nothing to contrast with, got n=1; "
                "bring a larger batch or `negatives`"
            )
    else:
        check_pair("info_nce", "query", query, "negatives", negatives, rows=False)
        if symmetric:
            raise ValueError("info_nce: `symmetric` and `negatives` exclude each other, got both; drop one")
        if gathering:
            raise ValueError(
                "info_nce: `gather_distributed` does nothing for a queue, got both; "
                "gather the keys where they enter the queue"
            )
    if gathering and reduction != "mean":
        raise ValueError(
            f'info_nce: `gather_distributed` needs reduction="mean", got {reduction!r}; '
            "the other ranks' row weights are not known here"
        )
