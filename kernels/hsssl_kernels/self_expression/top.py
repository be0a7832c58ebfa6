"""The largest coefficients of every row: the sparse graph of a self-expression that is never stored."""

from __future__ import annotations

import torch
from torch import Tensor

from hsssl_kernels.checks import check_pair, compute_dtype
from hsssl_kernels.dispatch import Backend, choose_backend, register
from hsssl_kernels.self_expression.blocked import top_blocked
from hsssl_kernels.self_expression.inputs import check_own, check_scale, check_threshold

__all__ = ["MAX_NEIGHBOURS", "top", "top_coefficients"]

# What a program of the kernel keeps sorted in registers.
MAX_NEIGHBOURS = 64


@torch.no_grad()
def top_coefficients(
    query: Tensor,
    key: Tensor,
    *,
    neighbours: int,
    threshold: float | Tensor = 0.0,
    scale: float | Tensor = 1.0,
    own: Tensor | None = None,
    backend: Backend = "auto",
) -> tuple[Tensor, Tensor]:
    """Return the columns and values of the ``neighbours`` largest |c_ij| of every row, largest first.

    ``c_ij = sign(s_ij) max(|s_ij| - threshold, 0) / scale``, ``s = query key^T``, 0 where j is ``own[i]``,
    as in `self_expression`. The coefficients stream: memory is O(n neighbours + m D). No gradient.

    Parameters
    ----------
    query : Tensor, shape (n, D), float64, float32, float16 or bfloat16
        Rows to express.
    key : Tensor, shape (m, D)
        Rows to express them by.
    neighbours : int
        How many a row, 1 ... m; with ``backend="triton"`` at most 64.
    threshold, scale, own
        As in `self_expression`.
    backend : {"auto", "triton", "torch"}
        "auto" is Triton on CUDA and ROCm, torch elsewhere and for more than 64 neighbours.

    Returns
    -------
    column : Tensor, shape (n, neighbours), int64
        -1 where a row has fewer coefficients that are not 0.
    value : Tensor, shape (n, neighbours), float32 (float64 for float64)
        0 there.

    Raises
    ------
    ValueError, TypeError
        If shapes, dtypes or devices disagree, or a parameter is out of range.

    Examples
    --------
    >>> import torch
    >>> z = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, -2.0]])
    >>> top_coefficients(z, z, neighbours=1)[0].squeeze(1)
    tensor([1, 0, 1])
    """
    name = "top_coefficients"
    check_pair(name, "query", query, "key", key, rows=False)
    if isinstance(neighbours, bool) or int(neighbours) != neighbours or not 1 <= neighbours <= len(key):
        raise ValueError(
            f"{name}: `neighbours` must be a whole number in 1 ... m={len(key)}, got {neighbours}; try 50"
        )
    check_scale(name, scale)
    chosen = choose_backend(name, backend, query)
    if chosen == "triton" and neighbours > MAX_NEIGHBOURS:
        if backend == "triton":
            raise ValueError(
                f'{name}: `backend="triton"` keeps up to {MAX_NEIGHBOURS} neighbours, got {neighbours}; '
                'ask for fewer, or use backend="torch"'
            )
        chosen = "torch"
    limit, own = check_threshold(name, threshold, query), check_own(name, own, query, key)
    column, value = top(query, key, limit, own, int(neighbours), chosen)
    return column, value / scale


def _top(
    query: Tensor, key: Tensor, threshold: Tensor, own: Tensor, neighbours: int, backend: str
) -> tuple[Tensor, Tensor]:
    if backend == "torch":
        return top_blocked(query, key, threshold, own, neighbours)
    from hsssl_kernels.self_expression.top_kernel import launch_top

    return launch_top(query, key, threshold, own, neighbours)


def _top_fake(
    query: Tensor, key: Tensor, threshold: Tensor, own: Tensor, neighbours: int, backend: str
) -> tuple[Tensor, Tensor]:
    shape = (query.shape[0], neighbours)
    return own.new_empty(shape), query.new_empty(shape, dtype=compute_dtype(query))


# top(query (n, D), key (m, D), ...) -> columns (n, t) int64 and values (n, t) of the largest |c_ij|.
top = register(
    "self_expression_top(Tensor query, Tensor key, Tensor threshold, Tensor own, int neighbours, str backend)"
    " -> (Tensor, Tensor)",
    _top,
    _top_fake,
)
