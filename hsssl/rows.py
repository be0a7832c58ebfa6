"""Rows of a matrix, such as spectra or features, brought to length one."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["unit_rows"]


def unit_rows(x: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """Return the rows of ``x`` (n, d) with length one in float64; a row of zeros stays.

    Examples
    --------
    >>> unit_rows(np.array([[3.0, 4.0], [0.0, 0.0]])).tolist()
    [[0.6, 0.8], [0.0, 0.0]]
    """
    wide = np.asarray(x, dtype=np.float64)
    norm = np.linalg.norm(wide, axis=1, keepdims=True)
    unit: NDArray[np.float64] = wide / np.where(norm > 0, norm, 1)
    return unit
