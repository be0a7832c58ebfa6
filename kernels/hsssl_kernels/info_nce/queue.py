"""InfoNCE against a queue: few rows, many columns, and no gradient by the columns unless asked for."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from hsssl_kernels.checks import compute_dtype, log_dtype
from hsssl_kernels.first_order import first_order
from hsssl_kernels.lse import (
    expected_similarity,
    is_swept,
    lse,
    lse_grad,
    queue_lse_with_grad,
    wide_rows,
)
from hsssl_kernels.rows import finish_rows, unit_rows

__all__ = ["QueueRows"]


class QueueRows(torch.autograd.Function):
    """Losses (n,) = log(exp(lse of the queue) + exp(positive)) - positive."""

    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        negatives: Tensor,
        temperature: Tensor,
        normalize: bool,
        backend: str,
        tracked: bool,
    ) -> Tensor:
        """Return the losses (n,)."""
        value = temperature.detach().to("cpu", torch.float64).reshape(())
        none = query.new_empty(0)
        q, q_inverse = unit_rows(query, backend) if normalize else (query, none)
        k, k_inverse = unit_rows(key, backend) if normalize else (key, none)
        queue, inverse = unit_rows(negatives, backend) if normalize else (negatives, none)
        # the queries' gradient formed on the way: rows apart, whatever they weigh later
        wanted = tracked and ctx.needs_input_grad[0] and not ctx.needs_input_grad[2]
        ctx.ready = wanted and backend == "torch"
        if ctx.ready:
            over_queue, total = queue_lse_with_grad(q, queue, value)  # (n,), (n, D)
        else:
            over_queue, _ = lse(q, queue, value, -1, 0, False, normalize, backend, [])
            total = none
        wide = compute_dtype(query)
        behind = over_queue - (q.to(wide) * k.to(wide)).sum(1) / value
        formed = (q, k, queue, q_inverse, k_inverse, inverse, over_queue, behind, total)
        ctx.save_for_backward(query, key, negatives, temperature, value, *formed)
        ctx.options = (normalize, backend)
        return torch.logaddexp(behind, torch.zeros_like(behind)).to(wide)

    @staticmethod
    @first_order("info_nce")
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of the tensors that came in."""
        query, key, negatives, temperature, value = ctx.saved_tensors[:5]
        q, k, queue, q_inverse, k_inverse, inverse, over_queue, behind, total = ctx.saved_tensors[5:]
        normalize, backend = ctx.options
        gradient = gradients[0] * behind.sigmoid()  # by the log-sum-exp; minus this by the positive
        largest = gradient.abs().amax()
        weight = gradient / torch.where(largest == 0, 1.0, largest)
        factor = largest / value
        query_wanted, key_wanted, queue_wanted, temperature_wanted = ctx.needs_input_grad[:4]
        dq = dk = dn = dt = None
        by_sweep = is_swept(query)
        if query_wanted or queue_wanted or (temperature_wanted and not by_sweep):
            rows = (over_queue, weight)
            columns = (over_queue.new_full((len(queue),), float("inf")), over_queue.new_zeros(len(queue)))
            if ctx.ready:
                total = total * weight.to(total.dtype).unsqueeze(1)
            else:
                total, queue_total = lse_grad(
                    q, queue, value, *rows, *columns, -1, 0, queue_wanted, normalize, backend, []
                )
            dq, along = finish_rows(total, k, weight, query, q_inverse, factor, 0, backend)
            if queue_wanted:
                dn, _ = finish_rows(queue_total, queue, columns[1], negatives, inverse, factor, 0, backend)
        if key_wanted:
            none = torch.zeros_like(key, dtype=compute_dtype(key))
            dk, _ = finish_rows(none, q, weight, key, k_inverse, factor, 0, backend)
        if temperature_wanted:
            if by_sweep:
                each = _rows_by_temperature(query, key, negatives, value, normalize)
                dt = (gradients[0] * each).sum() / value
            else:  # every similarity is linear in its query
                dt = -along.sum(dtype=log_dtype(along)) / value
            dt = dt.to(temperature).reshape(temperature.shape)
        return dq, dk, dn, dt, None, None, None


def _rows_by_temperature(
    query: Tensor, key: Tensor, negatives: Tensor, value: Tensor, normalize: bool
) -> Tensor:
    """Return t times the derivative of every row's loss by t (n,), float64."""
    q, k, queue = (wide_rows(x, normalize) for x in (query, key, negatives))
    expected, log, _ = expected_similarity(q, queue, value, -1, False)
    positive = (q * k).sum(1) / value
    rows: Tensor = (log - positive).sigmoid() * (positive - expected)
    return rows
