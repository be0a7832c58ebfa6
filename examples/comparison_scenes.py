"""What is compared on: a named scene, a cube with its label map, or a folder of georeferenced tiles."""

from __future__ import annotations

import csv
from dataclasses import dataclass, replace
from pathlib import Path, PureWindowsPath

import numpy as np
from scipy.ndimage import distance_transform_cdt

import hsssl

# Radius of the widest window a feature comes from: no test pixel's features touch a training tile.
TILE_GUARD = 7


@dataclass(frozen=True)
class Task:
    """A prepared cube, its labels (0 = none), and the label maps (training, test) of a fixed split."""

    cube: hsssl.Cube
    labels: np.ndarray
    fixed: tuple[np.ndarray, np.ndarray] | None = None


def load_task(scene: str, labels: str | None, fixed: tuple[str, str] | None) -> Task:
    """Return what is compared on; only a cube's file needs ``labels``."""
    if Path(scene).is_dir():
        return load_tiles(Path(scene))
    if labels is None and scene not in hsssl.SCENES:
        raise ValueError(f"{scene}: give its label map as --labels")
    cube = hsssl.prepare(hsssl.open_cube(scene))
    maps = (hsssl.open_labels(fixed[0]), hsssl.open_labels(fixed[1])) if fixed else None
    return Task(cube, hsssl.open_labels(labels or scene), maps)


def load_tiles(folder: Path) -> Task:
    """Join the tiles of ``folder``/images by their georeference into one cube with gaps.

    Labels are in ``folder``/labels under the same names. ``train_files.csv`` names the tiles to train a
    classifier on; all others are tested, less a border of `TILE_GUARD` pixels towards those.
    """
    paths = sorted((folder / "images").glob("*.tif"))
    if not paths:
        raise ValueError(f"{folder}: no tiles; a folder of tiles has images/*.tif and labels/*.tif")
    tiles = [hsssl.open_cube(path) for path in paths]
    lies = np.array([tile.transform or [np.nan] * 6 for tile in tiles])  # (tiles, 6)
    if np.isnan(lies).any():
        raise ValueError(f"{folder}: tiles are joined by their georeference; some have none")
    places = lies[:, [5, 2]] / lies[0, [4, 0]]  # (tiles, 2): row, col
    places = np.rint(places - places.min(axis=0)).astype(int)
    extent = (places + [(tile.rows, tile.cols) for tile in tiles]).max(axis=0)
    values = np.zeros((*extent, tiles[0].bands), dtype=tiles[0].values.dtype)
    labels = np.zeros(extent, dtype=np.int64)
    valid, training = np.zeros(extent, dtype=bool), np.zeros(extent, dtype=bool)
    named = trained_tiles(folder / "train_files.csv")
    for path, tile, (row, col) in zip(paths, tiles, places, strict=True):
        here = (slice(row, row + tile.rows), slice(col, col + tile.cols))
        values[here], valid[here] = tile.values, tile.valid
        labels[here] = hsssl.open_labels(folder / "labels" / path.name)
        training[here] = path.name in named
    cube = hsssl.prepare(replace(tiles[0], values=values, valid=valid, source=folder.name))
    far = distance_transform_cdt(~training, "chessboard") > TILE_GUARD
    return Task(cube, labels, (np.where(training, labels, 0), np.where(far, labels, 0)))


def trained_tiles(file: Path) -> set[str]:
    """Return the file names in the column ``image`` of a list of tiles, whatever machine wrote it."""
    with open(file, newline="", encoding="utf-8") as rows:
        return {PureWindowsPath(row["image"]).name for row in csv.DictReader(rows)}
