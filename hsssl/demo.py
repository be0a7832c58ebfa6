"""The whole way on a real scene: pretrain, embed, evaluate, classify, report."""

from __future__ import annotations

from pathlib import Path

from hsssl.prepare import prepare
from hsssl.report_run import report_run
from hsssl.scenes import load_scene
from hsssl.train import pretrain

__all__ = ["demo"]

SCENE = "indian_pines"


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
    report = report_run(
        run,
        cube,
        scene.labels,
        class_names=scene.class_names,
        title="Indian Pines",
        seeds=seeds,
        overwrite=True,
    )
    print(f"{report}: open it in a browser")
    return report
