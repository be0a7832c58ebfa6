"""InfoNCE over the keys of the batch: a sweep by rows (and one by columns) each way."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from hsssl_kernels.checks import compute_dtype
from hsssl_kernels.distributed import gather, rank_and_world
from hsssl_kernels.first_order import first_order
from hsssl_kernels.lse import expected_similarity, is_swept, lse, lse_grad, lse_with_grad, wide_rows
from hsssl_kernels.rows import finish_rows, unit_rows

__all__ = ["TowerOptions", "TowerRows"]


class TowerOptions(NamedTuple):
    """How the rows are formed; ``even`` promises a gradient in which all rows weigh the same."""

    symmetric: bool
    normalize: bool
    even: bool
    gathering: bool
    backend: str


class TowerRows(torch.autograd.Function):
    """Losses (n,) of this rank's rows; the gradient is that of the sum over all ranks' rows."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, temperature: Tensor, options: TowerOptions) -> Tensor:
        """Return the losses (n,)."""
        symmetric, normalize, even, gathering, backend = options
        value = temperature.detach().to("cpu", torch.float64).reshape(())
        q, q_inverse = unit_rows(query, backend) if normalize else (query, query.new_empty(0))
        k, k_inverse = unit_rows(key, backend) if normalize else (key, key.new_empty(0))
        all_q, all_k = (gather(q), gather(k)) if gathering else (q, k)  # (N, D)
        none = q.new_empty(0, dtype=torch.float64)
        q_total = k_total = none
        over_queries = none
        # the towers' gradient formed on the way, where one direction and even weights allow it
        ctx.ready = even and backend == "torch" and not (symmetric or gathering) and any(ctx.needs_input_grad)
        if ctx.ready:
            over_keys, q_total, k_total = lse_with_grad(q, k, value)
        elif gathering and symmetric:
            over_keys, _ = lse(q, all_k, value, -1, False, normalize, backend)
            over_queries, _ = lse(k, all_q, value, -1, False, normalize, backend)
        else:
            over_keys, over_queries = lse(q, all_k, value, -1, symmetric, normalize, backend)
        wide = compute_dtype(query)
        positive = (q.to(wide) * k.to(wide)).sum(1) / value
        formed = (q, k, q_inverse, k_inverse, all_q, all_k, over_keys, over_queries, q_total, k_total)
        ctx.save_for_backward(query, key, temperature, value, *formed)
        ctx.options = options
        total: Tensor = (over_keys + over_queries) / 2 if symmetric else over_keys
        return (total - positive).to(wide)

    @staticmethod
    @first_order("info_nce")
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of the tensors that came in."""
        query, key, temperature, value, q, k, q_inverse, k_inverse = ctx.saved_tensors[:8]
        # weights are taken relative to the largest, so that W keeps to the range of float16
        largest = gradients[0].abs().amax()
        weight = gradients[0] / torch.where(largest == 0, 1.0, largest)
        factor = largest / value
        if ctx.ready:
            q_total, k_total = ctx.saved_tensors[-2:]
            weight, factor = torch.ones_like(weight), gradients[0][0] / value
        else:
            q_total, k_total = _totals(ctx.saved_tensors[3:12], weight, ctx.options)
        backend = ctx.options.backend
        if _pairs_inside(ctx.options):
            weight = torch.zeros_like(weight)
        dq, along = finish_rows(q_total, k, weight, query, q_inverse, factor, 0, backend)
        dk, _ = finish_rows(k_total, q, weight, key, k_inverse, factor, 0, backend)
        dt = None
        if ctx.needs_input_grad[2]:
            if is_swept(query):
                over_keys, over_queries = ctx.saved_tensors[10:12]
                rows = _rows_by_temperature(query, key, value, over_keys, over_queries, ctx.options)
                dt = (gradients[0] * rows).sum() / value
            else:  # every similarity is linear in its query
                dt = -along.sum(dtype=torch.float64) / value
            dt = dt.to(temperature).reshape(temperature.shape)
        return dq, dk, dt, None


def _totals(saved: tuple[Tensor, ...], weight: Tensor, options: TowerOptions) -> tuple[Tensor, Tensor]:
    """Return W k and W^T q, both (n, D), for this rank's rows."""
    value, q, k, _, _, all_q, all_k, over_keys, over_queries = saved
    symmetric, normalize, _, gathering, backend = options
    share = weight / 2 if symmetric else weight
    q_side = (over_keys, share)
    k_side = (over_queries, share) if symmetric else _no_side(over_keys)
    if not gathering:
        pairs = 0 if _pairs_inside(options) else -1
        found: tuple[Tensor, Tensor] = lse_grad(
            q, k, value, *q_side, *k_side, -1, True, normalize, backend, pairs
        )
        return found
    # the mean over rows gives every row of every rank the same weight
    world = rank_and_world(True)[1]
    all_q_side, all_k_side = ((gather(log), w.repeat(world)) for log, w in (q_side, k_side))
    q_total, _ = lse_grad(q, all_k, value, *q_side, *all_k_side, -1, False, normalize, backend)
    k_total, _ = lse_grad(k, all_q, value, *k_side, *all_q_side, -1, False, normalize, backend)
    return q_total, k_total


def _rows_by_temperature(
    query: Tensor, key: Tensor, value: Tensor, over_keys: Tensor, over_queries: Tensor, options: TowerOptions
) -> Tensor:
    """Return t times the derivative of every row's loss by t (n,), float64."""
    q, k = (wide_rows(x, options.normalize) for x in (query, key))
    positive = (q * k).sum(1) / value
    none = q.new_empty(0)
    if not options.gathering:
        by_keys, _, by_queries = expected_similarity(q, k, value, over_keys, over_queries, -1)
    else:
        all_q, all_k = (wide_rows(gather(x), options.normalize) for x in (query, key))
        by_keys, _, by_queries = expected_similarity(q, all_k, value, over_keys, none, -1)
        if options.symmetric:
            by_queries, _, _ = expected_similarity(k, all_q, value, over_queries, none, -1)
    expected = (by_keys + by_queries) / 2 if options.symmetric else by_keys
    rows: Tensor = positive - expected
    return rows


def _pairs_inside(options: TowerOptions) -> bool:
    """Return whether the positives are taken off while the similarities are at hand."""
    return options.backend == "torch" and not options.gathering


def _no_side(like: Tensor) -> tuple[Tensor, Tensor]:
    return torch.full_like(like, float("inf")), torch.zeros_like(like)
