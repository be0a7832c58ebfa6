"""Averages over square windows of valid pixels: what several scales are made of."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["box_average"]

# Averaged at a time: a cache line of a pixel's float32.
_BANDS = 16


def box_average(values: NDArray[Any], valid: NDArray[np.bool_], window: int) -> NDArray[np.float32]:
    """Average each band over a square window, over valid pixels only, mirrored at the borders.

    Parameters
    ----------
    values : ndarray, shape (rows, cols, bands)
        Numbers; those of invalid pixels are never read.
    valid : ndarray, shape (rows, cols), bool
        Pixels to average.
    window : int
        Side of the window in pixels, odd. At the borders the image is mirrored about its outermost
        pixels (d c b | a b c d | c b a).

    Returns
    -------
    ndarray, shape (rows, cols, bands), float32
        NaN at invalid pixels.

    Raises
    ------
    ValueError
        If ``window`` is not odd and positive.
    """
    from scipy.ndimage import uniform_filter

    if window < 1 or window % 2 == 0:
        raise ValueError(f"box average: window must be an odd number of pixels, got {window}")
    weight = uniform_filter(valid.astype(np.float64), window, mode="mirror")
    weight[~valid] = np.nan
    average = np.empty(values.shape, dtype=np.float32)
    for first in range(0, values.shape[2], _BANDS):
        bands = slice(first, first + _BANDS)
        planes = np.moveaxis(values[:, :, bands], 2, 0).astype(np.float64, order="C")
        planes[:, ~valid] = 0
        summed = uniform_filter(planes, (1, window, window), mode="mirror")
        average[:, :, bands] = np.moveaxis(summed / weight, 0, 2)
    return average
