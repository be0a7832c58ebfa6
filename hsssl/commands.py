"""The commands: the public functions with paths in place of arrays."""

from __future__ import annotations

import inspect
import json as json_text
import os
from collections.abc import Callable
from typing import Any, Literal

import tyro

import hsssl
from hsssl.atomic import refuse_existing
from hsssl.cube import Cube
from hsssl.demo import demo
from hsssl.encoders import ENCODERS
from hsssl.methods import METHODS
from hsssl.spec import spec_of
from hsssl.train import pretrain as run_pretraining

__all__ = ["COMMANDS"]

Value = bool | int | float | str
Argument = tyro.conf.Positional[str]
Arguments = tyro.conf.Positional[tuple[str, ...]]


def info(
    cube: Argument, *, variable: str | None = None, wavelengths: str | None = None, json: bool = False
) -> None:
    """Say what a cube's file says: shape, wavelengths, nodata, georeference, statistics, suspicious things.

    Parameters
    ----------
    cube : str
        Path or scene name.
    variable : str, optional
        Which variable of a .mat file.
    wavelengths : str, optional
        A file of numbers, or start:stop, in nm.
    json : bool
        Print JSON.
    """
    from hsssl.info import describe, format_description

    description = describe(hsssl.open_cube(cube, variable=variable, wavelengths=wavelengths))
    print(_json(description) if json else format_description(description))


def pretrain(
    cubes: Arguments, *, variable: str | None = None, wavelengths: str | None = None, **settings: Any
) -> None:
    """Stand in for `hsssl.pretrain`, with cubes by path or name; see `_pretrain_command`."""
    if not cubes:
        raise ValueError('pretrain: give at least one cube, by path or scene name ("indian_pines")')
    opened = [hsssl.open_cube(cube, variable=variable, wavelengths=wavelengths) for cube in cubes]
    run = run_pretraining(opened, **settings)
    if os.environ.get("RANK", "0") == "0":
        last = run.metrics[-1]
        print(f"{run.path}: step {last['step'] + 1}, loss {last['loss']:.3f}; {run.spec_file}")


