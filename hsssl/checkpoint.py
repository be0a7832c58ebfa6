"""Checkpoints: the whole state of a run in one file that is either the old one or the new one."""

from __future__ import annotations

import errno
import zipfile
from pathlib import Path
from typing import Any

import torch

from hsssl.atomic import atomic_path

__all__ = ["load_checkpoint", "save_checkpoint"]

_KEYS = ("step", "model", "optimizer")
_HOW_TO_GO_ON = "delete it and resume to start at step 0, or pass --overwrite"


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write ``state`` (tensors, numbers, strings, dicts and lists of them) to ``path``, atomically."""
    path.parent.mkdir(exist_ok=True)
    with atomic_path(path) as temporary:
        torch.save(state, temporary)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read what `save_checkpoint` wrote, on the CPU, running nothing that the file may hold.

    Raises
    ------
    OSError
        If the file cannot be read.
    ValueError
        If it is truncated or damaged, by the checksums in it, holds more than tensors and plain values, or
        lacks the step, the model or the optimizer.
    """
    with path.open("rb") as stream:
        try:
            with zipfile.ZipFile(stream) as archive:
                wrong = archive.testzip()  # torch itself does not look at the checksums
            if wrong is not None:
                raise ValueError(f"the checksum of {wrong} is another")
            stream.seek(0)
            state = torch.load(stream, map_location="cpu", weights_only=True)
        except MemoryError:
            raise
        # Damage makes zipfile, pickle and torch raise nearly anything; EINVAL is their seek to nowhere.
        except Exception as error:
            if isinstance(error, OSError) and error.errno != errno.EINVAL:
                raise
            raise ValueError(f"{path}: the checkpoint is damaged or truncated; {_HOW_TO_GO_ON}") from error
    lacking = [key for key in _KEYS if key not in state] if isinstance(state, dict) else list(_KEYS)
    if lacking:
        raise ValueError(f"{path}: not a run's checkpoint, has no {', '.join(lacking)}; {_HOW_TO_GO_ON}")
    return dict(state)
