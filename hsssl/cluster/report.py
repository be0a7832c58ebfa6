"""What the command leaves: the map as GeoTIFF and as a picture beside the truth, and a page with scores."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hsssl.atomic import refuse_existing, write_bytes_atomic
from hsssl.cluster.metrics import ClusterScore, match_clusters
from hsssl.cube import Cube
from hsssl.maps import write_class_map

__all__ = ["cluster_files", "write_clusters"]

Labels = NDArray[np.integer[Any]]
_HOW_TO_READ = (
    "Over pixels that have a class: ACC is the share whose cluster's class is theirs, clusters being given "
    "to classes one to one so that it is largest; kappa is taken after the same matching; NMI and ARI need "
    "none. The labels matched names and colours afterwards; no cluster was found by them."
)


def cluster_files(out: str | os.PathLike[str]) -> tuple[Path, Path, Path]:
    """Return the GeoTIFF, PNG and HTML that `write_clusters` writes for ``out``."""
    tif = Path(out)
    if tif.suffix.lower() not in (".tif", ".tiff"):
        raise ValueError(f"{tif}: a map is a GeoTIFF; give a name that ends in .tif")
    return tif, tif.with_suffix(".png"), tif.with_suffix(".html")


def write_clusters(
    out: str | os.PathLike[str],
    segments: Labels,
    cube: Cube,
    *,
    labels: Labels | None = None,
    class_names: Sequence[str] = (),
    scores: Mapping[str, ClusterScore] | None = None,
    method: str = "",
    overwrite: bool = False,
) -> None:
    """Write clusters as ``out`` (GeoTIFF), and beside it as PNG and as an HTML page.

    Parameters
    ----------
    out : path
        The GeoTIFF, uint8, nodata 0; PNG and page get its name with their suffix.
    segments : ndarray, shape (rows, cols), integer
        Clusters from 1; 0 is not measured. With labels they are renamed to the classes they fit best.
    cube : Cube
        The prepared scene.
    labels : ndarray, shape (rows, cols), integer, optional
        Classes from 1, shown beside the clusters.
    class_names : sequence of str
        Name of class 1, 2, and so on.
    scores : mapping, optional
        Scores by method, for the page.
    method : str
        How the clusters were found.
    overwrite : bool
        Replace earlier files.

    Raises
    ------
    FileExistsError
        If one of the files exists and ``overwrite`` is off; nothing is written then.
    ValueError
        If the shapes differ.
    """
    from hsssl.figures import class_maps, false_colour

    files = cluster_files(out)
    for file in files:
        refuse_existing(file, overwrite=overwrite)
    if labels is not None:
        segments = match_clusters(labels, segments)
    highest = max(int(segments.max()), 0 if labels is None else int(labels.max()))
    names = [_name(number, class_names, labels) for number in range(1, highest + 1)]
    picture = class_maps(segments, labels, class_names=names, title="clusters")
    page = _page(cube, segments, false_colour(cube), picture, scores or {}, method)
    tif, png, html = files
    write_class_map(tif, segments, cube, class_names=names, overwrite=overwrite)
    write_bytes_atomic(png, picture)
    write_bytes_atomic(html, page.encode())


def _name(number: int, class_names: Sequence[str], labels: Labels | None) -> str:
    if labels is None or number > int(labels.max()):
        return f"cluster {number}"
    return class_names[number - 1] if number <= len(class_names) else f"class {number}"


def _page(
    cube: Cube,
    segments: Labels,
    scene: bytes,
    picture: bytes,
    scores: Mapping[str, ClusterScore],
    method: str,
) -> str:
    from hsssl.report import figure_html, html_page
    from hsssl.report_parts import table

    sizes = np.unique(segments[segments > 0], return_counts=True)[1]
    facts = [
        cube.source,
        f"{cube.rows} × {cube.cols} pixels",
        f"{cube.bands} bands",
        f"{int(sizes.sum()):,} pixels in {sizes.size} clusters",
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
