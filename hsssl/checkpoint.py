"""Checkpoints: the whole state of a run in one file that is either the old one or the new one."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch

from hsssl.atomic import atomic_path

__all__ = ["load_checkpoint", "save_checkpoint"]


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write ``state`` (tensors, numbers, strings, dicts and lists of them) to ``path``, atomically."""
    path.parent.mkdir(exist_ok=True)
    with atomic_path(path) as temporary:
        torch.save(state, temporary)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read what `save_checkpoint` wrote, on the CPU, running nothing that the file may hold.

    Raises
    ------
    ValueError
        If the file is truncated, damaged or holds more than tensors and plain values.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, pickle.UnpicklingError, ValueError, KeyError) as error:
        raise ValueError(
            f"{path}: the checkpoint is damaged or truncated; delete it and resume to start at step 0, "
            "or pass --overwrite"
        ) from error
    if not isinstance(state, dict):
        raise ValueError(f"{path}: not a checkpoint of a run; delete it and resume to start at step 0")
    return state
