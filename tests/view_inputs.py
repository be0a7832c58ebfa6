"""A small cube and what `spectral_views` takes besides, as tests of views share them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from hsssl_kernels import ViewSpec, spectral_views
from hsssl_kernels.spectral_views import paths

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
NONE = ViewSpec.none()
FULL = replace(ViewSpec(), smooth=0.5)
# "compiled" and "blocked" are what "torch" means with Numba and without.
PATHS = ["compiled", "blocked", "triton"]


def views(path: str, **given: Any) -> tuple[Tensor, Tensor]:
    """Return the views that one of `PATHS` makes."""
    if path == "triton":
        return spectral_views(backend="triton", **given)
    with patch.object(paths, "compiles_loops", lambda: path == "compiled"):
        return spectral_views(backend="torch", **given)


def inputs(
    rows: int = 14, cols: int = 11, bands: int = 13, n: int = 9, raw: torch.dtype = torch.int16
) -> Any:
    g = torch.Generator().manual_seed(rows + bands)
    largest = {torch.uint8: 250, torch.uint16: 65000}.get(raw, 4000)
    cube = torch.randint(0, largest, (rows, cols, bands), generator=g).to(raw)
    wide = cube.double()
    return {
        "cube": cube.to(DEVICE),
        "centres": torch.stack([torch.arange(n) * 5 % rows, torch.arange(n) * 3 % cols], 1).to(DEVICE),
        "mean": wide.mean((0, 1)).float().to(DEVICE),
        "scale": (1 / (wide.std((0, 1)) + 1)).float().to(DEVICE),
        "valid": (torch.rand(rows, cols, generator=g) > 0.1).to(DEVICE),
        "seed": 3,
        "step": 5,
    }
