"""What GDAL and others keep beside a raster, which goes when the raster is replaced."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["remove_sidecars"]

_SUFFIXES = (".aux.xml", ".ovr", ".msk")


def remove_sidecars(path: str | os.PathLike[str]) -> None:
    """Remove what lies beside the raster ``path``; left from an overwritten one, it describes the new."""
    for suffix in _SUFFIXES:
        Path(f"{os.fspath(path)}{suffix}").unlink(missing_ok=True)
