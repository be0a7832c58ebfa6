"""Clusters of a scene's pixels without labels, by one function."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, overload

import numpy as np
from numpy.typing import NDArray

from hsssl.cluster.features import Pixels
from hsssl.cluster.landmarks import Fitted, draw_landmarks
from hsssl.cluster.methods import CLUSTER_METHODS
from hsssl.cube import Cube, not_measured
from hsssl.maps import WriteTile, open_class_map, refuse_map
from hsssl.messages import say_once, unknown_name
from hsssl.prepare import prepare, read_parts
from hsssl.quicklook import class_quicklook, refuse_quicklook
from hsssl.stream import Tick, Tile, places_inside, stream_tiles

__all__ = ["Clusters", "cluster", "find_clusters"]

# What one Lanczos basis and one pivoted QR hold well; more clusters than this is another task.
_MOST_CLUSTERS = 255


@dataclass(frozen=True, eq=False)
class Clusters:
    """The clusters of a scene's pixels, given out tile by tile.

    Parameters
    ----------
    pixels : Pixels
        What is clustered.
    fitted : Fitted
        What a method found.
    clusters : int
        How many there may be.
    """

    pixels: Pixels
    fitted: Fitted
    clusters: int

    @property
    def names(self) -> tuple[str, ...]:
        """Name of each cluster, from 1."""
        return tuple(f"cluster {number}" for number in range(1, self.clusters + 1))

    def stream(self, write: WriteTile, *, progress: bool | None = None) -> None:
        """Hand the clusters (rows, cols) of every tile to ``write``, uint8, 0 where a pixel is not chosen.

        Tiles whose pixels are all landmarks are not read. ``write`` is called in another thread.
        """
        tiles = self.fitted.features.tiles()
        stream_tiles(tiles, self._read, self._compute, write, desc="cluster", progress=progress)

    def image(self, *, progress: bool | None = None) -> NDArray[np.int32]:
        """Return the clusters (rows, cols) of the whole scene in memory."""
        image = np.zeros(self.pixels.chosen.shape, dtype=np.int32)

        def keep(tile: Tile, block: NDArray[np.uint8]) -> None:
            image[tile.rows, tile.cols] = block

        self.stream(keep, progress=progress)
        return image

    def _known(self, tile: Tile) -> NDArray[np.uint8]:
        """Return the clusters of the landmarks in a tile, 0 elsewhere."""
        which, row, col = places_inside(self.fitted.places, self.pixels.cube.cols, tile.rows, tile.cols)
        block = np.zeros(self.pixels.chosen[tile.rows, tile.cols].shape, dtype=np.uint8)
        block[row, col] = self.fitted.found[which] + 1
        return block

    def _read(self, tile: Tile) -> Any:
        open_ones = self.pixels.chosen[tile.rows, tile.cols] & (self._known(tile) == 0)
        return self.fitted.features.read(tile) if open_ones.any() else None

    def _compute(self, tile: Tile, values: Any, tick: Tick) -> NDArray[np.uint8]:
        block = self._known(tile)
        if values is not None:
            open_ones = self.pixels.chosen[tile.rows, tile.cols] & (block == 0)
            rows = self.fitted.features.compute(tile, values, tick)[open_ones]
            block[open_ones] = self.fitted.join(rows) + 1
        return block


@overload
def cluster(
    cube: Cube,
    *,
    clusters: int,
    method: str = "self_expressive",
    seed: int = 0,
    mask: NDArray[Any] | None = None,
    landmarks: int = 8192,
    out: None = None,
    overwrite: bool = False,
    quicklook: Literal[False] = False,
    progress: bool | None = None,
) -> NDArray[np.int32]: ...


@overload
def cluster(
    cube: Cube,
    *,
    clusters: int,
    method: str = "self_expressive",
    seed: int = 0,
    mask: NDArray[Any] | None = None,
    landmarks: int = 8192,
    out: str | Path,
    overwrite: bool = False,
    quicklook: bool = False,
    progress: bool | None = None,
) -> Path: ...


def cluster(
    cube: Cube,
    *,
    clusters: int,
    method: str = "self_expressive",
    seed: int = 0,
    mask: NDArray[Any] | None = None,
    landmarks: int = 8192,
    out: str | Path | None = None,
    overwrite: bool = False,
    quicklook: bool = False,
    progress: bool | None = None,
) -> NDArray[np.int32] | Path:
    """Return the cluster of every pixel of a cube, found without labels, or write the map to a file.

    Above ``landmarks`` pixels, so many drawn by the seed are clustered, and the others join them tile by
    tile: by their coefficients by the landmarks, or nearest spectra in the baselines. With ``out``, memory is
    bounded by the tile and the landmarks.

    Parameters
    ----------
    cube : Cube
        Raw or prepared.
    clusters : int
        Number of clusters, 2 ... 255; it is given, not found.
    method : str
        A name in `CLUSTER_METHODS`: self_expressive (ridge, sharpened, of spectra averaged over 7 x 7
        pixels), ridge (as it is, over 5 x 5), elastic_net, ae_subspace, contrastive_clustering, or the
        baselines kmeans and spectral.
    seed : int
        Of all that is drawn.
    mask : ndarray, shape (rows, cols), bool or integer, optional
        Pixels to cluster: True, or above 0, so that a label map keeps to labelled pixels. Only which pixels
        are marked is used. Averages over windows still take in all valid pixels.
    landmarks : int
        Most pixels in the graph.
    out : path, optional
        Write the map to this file (uint8, nodata 0, palette), a GeoTIFF (``.tif``) or, by any other
        extension, an ENVI classification, and return no array.
    overwrite : bool
        Replace the file at ``out``, and the quick-look.
    quicklook : bool
        Write a PNG beside ``out`` too, named after it: the map in its palette, of at most some 1200 pixels a
        side (`hsssl.quicklook`).
    progress : bool, optional
        Show a progress bar with pixels per second; None shows it on a terminal.

    Returns
    -------
    ndarray, shape (rows, cols), int32
        1 ... clusters; 0 where nothing was measured or the mask says no. A cluster may be empty. With
        ``out``, its path.

    Raises
    ------
    FileExistsError
        If there is a file at ``out``, or the quick-look's, and ``overwrite`` is off.
    ValueError
        If there are fewer pixels (or fewer that differ) than clusters, the mask has another shape, nothing
        in the cube varies, a parameter is out of range, or a quick-look is asked for without ``out``.

    References
    ----------
    Lu et al. 2012, doi:10.1007/978-3-642-33786-4_26 (ridge). Zhang et al. 2021, arXiv:2110.04318
    (elastic_net). The methods' functions and `hsssl.methods` name the others.

    Examples
    --------
    >>> segments = cluster(cube, clusters=6)                                # doctest: +SKIP
    """
    if out is not None:
        refuse_map(out, overwrite=overwrite)  # before the work, not after it
    if quicklook:
        refuse_quicklook(out, overwrite=overwrite)
    how: dict[str, Any] = {"method": method, "seed": seed, "mask": mask, "landmarks": landmarks}
    found = find_clusters(cube, clusters, **how)
    if out is None:
        return found.image(progress=progress)
    named: dict[str, Any] = {"highest": found.clusters, "class_names": found.names}
    look = class_quicklook(out if quicklook else None, cube.rows, cube.cols, found.names)
    with look as watch, open_class_map(out, cube, overwrite=overwrite, **named) as write:
        found.stream(watch(write), progress=progress)
    return Path(out)


def find_clusters(
    cube: Cube,
    clusters: int,
    *,
    method: str = "self_expressive",
    seed: int = 0,
    mask: NDArray[Any] | None = None,
    landmarks: int = 8192,
) -> Clusters:
    """Cluster the landmarks; no other pixel has joined them yet. Parameters and errors as of `cluster`."""
    if method not in CLUSTER_METHODS:
        raise unknown_name("cluster method", method, CLUSTER_METHODS)
    if not _is_whole(clusters) or not 2 <= clusters <= _MOST_CLUSTERS:
        raise ValueError(
            f"cluster: clusters must be a whole number in 2 ... {_MOST_CLUSTERS}, got {clusters!r}"
        )
    if not _is_whole(landmarks):
        raise ValueError(f"cluster: landmarks must be a whole number, got {landmarks!r}")
    if landmarks < 4 * clusters:
        raise ValueError(f"cluster: landmarks must be at least 4 a cluster, {4 * clusters}, got {landmarks}")
    if not _is_whole(seed) or seed < 0:
        raise ValueError(f"cluster: seed must be a whole number, at least 0, got {seed!r}")
    chosen = _chosen(cube, mask)
    prepared = prepare(cube)
    pixels = Pixels(prepared, chosen & prepared.valid)
    _check_pixels(pixels, clusters)
    places = draw_landmarks(pixels, int(landmarks), int(seed))
    return Clusters(pixels, CLUSTER_METHODS[method](pixels, int(clusters), int(seed), places), int(clusters))


def _is_whole(value: Any) -> bool:
    number = isinstance(value, int | float | np.number) and not isinstance(value, bool)
    return number and float(value).is_integer()


def _chosen(cube: Cube, mask: NDArray[Any] | None) -> NDArray[np.bool_]:
    if mask is None:
        return np.ones((cube.rows, cube.cols), dtype=bool)
    given = np.asarray(mask)
    if given.shape != (cube.rows, cube.cols):
        raise ValueError(
            f"cluster: mask must have the scene's shape {(cube.rows, cube.cols)}, got {given.shape}; "
            "give the labels of this cube"
        )
    if given.dtype.kind not in "biu":
        raise ValueError(f"cluster: mask must be bool or integer, got {given.dtype}; compare it with 0")
    return np.asarray(given > 0)


def _check_pixels(pixels: Pixels, clusters: int) -> None:
    """Refuse fewer pixels, or fewer that differ, than clusters; say where values are missing."""
    if len(pixels) <= clusters:
        raise ValueError(
            f"{pixels.cube.source}: {len(pixels)} pixels to cluster, more than {clusters} are needed; "
            "ask for fewer clusters, or check mask and nodata"
        )
    cube, lacking = pixels.cube, 0
    distinct: set[bytes] = set()
    for part, values in read_parts(cube):
        rows = values[pixels.chosen[part]]
        lacking += int(not_measured(rows, cube.nodata).any(axis=1).sum())
        if len(distinct) < clusters:
            distinct.update(row.tobytes() for row in rows)
    if lacking:
        say_once(
            "%s: %d of the pixels to cluster lack some bands; the band's mean stands in", cube.source, lacking
        )
    if len(distinct) < clusters:
        raise ValueError(
            f"{cube.source}: only {len(distinct)} different spectra among {len(pixels)} pixels, "
            f"{clusters} clusters asked for; ask for fewer"
        )
