"""The commands: the public functions with paths in place of arrays."""

from __future__ import annotations

import inspect
import json as json_text
import os
from collections.abc import Callable
from typing import Any, Literal

import hsssl
from hsssl.command_inputs import (
    AS_IT_IS,
    Argument,
    Arguments,
    Opening,
    Options,
    brings_labels,
    class_names_of,
    label_map,
    truth_maps,
)
from hsssl.commands_maps import classify, embed
from hsssl.commands_unsupervised import cluster, unmix
from hsssl.cube import Cube
from hsssl.demo import demo
from hsssl.encoders import ENCODERS
from hsssl.methods import METHODS
from hsssl.spec import spec_of
from hsssl.train import pretrain as run_pretraining

__all__ = ["COMMANDS"]


def info(
    cube: Argument,
    *,
    opening: Opening = AS_IT_IS,
    json: bool = False,
) -> None:
    """Say what a cube's file says: shape, wavelengths, nodata, georeference, statistics, suspicious things.

    Parameters
    ----------
    cube : str
        Path or scene name.
    json : bool
        Print JSON.
    """
    from hsssl.info import describe, format_description

    opened = opening.open(cube)
    description = describe(opened)
    print(_json(description) if json else format_description(description))


def pretrain(
    cubes: Arguments,
    *,
    opening: Opening = AS_IT_IS,
    report: bool = False,
    **settings: Any,
) -> None:
    """Stand in for `hsssl.pretrain`, with cubes by path or name; see `_pretrain_command`."""
    if not cubes:
        raise ValueError('pretrain: give at least one cube, by path or scene name ("indian_pines")')
    opened = [opening.open(cube) for cube in cubes]
    run = run_pretraining(opened, **settings)
    if os.environ.get("RANK", "0") == "0":
        last = run.metrics[-1]
        print(f"{run.path}: step {last['step'] + 1}, loss {last['loss']:.3f}; {run.spec_file}")
        if report:
            _report(run, cubes[0], None, opened[0], overwrite=True)


def evaluate(
    run: Argument,
    cube: Argument,
    *,
    labels: str | None = None,
    test_labels: str | None = None,
    split: Literal["random", "block", "fixed"] = "block",
    per_class: int | None = None,
    guard: int | None = None,
    seeds: int = 5,
    classifier: str = "linear",
    opening: Opening = AS_IT_IS,
    json: bool = False,
) -> None:
    """Score an encoder's frozen features beside the hand-made baselines, with a leakage audit.

    Parameters
    ----------
    run : str
        Run directory of hsssl pretrain.
    cube : str
        Path or scene name.
    labels : str, optional
        Class ids, 0 unlabelled: .mat, GeoTIFF, ENVI, .npy or PNG. A named scene brings its own.
    test_labels : str, optional
        With --split fixed: the test pixels; --labels are then the training pixels.
    split : str
        How training and test pixels are chosen.
    per_class : int, optional
        Training pixels a class; 10 at random, at most 100 by block unless given.
    guard : int, optional
        Pixels between training and test; the radius of a feature's footprint unless given.
    seeds : int
        Number of splits.
    classifier : str
        knn, linear or svm.
    json : bool
        Print JSON.
    """
    encoder = hsssl.load_encoder(run)
    opened = opening.open(cube)
    truth = truth_maps("evaluate", cube, labels, test_labels, split, opened)
    score = hsssl.evaluate(
        hsssl.embed(encoder, opened),
        truth,
        classifier,
        split,
        _drawn(per_class, split),
        spec_of(encoder).footprint,
        guard=guard,
        seeds=seeds,
        cube=hsssl.prepare(opened),
    )
    print(score.to_json() if json else score)


def finetune(
    run: Argument,
    cube: Argument,
    *,
    labels: str | None = None,
    test_labels: str | None = None,
    split: Literal["random", "block", "fixed"] = "block",
    per_class: int | None = None,
    guard: int | None = None,
    seeds: int = 5,
    epochs: int = 20,
    lr: float = 3e-4,
    opening: Opening = AS_IT_IS,
    json: bool = False,
) -> None:
    """Train a copy of the encoder with a linear head on labelled pixels, and score it beside the frozen one.

    Parameters
    ----------
    run : str
        Run directory of hsssl pretrain.
    cube : str
        Path or scene name.
    labels : str, optional
        Class ids, 0 unlabelled: .mat, GeoTIFF, ENVI, .npy or PNG. A named scene brings its own.
    test_labels : str, optional
        With --split fixed: the test pixels; --labels are then the training pixels.
    split : str
        How training and test pixels are chosen.
    per_class : int, optional
        Training pixels a class; 10 at random, at most 100 by block unless given.
    guard : int, optional
        Pixels between training and test; the radius of a feature's footprint unless given.
    seeds : int
        Number of trainings; each has a split of its own, unless that is fixed.
    epochs : int
        Passes over the training pixels.
    lr : float
        Peak learning rate.
    json : bool
        Print JSON.
    """
    encoder = hsssl.load_encoder(run)
    opened = opening.open(cube)
    truth = truth_maps("finetune", cube, labels, test_labels, split, opened)
    drawn = _drawn(per_class, split)
    score = hsssl.finetune(
        encoder, opened, truth, split, drawn, guard=guard, seeds=seeds, epochs=epochs, lr=lr
    )
    print(score.to_json() if json else score)


