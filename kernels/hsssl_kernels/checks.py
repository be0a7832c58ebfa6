"""Checks of what callers pass in, in one wording: what was wanted, what came, what to do."""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = [
    "check_flag",
    "check_number",
    "check_pair",
    "check_reduction",
    "check_rows",
    "check_temperature",
    "compute_dtype",
    "log_dtype",
    "scale_of",
]

# Similarities are divided by it in float32.
_COLDEST = 1e-30
_FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


def check_rows(op: str, name: str, x: Tensor) -> None:
    """Refuse anything but a floating-point matrix (n, D) with n, D >= 1."""
    if not isinstance(x, Tensor):
        raise TypeError(
            f"{op}: `{name}` must be a tensor, got {type(x).__name__}; convert it with torch.as_tensor"
        )
    if x.layout != torch.strided:
        raise TypeError(f"{op}: `{name}` must be a dense tensor, got {x.layout}; call to_dense()")
    if x.ndim != 2:
        raise ValueError(
            f"{op}: `{name}` must have shape (n, D), got {tuple(x.shape)}; flatten all but the last dimension"
        )
    if x.dtype not in _FLOATS:
        raise TypeError(f"{op}: `{name}` must be floating point, got {x.dtype}; cast it first")
    if x.shape[0] == 0 or x.shape[1] == 0:
        raise ValueError(
            f"{op}: `{name}` must have at least one row and one column, got {tuple(x.shape)}; "
            "skip empty batches"
        )


def check_pair(op: str, name: str, x: Tensor, other_name: str, other: Tensor, *, rows: bool = True) -> None:
    """Check two matrices and that they agree; ``rows=False`` lets their row counts differ."""
    check_rows(op, name, x)
    check_rows(op, other_name, other)
    if other.shape[1] != x.shape[1]:
        raise ValueError(
            f"{op}: `{other_name}` must have D={x.shape[1]} columns, got {tuple(other.shape)}; "
            "project it first"
        )
    if rows and other.shape[0] != x.shape[0]:
        raise ValueError(
            f"{op}: `{other_name}` must have the n={x.shape[0]} rows of `{name}`, got {tuple(other.shape)}; "
            "row i of both is a pair"
        )
    if other.dtype != x.dtype:
        raise TypeError(
            f"{op}: `{other_name}` must be {x.dtype} as `{name}` is, got {other.dtype}; cast one of them"
        )
    if other.device != x.device:
        raise ValueError(
            f"{op}: `{other_name}` must be on {x.device} as `{name}` is, got {other.device}; move one of them"
        )


def check_temperature(op: str, temperature: float | Tensor) -> Tensor:
    """Return the temperature as a scalar tensor, refusing what is not a positive finite number.

    A tensor's value is read here (on a GPU that waits for it once), except while torch.compile
    traces: then `scale_of` reads it when the compiled code runs.
    """
    if isinstance(temperature, Tensor):
        if temperature.numel() != 1 or not temperature.is_floating_point():
            raise ValueError(
                f"{op}: `temperature` must be a number or a floating-point tensor of one element, "
                f"got {temperature.dtype} of shape {tuple(temperature.shape)}; pass one value"
            )
        if temperature.is_meta or temperature.layout != torch.strided:
            kind = "one without a value" if temperature.is_meta else f"one of layout {temperature.layout}"
            raise ValueError(
                f"{op}: `temperature` must be a dense tensor with a value, got {kind}; pass a float"
            )
        if not torch.compiler.is_compiling():
            _check_value(op, float(temperature.detach()))
        return temperature
    check_number(op, "temperature", temperature, "a number or a tensor of one element")
    _check_value(op, float(temperature))
    return torch.tensor(float(temperature), dtype=torch.float64)


def check_flag(op: str, name: str, value: object) -> None:
    """Refuse anything but True and False; a word like "no" would count as True."""
    if not isinstance(value, bool):
        raise TypeError(f"{op}: `{name}` must be True or False, got {value!r}; pass a bool")


def check_number(op: str, name: str, value: object, wanted: str = "a number") -> None:
    """Refuse anything but an int or a float."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{op}: `{name}` must be {wanted}, got {type(value).__name__}; pass a float")
    try:
        float(value)
    except OverflowError:
        raise ValueError(
            f"{op}: `{name}` must fit a float, got an integer of {int(value).bit_length()} bits; pass a float"
        ) from None


def scale_of(temperature: Tensor) -> float:
    """Return 1 / temperature as a number."""
    value = float(temperature.detach())
    _check_value("hsssl_kernels", value)
    return 1.0 / value


def compute_dtype(x: Tensor) -> torch.dtype:
    """Return what is computed and added up in: float32, for float64 float64."""
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def log_dtype(x: Tensor) -> torch.dtype:
    """Return what log-sum-exps are kept in: float64, one number a row, wherever the device has it.

    In float32 a logarithm of 100, usual at small temperatures, scales its whole row by 1 + 4e-6.
    """
    return torch.float32 if x.device.type == "mps" else torch.float64


def check_reduction(op: str, reduction: str) -> None:
    """Refuse anything but "mean", "sum" and "none"."""
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f'{op}: `reduction` must be "mean", "sum" or "none", got {reduction!r}; pick one')


def _check_value(op: str, value: float) -> None:
    if not 0 < value < math.inf:
        raise ValueError(f"{op}: `temperature` must be finite and above 0, got {value}; try 0.1")
    if value < _COLDEST:
        raise ValueError(f"{op}: `temperature` must be at least {_COLDEST}, got {value}; try 0.1")
