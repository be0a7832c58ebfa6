"""The public op: balanced assignments of samples to prototypes, in the log domain."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from hsssl_kernels.checks import check_flag, check_number, check_rows
from hsssl_kernels.dispatch import Backend, choose_backend, register
from hsssl_kernels.distributed import gather, rank_and_world, together
from hsssl_kernels.sinkhorn.blocked import finish_blocked, next_columns_blocked, sinkhorn_blocked

__all__ = ["sinkhorn"]


@torch.no_grad()
def sinkhorn(
    scores: Tensor,
    *,
    epsilon: float = 0.05,
    iterations: int = 3,
    gather_distributed: bool = False,
    backend: Backend = "auto",
) -> Tensor:
    """Return soft assignments of samples to prototypes that use all prototypes alike.

    Starting at ``Q = exp(scores / epsilon)``, each iteration divides the columns of Q by their sums
    and then the rows by theirs. Rows of the result sum to 1, and columns tend to B / K. The
    assignments are targets: no gradient flows through them.

    Parameters
    ----------
    scores : Tensor, shape (B, K), float64, float32, float16 or bfloat16
        Similarity of each sample to each prototype; cosines, as a rule.
    epsilon : float
        Smoothness > 0, in the unit of the scores.
    iterations : int
        At least 1.
    gather_distributed : bool
        Balance over the samples of all ranks, which must bring equal shapes; the ranks exchange K
        numbers an iteration. Without a process group this changes nothing.
    backend : {"auto", "triton", "torch"}
        "auto" is Triton on CUDA and ROCm up to K = 1024, torch elsewhere.

    Returns
    -------
    assignments : Tensor, shape (B, K), float32 (float64 for float64)

    Raises
    ------
    ValueError, TypeError
        If the scores are no matrix of floating-point numbers or are empty, or a parameter is out of range.

    References
    ----------
    Caron et al. 2020, "Unsupervised learning of visual features by contrasting cluster assignments",
    arXiv:2006.09882. Cuturi 2013, "Sinkhorn distances", arXiv:1306.0895.

    Examples
    --------
    >>> import torch
    >>> sinkhorn(torch.tensor([[1.0, 0.9], [0.8, 0.1]]), epsilon=0.5, iterations=50).sum(0).round()
    tensor([1., 1.])
    """
    world = rank_and_world(gather_distributed)[1]

    def check() -> str:
        check_flag("sinkhorn", "gather_distributed", gather_distributed)
        check_rows("sinkhorn", "scores", scores)
        _check_settings(epsilon, iterations)
        return choose_backend("sinkhorn", backend, scores)

    settings = f"epsilon {epsilon}, {iterations} iterations"
    chosen = together("sinkhorn", world, check, lambda _: f"{tuple(scores.shape)} {scores.dtype}, {settings}")
    if world == 1 and chosen == "torch":
        result: Tensor = _whole(scores, epsilon, iterations)
        return result
    columns = scores.new_empty(0, dtype=_wide(scores))
    for _ in range(iterations):
        columns = _next_columns(scores, columns, epsilon, chosen)  # (K,)
        if world > 1:
            columns = gather(columns.unsqueeze(0)).logsumexp(0)
    assignments: Tensor = _finish(scores, columns, epsilon, chosen)
    return assignments


def _check_settings(epsilon: float, iterations: int) -> None:
    check_number("sinkhorn", "epsilon", epsilon)
    if not (math.isfinite(epsilon) and epsilon > 0):
        raise ValueError(f"sinkhorn: `epsilon` must be finite and above 0, got {epsilon}; try 0.05")
    if isinstance(iterations, bool) or not isinstance(iterations, int):
        raise TypeError(
            f"sinkhorn: `iterations` must be a whole number, got {iterations!r} "
            f"of type {type(iterations).__name__}; pass an int"
        )
    if iterations < 1:
        raise ValueError(f"sinkhorn: `iterations` must be at least 1, got {iterations}; try 3")


def _wide(x: Tensor) -> torch.dtype:
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def _whole_fake(scores: Tensor, epsilon: float, iterations: int) -> Tensor:
    return scores.new_empty(scores.shape, dtype=_wide(scores))


def _next_columns_any(scores: Tensor, columns: Tensor, epsilon: float, backend: str) -> Tensor:
    if backend == "torch":
        return next_columns_blocked(scores, columns, epsilon)
    from hsssl_kernels.sinkhorn.kernel import launch_next_columns

    return launch_next_columns(scores, columns, epsilon)


def _next_columns_fake(scores: Tensor, columns: Tensor, epsilon: float, backend: str) -> Tensor:
    return columns.new_empty(scores.shape[1])


def _finish_any(scores: Tensor, columns: Tensor, epsilon: float, backend: str) -> Tensor:
    if backend == "torch":
        return finish_blocked(scores, columns, epsilon)
    from hsssl_kernels.sinkhorn.kernel import launch_finish

    return launch_finish(scores, columns, epsilon)


def _finish_fake(scores: Tensor, columns: Tensor, epsilon: float, backend: str) -> Tensor:
    return columns.new_empty(scores.shape)


_whole = register(
    "sinkhorn_whole(Tensor scores, float epsilon, int iterations) -> Tensor", sinkhorn_blocked, _whole_fake
)
_next_columns = register(
    "sinkhorn_next_columns(Tensor scores, Tensor columns, float epsilon, str backend) -> Tensor",
    _next_columns_any,
    _next_columns_fake,
)
_finish = register(
    "sinkhorn_finish(Tensor scores, Tensor columns, float epsilon, str backend) -> Tensor",
    _finish_any,
    _finish_fake,
)
