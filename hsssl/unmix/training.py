"""What the training loops of the unmixing networks share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hsssl.rows import unit_rows

__all__ = ["steps_bar", "unit_scale"]


def unit_scale(pixels: NDArray[np.floating[Any]]) -> Tensor:
    """Return spectra (n, bands) of length one as float32; a spectrum of zeros stays."""
    return torch.from_numpy(unit_rows(pixels).astype(np.float32))


def steps_bar(steps: int, name: str, progress: bool | None) -> Iterator[int]:
    """Count steps, with a progress bar; None shows it on a terminal."""
    from tqdm import tqdm

    if steps < 1:
        raise ValueError(f"{name}: steps must be at least 1, got {steps}")
    yield from tqdm(range(steps), disable=None if progress is None else not progress, desc=name, leave=False)
