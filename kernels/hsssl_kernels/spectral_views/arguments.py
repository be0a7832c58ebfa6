"""What the compiled loops of views are given: numbers and NumPy's arrays, as Numba takes them."""

from __future__ import annotations

from typing import Any, NamedTuple

from hsssl_kernels.spectral_views.strengths import Strengths

__all__ = ["Recipe"]


class Recipe(NamedTuple):
    """What both views of samples are made from."""

    cube: Any  # (rows, cols, C) of any dtype
    valid: Any  # (rows cols,) bool, or (0,) where all pixels are
    mean: Any  # (C,) float32
    scale: Any
    cosines: Any  # (4, C) float32
    strengths: Strengths  # in single precision
    key: int  # of the random stream
    centres: Any  # (B, 2) int64
    samples: Any  # (B,) int64, the names by which samples are drawn

    def some(self, samples: slice) -> Recipe:
        """Return what some samples' views are made from."""
        return self._replace(centres=self.centres[samples], samples=self.samples[samples])
