"""The commands that need no labels and no encoder: unmixing and clustering."""

from __future__ import annotations

from typing import Any, Literal

import hsssl
from hsssl.command_inputs import AS_IT_IS, Argument, Opening, brings_labels, class_names_of, label_map

__all__ = ["cluster", "unmix"]


def unmix(
    cube: Argument,
    *,
    endmembers: int,
    out: str,
    method: str = "pure_pixels",
    rule: str | None = None,
    seed: int = 0,
    reference: str | None = None,
    maps: Literal["geotiff", "envi"] = "geotiff",
    opening: Opening = AS_IT_IS,
    progress: bool = False,
    overwrite: bool = False,
) -> None:
    """Find a scene's endmembers and their abundance in every pixel; write maps, spectra and a report.

    Of a scene of any size: the maps are made and written tile by tile.

    Parameters
    ----------
    cube : str
        Path or scene name.
    endmembers : int
        How many.
    out : str
        Folder to write: abundances and error (float32, NaN where not measured), endmembers.csv and .sli,
        pictures, report.html.
    method : str
        pure_pixels, daeu, egu_net, egu_net_spatial, vca, nfindr, spa or atgp.
    rule : str, optional
        How abundances follow from endmembers: signal, fcls or nnls; the method's own unless given.
    seed : int
        Key of all that is drawn.
    reference : str, optional
        Spectral library (ENVI .sli or CSV) to draw beside the endmembers.
    maps : str
        Format of abundances and error.
    progress : bool
        Show a bar with pixels per second where stderr is no terminal too.
    overwrite : bool
        Replace the files at --out.
    """
    from hsssl.unmix.library import read_library
    from hsssl.unmix.output import matched, refuse_unmixing, write_unmixing
    from hsssl.unmix.scene import find_mixture

    refuse_unmixing(out, maps=maps, overwrite=overwrite)
    library = None if reference is None else read_library(reference)
    opened = opening.open(cube)
    if library is not None:
        library.on(opened)  # refused before the work, not after it
    shown = progress or None
    mix = find_mixture(opened, endmembers, method=method, rule=rule, seed=seed, progress=shown)
    report = write_unmixing(out, mix, reference=library, maps=maps, overwrite=overwrite, progress=shown)
    for name, pair in zip(mix.names, matched(mix, library), strict=True):
        print(name if pair is None else f"{name}: {pair[0]}, spectral angle {pair[1]:.3f} rad")
    print(report)


def cluster(
    cube: Argument,
    *,
    clusters: int,
    out: str,
    method: str = "self_expressive",
    labels: str | None = None,
    labelled_only: bool = False,
    seed: int = 0,
    landmarks: int = 8192,
    opening: Opening = AS_IT_IS,
    progress: bool = False,
    overwrite: bool = False,
) -> None:
    """Write a map of clusters found without labels; with labels, say how well they agree, beside k-means.

    Of a scene of any size: pixels join the landmarks' clusters, and are written, tile by tile. With labels,
    the map of clusters is in memory, as theirs is.

    Parameters
    ----------
    cube : str
        Path or scene name.
    clusters : int
        Number of clusters, 2 to 255.
    out : str
        GeoTIFF (.tif) or ENVI classification (any other extension) to write: uint8, nodata 0, palette. A PNG
        and an HTML page get its name with their suffix.
    method : str
        self_expressive, ridge, elastic_net, ae_subspace, contrastive_clustering, kmeans or spectral.
    labels : str, optional
        Class ids, 0 unlabelled, to score against; they move no cluster. A named scene brings its own.
    labelled_only : bool
        Cluster labelled pixels alone, as published protocols do.
    seed : int
        Of all that is drawn.
    landmarks : int
        Most pixels in the graph; the others join them.
    progress : bool
        Show a bar with pixels per second where stderr is no terminal too.
    overwrite : bool
        Replace the files at --out.
    """
    from hsssl.cluster.metrics import score_clusters
    from hsssl.cluster.report import refuse_clusters, refuse_labels, write_clusters
    from hsssl.cluster.segment import find_clusters

    refuse_clusters(out, overwrite=overwrite)
    opened = opening.open(cube)
    named = brings_labels(cube)
    if labelled_only and labels is None and not named:
        raise ValueError(f"{cube}: is no named scene and brings no labels; give --labels")
    truth = label_map(cube, labels, opened) if labels is not None or named else None
    if truth is not None:
        refuse_labels(truth)
    options: dict[str, Any] = {"clusters": clusters, "seed": seed, "landmarks": landmarks}
    options["mask"] = truth if labelled_only else None
    shown: dict[str, Any] = {"progress": progress or None}
    found = find_clusters(opened, method=method, **options)
    images, scores = {}, {}
    if truth is not None:
        images[method] = found.image(**shown)
        if method != "kmeans":
            images["kmeans"] = hsssl.cluster(opened, method="kmeans", **options, **shown)
        scores = {name: score_clusters(truth, image) for name, image in images.items()}
    write_clusters(
        out,
        images.get(method, found),
        found.pixels.cube,
        labels=truth,
        class_names=class_names_of(cube),
        scores=scores,
        method=method,
        overwrite=overwrite,
        **shown,
    )
    print(f"{out}: {opened.rows} x {opened.cols} pixels, {clusters} clusters")
    for name, score in scores.items():
        print(f"{name:<24}{score}")
