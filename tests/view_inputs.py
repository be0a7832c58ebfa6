"""A small cube and what `spectral_views` takes besides, as tests of views share them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from hsssl_kernels import ViewSpec

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
NONE = ViewSpec.none()
FULL = replace(ViewSpec(), smooth=0.5)


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