def embed(
    run: Argument,
    cube: Argument,
    *,
    out: str,
    variable: str | None = None,
    wavelengths: str | None = None,
    overwrite: bool = False,
) -> None:
    """Write the features of every pixel of a cube to a GeoTIFF.

    Parameters
    ----------
    run : str
        Run directory of hsssl pretrain.
    cube : str
        Path or scene name.
    out : str
        GeoTIFF to write: float32, a band a dimension, NaN where nothing was measured.
    variable : str, optional
        Which variable of a .mat file.
    wavelengths : str, optional
        A file of numbers, or start:stop, in nm.
    overwrite : bool
        Replace the file at --out.
    """
    refuse_existing(out, overwrite=overwrite)
    encoder = hsssl.load_encoder(run)
    opened = hsssl.open_cube(cube, variable=variable, wavelengths=wavelengths)
    features = hsssl.embed(encoder, opened, out=out, overwrite=overwrite)
    print(f"{out}: {features.shape[0]} x {features.shape[1]} pixels, {features.shape[2]} dimensions")


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
    variable: str | None = None,
    wavelengths: str | None = None,
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
    variable : str, optional
        Which variable of a .mat file.
    wavelengths : str, optional
        A file of numbers, or start:stop, in nm.
    json : bool
        Print JSON.
    """
    encoder = hsssl.load_encoder(run)
    opened = hsssl.open_cube(cube, variable=variable, wavelengths=wavelengths)
    truth: Any = _labels(cube, labels, opened)
    if split == "fixed":
        if test_labels is None:
            raise ValueError("evaluate: --split fixed needs --labels (training) and --test-labels")
        truth = (truth, _labels(cube, test_labels, opened))
    score = hsssl.evaluate(
        hsssl.embed(encoder, opened),
        truth,
        classifier,
        split,
        per_class or (10 if split == "random" else 100),
        spec_of(encoder).footprint,
        guard=guard,
        seeds=seeds,
        cube=hsssl.prepare(opened),
    )
    print(score.to_json() if json else score)


def classify(
    run: Argument,
    cube: Argument,
    *,
    out: str,
    labels: str | None = None,
    classifier: str = "svm",
    variable: str | None = None,
    wavelengths: str | None = None,
    overwrite: bool = False,
) -> None:
    """Write a class map of the whole scene, learnt from its labelled pixels.

    Parameters
    ----------
    run : str
        Run directory of hsssl pretrain.
    cube : str
        Path or scene name.
    out : str
        GeoTIFF to write: uint8, nodata 0, palette and class names.
    labels : str, optional
        Class ids, 0 unlabelled. A named scene brings its own.
    classifier : str
        knn, linear or svm.
    variable : str, optional
        Which variable of a .mat file.
    wavelengths : str, optional
        A file of numbers, or start:stop, in nm.
    overwrite : bool
        Replace the file at --out.
    """
    refuse_existing(out, overwrite=overwrite)
    encoder = hsssl.load_encoder(run)
    opened = hsssl.open_cube(cube, variable=variable, wavelengths=wavelengths)
    truth = _labels(cube, labels, opened)
    names = hsssl.SCENES[cube]().class_names if cube in hsssl.SCENES else ()
    hsssl.classify(
        encoder, opened, truth, classifier=classifier, class_names=names, out=out, overwrite=overwrite
    )
    print(f"{out}: {opened.rows} x {opened.cols} pixels")


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
    variable: str | None = None,
    wavelengths: str | None = None,
    overwrite: bool = False,
) -> None:
    """Write a map of clusters found without labels; with labels, say how well they agree, beside k-means.

    Parameters
    ----------
    cube : str
        Path or scene name.
    clusters : int
        Number of clusters, 2 to 255.
    out : str
        GeoTIFF to write: uint8, nodata 0. A PNG and an HTML page get its name with their suffix.
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
    variable : str, optional
        Which variable of a .mat file.
    wavelengths : str, optional
        A file of numbers, or start:stop, in nm.
    overwrite : bool
        Replace the files at --out.
    """
    from hsssl.cluster.metrics import score_clusters
    from hsssl.cluster.report import cluster_files, write_clusters

    for file in cluster_files(out):
        refuse_existing(file, overwrite=overwrite)
    opened = hsssl.open_cube(cube, variable=variable, wavelengths=wavelengths)
    named = cube in hsssl.SCENES
    if labelled_only and labels is None and not named:
        raise ValueError(f"{cube}: is no named scene and brings no labels; give --labels")
    truth = _labels(cube, labels, opened) if labels is not None or named else None
    options: dict[str, Any] = {"clusters": clusters, "seed": seed, "landmarks": landmarks}
    options["mask"] = truth if labelled_only else None
    segments = hsssl.cluster(opened, method=method, **options)
    scores = {}
    if truth is not None:
        scores[method] = score_clusters(truth, segments)
        if method != "kmeans":
            baseline = hsssl.cluster(opened, method="kmeans", **options)
            scores["kmeans"] = score_clusters(truth, baseline)
    names = hsssl.SCENES[cube]().class_names if named else ()
    write_clusters(
        out, segments, hsssl.prepare(opened), labels=truth, class_names=names, scores=scores, method=method,
        overwrite=overwrite,
    )  # fmt: skip
    print(f"{out}: {opened.rows} x {opened.cols} pixels, {clusters} clusters")
    for name, score in scores.items():
        print(f"{name:<24}{score}")


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


def _labels(cube: str, labels: str | None, opened: Cube) -> Any:
    """Read the label map, or take the named scene's own, and check that it fits."""
    if labels is None and cube not in hsssl.SCENES:
        raise ValueError(f"{cube}: is no named scene and brings no labels; give --labels")
    truth = hsssl.open_labels(labels or cube)
    if truth.shape != (opened.rows, opened.cols):
        raise ValueError(
            f"{labels or cube}: the label map has shape {truth.shape}, the cube {(opened.rows, opened.cols)}"
            "; give the labels of this cube"
        )
    return truth


def _json(record: Any) -> str:
    return json_text.dumps(record, indent=1)


def _pretrain_command() -> Callable[..., None]:
    """Return the command ``pretrain`` with the signature and help of `hsssl.pretrain`, cubes by path."""
    signature = inspect.signature(run_pretraining, eval_str=True)
    options = dict[str, Value]
    types: dict[str, Any] = {"cubes": Arguments, "encoder": str, "out": str, "windows": tuple[int, ...]}
    types |= {"method_options": options, "encoder_options": options}
    parameters = []
    for name, parameter in signature.parameters.items():
        parameter = parameter.replace(annotation=types.get(name, parameter.annotation))
        parameters.append(parameter.replace(default={}) if types.get(name) is options else parameter)
    keyword = inspect.Parameter.KEYWORD_ONLY
    for name in ("variable", "wavelengths"):
        parameters.append(inspect.Parameter(name, keyword, default=None, annotation=str | None))

    def command(cubes: Any, *args: Any, **settings: Any) -> None:
        positional = [name for name in signature.parameters if name != "cubes"]
        pretrain(cubes, **dict(zip(positional, args, strict=False)), **settings)

    added = (
        "    variable : str, optional\n        Which variable of a .mat file.\n"
        "    wavelengths : str, optional\n        A file of numbers, or start:stop, in nm.\n"
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
    "classify": classify,
    "cluster": cluster,
    "demo": demo,
    "methods": methods,
    "encoders": encoders,
}
