"""The public ops: spectral angles and divergences of paired rows, or of all rows against all."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from hsssl_kernels.checks import check_flag, check_pair, compute_dtype
from hsssl_kernels.dispatch import Backend, choose_backend, register
from hsssl_kernels.first_order import first_order
from hsssl_kernels.spectral_angle.blocked import (
    all_angles_blocked,
    all_angles_grad_blocked,
    angle_grad_blocked,
    angle_rows_blocked,
    angle_weight,
)

__all__ = ["spectral_angle", "spectral_divergence"]


def spectral_angle(
    x: Tensor, y: Tensor, *, pairwise: bool = True, mask: Tensor | None = None, backend: Backend = "auto"
) -> Tensor:
    """Return spectral angles in radians: of every row of ``x`` with every row of ``y``, or of row with row.

    ``angle = arccos(<x, y> / (|x| |y|))``, from 0 to pi, whatever the rows' lengths; pi / 2 where a row is
    zero. Row with row, it is formed from the difference of the unit rows and loses no digits at small angles;
    all against all, from their product, exact to about 3e-4 at 0 in float32. At exactly 0 or pi the gradient
    is
    0.

    Parameters
    ----------
    x : Tensor, shape (n, D), float64, float32, float16 or bfloat16
        Spectra.
    y : Tensor, shape (m, D), same dtype
        Spectra; with ``pairwise=False`` m = n.
    pairwise : bool
        All against all (n, m), or row with row (n,).
    mask : Tensor, shape (D,) or, row with row, (n, D), bool, optional
        True where a band counts; what others hold, NaN too, is never used.
    backend : {"auto", "triton", "torch"}
        "auto" is Triton on CUDA and ROCm, torch elsewhere.

    Returns
    -------
    Tensor, shape (n, m) or (n,), float32 (float64 for float64)

    Raises
    ------
    ValueError, TypeError
        If shapes, dtypes or devices disagree, or something is empty.

    References
    ----------
    Kruse et al. 1993, "The spectral image processing system (SIPS)", doi:10.1016/0034-4257(93)90013-N.

    Examples
    --------
    >>> import torch
    >>> spectral_angle(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 2.0], [3.0, 3.0]])).round(decimals=4)
    tensor([[1.5708, 0.7854]])
    """
    x, y = _checked("spectral_angle", x, y, pairwise, mask)
    chosen = choose_backend("spectral_angle", backend, x)
    function = _AllAngles if pairwise else _AngleRows
    angle: Tensor = function.apply(x, y, chosen)  # type: ignore[no-untyped-call]
    return angle


def spectral_divergence(
    x: Tensor, y: Tensor, *, pairwise: bool = True, mask: Tensor | None = None, floor: float = 1e-6
) -> Tensor:
    """Return the spectral information divergence (SID): of all rows with all, or of row with row.

    ``sid = sum_d (p_d - q_d) (log p_d - log q_d)`` with the spectra divided by their sums, p = x / sum(x).
    Plain torch on every device: two matrix products.

    Parameters
    ----------
    x, y : Tensor, shapes (n, D) and (m, D)
        Spectra; negative values count as 0.
    pairwise : bool
        As in `spectral_angle`.
    mask : Tensor, optional
        As in `spectral_angle`.
    floor : float
        Least share of a band, above 0, so that no logarithm is infinite.

    Returns
    -------
    Tensor, shape (n, m) or (n,), float32 (float64 for float64)
        At least 0.

    References
    ----------
    Chang 2000, "An information-theoretic approach to spectral variability, similarity, and discrimination for
    hyperspectral image analysis", doi:10.1109/18.857802.

    Examples
    --------
    >>> import torch
    >>> spectral_divergence(torch.tensor([[1.0, 3.0]]), torch.tensor([[3.0, 1.0]])).round(decimals=4)
    tensor([[1.0986]])
    """
    x, y = _checked("spectral_divergence", x, y, pairwise, mask)
    if not floor > 0:
        raise ValueError(f"spectral_divergence: `floor` must be above 0, got {floor}")
    p, q = (_shares(rows, mask, floor) for rows in (x, y))
    # where no band counts, p = q = 1: its terms vanish
    p_log, q_log = p.log(), q.log()
    if not pairwise:
        return ((p - q) * (p_log - q_log)).sum(1)
    own = (p * p_log).sum(1)[:, None] + (q * q_log).sum(1)[None]
    return (own - p @ q_log.T - p_log @ q.T).clamp_min(0)


def _checked(op: str, x: Tensor, y: Tensor, pairwise: bool, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """Check, and put zeros where the mask is off."""
    check_flag(op, "pairwise", pairwise)
    check_pair(op, "x", x, "y", y, rows=not pairwise)
    if mask is None:
        return x, y
    shapes = [(x.shape[1],)] if pairwise else [(x.shape[1],), tuple(x.shape)]
    if not isinstance(mask, Tensor) or mask.dtype != torch.bool or tuple(mask.shape) not in shapes:
        came = f"{mask.dtype} {tuple(mask.shape)}" if isinstance(mask, Tensor) else type(mask).__name__
        wanted = " or ".join(map(str, shapes))
        raise ValueError(f"{op}: `mask` must be a bool tensor of shape {wanted}, got {came}")
    return torch.where(mask, x, 0), torch.where(mask, y, 0)


def _shares(x: Tensor, mask: Tensor | None, floor: float) -> Tensor:
    positive = x.to(compute_dtype(x)).clamp_min(0)
    total = positive.sum(1, keepdim=True)
    shares = (positive / torch.where(total == 0, 1, total)).clamp_min(floor)
    return shares if mask is None else torch.where(mask, shares, 1)


class _AngleRows(torch.autograd.Function):
    """Saves three numbers a row; the unit rows are formed again on the way back."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, backend: str) -> Tensor:
        angle: Tensor
        angle, x_inverse, y_inverse = angle_rows(x, y, backend)
        ctx.save_for_backward(x, y, angle, x_inverse, y_inverse)
        ctx.backend = backend
        return angle

    @staticmethod
    @first_order("spectral_angle")
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, y, angle, x_inverse, y_inverse = ctx.saved_tensors
        weight = angle_weight(gradients[0], angle)
        dx, dy = angle_grad(x, y, angle.cos(), weight, x_inverse, y_inverse, ctx.backend)
        return dx, dy, None


