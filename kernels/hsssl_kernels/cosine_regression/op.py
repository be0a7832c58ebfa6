"""The public op: mean squared distance of unit rows, with normalisation and its backward fused."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from hsssl_kernels.checks import check_pair
from hsssl_kernels.dispatch import Backend, choose_backend, register
from hsssl_kernels.first_order import first_order
from hsssl_kernels.rows.reference import unit_rows_reference

__all__ = ["cosine_regression"]


def cosine_regression(prediction: Tensor, target: Tensor, *, backend: Backend = "auto") -> Tensor:
    """Return the loss of BYOL and SimSiam: the mean squared distance of unit rows.

    ``loss = mean_i | p_i / |p_i| - t_i / |t_i| |^2 = mean_i (2 - 2 cos(p_i, t_i))``, from 0 to 4.
    The target is a constant: no gradient flows into it, which is the stop-gradient of both papers.
    A row of zeros has no direction; its cosine and its gradient are 0.

    Parameters
    ----------
    prediction, target : Tensor, shape (n, D), float64, float32, float16 or bfloat16
        Row i of the prediction regresses row i of the target. Any strides.
    backend : {"auto", "triton", "torch"}
        "auto" is Triton on CUDA and ROCm, torch elsewhere.

    Returns
    -------
    loss : Tensor, scalar, float32 (float64 for float64)

    Raises
    ------
    ValueError, TypeError
        If shapes, dtypes or devices disagree, or the batch is empty.

    References
    ----------
    Grill et al. 2020, "Bootstrap your own latent", arXiv:2006.07733.
    Chen and He 2021, "Exploring simple Siamese representation learning", arXiv:2011.10566.

    Examples
    --------
    >>> import torch
    >>> cosine_regression(torch.tensor([[3.0, 0.0]]), torch.tensor([[0.0, 2.0]])).item()
    2.0
    """
    check_pair("cosine_regression", "prediction", prediction, "target", target)
    chosen = choose_backend("cosine_regression", backend, prediction)
    loss: Tensor = _CosineRegression.apply(prediction, target.detach(), chosen)  # type: ignore[no-untyped-call]
    return loss


class _CosineRegression(torch.autograd.Function):
    """Saves three numbers a row; the unit rows are formed again on the way back."""

    @staticmethod
    def forward(ctx: Any, prediction: Tensor, target: Tensor, backend: str) -> Tensor:
        cosine, p_inverse, t_inverse = cosine_rows(prediction, target, backend)
        ctx.save_for_backward(prediction, target, cosine, p_inverse, t_inverse)
        ctx.backend = backend
        loss: Tensor = (2 - 2 * cosine).mean()
        return loss

    @staticmethod
    @first_order("cosine_regression")
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        factor = -2 * gradients[0] / len(ctx.saved_tensors[0])
        return cosine_rows_grad(*ctx.saved_tensors, factor, ctx.backend), None, None


def _cosine_rows(p: Tensor, t: Tensor, backend: str) -> tuple[Tensor, Tensor, Tensor]:
    if backend == "triton":
        from hsssl_kernels.cosine_regression.kernel import launch_cosine_rows

        return launch_cosine_rows(p, t)
    (p_unit, p_inverse), (t_unit, t_inverse) = unit_rows_reference(_widen(p)), unit_rows_reference(_widen(t))
    return p_unit.mul_(t_unit).sum(1), p_inverse, t_inverse


def _cosine_rows_fake(p: Tensor, t: Tensor, backend: str) -> tuple[Tensor, Tensor, Tensor]:
    rows = _widen(p).new_empty(p.shape[0])
    return rows, torch.empty_like(rows), torch.empty_like(rows)


def _cosine_rows_grad(
    p: Tensor, t: Tensor, cosine: Tensor, p_inverse: Tensor, t_inverse: Tensor, factor: Tensor, backend: str
) -> Tensor:
    if backend == "triton":
        from hsssl_kernels.cosine_regression.kernel import launch_cosine_rows_grad

        return launch_cosine_rows_grad(p, t, cosine, p_inverse, t_inverse, factor)
    # unit rows first: the product of two inverse norms may vanish or overflow
    across = _widen(t) * t_inverse.unsqueeze(1)
    across.addcmul_(_widen(p), (cosine * p_inverse).unsqueeze(1), value=-1)
    return across.mul_((factor * p_inverse).unsqueeze(1)).to(p.dtype)


def _cosine_rows_grad_fake(
    p: Tensor, t: Tensor, cosine: Tensor, p_inverse: Tensor, t_inverse: Tensor, factor: Tensor, backend: str
) -> Tensor:
    return p.new_empty(p.shape)


def _widen(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.to(torch.float32)


# cosine_rows(p (n, D), t (n, D)) -> cosine (n,), 1 / |p| (n,), 1 / |t| (n,).
cosine_rows = register(
    "cosine_rows(Tensor p, Tensor t, str backend) -> (Tensor, Tensor, Tensor)",
    _cosine_rows,
    _cosine_rows_fake,
)

# cosine_rows_grad(...) -> factor * d cosine / d p (n, D), in the dtype of p.
cosine_rows_grad = register(
    "cosine_rows_grad(Tensor p, Tensor t, Tensor cosine, Tensor p_inverse, Tensor t_inverse, Tensor factor,"
    " str backend) -> Tensor",
    _cosine_rows_grad,
    _cosine_rows_grad_fake,
)
