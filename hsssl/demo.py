"""The whole way on a real scene: pretrain, embed, evaluate, classify, report."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from hsssl.classify import classify_features
from hsssl.embed import embed
from hsssl.evaluate.protocol import score_table
from hsssl.maps import write_class_map
from hsssl.prepare import prepare
from hsssl.report import write_report
from hsssl.run import load_encoder
from hsssl.scenes import load_scene
from hsssl.spec import spec_of
from hsssl.splits import random_split
from hsssl.train import pretrain

__all__ = ["demo"]

SCENE = "indian_pines"
MAP_PER_CLASS = 10


def demo(
    out: str = "hsssl-demo",
    *,
    steps: int = 1500,
    seed: int = 0,
    seeds: int = 5,
    resume: bool = False,
    overwrite: bool = False,
) -> Path:
    """Pretrain on the Indian Pines scene without labels, score the features honestly, and write a report.

    Minutes on two CPU cores. The scene comes with ``pip install "hsssl[demo]"`` (CC BY 3.0,
    doi:10.4231/R7RX991C).

    Parameters
    ----------
    out : str
        Folder for the run and the report.
    steps : int
        Pretraining steps.
    seed : int
        Of the pretraining.
    seeds : int
        Number of splits in the scores.
    resume : bool
        Go on with an interrupted demo.
    overwrite : bool
        Replace an earlier demo.

    Returns
    -------
    Path
        The report.

    Raises
    ------
    ValueError
        If the scene is not installed, or the folder is not empty.
    """
    folder = Path(out)
    scene = load_scene(SCENE)
    cube = prepare(scene.cube)
    run = pretrain(
        [cube],
        method="simclr",
        out=folder,
        steps=steps,
        seed=seed,
        lr=4e-3,
        method_options={"temperature": 0.1},
        resume=resume,
        overwrite=overwrite,
    )
    encoder = load_encoder(run.path)
    features = embed(encoder, cube)
    scores = score_table(features, scene.labels, cube, spec_of(encoder).footprint, seeds=seeds)
    shown = np.zeros_like(scene.labels)
    split = random_split(scene.labels, MAP_PER_CLASS, seed=0)
    shown.flat[split.train] = scene.labels.flat[split.train]
    class_map = classify_features(features, shown)
    write_class_map(folder / "map.tif", class_map, cube, class_names=scene.class_names, overwrite=True)
    report = write_report(
        folder,
        title="Indian Pines",
        cube=cube,
        labels=scene.labels,
        class_names=scene.class_names,
        features=features,
        class_map=class_map,
        map_note=f"SVM taught with {MAP_PER_CLASS} random pixels a class of it (seed 0)",
        scores=scores,
        metrics=run.metrics,
        config=run.config,
        overwrite=True,
    )
    print(f"{report}: open it in a browser")
    return report
