"""Backward passes that say so when they are differentiated, and are never silently left out."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

__all__ = ["first_order"]

Gradients = tuple[Tensor | None, ...]


def first_order(op: str) -> Callable[[Callable[..., Gradients]], Callable[..., Gradients]]:
    """Decorate the backward of a `torch.autograd.Function` that has no derivative of its own.

    With ``create_graph=True`` the gradients it returns refuse to be differentiated. Torch's
    `once_differentiable` does that only where the upstream gradient requires one; of a plain loss a
    penalty on the gradients would then be left out without a word.
    """

    def decorate(backward: Callable[..., Gradients]) -> Callable[..., Gradients]:
        @functools.wraps(backward)
        def once(ctx: Any, *upstream: Tensor) -> Gradients:
            with torch.no_grad():
                found = backward(ctx, *upstream)
            # compiled code refuses second derivatives itself
            if torch.compiler.is_compiling() or not torch.is_grad_enabled():
                return found
            anchor = torch.zeros((), requires_grad=True)  # without it autograd would record nothing
            refusing: Gradients = _Refusing.apply(op, anchor, *found)  # type: ignore[no-untyped-call]
            return refusing

        return once

    return decorate


class _Refusing(torch.autograd.Function):
    """Gradients as they are, with an error for a derivative."""

    @staticmethod
    def forward(ctx: Any, op: str, anchor: Tensor, *gradients: Tensor | None) -> Gradients:
        ctx.op = op
        return tuple(None if g is None else g.view_as(g) for g in gradients)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> Gradients:
        raise RuntimeError(
            f"{ctx.op}: has a first derivative only, and the second was asked for (create_graph=True); "
            "leave the penalty on gradients out, or write the loss in plain torch for it"
        )
