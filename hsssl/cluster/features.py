"""What is clustered: spectra, or their principal components averaged over windows, one row a pixel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hsssl.cube import Cube, not_measured
from hsssl.prepare import read_rows, scan_bands
from hsssl.windows import box_average

__all__ = ["Pixels", "averaged_components", "spectra"]

FloatArray = NDArray[np.floating[Any]]


@dataclass(frozen=True, eq=False)
class Pixels:
    """The pixels of a scene that are to be clustered.

    Parameters
    ----------
    cube : Cube
        The prepared scene.
    chosen : ndarray, shape (rows, cols), bool
        Pixels to cluster, all of them valid. Averages take in every valid pixel.
    """

    cube: Cube
    chosen: NDArray[np.bool_]

    def __len__(self) -> int:
        return int(np.count_nonzero(self.chosen))

    def spread(self, labels: NDArray[np.integer[Any]]) -> NDArray[np.int32]:
        """Return an image (rows, cols) of labels (n,) from 0, raised by 1; 0 where no pixel is chosen."""
        image = np.zeros(self.chosen.shape, dtype=np.int32)
        image[self.chosen] = labels + 1
        return image


def spectra(pixels: Pixels) -> NDArray[np.float32]:
    """Return the spectra (n, bands) of the chosen pixels, raw numbers; a missing one is the band's mean."""
    cube = pixels.cube
    values = cube.values[pixels.chosen]
    void = not_measured(values, cube.nodata)
    rows = values.astype(np.float32)
    if void.any():
        mean = rows.mean(axis=0, where=~void, dtype=np.float64)
        rows[void] = np.broadcast_to(mean, rows.shape)[void]
    return rows


def averaged_components(pixels: Pixels, *, components: int = 30, window: int = 7) -> NDArray[np.float32]:
    """Return principal components (n, components) of the spectra, averaged over a window around each pixel.

    Spectra are centred but not scaled: the noisy bands, which are the faint ones, then weigh least. The
    cube is read by tiles of rows; memory is O(rows cols components).

    Parameters
    ----------
    pixels : Pixels
        The scene; the components and the averages are taken over all its valid pixels.
    components : int
        Fewer come back from fewer bands.
    window : int
        Side of the window in pixels, odd.

    References
    ----------
    Pearson 1901, doi:10.1080/14786440109462720.
    """
    cube = pixels.cube
    mean, axes = _principal_axes(cube, components)
    image = np.zeros((cube.rows, cube.cols, axes.shape[1]), dtype=np.float32)
    for rows, values in read_rows(cube):
        image[rows][cube.valid[rows]] = (_filled(cube, values[cube.valid[rows]], mean) - mean) @ axes
    return box_average(image, cube.valid, window)[pixels.chosen]


def _principal_axes(cube: Cube, components: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the mean spectrum (bands,) and the leading axes (bands, components) over valid pixels."""
    mean = scan_bands(cube).mean
    scatter = np.zeros((cube.bands, cube.bands))
    for rows, values in read_rows(cube):
        centred = _filled(cube, values[cube.valid[rows]], mean) - mean
        scatter += centred.T @ centred
    axes = np.linalg.eigh(scatter)[1][:, ::-1][:, :components]
    largest = np.take_along_axis(axes, np.abs(axes).argmax(axis=0)[None], axis=0)
    return mean, axes * np.sign(largest)


def _filled(cube: Cube, raw: NDArray[Any], mean: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return spectra (pixels, bands) with missing numbers as the band's mean."""
    return np.where(not_measured(raw, cube.nodata), mean, raw.astype(np.float64))
