"""What pixels are told apart by: spectra, or their principal components averaged over windows, by tiles."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from hsssl.cube import Cube, block_of, not_measured
from hsssl.prepare import read_parts, scan_bands
from hsssl.stream import Tick, Tile, cut_tiles, places_inside, stream_tiles
from hsssl.windows import box_average

__all__ = ["AveragedComponents", "FeatureMap", "Pixels", "Spectra", "rows_at"]

FloatArray = NDArray[np.floating[Any]]
IntArray = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Pixels:
    """The pixels of a scene that are to be clustered.

    Parameters
    ----------
    cube : Cube
        The prepared scene, in memory or in a file.
    chosen : ndarray, shape (rows, cols), bool
        Pixels to cluster, all of them valid. Averages take in every valid pixel.
    """

    cube: Cube
    chosen: NDArray[np.bool_]

    def __len__(self) -> int:
        return int(np.count_nonzero(self.chosen))

    @property
    def places(self) -> IntArray:
        """Flat numbers (n,) of the chosen pixels, ascending."""
        return np.flatnonzero(self.chosen)


class FeatureMap(Protocol):
    """Features of a scene by tiles; `hsssl.embed.FeatureTiles`, for one."""

    def tiles(self) -> list[Tile]:
        """Cut the scene."""

    def read(self, tile: Tile) -> Any:
        """Return what the features of a tile are made of."""

    def compute(self, tile: Tile, values: Any, tick: Tick) -> FloatArray:
        """Return the features (rows, cols, d) of a tile."""


@dataclass(frozen=True, eq=False)
class Spectra:
    """Spectra in raw numbers, a band a feature; a missing one is the band's mean.

    Parameters
    ----------
    cube : Cube
        The prepared scene.
    mean : ndarray, shape (bands,)
        Of each band.
    """

    cube: Cube
    mean: NDArray[np.float64]

    @classmethod
    def of(cls, pixels: Pixels) -> Spectra:
        """Take the means of a scene over its valid pixels."""
        return cls(pixels.cube, scan_bands(pixels.cube).mean)

    def tiles(self) -> list[Tile]:
        """Cut the scene."""
        # as read, as float64 and as float32
        return cut_tiles(
            self.cube.rows, self.cube.cols, pixel_bytes=16 * self.cube.bands, block=block_of(self.cube.values)
        )

    def read(self, tile: Tile) -> NDArray[Any]:
        """Return the raw numbers (rows, cols, bands) of a tile."""
        values: NDArray[Any] = self.cube.values[tile.around]
        return values

    def compute(self, tile: Tile, values: NDArray[Any], tick: Tick) -> NDArray[np.float32]:
        """Return the spectra (rows, cols, bands) of a tile."""
        return _filled(self.cube, values, self.mean).astype(np.float32)


@dataclass(frozen=True, eq=False)
class AveragedComponents:
    """Principal components of the spectra, averaged over a window around each pixel.

    Spectra are centred but not scaled: the noisy bands, which are the faint ones, then weigh least.

    Parameters
    ----------
    cube : Cube
        The prepared scene.
    mean, axes : ndarray, shapes (bands,) and (bands, components)
        The components are ``(spectrum - mean) @ axes``.
    window : int
        Side of the window in pixels, odd.

    References
    ----------
    Pearson 1901, doi:10.1080/14786440109462720.
    """

    cube: Cube
    mean: NDArray[np.float64]
    axes: NDArray[np.float64]
    window: int

    @classmethod
    def of(cls, pixels: Pixels, *, components: int = 30, window: int = 7) -> AveragedComponents:
        """Find the axes over all valid pixels, in two passes by strips; fewer come from fewer bands."""
        return cls(pixels.cube, *_principal_axes(pixels.cube, components), window)

    def tiles(self) -> list[Tile]:
        """Cut the scene, with what windows reach beyond a tile."""
        # as read, twice as float64, and components before and after
        pixel_bytes = 24 * self.cube.bands + 16 * self.axes.shape[1]
        return cut_tiles(
            self.cube.rows,
            self.cube.cols,
            pixel_bytes=pixel_bytes,
            halo=self.window // 2,
            block=block_of(self.cube.values),
        )

    def read(self, tile: Tile) -> NDArray[Any]:
        """Return the raw numbers (rows, cols, bands) of a tile and its halo."""
        values: NDArray[Any] = self.cube.values[tile.around]
        return values

    def compute(self, tile: Tile, values: NDArray[Any], tick: Tick) -> NDArray[np.float32]:
        """Return the averages (rows, cols, components) of a tile, NaN where nothing was measured."""
        valid = self.cube.valid[tile.around]
        image = np.zeros((*valid.shape, self.axes.shape[1]), dtype=np.float32)
        image[valid] = (_filled(self.cube, values[valid], self.mean) - self.mean) @ self.axes
        return box_average(image, valid, self.window)[tile.inner]


def rows_at(
    features: FeatureMap, places: IntArray, cols: int, *, progress: bool | None = None
) -> NDArray[np.float32]:
    """Return the features (n, d) of some pixels; tiles without any of them are not read.

    Parameters
    ----------
    features : FeatureMap
        Of the scene.
    places : ndarray, shape (n,), int64
        Flat numbers of the pixels, ascending, at least one.
    cols : int
        Columns of the scene.
    progress : bool, optional
        Show a progress bar; None shows it on a terminal.
    """
    tiles = [tile for tile in features.tiles() if len(places_inside(places, cols, tile.rows, tile.cols)[0])]
    found: list[tuple[IntArray, FloatArray]] = []

    def compute(tile: Tile, values: Any, tick: Tick) -> None:
        which, row, col = places_inside(places, cols, tile.rows, tile.cols)
        found.append((which, features.compute(tile, values, tick)[row, col]))

    stream_tiles(tiles, features.read, compute, lambda *_: None, desc="landmarks", progress=progress)
    rows = np.empty((len(places), found[0][1].shape[1]), dtype=np.float32)
    for which, part in found:
        rows[which] = part
    return rows


def _principal_axes(cube: Cube, components: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the mean spectrum (bands,) and the leading axes (bands, components) over valid pixels."""
    mean = scan_bands(cube).mean
    scatter = np.zeros((cube.bands, cube.bands))
    for part, values in read_parts(cube):
        centred = _filled(cube, values[cube.valid[part]], mean) - mean
        scatter += centred.T @ centred
    axes = np.linalg.eigh(scatter)[1][:, ::-1][:, :components]
    largest = np.take_along_axis(axes, np.abs(axes).argmax(axis=0)[None], axis=0)
    return mean, axes * np.sign(largest)


def _filled(cube: Cube, raw: NDArray[Any], mean: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return spectra (..., bands) with missing numbers as the band's mean."""
    return np.where(not_measured(raw, cube.nodata), mean, raw.astype(np.float64))
