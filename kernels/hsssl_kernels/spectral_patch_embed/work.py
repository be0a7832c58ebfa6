"""What one call works on: raw values with all that says how tokens are cut from them."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

__all__ = ["Work"]


class Work(NamedTuple):
    """Raw values and their tokens; sizes follow from shapes.

    Tokens of a sample are numbered group by group, in a group row by row. Of all B V slots of the
    output, ``order`` lists those of group 0 first, and group g has ``starts[g] ... starts[g + 1]`` of
    them; both are None where no one needs them in this order.
    """

    x: Tensor  # (B, H, W, C), any strides; or a cube (rows, cols, C)
    centres: Tensor | None  # (B, 2) int64, with a cube
    mean: Tensor | None  # (C,)
    scale: Tensor | None  # (C,)
    visible: Tensor | None  # (B, V) int64
    order: Tensor | None  # (B V,) int64
    starts: Tensor | None  # (G + 1,) int64
    patch: int
    group: int
    window: int  # side of the windows, with a cube

    @property
    def batch(self) -> int:
        """Samples, B."""
        return (self.x if self.centres is None else self.centres).shape[0]

    @property
    def bands(self) -> int:
        """Bands, C."""
        return self.x.shape[-1]

    @property
    def groups(self) -> int:
        """Groups of bands, G."""
        return -(-self.bands // self.group)

    @property
    def high(self) -> int:
        """Tokens of a group from top to bottom."""
        return (self.x.shape[1] if self.centres is None else self.window) // self.patch

    @property
    def wide(self) -> int:
        """Tokens of a group from left to right."""
        return (self.x.shape[2] if self.centres is None else self.window) // self.patch

    @property
    def space(self) -> int:
        """Tokens of one group, S."""
        return self.high * self.wide

    @property
    def values(self) -> int:
        """Raw values in a token, K = patch patch group."""
        return self.patch**2 * self.group

    @property
    def kept(self) -> int:
        """Tokens of a sample that are computed, V."""
        return self.groups * self.space if self.visible is None else self.visible.shape[1]
