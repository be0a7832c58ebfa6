"""Which implementation makes views."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from hsssl_kernels.dispatch import compiles_loops
from hsssl_kernels.spectral_views.blocked import spectral_views_blocked

__all__ = ["views_by"]


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