def report(
    run: Argument,
    cube: Argument,
    *,
    labels: str | None = None,
    out: str | None = None,
    seeds: int = 5,
    opening: Opening = AS_IT_IS,
    overwrite: bool = False,
) -> None:
    """Write report.html: pictures of a run's features on a scene, its training, and scores where labelled.

    Parameters
    ----------
    run : str
        Run directory of hsssl pretrain.
    cube : str
        Path or scene name.
    labels : str, optional
        Class ids, 0 unlabelled: .mat, GeoTIFF, ENVI, .npy or PNG. A named scene brings its own; without
        any there are no scores.
    out : str, optional
        Folder to write to; the run directory unless given.
    seeds : int
        Number of splits in the scores.
    overwrite : bool
        Replace an earlier report.
    """
    opened = opening.open(cube)
    _report(run, cube, labels, opened, out=out, seeds=seeds, overwrite=overwrite)


def methods() -> None:
    """List the methods, one line each, with their reference."""
    _print_registry(METHODS)


def encoders() -> None:
    """List the encoders, one line each."""
    _print_registry(ENCODERS)


def _print_registry(registry: dict[str, Any]) -> None:
    width = max(map(len, registry))
    for name, thing in sorted(registry.items()):
        summary = (inspect.getdoc(thing) or "").splitlines()[0]
        reference = getattr(thing, "reference", "")
        print(f"{name:<{width}}  {summary}{f' [{reference}]' if reference else ''}")


def _report(run: Any, cube: str, labels: str | None, opened: Cube, **options: Any) -> None:
    """Write a report, with scores if there are labels, and say where it is."""
    truth = label_map(cube, labels, opened) if labels or brings_labels(cube) else None
    page = hsssl.report_run(run, opened, truth, class_names=class_names_of(cube), **options)
    print(f"{page}: open it in a browser")


def _drawn(per_class: int | None, split: str) -> int:
    """Return how many training pixels a class are drawn, 0 and less as given, for the refusal to show."""
    if per_class is not None:
        return per_class
    return 10 if split == "random" else 100


def _json(record: Any) -> str:
    return json_text.dumps(record, indent=1)


def _pretrain_command() -> Callable[..., None]:
    """Return the command ``pretrain`` with the signature and help of `hsssl.pretrain`, cubes by path."""
    signature = inspect.signature(run_pretraining, eval_str=True)
    options = Options
    types: dict[str, Any] = {"cubes": Arguments, "encoder": str, "out": str, "windows": tuple[int, ...]}
    types |= {"method_options": options, "encoder_options": options}
    parameters = []
    for name, parameter in signature.parameters.items():
        parameter = parameter.replace(annotation=types.get(name, parameter.annotation))
        parameters.append(parameter.replace(default={}) if types.get(name) is options else parameter)
    keyword = inspect.Parameter.KEYWORD_ONLY
    parameters.append(inspect.Parameter("opening", keyword, default=AS_IT_IS, annotation=Opening))
    parameters.append(inspect.Parameter("report", keyword, default=False, annotation=bool))

    def command(cubes: Any, *args: Any, **settings: Any) -> None:
        positional = [name for name in signature.parameters if name != "cubes"]
        pretrain(cubes, **dict(zip(positional, args, strict=False)), **settings)

    added = (
        "    report : bool\n        Write report.html at the end: pictures of the first cube, and\n"
        "        scores if it is a named scene. The command report does so later, and takes labels.\n"
    )
    command.__doc__ = (run_pretraining.__doc__ or "").replace("\n    Returns\n", f"{added}\n    Returns\n", 1)
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {p.name: p.annotation for p in parameters}
    return command


COMMANDS: dict[str, Callable[..., Any]] = {
    "info": info,
    "pretrain": _pretrain_command(),
    "embed": embed,
    "evaluate": evaluate,
    "finetune": finetune,
    "report": report,
    "classify": classify,
    "unmix": unmix,
    "cluster": cluster,
    "demo": demo,
    "methods": methods,
    "encoders": encoders,
}
