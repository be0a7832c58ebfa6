"""What the compiled loops are given: tuples of numbers and of NumPy's arrays, as Numba takes them."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch

__all__ = ["ROWS", "Source", "Sums", "Turns"]

# Rows of a product at once: with two registers for each, 12 of the 16 that most machines have.
# `_multiply` and `_write` in loops.py spell them out.
ROWS = 6


class Source(NamedTuple):
    """Raw values, and where the tokens' lie. Lists are NumPy's, flat and int64; inside loops, addresses.

    Those that are not wanted are empty.

    Slots of the output are taken in order: as they are, or as ``order`` lists them, group by group.
    """

    raw: Any  # (n,) of any dtype
    length: int  # n
    line: int  # of these numbers, how many the cache holds side by side
    ahead: int  # of these numbers, how many to fetch a slot, for the next sample; or 0
    strides: tuple[int, ...]  # of samples, rows, columns and bands; of a cube's one sample 0
    size: tuple[int, ...]  # rows and columns of the cube
    corners: Any  # (B 2,) first row and column of each window of a cube
    window: int  # their side, or 0 where x holds samples
    places: Any  # (G S 4,) each token's row, column, group and first band
    spots: Any  # (K 3,) each value's row, column and band, from there
    values: int  # of a token, K
    bands: int
    normalised: bool
    mean: Any  # (G K,) of the dtype of sums
    scale: Any
    some: bool  # whether not all tokens of a sample are wanted, but
    visible: Any  # (B V,) those in the slots
    ordered: bool
    order: Any  # (B V,)
    kept: int  # slots of a sample, V
    tokens: int  # of a sample, G S


class Sums(NamedTuple):
    """Gradients that loops add to: P parts, which are added up at the end."""

    by_weight: Any  # (P, 1 or G, K', D), K' >= K a multiple of 6
    by_table: Any  # (P, 1 or G or G S or 0, D)


class Turns(NamedTuple):
    """What threads take in turn: ``step`` slots of ``first`` ... ``last`` - 1, or a share of the columns."""

    taken: Any  # (1,) how many turns were taken
    first: int
    last: int
    step: int
    shares: int  # of the columns of gradients: as many turns in a row are at the same slots
    every: bool  # whether arrays by token have a row for every slot there is, or for these alone in order
    fresh: bool  # whether sums of gradients begin here, whatever their memory holds

    @classmethod
    def of(cls, slots: slice, step: int, every: bool, shares: int = 1, fresh: bool = False) -> Turns:
        """Return turns that none has taken."""
        return cls(_zeros(1, torch.int64), slots.start, slots.stop, max(1, step), shares, every, fresh)


def _zeros(count: int, dtype: torch.dtype) -> Any:
    """Return an array of zeros, not by torch: on many its threads would stay awake."""
    array = torch.empty(count, dtype=dtype).numpy()
    array.fill(0)
    return array
