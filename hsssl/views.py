"""Views: what may differ between two looks at a patch, and what a method is given."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from torch import Tensor

from hsssl_kernels.spectral_views import ViewSpec

__all__ = ["DEFAULT_VIEWS", "ViewSpec", "Views"]

# Measured on Indian Pines: neighbours as positives carry the learning, while per-band gains, noise
# and dropped bands wash out the fine spectral differences that tell crops apart.
DEFAULT_VIEWS = replace(ViewSpec.none(), flip=0.5, turn=True, jitter=4)


class Views(NamedTuple):
    """A batch of two views of every sample, from one sensor.

    Parameters
    ----------
    a, b : Tensor, shape (B, C, H, W), float32
        Two augmented views of the same B samples, normalised per band.
    wavelengths : Tensor, shape (C,), float32
        Band centres in nm.
    """

    a: Tensor
    b: Tensor
    wavelengths: Tensor

    @property
    def pair(self) -> tuple[Tensor, Tensor]:
        """The two views."""
        return self.a, self.b
