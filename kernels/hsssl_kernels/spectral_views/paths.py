"""Which implementation makes views."""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable

import torch
from torch import Tensor

from hsssl_kernels.spectral_views.blocked import spectral_views_blocked

__all__ = ["compiles_loops", "views_by"]


def views_by(backend: str, cube: Tensor) -> Callable[..., tuple[Tensor, Tensor]]:
    """Return the Triton kernel's launcher, or compiled loops, or blocked torch, for a chosen backend."""
    if backend == "triton":
        from hsssl_kernels.spectral_views.kernel import launch_spectral_views

        return launch_spectral_views
    # Numba knows no float16 on the CPU
    if cube.device.type == "cpu" and cube.dtype != torch.float16 and compiles_loops():
        from hsssl_kernels.spectral_views.compiled import spectral_views_compiled

        return spectral_views_compiled
    return spectral_views_blocked


@functools.cache
def compiles_loops() -> bool:
    """Return whether Numba is installed and, by NUMBA_DISABLE_JIT, not told to leave loops to Python."""
    if importlib.util.find_spec("numba") is None:
        return False
    import numba

    return not numba.config.DISABLE_JIT
