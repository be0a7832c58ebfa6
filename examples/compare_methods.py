"""Pretrain every method on one scene with the same encoder size and the same time, and score all alike.

    python examples/compare_methods.py --scene indian_pines --seconds 40 --seeds 3

leaves table.md, table.json and table.png in a folder of the scene in --out. It may be stopped at any time:
called again, it goes on with what is missing; --redo NAME makes a method's runs anew. A method that joins
`hsssl.methods.METHODS` joins the table.

Time is CPU time of one thread, and on a GPU wall time. --seconds buys each method a number of steps, by the
cost of a step in a short run before; the learning rate's schedule needs that number. Programs beside it on
the same cores make a step dearer: run --calibrate first, on a quiet machine; called again it keeps the
lower cost.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shlex
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from comparison_scenes import Task, load_task
from comparison_table import BATCH, write_tables
from comparison_verdicts import POSITION, UNTRAINED

import hsssl
from hsssl.atomic import write_text_atomic
from hsssl.evaluate import CLASSIFIERS, Protocol, score_table
from hsssl.methods import METHODS
from hsssl.spec import spec_of

#: Name -> arguments of `hsssl.pretrain`, beside the same encoder for all.
ENTRIES: dict[str, dict[str, Any]] = {
    # One step at this rate changes nothing: the weights that all methods of the same seed start from.
    UNTRAINED: {"method": "simclr", "steps": 1, "lr": 1e-12},
    **{name: {"method": name} for name in METHODS},
    "cmc, band_groups": {"method": "cmc", "encoder": "band_groups"},
    "conv_deconv, residual_conv": {"method": "conv_deconv", "encoder": "residual_conv"},
    "simclr, lr 4e-3": {"method": "simclr", "lr": 4e-3},
}
PER_CLASS, GUARD = 100, 4
PROTOCOLS = (Protocol("random", 10), Protocol("block", PER_CLASS, GUARD))
# Defaults of the methods were chosen on splits 0 to 4 of Indian Pines: these are others.
FIRST_SPLIT = 10
WARM_UP = 8
MEASURES = ("oa", "aa", "kappa")

Record = dict[str, Any]


def main(arguments: Sequence[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    if options.seconds <= 0 or min(options.seeds, options.splits) < 1:
        parser().error("--seconds must be above 0, --seeds and --splits at least 1")
    # OpenMP reads it as torch is loaded, which each run does in a process of its own.
    os.environ["OMP_NUM_THREADS"] = "1"
    folder = Path(options.out) / slug(Path(options.scene).stem)
    scene = (options.scene, options.labels, options.fixed)
    folder.mkdir(parents=True, exist_ok=True)
    names = list(dict.fromkeys([UNTRAINED, *(options.methods or ENTRIES)]))
    try:
        costs = step_costs(folder / "costs.json", scene, names, options)
    except (ValueError, OSError) as error:
        print(f"compare_methods: {error}", file=sys.stderr)
        return 2
    if options.calibrate:
        return 0
    records, failed = finished(scene, plan(folder, names, costs, options))
    if not {None, UNTRAINED} < {record["made_by"].get("entry") for record in records}:
        print("no table: the baselines, the untrained encoder or every method failed", file=sys.stderr)
        return 1
    about = {"scene": folder.name, "command": command(arguments or sys.argv[1:]), "seconds_per_step": costs}
    write_tables(folder, records, about)
    print(folder / "table.md")
    return 1 if failed else 0


def finished(scene: tuple[Any, ...], runs: Mapping[Path, Record]) -> tuple[list[Record], int]:
    """Make the runs that are missing; return the records of all, and how many failed."""
    records, failed = [], 0
    for run, made_by in runs.items():
        record = read(run / "record.json")
        if record is None or record["made_by"] != made_by:
            print(run, flush=True)
            work = measure if "entry" in made_by else score_baselines
            try:
                record = apart(work, scene, run, made_by) | {"made_by": made_by}
            except Exception as error:  # the others' hours are not lost for one that diverges
                print(f"{run}: failed: {error}", file=sys.stderr, flush=True)
                failed += 1
                continue
            write_text_atomic(run / "record.json", json.dumps(record))
        records.append(record)
    return records, failed


def step_costs(
    file: Path, scene: tuple[Any, ...], names: Sequence[str], options: argparse.Namespace
) -> dict[str, float]:
    """Return the seconds a step of each entry takes, timing new ones, and all to calibrate."""
    for name in options.redo:
        for record in (file.parent / slug(name)).glob("*/record.json"):
            record.unlink()
    costs = {name: cost for name, cost in (read(file) or {}).items() if name not in options.redo}
    if missing := [name for name in names if options.calibrate or name not in costs]:
        found = apart(calibrate, scene, missing, options.seconds, file.parent / "calibration")
        costs |= {name: min(cost, costs.get(name, cost)) for name, cost in found.items()}
        write_text_atomic(file, json.dumps(costs, indent=1))
    return costs


def plan(
    folder: Path, names: Sequence[str], costs: Mapping[str, float], options: argparse.Namespace
) -> dict[Path, Record]:
    """Return each run's folder and what makes it, one seed of all methods after the other."""
    splits = list(range(FIRST_SPLIT, FIRST_SPLIT + options.splits))
    runs: dict[Path, Record] = {folder / "baselines": {"splits": splits}}
    for seed in range(options.seeds):
        for name in names:
            steps = {"steps": max(20, round(options.seconds / costs[name]))}
            runs[folder / slug(name) / f"seed{seed}"] = {
                "entry": name,
                "seed": seed,
                "splits": splits,
                "settings": steps | ENTRIES[name],
            }
    return runs


