"""Checks of what callers pass to the ops of self-expression."""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["check_own", "check_scale", "check_threshold"]


def check_threshold(op: str, threshold: float | Tensor, like: Tensor) -> Tensor:
    """Return the threshold as a tensor () in float64, refusing what is not one finite number from 0.

    A tensor's value is read here (on a GPU that waits for it once), except while torch.compile traces.
    """
    if not isinstance(threshold, Tensor):
        if isinstance(threshold, bool) or not isinstance(threshold, (int, float)):
            raise TypeError(
                f"{op}: `threshold` must be a number or a tensor of one element, "
                f"got {type(threshold).__name__}; pass a float"
            )
        threshold = torch.tensor(float(threshold), dtype=torch.float64, device=like.device)
    elif threshold.numel() != 1 or not threshold.is_floating_point():
        raise ValueError(
            f"{op}: `threshold` must be a number or a floating-point tensor of one element, "
            f"got {threshold.dtype} of shape {tuple(threshold.shape)}; pass one value"
        )
    if not torch.compiler.is_compiling() and not 0 <= float(threshold.detach()) < math.inf:
        raise ValueError(f"{op}: `threshold` must be finite and at least 0, got {float(threshold.detach())}")
    return threshold.reshape(()).double()


def check_scale(op: str, scale: float | Tensor) -> None:
    """Refuse a scale that is not one finite number above 0; a tensor is read as the threshold is."""
    if isinstance(scale, Tensor):
        if scale.numel() != 1 or not scale.is_floating_point():
            raise ValueError(
                f"{op}: `scale` must be a number or a floating-point tensor of one element, "
                f"got {scale.dtype} of shape {tuple(scale.shape)}; pass one value"
            )
        scale = scale.detach()
    elif isinstance(scale, bool) or not isinstance(scale, (int, float)):
        raise TypeError(f"{op}: `scale` must be a number or a tensor of one element, got {scale!r}")
    if not torch.compiler.is_compiling() and not 0 < float(scale) < math.inf:
        raise ValueError(f"{op}: `scale` must be finite and above 0, got {float(scale)}; leave it at 1")


def check_own(op: str, own: Tensor | None, query: Tensor, key: Tensor) -> Tensor:
    """Return the key of each query (n,) int64: row i by default, -1 where a query is no key."""
    if own is None:
        if len(query) != len(key):
            raise ValueError(
                f"{op}: {len(query)} queries of {len(key)} keys; pass `own`, the key that each query is "
                "(-1 for none), so that no row expresses itself"
            )
        return torch.arange(len(query), device=query.device)
    if not isinstance(own, Tensor) or own.dtype != torch.int64 or own.shape != query.shape[:1]:
        got = f"{own.dtype} {tuple(own.shape)}" if isinstance(own, Tensor) else type(own).__name__
        raise ValueError(f"{op}: `own` must be an int64 tensor of shape ({len(query)},), got {got}")
    if own.device != query.device:
        raise ValueError(f"{op}: `own` must be on {query.device} as `query` is, got {own.device}; move it")
    if own.device.type == "cpu" and not torch.compiler.is_compiling() and int(own.max()) >= len(key):
        raise ValueError(f"{op}: `own` must name rows of `key`, 0 ... {len(key) - 1}, got {int(own.max())}")
    return own
