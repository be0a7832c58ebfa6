"""What commands are given, opened: cubes, label maps and the names of classes, by path or scene name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import tyro

import hsssl
from hsssl.cube import Cube
from hsssl.option_values import option_text, option_value
from hsssl.published import PUBLISHED

__all__ = [
    "AS_IT_IS",
    "Argument",
    "Arguments",
    "CubeOptions",
    "Opening",
    "Options",
    "brings_labels",
    "class_names_of",
    "label_map",
    "truth_maps",
]

_VALUE = tyro.constructors.PrimitiveConstructorSpec(
    nargs=1,
    metavar="VALUE",
    instance_from_str=lambda words: option_value(words[0]),
    is_instance=lambda value: True,
    str_from_instance=lambda value: [option_text(value)],
)
#: Options by name, their values as `option_value` reads them.
Options = dict[str, Annotated[Any, _VALUE]]
Argument = tyro.conf.Positional[str]
Arguments = tyro.conf.Positional[tuple[str, ...]]


@dataclass(frozen=True)
class CubeOptions:
    """How cubes are opened: what every command that takes one takes besides."""

    variable: str | None = None
    """Which variable of a .mat file."""

    wavelengths: str | None = None
    """A file of numbers or start:stop in nm, or a sensor, such as sentinel-2a:B2,B3,B4,B8."""

    reader_options: Options | None = None
    """What the format's reader takes besides, such as: byte_order little; rows 95 cols 95; dates 7 date 0."""

    def open(self, cube: str) -> Cube:
        """Open a cube by path or scene name."""
        options: dict[str, Any] = {"variable": self.variable, "wavelengths": self.wavelengths}
        return hsssl.open_cube(cube, **(options | (self.reader_options or {})))


AS_IT_IS = CubeOptions()
#: The options stand among the command's own, without a prefix.
Opening = Annotated[CubeOptions, tyro.conf.arg(name="")]


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
