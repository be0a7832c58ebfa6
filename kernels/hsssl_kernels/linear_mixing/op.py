"""The public op: the loss of a linear mixing model, and its gradient by abundances and endmembers."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from hsssl_kernels.checks import check_flag, check_pair, check_reduction, check_rows, compute_dtype
from hsssl_kernels.dispatch import MAX_COLUMNS, Backend, choose_backend, register
from hsssl_kernels.first_order import first_order
from hsssl_kernels.linear_mixing import blocked

__all__ = ["linear_mixing"]

# Endmembers that a program of the Triton kernels holds.
MAX_MEMBERS = 32


def linear_mixing(
    abundances: Tensor,
    endmembers: Tensor,
    pixels: Tensor,
    *,
    loss: Literal["mse", "sad"] = "mse",
    softmax: bool = False,
    reduction: Literal["mean", "sum", "none"] = "mean",
    backend: Backend = "auto",
) -> Tensor:
    """Return how far spectra are from the mixtures that abundances and endmembers make.

    ``mse_i = mean_d (x_i - a_i E)_d^2``; ``sad_i`` is the angle between x_i and a_i E in radians, pi / 2
    where one of them is zero. The reconstruction a E (n, D) is never in memory as a whole, in either
    direction.

    Parameters
    ----------
    abundances : Tensor, shape (n, p), float64, float32, float16 or bfloat16
        Of each pixel; with ``softmax`` their logits.
    endmembers : Tensor, shape (p, D), same dtype
        Spectra.
    pixels : Tensor, shape (n, D), same dtype
        What is to be rebuilt: a constant, into which no gradient flows.
    loss : {"mse", "sad"}
        Mean squared error over the bands, or spectral angle.
    softmax : bool
        Make abundances of logits first.
    reduction : {"mean", "sum", "none"}
        Over the pixels; "none" returns (n,).
    backend : {"auto", "triton", "torch"}
        "auto" is Triton on CUDA and ROCm for D <= 1024 and p <= 32, torch elsewhere.

    Returns
    -------
    Tensor, scalar or (n,), float32 (float64 for float64)

    Raises
    ------
    ValueError, TypeError
        If shapes, dtypes or devices disagree, or something is empty.

    References
    ----------
    Palsson et al. 2018, "Hyperspectral unmixing using a neural network autoencoder",
    doi:10.1109/ACCESS.2018.2818280.

    Examples
    --------
    >>> import torch
    >>> linear_mixing(torch.tensor([[0.5, 0.5]]), torch.eye(2), torch.tensor([[1.0, 0.0]])).item()
    0.25
    """
    op = "linear_mixing"
    check_pair(op, "endmembers", endmembers, "pixels", pixels, rows=False)
    check_rows(op, "abundances", abundances)
    if abundances.shape != (len(pixels), len(endmembers)):
        raise ValueError(
            f"{op}: `abundances` must have shape (n, p) = ({len(pixels)}, {len(endmembers)}), got "
            f"{tuple(abundances.shape)}"
        )
    if abundances.dtype != pixels.dtype or abundances.device != pixels.device:
        raise TypeError(
            f"{op}: `abundances` must be {pixels.dtype} on {pixels.device} as `pixels` are, got "
            f"{abundances.dtype} on {abundances.device}"
        )
    if loss not in ("mse", "sad"):
        raise ValueError(f'{op}: `loss` must be "mse" or "sad", got {loss!r}')
    check_reduction(op, reduction)
    check_flag(op, "softmax", softmax)
    chosen = choose_backend(op, backend, pixels)
    if chosen == "triton" and len(endmembers) > MAX_MEMBERS:
        if backend == "triton":
            raise ValueError(
                f'{op}: `backend="triton"` takes up to {MAX_MEMBERS} endmembers and {MAX_COLUMNS} bands, got '
                f'{tuple(endmembers.shape)}; use backend="torch"'
            )
        chosen = "torch"
    a = abundances.softmax(1) if softmax else abundances
    rows: Tensor = _LinearMixing.apply(a, endmembers, pixels.detach(), loss, chosen)  # type: ignore[no-untyped-call]
    return rows if reduction == "none" else rows.mean() if reduction == "mean" else rows.sum()


class _LinearMixing(torch.autograd.Function):
    """Saves the loss and two norms a row; the reconstruction is formed again on the way back."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, e: Tensor, x: Tensor, loss: str, backend: str) -> Tensor:
        rows: Tensor
        rows, x_inverse, r_inverse = mixing_rows(a, e, x, loss, backend)
        ctx.save_for_backward(a, e, x, rows, x_inverse, r_inverse)
        ctx.loss, ctx.backend = loss, backend
        return rows

    @staticmethod
    @first_order("linear_mixing")
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        a, e, x, rows, x_inverse, r_inverse = ctx.saved_tensors
        alpha, beta = _slopes(gradients[0], rows, x_inverse, r_inverse, x.shape[1], ctx.loss)
        da, de = mixing_grad(a, e, x, alpha, beta, ctx.backend)
        return da, de, None, None, None


