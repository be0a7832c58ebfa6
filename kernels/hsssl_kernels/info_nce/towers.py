"""InfoNCE over the keys of the batch: a sweep by rows (and one by columns) each way."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from hsssl_kernels.checks import compute_dtype, log_dtype
from hsssl_kernels.distributed import gather, rank_and_world
from hsssl_kernels.first_order import first_order
from hsssl_kernels.lse import (
    expected_similarity,
    is_swept,
    lse,
    lse_grad,
    lse_with_grad,
    pair_lse_with_grad,
    wide_rows,
)
from hsssl_kernels.lse.held import fits_at_once
from hsssl_kernels.rows import finish_rows, unit_rows

__all__ = ["TowerOptions", "TowerRows"]


class TowerOptions(NamedTuple):
    """How the rows are formed; ``even`` promises a gradient in which all rows weigh the same."""

    symmetric: bool
    normalize: bool
    even: bool
    gathering: bool
    backend: str


class _Saved(NamedTuple):
    """What the backward pass needs: what came in, unit rows, log-sum-exps, and a gradient formed already.

    ``over_queries`` is empty where one direction is asked for, the totals where they are formed later.
    ``pull`` is the share of a row that its positive leaves to the others, the mean over directions.
    """

    query: Tensor
    key: Tensor
    temperature: Tensor
    value: Tensor
    q: Tensor
    k: Tensor
    q_inverse: Tensor
    k_inverse: Tensor
    all_q: Tensor
    all_k: Tensor
    over_keys: Tensor
    over_queries: Tensor
    pull: Tensor
    q_total: Tensor
    k_total: Tensor


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
        wide = compute_dtype(query)
        positive = (q.to(wide) * k.to(wide)).sum(1) / value
        q_total = k_total = none = q.new_empty(0, dtype=log_dtype(q))
        # the towers' gradient formed on the way, where even weights allow it, and both directions' fit
        at_once = even and backend == "torch" and not gathering
        at_once = at_once and (not symmetric or fits_at_once(len(q), len(k)))
        ctx.ready = at_once and any(ctx.needs_input_grad[:2])
        # a positive stays out of the sum: a share of nearly 1 would cost the others their digits
        if ctx.ready:
            form = pair_lse_with_grad if symmetric else lse_with_grad
            *others, q_total, k_total = form(q, k, value)
        else:
            others = _over_others(q, k, all_q, all_k, value, options)
        behind = torch.stack(others) - positive  # (directions, n)
        each = torch.logaddexp(behind, torch.zeros_like(behind))
        over_keys, over_queries = each[0] + positive, each[1] + positive if symmetric else none
        pull = behind.sigmoid().mean(0)
        formed = (q, k, q_inverse, k_inverse, all_q, all_k, over_keys, over_queries, pull, q_total, k_total)
        ctx.save_for_backward(query, key, temperature, value, *formed)
        ctx.options = options
        return each.mean(0).to(wide)

    @staticmethod
    @first_order("info_nce")
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of the tensors that came in."""
        saved, options = _Saved(*ctx.saved_tensors), ctx.options
        query_wanted, key_wanted, temperature_wanted = ctx.needs_input_grad[:3]
        by_sweep = is_swept(saved.query)
        dq = dk = dt = None
        if query_wanted or key_wanted or not by_sweep:
            # weights are taken relative to the largest, so that W keeps to the range of float16
            largest = gradients[0].abs().amax()
            weight = gradients[0] / torch.where(largest == 0, 1.0, largest)
            factor = largest / saved.value
            if ctx.ready:
                q_total, k_total, pull = saved.q_total, saved.k_total, torch.zeros_like(weight)
                factor = gradients[0][0] / saved.value
            else:
                q_total, k_total = _totals(saved, weight, options, key_wanted)
                pull = weight * saved.pull
            q, k, q_inverse, k_inverse = saved.q, saved.k, saved.q_inverse, saved.k_inverse
            dq, along = finish_rows(q_total, k, pull, saved.query, q_inverse, factor, 0, options.backend)
            if key_wanted:
                dk, _ = finish_rows(k_total, q, pull, saved.key, k_inverse, factor, 0, options.backend)
        if temperature_wanted:
            if by_sweep:
                dt = (gradients[0] * _rows_by_temperature(saved, options)).sum() / saved.value
            else:  # every similarity is linear in its query
                dt = -along.sum(dtype=log_dtype(along)) / saved.value
            dt = dt.to(saved.temperature).reshape(saved.temperature.shape)
        return dq, dk, dt, None


def _over_others(
    q: Tensor, k: Tensor, all_q: Tensor, all_k: Tensor, value: Tensor, options: TowerOptions
) -> list[Tensor]:
    """Return the log-sum-exps (n,) of every row's similarities to all but its positive, each direction's."""
    symmetric, normalize, _, gathering, backend = options
    offset = rank_and_world(gathering)[0] * len(q)
    if gathering and symmetric:
        by_keys, _ = lse(q, all_k, value, offset, 0, False, normalize, backend, [])
        by_queries, _ = lse(k, all_q, value, offset, 0, False, normalize, backend, [])
    else:
        by_keys, by_queries = lse(q, all_k, value, offset, 0, symmetric, normalize, backend, [])
    return [by_keys, by_queries] if symmetric else [by_keys]


def _totals(saved: _Saved, weight: Tensor, options: TowerOptions, key_wanted: bool) -> tuple[Tensor, Tensor]:
    """Return W k and W^T q, both (n, D), for this rank's rows and without their positives."""
    symmetric, normalize, _, gathering, backend = options
    q, k, value = saved.q, saved.k, saved.value
    share = weight / 2 if symmetric else weight
    q_side = (saved.over_keys, share)
    k_side = (saved.over_queries, share) if symmetric else _no_side(saved.over_keys)
    if not gathering:
        found: tuple[Tensor, Tensor] = lse_grad(
            q, k, value, *q_side, *k_side, 0, 0, key_wanted, normalize, backend, []
        )
        return found
    # the mean over rows gives every row of every rank the same weight
    rank, world = rank_and_world(True)
    all_q_side, all_k_side = ((gather(log), w.repeat(world)) for log, w in (q_side, k_side))
    tail: tuple[Any, ...] = (rank * len(q), 0, False, normalize, backend, [])
    q_total, k_total = lse_grad(q, saved.all_k, value, *q_side, *all_k_side, *tail)
    if key_wanted:
        k_total, _ = lse_grad(k, saved.all_q, value, *k_side, *all_q_side, *tail)
    return q_total, k_total


def _rows_by_temperature(saved: _Saved, options: TowerOptions) -> Tensor:
    """Return t times the derivative of every row's loss by t (n,), float64."""
    value = saved.value
    q, k = (wide_rows(x, options.normalize) for x in (saved.query, saved.key))
    positive = (q * k).sum(1) / value
    if not options.gathering:
        by_keys, _, by_queries = expected_similarity(q, k, value, -1, options.symmetric)
    else:
        all_q, all_k = (wide_rows(gather(x), options.normalize) for x in (saved.query, saved.key))
        by_keys, _, by_queries = expected_similarity(q, all_k, value, -1, False)
        if options.symmetric:
            by_queries, _, _ = expected_similarity(k, all_q, value, -1, False)
    expected = (by_keys + by_queries) / 2 if options.symmetric else by_keys
    rows: Tensor = positive - expected
    return rows


def _no_side(like: Tensor) -> tuple[Tensor, Tensor]:
    return torch.full_like(like, float("inf")), torch.zeros_like(like)
