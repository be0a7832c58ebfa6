"""Launches of the log-sum-exp kernels: tiles from the table, parts merged, logarithms in float64."""

from __future__ import annotations

import ctypes
import functools
import math
from typing import NamedTuple

import torch
import triton
from torch import Tensor

from hsssl_kernels.launch import architecture, splits_for, tile_for
from hsssl_kernels.lse.kernel import _lse_bwd_kernel, _lse_fwd_kernel

__all__ = ["Side", "launch_lse", "launch_lse_grad", "prepare_sides"]

# Below this temperature exp(S - 1 / temperature) can vanish in float32, and the maximum is needed.
_FIXED_SHIFT_FROM = 0.025


def launch_lse(
    x: Tensor, y: Tensor, scale: float, self_offset: int, half: int, unit: bool, labels: tuple[Tensor, ...]
) -> Tensor:
    """Return the natural log-sum-exp (n,), float64, of every row of x y^T scale, some entries left out.

    With ``labels``, (n,) and (m,), a row's entries of its own label are summed apart from the others: where
    they take all but a millionth, the others keep their digits.
    """
    (n, columns), m = x.shape, len(y)
    arch = architecture(x)
    tile = tile_for("lse_fwd_classes" if labels else "lse_fwd", arch, x.dtype, columns)
    row_blocks = triton.cdiv(n, tile.block_m)
    splits, span = splits_for(tile, arch, row_blocks, m)
    top, total, near = torch.empty(3, splits, n, dtype=torch.float32, device=x.device).unbind()
    own = [label.contiguous() for label in labels] or [near, near]
    fixed = _fixed_shift(unit, scale) and not labels
    _lse_fwd_kernel[(row_blocks, splits)](
        x_ptr=x.contiguous(),
        y_ptr=y.contiguous(),
        top_ptr=top,
        total_ptr=total,
        near_ptr=near,
        x_label_ptr=own[0],
        y_label_ptr=own[1],
        scale=_in_base_2(scale),
        n=n,
        m=m,
        self_offset=self_offset,
        half=half,
        span=span,
        D=columns,
        BLOCK_M=tile.block_m,
        BLOCK_N=tile.block_n,
        BLOCK_D=tile.block_d,
        UNIT=fixed,
        EXCLUDE_SELF=self_offset >= 0,
        PAIRS=half > 0,
        LABELS=bool(labels),
        **tile.options(),
    )
    if fixed:
        log = total.double().log_().add_(_in_base_2(scale) * math.log(2))
        return log.logsumexp(0) if splits > 1 else log[0]
    sums = total.double() + near.double() if labels else total.double()
    log = (top.double() + sums.log2()) * math.log(2)  # (splits, n)
    return log.logsumexp(0) if splits > 1 else log[0]


class Side(NamedTuple):
    """What the rows, or the columns, of S bring to its gradient."""

    log: Tensor  # (n,) float32, to base 2; not read where the shift is fixed
    weight: Tensor  # (n,) float32, to go with that logarithm
    label: Tensor  # (n,) int64, read where there are labels, as the next
    pull: Tensor  # (3, n) float32


def prepare_sides(
    x: Tensor,
    scale: float,
    x_side: tuple[Tensor, Tensor],
    y_side: tuple[Tensor, Tensor],
    unit: bool,
    positives: tuple[Tensor, ...],
) -> tuple[Side, Side]:
    """Return both sides from (log-sum-exp, weight) of rows and of columns; see `launch_lse_grad`."""
    fixed = _fixed_shift(unit, scale) and not positives
    lift = _lift(x)
    first = _reference(*x_side, scale, fixed, lift)
    same = x_side[0] is y_side[0] and x_side[1] is y_side[1]
    second = first if same else _reference(*y_side, scale, fixed, lift)
    if not positives:
        return Side(*first, *first), Side(*second, *second)
    labels, pulls = positives[:2], positives[2:]
    rows = Side(*first, labels[0].contiguous(), _split_pull(*x_side, pulls[0]))
    return rows, Side(*second, labels[1].contiguous(), _split_pull(*y_side, pulls[1]))


def launch_lse_grad(
    x: Tensor,
    y: Tensor,
    scale: float,
    rows: Side,
    columns: Side,
    self_offset: int,
    half: int,
    unit: bool,
    labelled: bool,
) -> Tensor:
    """Return W y (n, D), float32, of two sides by `prepare_sides`.

    Where ``labelled``, labels and pulls of both sides were given there: see `lse_grad_blocked`.
    """
    (n, dim), m = x.shape, len(y)
    arch = architecture(x)
    tile = tile_for("lse_bwd_classes" if labelled else "lse_bwd", arch, x.dtype, dim)
    row_blocks, out_blocks = triton.cdiv(n, tile.block_m), triton.cdiv(dim, tile.block_o)
    splits, span = splits_for(tile, arch, row_blocks * out_blocks, m)
    parts = torch.empty(splits, n, dim, dtype=torch.float32, device=x.device)
    _lse_bwd_kernel[(row_blocks, out_blocks, splits)](
        x_ptr=x.contiguous(),
        y_ptr=y.contiguous(),
        x_lse_ptr=rows.log,
        x_weight_ptr=rows.weight,
        y_lse_ptr=columns.log,
        y_weight_ptr=columns.weight,
        x_label_ptr=rows.label,
        y_label_ptr=columns.label,
        x_pull_ptr=rows.pull,
        y_pull_ptr=columns.pull,
        out_ptr=parts,
        scale=_in_base_2(scale),
        n=n,
        m=m,
        self_offset=self_offset,
        half=half,
        span=span,
        D=dim,
        BLOCK_M=tile.block_m,
        BLOCK_N=tile.block_n,
        BLOCK_D=tile.block_d,
        BLOCK_O=tile.block_o,
        LIFT=_lift(x),
        UNIT=_fixed_shift(unit, scale) and not labelled,
        EXCLUDE_SELF=self_offset >= 0,
        PAIRS=half > 0,
        LABELS=labelled,
        **tile.options(),
    )
    return parts.sum(0) if splits > 1 else parts[0]


def _reference(log: Tensor, weight: Tensor, scale: float, fixed: bool, lift: int) -> tuple[Tensor, Tensor]:
    """Return a reference to base 2, float32, and the weight times 2^(reference - log), float32.

    The logarithm's own rounding moves into the weight, where it is a relative 6e-8 at any size. Where the
    shift is not ``fixed``, the reference is ``lift`` smaller, which makes W larger by 2^lift.
    """
    if fixed:  # the reference is the scale, which is not read
        factor = (weight * torch.exp(_in_base_2(scale) * math.log(2) - log)).float()
        return factor, factor
    log = log / math.log(2) - lift
    reference = log.float().double()
    factor = torch.where(log == float("inf"), 0.0, weight * torch.exp2(reference - log))
    return reference.float(), factor.float()


def _lift(x: Tensor) -> int:
    return 14 if x.dtype == torch.float16 else 0


def _split_pull(log: Tensor, weight: Tensor, pull: Tensor) -> Tensor:
    """Return (3, n) float32: the pull, and in two parts, to base 2, the S of which it is the share."""
    even = (log + (pull.double() / weight.double()).log()) / math.log(2)
    even = torch.where(pull == 0, 0.0, even)
    first = even.float()
    return torch.stack([pull.float(), first, (even - first.double()).float()])


@functools.cache
def _in_base_2(scale: float) -> float:
    """Return log2(e) scale, as float32 has it."""
    return ctypes.c_float(scale / math.log(2)).value


def _fixed_shift(unit: bool, scale: float) -> bool:
    return unit and scale * _FIXED_SHIFT_FROM <= 1
