"""What commands are given, opened: cubes, label maps and the names of classes, by path or scene name."""

from __future__ import annotations

from typing import Any

import tyro

import hsssl
from hsssl.cube import Cube
from hsssl.published import PUBLISHED

__all__ = [
    "Argument",
    "Arguments",
    "Options",
    "brings_labels",
    "class_names_of",
    "label_map",
    "open_input",
    "truth_maps",
]

Options = dict[str, bool | int | float | str]
Argument = tyro.conf.Positional[str]
Arguments = tyro.conf.Positional[tuple[str, ...]]


def open_input(
    cube: str, variable: str | None, wavelengths: str | None, reader_options: Options | None
) -> Cube:
    """Open a cube with what its reader takes besides."""
    options: dict[str, Any] = {"variable": variable, "wavelengths": wavelengths, **(reader_options or {})}
    return hsssl.open_cube(cube, **options)


def label_map(cube: str, labels: str | None, opened: Cube) -> Any:
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


def truth_maps(
    command: str, cube: str, labels: str | None, test_labels: str | None, split: str, opened: Cube
) -> Any:
    """Return the label map, or for a fixed split the maps of training and of test pixels."""
    truth = label_map(cube, labels, opened)
    if split != "fixed":
        return truth
    if test_labels is None:
        raise ValueError(f"{command}: --split fixed needs --labels (training) and --test-labels")
    return truth, label_map(cube, test_labels, opened)


def brings_labels(cube: str) -> bool:
    """Whether ``cube`` is a named scene that comes with a map of classes."""
    return cube in hsssl.SCENES and (cube not in PUBLISHED or bool(PUBLISHED[cube].labels))


def class_names_of(cube: str) -> tuple[str, ...]:
    """Return the class names of a named scene, none for a path."""
    if cube in PUBLISHED:
        return PUBLISHED[cube].class_names
    return hsssl.SCENES[cube]().class_names if cube in hsssl.SCENES else ()
