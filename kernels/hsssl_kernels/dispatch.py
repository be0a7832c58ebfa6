"""Which implementation runs, and how an op is registered with torch."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import os
from collections.abc import Callable
from typing import Any, Literal, cast

import torch
from torch import Tensor

__all__ = [
    "MAX_COLUMNS",
    "Backend",
    "choose_backend",
    "compiles_loops",
    "interpreting",
    "register",
    "runs_triton",
    "send",
]

Backend = Literal["auto", "triton", "torch"]

MAX_COLUMNS = 1024
_TRITON_DTYPES = (torch.float32, torch.float16, torch.bfloat16)
# Any: torch annotates neither the constructor nor the methods
_LIBRARY: Any = cast(Any, torch.library.Library)("hsssl_kernels", "FRAGMENT")


def interpreting() -> bool:
    """Return whether Triton kernels run in its interpreter, on the CPU."""
    return os.environ.get("TRITON_INTERPRET", "0").lower() in ("1", "true", "yes", "on")


def choose_backend(op: str, backend: str, x: Tensor) -> str:
    """Return "triton" or "torch" for an input (n, D).

    "auto" takes Triton where `runs_triton` and the kernels support the input, else blocked torch.

    Raises
    ------
    ValueError, TypeError
        If ``backend`` is unknown, or "triton" was asked for and cannot take this input.
    """
    if backend not in ("auto", "triton", "torch"):
        raise ValueError(f'{op}: `backend` must be "auto", "triton" or "torch", got {backend!r}; pick one')
    if backend == "torch":
        return "torch"
    fits = x.dtype in _TRITON_DTYPES and x.shape[-1] <= MAX_COLUMNS
    if backend == "auto":
        return "triton" if fits and runs_triton(x.device) else "torch"
    _check_triton(op, x)
    return "triton"


def runs_triton(device: torch.device) -> bool:
    """Return whether kernels are compiled for the device: ROCm, and CUDA from compute capability 8.0.

    Triton compiles for nothing older, and torch has no Triton for other accelerators (MPS).
    """
    return device.type == "cuda" and _has_triton() and _is_recent(device)


@functools.cache
def compiles_loops() -> bool:
    """Return whether Numba is installed and, by NUMBA_DISABLE_JIT, not told to leave loops to Python."""
    if importlib.util.find_spec("numba") is None:
        return False
    import numba

    return not numba.config.DISABLE_JIT


def send(x: Tensor, device: torch.device) -> Tensor:
    """Return ``x`` on the device; from memory of the CPU to a GPU it is sent while both go on.

    A plain copy would wait until the GPU has done all that was queued before.
    """
    if x.device == device:
        return x
    return x.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else x.to(device)


def _is_recent(device: torch.device) -> bool:
    return torch.version.hip is not None or torch.cuda.get_device_properties(device).major >= 8


def _check_triton(op: str, x: Tensor) -> None:
    if not _has_triton():
        raise ValueError(f'{op}: `backend="triton"` needs the package triton; use backend="torch"')
    if not x.is_cuda and not interpreting():
        raise ValueError(
            f'{op}: `backend="triton"` needs tensors on a CUDA or ROCm device, got {x.device}; '
            'move them, or use backend="torch"'
        )
    if x.is_cuda and not _is_recent(x.device):
        properties = torch.cuda.get_device_properties(x.device)
        raise ValueError(
            f'{op}: `backend="triton"` needs a GPU of compute capability 8.0 or newer, '
            f'got {properties.major}.{properties.minor}; use backend="torch"'
        )
    if x.dtype not in _TRITON_DTYPES:
        raise TypeError(
            f'{op}: `backend="triton"` takes float32, float16 or bfloat16, got {x.dtype}; '
            'cast it, or use backend="torch"'
        )
    if interpreting() and x.dtype == torch.bfloat16:
        raise TypeError(
            f"{op}: Triton's interpreter computes bfloat16 on raw bits, wrongly; "
            "use float16 or float32 with it"
        )
    if x.shape[-1] > MAX_COLUMNS:
        raise ValueError(
            f'{op}: `backend="triton"` takes up to D={MAX_COLUMNS} columns, got {x.shape[-1]}; '
            'project them first, or use backend="torch"'
        )


def _has_triton() -> bool:
    return importlib.util.find_spec("triton") is not None


def register(schema: str, implementation: Callable[..., Any], fake: Callable[..., Any]) -> Callable[..., Any]:
    """Register one op that torch.compile treats as opaque, and return the function that calls it.

    Its first argument is a tensor; all are passed by position.

    ``implementation`` serves every device; it looks at its own ``backend`` argument. Gradients
    are formed by the callers' `torch.autograd.Function`, so none is registered here.
    """
    name = schema.partition("(")[0]

    @functools.wraps(implementation)
    def on_its_device(x: Tensor, *others: Any) -> Any:
        with contextlib.ExitStack() as stack:
            # entered only where they change something, as they take as long as a launch
            if x.is_cuda and x.device.index != torch.cuda.current_device():
                stack.enter_context(torch.cuda.device(x.device))  # Triton launches on the current device
            if torch.is_autocast_enabled(x.device.type):
                stack.enter_context(torch.autocast(x.device.type, enabled=False))  # it would round sums
            found = implementation(x, *others)
        # what the fake promises, whatever the strides of the input
        return found.contiguous() if isinstance(found, Tensor) else tuple(t.contiguous() for t in found)

    _LIBRARY.define(schema, tags=(torch.Tag.pt2_compliant_tag,))
    _LIBRARY.impl(name, on_its_device, "CompositeExplicitAutograd")
    torch.library.register_fake(f"hsssl_kernels::{name}", fake, lib=_LIBRARY)
    op: Callable[..., Any] = getattr(torch.ops.hsssl_kernels, name).default
    return op
