"""The public op: rows expressed by other rows, with the sums that sparsity and ridge penalties need."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from hsssl_kernels.checks import check_pair, check_rows, compute_dtype
from hsssl_kernels.dispatch import Backend, choose_backend, register
from hsssl_kernels.first_order import first_order
from hsssl_kernels.self_expression.blocked import express_blocked, express_grad_blocked
from hsssl_kernels.self_expression.inputs import check_own, check_scale, check_threshold

__all__ = ["SelfExpression", "express", "express_grad", "self_expression"]


class SelfExpression(NamedTuple):
    """What `self_expression` returns: ``C x`` (n, F), ``sum_j |c_ij|`` (n,) and ``sum_j c_ij^2`` (n,)."""

    values: Tensor
    l1: Tensor
    l2: Tensor


def self_expression(
    query: Tensor,
    key: Tensor,
    x: Tensor,
    *,
    threshold: float | Tensor = 0.0,
    scale: float | Tensor = 1.0,
    own: Tensor | None = None,
    backend: Backend = "auto",
) -> SelfExpression:
    """Express rows by the others with soft-thresholded coefficients, which are never stored.

    ``c_ij = sign(s_ij) max(|s_ij| - threshold, 0) / scale`` with ``s = query key^T``, and 0 where j is
    ``own[i]``. Memory is O((n + m) (D + F)), in backward too, where S is formed again. With threshold 0 and
    query = key this is the low-rank self-expression of a ridge penalty without its diagonal.

    Parameters
    ----------
    query : Tensor, shape (n, D), float64, float32, float16 or bfloat16
        Of the rows that are expressed. Any strides.
    key : Tensor, shape (m, D), same dtype
        Of the rows that express them.
    x : Tensor, shape (m, F), same dtype
        Those rows themselves.
    threshold : float or Tensor of one element
        At least 0, in the unit of S; a tensor gets a gradient.
    scale : float or Tensor of one element
        Above 0, divides the coefficients; a tensor gets a gradient.
    own : Tensor, shape (n,), int64, optional
        The row of ``key`` that each query is, below 0 for none; row i is i unless given, for n = m.
    backend : {"auto", "triton", "torch"}
        "auto" is Triton on CUDA and ROCm, torch elsewhere.

    Returns
    -------
    SelfExpression
        ``values`` (n, F), ``l1`` (n,), ``l2`` (n,), float32 (float64 for float64).

    Raises
    ------
    ValueError, TypeError
        If shapes, dtypes or devices disagree, or a parameter is out of range.

    References
    ----------
    Zhang, You, Vidal and Li 2021, "Learning a self-expressive network for subspace clustering",
    arXiv:2110.04318.

    Examples
    --------
    >>> import torch
    >>> z = torch.tensor([[1.0, 0.0], [2.0, 0.0], [0.0, 3.0]])
    >>> self_expression(z, z, z, threshold=1.0).values[0]
    tensor([2., 0.])
    """
    name = "self_expression"
    check_pair(name, "query", query, "key", key, rows=False)
    check_rows(name, "x", x)
    if len(x) != len(key) or x.dtype != key.dtype or x.device != key.device:
        raise ValueError(
            f"{name}: `x` must have the m={len(key)} rows, dtype and device of `key` "
            f"({key.dtype}, {key.device}), "
            f"got {tuple(x.shape)}, {x.dtype}, {x.device}"
        )
    check_scale(name, scale)
    chosen = choose_backend(name, backend, query)
    limit, own = check_threshold(name, threshold, query), check_own(name, own, query, key)
    values, l1, l2 = _SelfExpression.apply(query, key, x, limit, own, chosen)  # type: ignore[no-untyped-call]
    return SelfExpression(values / scale, l1 / scale, l2 / scale**2)


class _SelfExpression(torch.autograd.Function):
    """Saves its inputs alone; the coefficients are formed again on the way back."""

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, x: Tensor, threshold: Tensor, own: Tensor, backend: str
    ) -> tuple[Tensor, Tensor, Tensor]:
        ctx.save_for_backward(query, key, x, threshold, own)
        ctx.backend = backend
        found: tuple[Tensor, Tensor, Tensor] = express(query, key, x, threshold, own, backend)
        return found

    @staticmethod
    @first_order("self_expression")
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        query, key, x, threshold, own = ctx.saved_tensors
        values, l1, l2 = gradients
        wanted = ctx.needs_input_grad
        by_query, by_key, by_x, by_threshold = express_grad(
            query, key, x, threshold, own, values, torch.stack([l1, l2]), wanted[2], ctx.backend
        )
        return (
            by_query.to(query.dtype) if wanted[0] else None,
            by_key.to(key.dtype) if wanted[1] else None,
            by_x.to(x.dtype) if wanted[2] else None,
            by_threshold.to(threshold.dtype) if wanted[3] else None,
            None,
            None,
        )


def _express(
    query: Tensor, key: Tensor, x: Tensor, threshold: Tensor, own: Tensor, backend: str
) -> tuple[Tensor, Tensor, Tensor]:
    if backend == "torch":
        return express_blocked(query, key, x, threshold, own)
    from hsssl_kernels.self_expression.kernel import launch_express

    return launch_express(query, key, x, threshold, own)


def _express_fake(
    query: Tensor, key: Tensor, x: Tensor, threshold: Tensor, own: Tensor, backend: str
) -> tuple[Tensor, Tensor, Tensor]:
    rows = query.new_empty(query.shape[0], dtype=compute_dtype(query))
    return rows.new_empty(query.shape[0], x.shape[1]), rows, torch.empty_like(rows)


def _express_grad(
    query: Tensor,
    key: Tensor,
    x: Tensor,
    threshold: Tensor,
    own: Tensor,
    gradient: Tensor,
    weight: Tensor,
    by_x: bool,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    if backend == "torch":
        return express_grad_blocked(query, key, x, threshold, own, gradient, weight, by_x)
    from hsssl_kernels.self_expression.kernel import launch_express, launch_express_grad

    # gradients of a mean are of the order 1 / n, where float16 has few bits: in the kernel they are near 1
    lift = torch.stack([gradient.abs().amax(), weight.abs().amax()]).amax().log2().floor().exp2()
    lift = torch.where(lift > 0, lift, 1.0)
    upstream, weight = (gradient / lift).to(query.dtype), weight / lift
    by_query, along = launch_express_grad(query, key, upstream, x, weight, threshold, own, True)
    by_key = launch_express_grad(key, query, x, upstream, weight, threshold, own, False)[0]
    by_value = by_key.new_empty(0, x.shape[1])
    if by_x:
        by_value = launch_express(key, query, upstream, threshold, own, by_row=False)[0]
    return by_query * lift, by_key * lift, by_value * lift, -along.sum() * lift


def _express_grad_fake(
    query: Tensor,
    key: Tensor,
    x: Tensor,
    threshold: Tensor,
    own: Tensor,
    gradient: Tensor,
    weight: Tensor,
    by_x: bool,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    wide = query.new_empty(0, dtype=compute_dtype(query))
    rows = x.shape[0] if by_x else 0
    return (
        wide.new_empty(query.shape),
        wide.new_empty(key.shape),
        wide.new_empty(rows, x.shape[1]),
        wide.new_empty(()),
    )


# express(query (n, D), key (m, D), x (m, F), ...) -> C x (n, F), sums of |c| and c^2 over rows (n,), scale 1.
express = register(
    "self_expression(Tensor query, Tensor key, Tensor x, Tensor threshold, Tensor own, str backend)"
    " -> (Tensor, Tensor, Tensor)",
    _express,
    _express_fake,
)

# express_grad(..., gradient of C x (n, F), of both sums (2, n)) -> by query (n, D), key (m, D),
# x (m, F) or (0, F), threshold (), in float32 (float64 for float64).
express_grad = register(
    "self_expression_grad(Tensor query, Tensor key, Tensor x, Tensor threshold, Tensor own, Tensor gradient,"
    " Tensor weight, bool by_x, str backend) -> (Tensor, Tensor, Tensor, Tensor)",
    _express_grad,
    _express_grad_fake,
)
