"""What `hsssl.pretrain` is given: opened, prepared, and checked before anything is written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hsssl.cube import Cube
from hsssl.encoders import ENCODERS
from hsssl.messages import unknown_name
from hsssl.methods import METHODS
from hsssl.prepare import prepare
from hsssl.scenes import open_cube

__all__ = ["check_patches", "check_settings", "open_cubes", "plain_options"]


def open_cubes(cubes: Cube | str | Path | Sequence[Cube | str | Path]) -> list[Cube]:
    """Open and prepare what `hsssl.pretrain` is given.

    Raises
    ------
    ValueError
        If there is nothing.
    """
    several = [cubes] if isinstance(cubes, (Cube, str, Path)) else list(cubes)
    if not several:
        raise ValueError("pretrain: give at least one cube")
    return [prepare(cube if isinstance(cube, Cube) else open_cube(cube)) for cube in several]


def plain_options(what: str, options: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return options as config.yaml gives them back, tuples made lists: what a resumed run compares with.

    Raises
    ------
    ValueError
        If one of them is not a number, a string, a bool, None, or a list or dict of them.
    """
    import yaml

    try:
        record: dict[str, Any] = yaml.safe_load(yaml.safe_dump(dict(options or {})))
    except yaml.YAMLError as error:
        raise ValueError(
            f"{what} must be numbers, strings, bools, or lists of them, got {options!r}"
        ) from error
    return record


def check_patches(cubes: Sequence[Cube], patch_size: int) -> None:
    """Raise ValueError if a patch does not fit into a scene."""
    for cube in cubes:
        if patch_size > min(cube.rows, cube.cols):
            raise ValueError(
                f"{cube.source}: a patch of {patch_size} pixels is larger than the scene of "
                f"{cube.rows} x {cube.cols}; lower --patch-size"
            )


def check_settings(settings: Mapping[str, Any], checkpoint_every: int) -> None:
    """Raise ValueError for the first setting that is out of range or names nothing."""
    if settings["method"] not in METHODS:
        raise unknown_name("method", settings["method"], METHODS)
    if settings["encoder"] not in {*ENCODERS, "module"}:
        raise unknown_name("encoder", settings["encoder"], ENCODERS)
    for name in ("steps", "patch_size", "log_every"):
        if settings[name] < 1:
            raise ValueError(f"{name} must be at least 1, got {settings[name]}")
    if settings["log_every"] > 10:
        raise ValueError(f"log_every must be at most 10, got {settings['log_every']}: collapse must be seen")
    if checkpoint_every < 1:
        raise ValueError(f"checkpoint_every must be at least 1, got {checkpoint_every}")
    if settings["batch_size"] < 2:
        raise ValueError(f"batch_size must be at least 2, got {settings['batch_size']}")
    if not settings["lr"] > 0 or settings["weight_decay"] < 0:
        raise ValueError("lr must be positive and weight_decay not negative")
    if not settings["windows"] or any(w < 1 or w % 2 == 0 for w in settings["windows"]):
        raise ValueError(f"windows must be odd sides of at least 1, got {settings['windows']}")
    if settings["resident_gib"] is not None and not settings["resident_gib"] > 0:
        raise ValueError(f"resident_gib must be above 0 GiB, got {settings['resident_gib']}")
    if settings["precision"] not in (None, "no", "bf16", "fp16"):
        raise ValueError(f"precision must be no, bf16 or fp16, got {settings['precision']!r}")