def parser() -> argparse.ArgumentParser:
    parse = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parse.add_argument("--scene", default="indian_pines", help="scene name, cube file, or folder of tiles")
    parse.add_argument("--labels", help="label map of a cube file")
    parse.add_argument("--fixed", nargs=2, metavar=("TRAIN", "TEST"), help="label maps of a fixed split too")
    parse.add_argument("--seconds", type=float, default=40.0, help="budget of each pretraining (default 40)")
    parse.add_argument("--seeds", type=int, default=3, help="pretraining seeds (default 3)")
    parse.add_argument("--splits", type=int, default=10, help="splits of each protocol (default 10)")
    parse.add_argument("--methods", nargs="+", choices=ENTRIES, metavar="NAME", help="default: all")
    parse.add_argument("--redo", nargs="+", choices=ENTRIES, metavar="NAME", default=[], help="make anew")
    parse.add_argument("--calibrate", action="store_true", help="only time the steps of each")
    parse.add_argument("--out", default="runs/comparison", help="its folder for the scene")
    return parse


def apart(work: Callable[..., Record], *arguments: Any) -> Record:
    """Call ``work`` in a new process of its own: memory and threads are then those of this work alone."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(work, *arguments).result()


def calibrate(scene: tuple[Any, ...], names: Sequence[str], seconds: float, folder: Path) -> Record:
    """Return for each entry the seconds a step takes: a tenth of the budget less what any run costs."""
    task, costs = load_task(*scene), {}
    for name in names:
        timed(task, name, folder, WARM_UP)
        short = timed(task, name, folder, WARM_UP)
        steps = max(WARM_UP, round(0.1 * seconds * WARM_UP / short))
        longer = timed(task, name, folder, WARM_UP + steps)
        # On a busy machine the short run can take as long: half of the plain mean is the least believed.
        costs[name] = max((longer - short) / steps, 0.5 * longer / (WARM_UP + steps))
        print(f"{name}: {1e3 * costs[name]:.1f} ms a step", flush=True)
    return costs


def timed(task: Task, name: str, folder: Path, steps: int) -> float:
    """Return the seconds of a run of ``steps``."""
    settings = ENTRIES[name] | {"steps": steps}
    start = clock()
    hsssl.pretrain([task.cube], out=folder, batch_size=BATCH, overwrite=True, progress=False, **settings)
    return clock() - start


def measure(scene: tuple[Any, ...], folder: Path, made_by: Mapping[str, Any]) -> Record:
    """Pretrain once, embed the scene and score the features."""
    task = load_task(*scene)
    before, start = peak_mib(), clock()
    options = {"batch_size": BATCH, "seed": made_by["seed"], "overwrite": True, "progress": False}
    run = hsssl.pretrain([task.cube], out=folder, **options, **made_by["settings"])
    used, peak = clock() - start, peak_mib()
    encoder = hsssl.load_encoder(run.path)
    first, last = run.metrics[0], run.metrics[-1]
    features = hsssl.embed(encoder, task.cube, progress=False)
    scores = score(task, features, made_by["splits"], spec_of(encoder).footprint, name=made_by["entry"])
    return {
        "seconds": used,
        "peak_mib": peak,
        "extra_mib": peak - before,
        "parameters": sum(weights.numel() for weights in encoder.parameters()),
        "feature_std": [first["feature_std"], last["feature_std"]],
        "effective_rank": [first["effective_rank"], last["effective_rank"]],
        "software": {key: run.config[key] for key in ("versions", "commit", "device", "machine")},
        "scores": scores,
    }


def score_baselines(scene: tuple[Any, ...], folder: Path, made_by: Mapping[str, Any]) -> Record:
    """Score the hand-made features, which no seed and no method changes, once."""
    folder.mkdir(parents=True, exist_ok=True)
    task = load_task(*scene)
    position = np.indices(task.labels.shape).transpose(1, 2, 0)  # (rows, cols, 2)
    return {"scores": score(task, position, made_by["splits"], 1, cube=task.cube, name=POSITION)}


def score(task: Task, features: np.ndarray, splits: Sequence[int], footprint: int, **more: Any) -> Record:
    """Return name -> protocol -> classifier -> measure -> one value a split, and each protocol's audits.

    Of a fixed split each repetition draws at most `PER_CLASS` training pixels a class; where none has
    more, there is one. ``more`` goes to `hsssl.evaluate.score_table`.
    """
    more |= {"patch_size": footprint, "classifiers": tuple(CLASSIFIERS), "progress": False}
    more.setdefault("cube", None)
    tables = score_table(features, task.labels, protocols=PROTOCOLS, seeds=splits, **more)
    for seed, maps in drawn(task.fixed, splits):
        tables += score_table(features, maps, protocols=[Protocol("fixed")], seeds=[seed], **more)
    found: Record = {}
    for table in tables:
        for name, one in {table.method: table, **table.baselines}.items():
            protocol = found.setdefault(name, {}).setdefault(one.split, {"audits": []})
            protocol["audits"].append([one.audit.coordinates_oa, one.audit.test_in_train_patch])
            values = protocol.setdefault(one.classifier, {measure: [] for measure in MEASURES})
            for measure in MEASURES:
                values[measure] += [round(float(row[measure]), 5) for row in one.runs]
    return found


def drawn(
    maps: tuple[np.ndarray, np.ndarray] | None, splits: Sequence[int]
) -> list[tuple[int, tuple[np.ndarray, np.ndarray]]]:
    """Return for each split its number and label maps (training, test), the training pixels thinned out."""
    if maps is None:
        return []
    train, test = maps
    classes, counts = np.unique(train[train > 0], return_counts=True)
    if counts.max() <= PER_CLASS:
        return [(splits[0], maps)]
    thinned = []
    for seed in splits:
        rng, kept = np.random.default_rng(seed), np.zeros_like(train)
        for label in classes:
            pixels = np.flatnonzero(train == label)
            kept.flat[rng.permutation(pixels)[:PER_CLASS]] = label
        thinned.append((seed, (kept, test)))
    return thinned


def clock() -> float:
    """CPU seconds of this process, which other programs do not lengthen by waiting; on a GPU wall seconds."""
    return time.perf_counter() if torch.cuda.is_available() else time.process_time()


def peak_mib() -> float:
    """Most memory this process has held so far, in MiB; on a GPU, most of the GPU's memory."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    unit = 1 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


def command(arguments: Sequence[str]) -> str:
    """Return the command line, the folder of scenes by its variable, as it is different on each machine."""
    line, data = (
        shlex.join(["python", "examples/compare_methods.py", *arguments]),
        os.environ.get("HSSSL_DATA"),
    )
    return line.replace(data, "$HSSSL_DATA") if data else line


def slug(name: str) -> str:
    """Return a folder's name for an entry."""
    return "".join(letter if letter.isalnum() or letter == "_" else "-" for letter in name)


def read(file: Path) -> Any:
    """Return what a JSON file holds, or None if there is none."""
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else None


if __name__ == "__main__":
    sys.exit(main())
