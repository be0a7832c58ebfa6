"""What the command leaves: the map, a picture of it beside the truth, and a page with scores."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hsssl.atomic import refuse_existing, refuse_place, write_bytes_atomic
from hsssl.cluster.metrics import ClusterScore, match_clusters
from hsssl.cluster.segment import Clusters
from hsssl.cube import Cube
from hsssl.envi_writer import envi_paths
from hsssl.geotiff_writer import is_geotiff
from hsssl.maps import WriteTile, open_class_map
from hsssl.quicklook import Thinned, quicklook_path
from hsssl.stream import Tile, cut_tiles

__all__ = ["cluster_files", "refuse_clusters", "refuse_labels", "write_clusters"]

Labels = NDArray[np.integer[Any]]
_HOW_TO_READ = (
    "Over pixels that have a class: ACC is the share whose cluster's class is theirs, clusters being given "
    "to classes one to one so that it is largest; kappa is taken after the same matching; NMI and ARI need "
    "none. The labels matched names and colours afterwards; no cluster was found by them."
)


def cluster_files(out: str | os.PathLike[str]) -> tuple[Path, ...]:
    """Return the files that `write_clusters` writes for ``out``: the map, its picture and its page."""
    maps = (Path(out),) if is_geotiff(out) else envi_paths(out)
    page = Path(out).with_suffix(".html")
    if page in maps:
        raise ValueError(f"{out}: the page about the map has that name; end the map in .tif, .hdr or .img")
    return (*maps, quicklook_path(out), page)


def refuse_clusters(out: str | os.PathLike[str], *, overwrite: bool) -> None:
    """Raise, before any work is done, what `write_clusters` would say about its files."""
    for file in cluster_files(out):
        refuse_place(file)
        refuse_existing(file, overwrite=overwrite)


def refuse_labels(labels: Labels) -> None:
    """Raise, before any work is done, what `write_clusters` would say about the classes.

    Raises
    ------
    ValueError
        If a class has a number below 0 or above 255, which the map cannot hold.
    """
    if labels.min() < 0 or labels.max() > 255:
        raise ValueError(
            f"cluster: class ids must lie in 0 ... 255, got {labels.min()} ... {labels.max()}; renumber them"
        )


def write_clusters(
    out: str | os.PathLike[str],
    found: Clusters | Labels,
    cube: Cube,
    *,
    labels: Labels | None = None,
    class_names: Sequence[str] = (),
    scores: Mapping[str, ClusterScore] | None = None,
    method: str = "",
    overwrite: bool = False,
    progress: bool | None = None,
) -> None:
    """Write clusters as ``out``, tile by tile, and beside it a picture (PNG) and an HTML page.

    Parameters
    ----------
    out : path
        The map, uint8, nodata 0: a GeoTIFF (``.tif``) or, by any other extension, an ENVI classification.
        PNG and page get its name with their suffix.
    found : Clusters, or ndarray, shape (rows, cols), integer
        Clusters from 1; 0 is not measured.
    cube : Cube
        The prepared scene.
    labels : ndarray, shape (rows, cols), integer, optional
        Classes from 1, shown beside the clusters of an array, which are renamed to those they fit best.
    class_names : sequence of str
        Name of class 1, 2, and so on.
    scores : mapping, optional
        Scores by method, for the page.
    method : str
        How the clusters were found.
    overwrite : bool
        Replace earlier files.
    progress : bool, optional
        Show a bar with pixels per second while clusters are made; None shows it on a terminal.

    Raises
    ------
    FileExistsError
        If one of the files exists and ``overwrite`` is off; nothing is written then.
    ValueError
        If the shapes differ, or a class or cluster is above 255.
    """
    from hsssl.figures import class_maps, false_colour

    refuse_clusters(out, overwrite=overwrite)
    stream, names = _stream(found, cube, labels, class_names)
    shown, sizes = Thinned.of(cube.rows, cube.cols, 1, "uint8"), np.zeros(256, dtype=np.int64)
    with open_class_map(out, cube, highest=len(names), class_names=names, overwrite=overwrite) as write:

        def watch(tile: Tile, block: NDArray[np.uint8]) -> None:
            write(tile, block)
            shown.put(tile, block)
            np.add(sizes, np.bincount(block.ravel(), minlength=256), out=sizes)

        stream(watch, progress=progress)
    truth = None if labels is None else labels[:: shown.step, :: shown.step]
    picture = class_maps(shown.image[:, :, 0], truth, class_names=names, title="clusters")
    page = _page(cube, sizes[1:], false_colour(cube), picture, scores or {}, method)
    write_bytes_atomic(quicklook_path(out), picture)
    write_bytes_atomic(Path(out).with_suffix(".html"), page.encode())


def _stream(
    found: Clusters | Labels, cube: Cube, labels: Labels | None, class_names: Sequence[str]
) -> tuple[Callable[..., None], tuple[str, ...]]:
    """Return what hands out the clusters by tiles, and the name of each cluster."""
    if isinstance(found, Clusters):
        return found.stream, found.names
    if labels is not None:
        refuse_labels(labels)
    image = found if labels is None else match_clusters(labels, found)
    highest = max(int(image.max()), 0 if labels is None else int(labels.max()))
    if image.shape != (cube.rows, cube.cols) or highest > 255:
        raise ValueError(
            f"clusters: want ({cube.rows}, {cube.cols}) of 0 ... 255, got {image.shape} up to {highest}"
        )

    def stream(write: WriteTile, *, progress: bool | None = None) -> None:
        for tile in cut_tiles(cube.rows, cube.cols, pixel_bytes=image.itemsize):
            write(tile, image[tile.rows, tile.cols].astype(np.uint8))

    return stream, tuple(_name(number, class_names, labels) for number in range(1, highest + 1))


def _name(number: int, class_names: Sequence[str], labels: Labels | None) -> str:
    if labels is None or number > int(labels.max()):
        return f"cluster {number}"
    return class_names[number - 1] if number <= len(class_names) else f"class {number}"


def _page(
    cube: Cube,
    sizes: NDArray[np.int64],
    scene: bytes,
    picture: bytes,
    scores: Mapping[str, ClusterScore],
    method: str,
) -> str:
    from hsssl.report import figure_html, html_page
    from hsssl.report_parts import table

    facts = [
        cube.source,
        f"{cube.rows} × {cube.cols} pixels",
        f"{cube.bands} bands",
        f"{int(sizes.sum()):,} pixels in {np.count_nonzero(sizes)} clusters",
    ]
    body = [figure_html(picture, f"Clusters by {method}" if method else "Clusters")]
    if scores:
        rows = [
            [name, *(f"{value:.3f}" for value in (s.acc, s.nmi, s.ari, s.kappa)), f"{s.pixels:,}"]
            for name, s in scores.items()
        ]
        head = ["method", "ACC", "NMI", "ARI", "kappa", "pixels"]
        body = [*body, "<h2>Scores</h2>", table(head, rows), f'<p class="note">{escape(_HOW_TO_READ)}</p>']
    body.append(f"<h2>Scene</h2>{figure_html(scene, 'The scene in three of its bands')}")
    return html_page(f"Clusters of {Path(cube.source).name}", facts, "".join(body))
