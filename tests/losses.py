"""The fused losses with their references, and what tests of them share."""

from __future__ import annotations

from collections.abc import Callable
from statistics import mean
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from hsssl_kernels import cosine_regression, info_nce, nt_xent, sup_con
from hsssl_kernels.cosine_regression.reference import cosine_regression_reference
from hsssl_kernels.info_nce.reference import info_nce_reference
from hsssl_kernels.nt_xent.reference import nt_xent_reference
from hsssl_kernels.sup_con.reference import sup_con_reference


class Loss(NamedTuple):
    """A fused loss, its reference, how many matrices it takes, and its fixed arguments."""

    op: Callable[..., Tensor]
    reference: Callable[..., Tensor]
    matrices: int
    options: dict[str, object]
    takes_labels: bool = False
    rows_of_a_label: int = 3
    takes_temperature: bool = True

    def run(self, fused: bool, matrices: list[Tensor], temperature: object, **more: object) -> Tensor:
        extra: list[Tensor] = []
        named = {**self.options, **more}
        if self.takes_labels:
            extra = [torch.arange(len(matrices[0])) % max(2, len(matrices[0]) // self.rows_of_a_label)]
        if self.takes_temperature:
            named["temperature"] = temperature
        if self.matrices == 3:
            *matrices, named["negatives"] = matrices
        extra = [e.to(matrices[0].device) for e in extra]
        return (self.op if fused else self.reference)(*matrices, *extra, **named)


LOSSES = {
    "nt_xent": Loss(nt_xent, nt_xent_reference, 2, {}),
    "nt_xent_raw": Loss(nt_xent, nt_xent_reference, 2, {"normalize": False}),
    "info_nce": Loss(info_nce, info_nce_reference, 2, {}),
    "info_nce_rows": Loss(info_nce, info_nce_reference, 2, {"reduction": "none"}),
    "info_nce_sum_raw": Loss(info_nce, info_nce_reference, 2, {"reduction": "sum", "normalize": False}),
    "info_nce_symmetric": Loss(info_nce, info_nce_reference, 2, {"symmetric": True}),
    "info_nce_symmetric_rows": Loss(
        info_nce, info_nce_reference, 2, {"symmetric": True, "reduction": "none"}
    ),
    "info_nce_queue": Loss(info_nce, info_nce_reference, 3, {}),
    "info_nce_queue_rows": Loss(info_nce, info_nce_reference, 3, {"reduction": "none", "normalize": False}),
    "sup_con": Loss(sup_con, sup_con_reference, 1, {}, takes_labels=True),
    "sup_con_pairs": Loss(sup_con, sup_con_reference, 1, {}, takes_labels=True, rows_of_a_label=2),
    "sup_con_raw": Loss(sup_con, sup_con_reference, 1, {"normalize": False}, takes_labels=True),
    "cosine_regression": Loss(cosine_regression, cosine_regression_reference, 2, {}, takes_temperature=False),
}
# torch's tracer makes an instance of autograd.Function itself, and warns itself that one should not.
COMPILES = pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
LOSS = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES.keys())


def draw(loss: Loss, n: int, columns: int, dtype: torch.dtype, seed: int = 0) -> list[Tensor]:
    """Correlated matrices (n, D), the queue of a third one longer; raw ones have norms around 1.

    Of pairs by labels the rows n / 2 on are correlated: one positive then takes nearly all.
    """
    g = torch.Generator().manual_seed(seed)
    common = torch.randn(n, columns, generator=g)
    if loss.takes_labels and loss.rows_of_a_label == 2:
        common[n - n // 2 :] = common[: n // 2]
    scale = columns**-0.5 if loss.options.get("normalize") is False else 3.0
    sizes = [n, n, 2 * n + 3][: loss.matrices]
    drawn = [torch.randn(size, columns, generator=g) for size in sizes]
    drawn = [m + common if len(m) == n else m for m in drawn]
    return [(scale * m).to(dtype) for m in drawn]


def value_and_gradients(
    loss: Loss, fused: bool, matrices: list[Tensor], temperature: float, dtype: torch.dtype, **more: object
) -> list[Tensor]:
    """The value, its gradient by every matrix that has one, and by the temperature, all in float64."""
    leaves = [m.detach().to(dtype).requires_grad_() for m in matrices]
    t = torch.tensor(temperature, dtype=torch.float64 if fused else dtype, device=leaves[0].device)
    t.requires_grad_()
    value = loss.run(fused, leaves, t, **more)
    weight = torch.linspace(-1, 2, value.numel(), dtype=value.dtype, device=value.device).view_as(value)
    (value if value.ndim == 0 else (weight * value).sum()).backward()
    gradients = [leaf.grad for leaf in leaves] + ([t.grad] if loss.takes_temperature else [])
    return [x.detach().double().cpu() for x in (value, *gradients) if x is not None]


def assert_as_good_as_torch(
    loss: Loss,
    matrices: list[Tensor],
    temperature: float,
    eps: float,
    **more: object,
) -> None:
    """|fused - fp64| <= 2 |same-dtype torch - fp64| + eps: absolute for the value, relative for gradients.

    A gradient whose norm in float64 is below eps is not looked at. Torch's error in 16 bits is its root mean
    square over inputs a few roundings apart: of a single number, such as the temperature's gradient, one
    error may be 0 by luck.
    """
    dtype = matrices[0].dtype
    exact = value_and_gradients(loss, False, matrices, temperature, torch.float64)
    fused = value_and_gradients(loss, True, matrices, temperature, dtype, **more)
    assert len(exact) == len(fused)
    assert all(x.shape == e.shape for x, e in zip(fused, exact, strict=True))
    theirs = _typical_errors(loss, matrices, temperature)
    rows = len(matrices[0]) if loss.options.get("reduction") == "sum" else 1  # a sum adds up its rows' errors
    _assert_within("value", (fused[0] - exact[0]).abs().max().item(), theirs[0], rows * eps)
    for i, (ours, right) in enumerate(zip(fused[1:], exact[1:], strict=True)):
        norm = right.norm().item()
        if norm > eps:
            error = (ours - right).norm().item() / norm
            _assert_within(f"gradient {i}", error, theirs[i + 1] / norm, eps)


def _typical_errors(loss: Loss, matrices: list[Tensor], temperature: float) -> list[float]:
    """Return plain torch's errors: the value's largest and the gradients' norms, root mean squares.

    The first input is the given one; in each of seven more, in 16 bits, every number is up to four roundings
    away.
    """
    dtype = matrices[0].dtype
    inputs = 8 if dtype.itemsize == 2 else 1
    g = torch.Generator().manual_seed(0)
    squares = []
    for i in range(inputs):
        away = [4 * torch.finfo(dtype).eps * (torch.rand(m.shape, generator=g) * 2 - 1) for m in matrices]
        near = [(m * (1 + a.to(m.device))).to(dtype) for m, a in zip(matrices, away, strict=True)]
        drawn = near if i else matrices
        exact = value_and_gradients(loss, False, drawn, temperature, torch.float64)
        plain = value_and_gradients(loss, False, drawn, temperature, dtype)
        off = [p - e for p, e in zip(plain, exact, strict=True)]
        squares.append([off[0].abs().max().item() ** 2, *(o.norm().item() ** 2 for o in off[1:])])
    return [mean(of_one) ** 0.5 for of_one in zip(*squares, strict=True)]


def _assert_within(name: str, ours: float, theirs: float, eps: float) -> None:
    bound = 2 * theirs + eps
    assert ours <= bound, f"{name}: off by {ours:.3g}, torch by {theirs:.3g}; the bound is {bound:.3g}"