def _slopes(
    upstream: Tensor, rows: Tensor, x_inverse: Tensor, r_inverse: Tensor, columns: int, loss: str
) -> tuple[Tensor, Tensor]:
    """Return alpha and beta (n,) of ``d loss_i / d r_i = alpha_i x_i + beta_i r_i``."""
    if loss == "mse":
        beta = upstream * (2 / columns)
        return -beta, beta
    sine = rows.sin()
    # at an angle of 0 every direction leads away and none is the gradient's
    steep = torch.where(sine > torch.finfo(sine.dtype).eps, upstream / sine, 0.0) * r_inverse
    # a row of zeros has no direction to turn: 1 / |x| = 0 makes both terms vanish
    return -steep * x_inverse, torch.where(x_inverse > 0, steep * rows.cos() * r_inverse, 0.0)


def _rows(a: Tensor, e: Tensor, x: Tensor, loss: str, backend: str) -> tuple[Tensor, Tensor, Tensor]:
    if backend == "triton":
        from hsssl_kernels.linear_mixing.kernel import launch_mixing_rows

        return launch_mixing_rows(a, e, x, loss)
    return blocked.mixing_rows(a, e, x, loss)


def _rows_fake(a: Tensor, e: Tensor, x: Tensor, loss: str, backend: str) -> tuple[Tensor, Tensor, Tensor]:
    rows = a.new_empty(a.shape[0], dtype=compute_dtype(a))
    size = a.shape[0] if loss == "sad" else 0
    return rows, rows.new_empty(size), rows.new_empty(size)


def _grad(
    a: Tensor, e: Tensor, x: Tensor, alpha: Tensor, beta: Tensor, backend: str
) -> tuple[Tensor, Tensor]:
    if backend == "triton":
        from hsssl_kernels.linear_mixing.kernel import launch_mixing_grad

        return launch_mixing_grad(a, e, x, alpha, beta)
    return blocked.mixing_grad(a, e, x, alpha, beta)


def _grad_fake(
    a: Tensor, e: Tensor, x: Tensor, alpha: Tensor, beta: Tensor, backend: str
) -> tuple[Tensor, Tensor]:
    return a.new_empty(a.shape), e.new_empty(e.shape)


# mixing_rows(a (n, p), e (p, D), x (n, D)) -> loss (n,), 1 / |x|, 1 / |a e|, the last two empty for "mse".
mixing_rows = register(
    "mixing_rows(Tensor a, Tensor e, Tensor x, str loss, str backend) -> (Tensor, Tensor, Tensor)",
    _rows,
    _rows_fake,
)

# mixing_grad(...) -> G e^T (n, p), a^T G (p, D) for G = alpha x + beta a e.
mixing_grad = register(
    "mixing_grad(Tensor a, Tensor e, Tensor x, Tensor alpha, Tensor beta, str backend) -> (Tensor, Tensor)",
    _grad,
    _grad_fake,
)
