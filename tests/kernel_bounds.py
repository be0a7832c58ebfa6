"""A check of every address that a kernel touches under Triton's interpreter, before it is touched.

The interpreter loads and stores at plain addresses: past the end of a tensor it reads what lies there,
and the result may still be right. Here each address under the mask must lie in a tensor of the launch.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from triton.runtime import interpreter

__all__ = ["watch_bounds"]


def watch_bounds(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Let an address outside the launch's tensors raise IndexError; return the kernels seen, which grow."""
    seen: set[str] = set()
    spans: list[tuple[int, int]] = []  # first and past-the-last address of each tensor
    running: list[str] = []
    launch = interpreter.GridExecutor._init_args_hst
    load = interpreter.InterpreterBuilder.create_masked_load
    store = interpreter.InterpreterBuilder.create_masked_store

    def watched_launch(self: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        on_host = launch(self, args, kwargs)
        named = {**dict(enumerate(on_host[0])), **on_host[1]}
        tensors = {name: x for name, x in named.items() if isinstance(x, torch.Tensor) and x.numel()}
        # of a cube what lies between pixels may be read, and so after the last where there is as much
        spans[:] = [_storage(x) if name == "cube_ptr" else _span(x) for name, x in tensors.items()]
        running[:] = [self.fn.__name__]
        seen.add(self.fn.__name__)
        return on_host

    def check(pointers: Any, mask: Any) -> None:
        bytes_each = pointers.get_element_ty().primitive_bitwidth // 8
        kept = np.broadcast_to(mask.data, pointers.data.shape)
        addresses = pointers.data[kept].astype(np.int64)
        inside = np.zeros(addresses.shape, dtype=bool)
        for first, past in spans:
            inside |= (addresses >= first) & (addresses + bytes_each <= past)
        if not inside.all():
            outside = f"{(~inside).sum()} of {inside.size} addresses"
            raise IndexError(f"{running[0]}: {outside} lie in no tensor of the launch")

    def watched_load(self: Any, pointers: Any, mask: Any, *others: Any) -> Any:
        check(pointers, mask)
        return load(self, pointers, mask, *others)

    def watched_store(self: Any, pointers: Any, value: Any, mask: Any, *others: Any) -> Any:
        check(pointers, mask)
        return store(self, pointers, value, mask, *others)

    monkeypatch.setattr(interpreter.GridExecutor, "_init_args_hst", watched_launch)
    monkeypatch.setattr(interpreter.InterpreterBuilder, "create_masked_load", watched_load)
    monkeypatch.setattr(interpreter.InterpreterBuilder, "create_masked_store", watched_store)
    return seen


def _storage(x: torch.Tensor) -> tuple[int, int]:
    first = x.untyped_storage().data_ptr()
    return first, first + x.untyped_storage().nbytes()


def _span(x: torch.Tensor) -> tuple[int, int]:
    last = sum((size - 1) * stride for size, stride in zip(x.shape, x.stride(), strict=True))
    return x.data_ptr(), x.data_ptr() + (last + 1) * x.element_size()
