"""A finished run on a scene as a report: embed, score where there are labels, map, write."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hsssl.atomic import refuse_existing
from hsssl.classify import classify_features
from hsssl.cube import Cube
from hsssl.embed import embed
from hsssl.evaluate.protocol import PROTOCOLS, score_table
from hsssl.evaluate.score import Score
from hsssl.maps import write_class_map
from hsssl.messages import log
from hsssl.prepare import prepare
from hsssl.report import write_report
from hsssl.run import Run, load_encoder
from hsssl.spec import spec_of
from hsssl.splits import random_split

__all__ = ["report_run"]

MAP_PER_CLASS = 10


def report_run(
    run: Run | str | os.PathLike[str],
    cube: Cube,
    labels: NDArray[np.integer[Any]] | None = None,
    *,
    class_names: Sequence[str] = (),
    title: str | None = None,
    out: str | os.PathLike[str] | None = None,
    seeds: int = 5,
    overwrite: bool = False,
    progress: bool | None = None,
) -> Path:
    """Write ``report.html`` with pictures of a run's features on a scene, its training and its scores.

    With labels the frozen features are scored beside the hand-made baselines under every protocol of
    `hsssl.evaluate.PROTOCOLS` that the scene is large enough for, and a class map is drawn (``map.tif``),
    taught with 10 random pixels a class. Without labels there is no score.

    Parameters
    ----------
    run : Run or path
        A finished run of `hsssl.pretrain`.
    cube : Cube
        The scene to look at; it need not be the one trained on. Its features are held in memory; for a
        scene that is too large for that, use `hsssl.embed` and `hsssl.classify` with ``out``.
    labels : ndarray, shape (rows, cols), integer, optional
        Class ids, 0 = unlabelled.
    class_names : sequence of str, optional
        Names of classes 1, 2, and so on.
    title : str, optional
        Heading; the method and the scene unless given.
    out : path, optional
        Folder to write to; the run's own unless given.
    seeds : int
        Number of splits in the scores.
    overwrite : bool
        Replace an earlier report.
    progress : bool, optional
        Show a progress bar; None shows it on a terminal.

    Returns
    -------
    Path
        The file ``report.html``.

    Raises
    ------
    FileExistsError
        If there is a report and ``overwrite`` is off.
    ValueError
        If there is no trained encoder, it does not fit the cube, or labels fit no protocol.

    Examples
    --------
    >>> scene = load_scene("indian_pines")                                    # doctest: +SKIP
    >>> report_run("runs/ip", scene.cube, scene.labels)                       # doctest: +SKIP
    """
    run = run if isinstance(run, Run) else Run(Path(run))
    folder = run.path if out is None else Path(out)
    encoder = load_encoder(run.path)
    for name in ("report.html", "map.tif"):
        refuse_existing(folder / name, overwrite=overwrite)
    cube = prepare(cube)
    features = embed(encoder, cube, progress=progress)
    scores: list[Score] = []
    class_map = None
    if labels is not None:
        scores = _scores(features, labels, cube, spec_of(encoder).footprint, seeds, progress)
        class_map = classify_features(features, _few(labels))
    report = write_report(
        folder,
        title=title or f"{run.config['settings']['method']} on {Path(cube.source).name}",
        cube=cube,
        labels=labels,
        class_names=class_names,
        features=features,
        class_map=class_map,
        map_note=f"SVM taught with {MAP_PER_CLASS} random pixels a class of it (seed 0)",
        scores=scores,
        metrics=run.metrics,
        config=run.config,
        overwrite=overwrite,
    )
    if class_map is not None:
        write_class_map(folder / "map.tif", class_map, cube, class_names=class_names, overwrite=overwrite)
    return report


def _scores(
    features: NDArray[np.floating[Any]],
    labels: NDArray[np.integer[Any]],
    cube: Cube,
    footprint: int,
    seeds: int,
    progress: bool | None,
) -> list[Score]:
    """Score under all protocols, or those for which a small scene has pixels enough."""
    try:
        return score_table(features, labels, cube, footprint, seeds=seeds, progress=progress)
    except ValueError as error:
        reasons = [str(error)]
    scores = []
    for protocol in PROTOCOLS:
        try:
            scores += score_table(
                features, labels, cube, footprint, protocols=[protocol], seeds=seeds, progress=progress
            )
        except ValueError as error:
            reasons.append(str(error))
    if not scores:
        raise ValueError(f"report: {reasons[0]}")
    for reason in dict.fromkeys(reasons):
        log.warning("report: a protocol is left out: %s", reason)
    return scores


def _few(labels: NDArray[np.integer[Any]]) -> NDArray[np.integer[Any]]:
    """Return the labels that teach the map: a few of each class, the others 0."""
    smallest = int(np.unique(labels[labels > 0], return_counts=True)[1].min())
    shown = np.zeros_like(labels)
    split = random_split(labels, min(MAP_PER_CLASS, max(1, smallest - 1)), seed=0)
    shown.flat[split.train] = labels.flat[split.train]
    return shown
