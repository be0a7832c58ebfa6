"""Ops that normalise rows before a loss and carry its gradient back through the norm after it."""

from __future__ import annotations

from torch import Tensor

from hsssl_kernels.dispatch import register
from hsssl_kernels.rows.reference import finish_rows_reference, unit_rows_reference

__all__ = ["finish_rows", "unit_rows"]


def _unit_rows(x: Tensor, backend: str) -> tuple[Tensor, Tensor]:
    if backend == "torch":
        return unit_rows_reference(x)
    from hsssl_kernels.rows.kernel import launch_unit_rows

    return launch_unit_rows(x)


def _unit_rows_fake(x: Tensor, backend: str) -> tuple[Tensor, Tensor]:
    wide = x.float() if x.element_size() < 4 else x
    return x.new_empty(x.shape), wide.new_empty(x.shape[0])


def _finish_rows(
    total: Tensor,
    target: Tensor,
    weight: Tensor,
    x: Tensor,
    inverse: Tensor,
    factor: Tensor,
    shift: int,
    backend: str,
) -> tuple[Tensor, Tensor]:
    if backend == "torch":
        return finish_rows_reference(total, target, weight, x, inverse, factor, shift)
    from hsssl_kernels.rows.kernel import launch_finish_rows

    return launch_finish_rows(total, target, weight, x, inverse, factor, shift)


def _finish_rows_fake(
    total: Tensor,
    target: Tensor,
    weight: Tensor,
    x: Tensor,
    inverse: Tensor,
    factor: Tensor,
    shift: int,
    backend: str,
) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape), total.new_empty(x.shape[0])


# unit_rows(x (n, D)) -> x / |x| (n, D), 1 / |x| (n,).
unit_rows = register("unit_rows(Tensor x, str backend) -> (Tensor, Tensor)", _unit_rows, _unit_rows_fake)

# finish_rows(...) -> gradient by x (n, D), its share along the unit rows (n,); see the reference.
finish_rows = register(
    "finish_rows(Tensor total, Tensor target, Tensor weight, Tensor x, Tensor inverse, Tensor factor,"
    " int shift, str backend) -> (Tensor, Tensor)",
    _finish_rows,
    _finish_rows_fake,
)