class _AllAngles(torch.autograd.Function):
    """Saves the angles, which are the result itself; the gradient is two matrix products."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, backend: str) -> Tensor:
        angle: Tensor = all_angles(x, y, backend)
        ctx.save_for_backward(x, y, angle)
        return angle

    @staticmethod
    @first_order("spectral_angle")
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        dx, dy = all_angles_grad(*ctx.saved_tensors, gradients[0])
        return dx, dy, None


def _rows(x: Tensor, y: Tensor, backend: str) -> tuple[Tensor, Tensor, Tensor]:
    if backend == "triton":
        from hsssl_kernels.spectral_angle.kernel import launch_angle_rows

        return launch_angle_rows(x, y)
    return angle_rows_blocked(x, y)


def _rows_fake(x: Tensor, y: Tensor, backend: str) -> tuple[Tensor, Tensor, Tensor]:
    rows = x.new_empty(x.shape[0], dtype=compute_dtype(x))
    return rows, torch.empty_like(rows), torch.empty_like(rows)


def _grad(
    x: Tensor, y: Tensor, cosine: Tensor, weight: Tensor, x_inverse: Tensor, y_inverse: Tensor, backend: str
) -> tuple[Tensor, Tensor]:
    if backend == "triton":
        from hsssl_kernels.spectral_angle.kernel import launch_angle_grad

        return launch_angle_grad(x, y, cosine, weight, x_inverse, y_inverse)
    return angle_grad_blocked(x, y, cosine, weight, x_inverse, y_inverse)


def _grad_fake(
    x: Tensor, y: Tensor, cosine: Tensor, weight: Tensor, x_inverse: Tensor, y_inverse: Tensor, backend: str
) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape), y.new_empty(y.shape)


def _all(x: Tensor, y: Tensor, backend: str) -> Tensor:
    if backend == "triton":
        from hsssl_kernels.rows.kernel import launch_unit_rows
        from hsssl_kernels.spectral_angle.kernel import launch_all_angles

        return launch_all_angles(launch_unit_rows(x)[0], launch_unit_rows(y)[0])
    return all_angles_blocked(x, y)


def _all_fake(x: Tensor, y: Tensor, backend: str) -> Tensor:
    return x.new_empty(x.shape[0], y.shape[0], dtype=compute_dtype(x))


def _all_grad_fake(x: Tensor, y: Tensor, angle: Tensor, upstream: Tensor) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape), y.new_empty(y.shape)


# angle_rows(x (n, D), y (n, D)) -> angle (n,), 1 / |x| (n,), 1 / |y| (n,).
angle_rows = register(
    "angle_rows(Tensor x, Tensor y, str backend) -> (Tensor, Tensor, Tensor)", _rows, _rows_fake
)

# angle_grad(...) -> gradients by x and y, each (n, D), in their dtype.
angle_grad = register(
    "angle_grad(Tensor x, Tensor y, Tensor cosine, Tensor weight, Tensor x_inverse, Tensor y_inverse,"
    " str backend) -> (Tensor, Tensor)",
    _grad,
    _grad_fake,
)

# all_angles(x (n, D), y (m, D)) -> angle (n, m).
all_angles = register("all_angles(Tensor x, Tensor y, str backend) -> Tensor", _all, _all_fake)

# all_angles_grad(..., angle (n, m), that of its gradient (n, m)) -> gradients by x and y, in their dtype.
all_angles_grad = register(
    "all_angles_grad(Tensor x, Tensor y, Tensor angle, Tensor upstream) -> (Tensor, Tensor)",
    all_angles_grad_blocked,
    _all_grad_fake,
)
