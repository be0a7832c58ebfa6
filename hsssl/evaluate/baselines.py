"""Features made by hand, the ones to beat: spectra, and averages of spectra over windows."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hsssl.cube import Cube
from hsssl.windows import box_average

__all__ = ["BASELINES", "baseline_features", "principal_components"]

FloatArray = NDArray[np.floating[Any]]
PCA_BANDS = 30
PCA_WINDOWS = (1, 3, 5, 9, 15)

#: Name -> footprint: the side in pixels of the window a pixel's features come from.
BASELINES: dict[str, int] = {
    "raw spectrum": 1,
    "spectrum averaged over 5x5": 5,
    "spectrum averaged over 7x7": 7,
    "PCA bands averaged over 1, 3, 5, 9, 15": 15,
}


def baseline_features(cube: Cube) -> dict[str, NDArray[np.float32]]:
    """Compute the hand-made features of a cube, by name; `BASELINES` has their footprints.

    The PCA bands are fitted on all valid pixels, test pixels included, without labels: the baseline
    is transductive, as an encoder pretrained on the scene is.

    Parameters
    ----------
    cube : Cube
        A prepared cube (`hsssl.prepare`).

    Returns
    -------
    dict of str to ndarray, shape (rows, cols, dim), float32
        NaN at invalid pixels. Together about 3 x bands + 150 numbers a pixel.

    Raises
    ------
    ValueError
        If the cube has no valid pixel, or a valid pixel with a number that is not finite.
    """
    if not cube.valid.any():
        raise ValueError(f"{cube.source}: no valid pixel to make features of; check nodata")
    if not np.isfinite(cube.values[cube.valid]).all():
        raise ValueError(
            f"{cube.source}: a valid pixel holds a number that is not finite; use hsssl.prepare first"
        )
    pca = principal_components(cube.values, cube.valid, PCA_BANDS)
    features = [
        box_average(cube.values, cube.valid, 1),
        box_average(cube.values, cube.valid, 5),
        box_average(cube.values, cube.valid, 7),
        np.concatenate([box_average(pca, cube.valid, window) for window in PCA_WINDOWS], axis=2),
    ]
    return dict(zip(BASELINES, features, strict=True))


def principal_components(
    values: NDArray[Any], valid: NDArray[np.bool_], components: int
) -> NDArray[np.float64]:
    """Project the standardised spectra of valid pixels on their first principal components.

    Parameters
    ----------
    values : ndarray, shape (rows, cols, bands)
    valid : ndarray, shape (rows, cols), bool
    components : int
        How many; fewer come back if there are fewer bands.

    Returns
    -------
    ndarray, shape (rows, cols, components), float64
        0 at invalid pixels; the largest weight of each component is positive.
    """
    spectra = values[valid].astype(np.float64)  # (pixels, bands)
    std = spectra.std(axis=0)
    spectra = (spectra - spectra.mean(axis=0)) / np.where(std > 0, std, 1.0)
    _, axes = np.linalg.eigh(spectra.T @ spectra)
    axes = axes[:, ::-1][:, :components]
    largest = np.take_along_axis(axes, np.abs(axes).argmax(axis=0)[None], axis=0)
    projected = np.zeros((*valid.shape, axes.shape[1]))
    projected[valid] = spectra @ (axes * np.sign(largest))
    return projected
