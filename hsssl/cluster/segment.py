"""Clusters of a scene's pixels without labels, by one function."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hsssl.cluster.features import Pixels
from hsssl.cluster.methods import CLUSTER_METHODS
from hsssl.cube import Cube, not_measured
from hsssl.messages import say_once, unknown_name
from hsssl.prepare import prepare, read_rows

__all__ = ["cluster"]

# What one Lanczos basis and one pivoted QR hold well; more clusters than this is another task.
_MOST_CLUSTERS = 255


def cluster(
    cube: Cube,
    *,
    clusters: int,
    method: str = "self_expressive",
    seed: int = 0,
    mask: NDArray[Any] | None = None,
    landmarks: int = 8192,
) -> NDArray[np.int32]:
    """Return the cluster of every pixel of a cube, found without labels.

    Above ``landmarks`` pixels, so many drawn by the seed are clustered, and the others join them by
    their coefficients (nearest spectra in the baselines): memory grows with the pixels times some dozens of
    features, never with their square.

    Parameters
    ----------
    cube : Cube
        Raw or prepared.
    clusters : int
        Number of clusters, 2 ... 255; it is given, not found.
    method : str
        A name in `CLUSTER_METHODS`: self_expressive (averaged spectra, ridge), ridge (single spectra),
        elastic_net, ae_subspace, contrastive_clustering, or the baselines kmeans and spectral.
    seed : int
        Of all that is drawn.
    mask : ndarray, shape (rows, cols), bool or integer, optional
        Pixels to cluster: True, or above 0, so that a label map keeps to labelled pixels. Only which pixels
        are marked is used. Averages over windows still take in all valid pixels.
    landmarks : int
        Most pixels in the graph.

    Returns
    -------
    ndarray, shape (rows, cols), int32
        1 ... clusters; 0 where nothing was measured or the mask says no. A cluster may be empty.

    Raises
    ------
    ValueError
        If there are fewer pixels (or fewer that differ) than clusters, the mask has another shape, nothing
        in the cube varies, or a parameter is out of range.

    References
    ----------
    Lu et al. 2012, doi:10.1007/978-3-642-33786-4_26 (ridge). Zhang et al. 2021, arXiv:2110.04318
    (elastic_net). The methods' functions and `hsssl.methods` name the others.

    Examples
    --------
    >>> segments = cluster(cube, clusters=6)                                # doctest: +SKIP
    """
    if method not in CLUSTER_METHODS:
        raise unknown_name("cluster method", method, CLUSTER_METHODS)
    if isinstance(clusters, bool) or int(clusters) != clusters or not 2 <= clusters <= _MOST_CLUSTERS:
        raise ValueError(
            f"cluster: clusters must be a whole number in 2 ... {_MOST_CLUSTERS}, got {clusters}"
        )
    if landmarks < 4 * clusters:
        raise ValueError(f"cluster: landmarks must be at least 4 a cluster, {4 * clusters}, got {landmarks}")
    chosen = _chosen(cube, mask)
    prepared = prepare(cube)
    pixels = Pixels(prepared, chosen & prepared.valid)
    _check_pixels(pixels, clusters)
    labels = CLUSTER_METHODS[method](pixels, int(clusters), seed, landmarks)
    return pixels.spread(labels)


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
    for strip, values in read_rows(cube):
        rows = values[pixels.chosen[strip]]
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
