"""Endmembers of a scene and their abundances: in memory, or made tile by tile on their way to a file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hsssl.cube import Cube, block_of
from hsssl.maps import WriteTile
from hsssl.stream import Tick, Tile, block_side, cut_tiles, stream_tiles
from hsssl.unmix.learned import Learned, abundances_of

__all__ = ["Mixture", "Unmixing"]

FloatArray = NDArray[np.floating[Any]]


@dataclass(frozen=True, eq=False)
class Mixture:
    """The endmembers of a scene, and what gives their abundance in any part of it.

    Parameters
    ----------
    learned : Learned
        Endmembers, and the model of a method that has one.
    measured : ndarray, shape (rows, cols), bool
        Pixels that can be unmixed.
    cube : Cube
        The prepared cube, in memory or in a file: bands that say nothing are dropped.
    method : str
        Key of `UNMIXERS`.
    rule : str
        How abundances follow from the endmembers, a key of `hsssl.unmix.RULES`; "network" where a network
        gives them.
    seed : int
        Key of all that was drawn.
    """

    learned: Learned
    measured: NDArray[np.bool_]
    cube: Cube
    method: str
    rule: str
    seed: int

    @property
    def endmembers(self) -> NDArray[np.float32]:
        """Spectra (p, bands) in the cube's raw numbers."""
        return self.learned.endmembers.astype(np.float32)

    @property
    def pseudo(self) -> bool:
        """True if a network reconstructs without the endmembers, see `Unmixing`."""
        return self.learned.pseudo

    @property
    def names(self) -> tuple[str, ...]:
        """Name of each endmember, see `Unmixing`."""
        return _names(len(self.learned.endmembers), self.pseudo)

    @property
    def block(self) -> int:
        """Side of the blocks that tiles are made of."""
        return block_side(self._pixel_bytes)

    @property
    def _pixel_bytes(self) -> int:
        # float32 as read, and float64 three times in the solver and for the error
        return 28 * self.cube.bands

    def stream(self, write: WriteTile, *, progress: bool | None = None) -> None:
        """Hand the abundances and, last, the error (rows, cols, p + 1) of every tile to ``write``.

        Float32, NaN where a pixel was not measured. ``write`` is called in another thread.
        """
        halo = self.learned.margin if self.rule == "network" else 0
        tiles = cut_tiles(
            self.cube.rows,
            self.cube.cols,
            pixel_bytes=self._pixel_bytes,
            halo=halo,
            block=block_of(self.cube.values),
        )
        stream_tiles(tiles, self._read, self._compute, write, desc="unmix", progress=progress)

    def over_scene(self, *, progress: bool | None = None) -> Unmixing:
        """Return endmembers and abundances of the whole scene in memory: 4 (p + 1) bytes a pixel."""
        shape = (self.cube.rows, self.cube.cols, len(self.learned.endmembers) + 1)
        image = np.empty(shape, dtype=np.float32)

        def keep(tile: Tile, block: NDArray[np.float32]) -> None:
            image[tile.rows, tile.cols] = block

        self.stream(keep, progress=progress)
        return Unmixing(
            self.endmembers,
            image[:, :, :-1],
            image[:, :, -1],
            self.cube,
            self.method,
            self.rule,
            self.pseudo,
            self.seed,
        )

    def _read(self, tile: Tile) -> NDArray[np.float32]:
        values = self.cube.values[tile.around].astype(np.float32)
        values[~self.measured[tile.around]] = 0
        return values

    def _compute(self, tile: Tile, values: NDArray[np.float32], tick: Tick) -> NDArray[np.float32]:
        known = self.measured[tile.rows, tile.cols]
        block = np.full((*known.shape, len(self.learned.endmembers) + 1), np.nan, dtype=np.float32)
        seen = values[tile.inner][known]  # (n, bands)
        if not len(seen):
            return block
        if self.rule == "network":
            assert self.learned.model is not None
            shares, rebuilt = (part[tile.inner][known] for part in self.learned.model(values))
        else:
            shares, rebuilt = abundances_of(seen, self.learned.endmembers, self.rule)
        error = np.sqrt(np.square(seen - rebuilt).mean(axis=1))
        block[known] = np.concatenate([shares, error[:, None]], axis=1)
        return block


@dataclass(frozen=True, eq=False)
class Unmixing:
    """Endmembers of a scene and their abundance in every pixel.

    Parameters
    ----------
    endmembers : ndarray, shape (p, bands), float32
        Spectra in the cube's raw numbers, on the bands of ``cube``.
    abundances : ndarray, shape (rows, cols, p), float32
        Non-negative; NaN where a pixel was not measured.
    error : ndarray, shape (rows, cols), float32
        Root mean squared difference between a pixel and its reconstruction over the bands, raw numbers.
    cube : Cube
        The prepared cube: bands that say nothing are dropped.
    method : str
        Key of `UNMIXERS`.
    rule : str
        How abundances follow from the endmembers, a key of `hsssl.unmix.RULES`; "network" where a network
        gives them.
    pseudo : bool
        True if ``endmembers`` are pseudo-endmembers: spectra found beforehand that guide a network, which
        reconstructs without them.
    seed : int
        Key of all that was drawn.
    """

    endmembers: NDArray[np.float32]
    abundances: NDArray[np.float32]
    error: NDArray[np.float32]
    cube: Cube
    method: str
    rule: str
    pseudo: bool
    seed: int

    @property
    def names(self) -> tuple[str, ...]:
        """Name of each endmember: "endmember 1" and so on, or "pseudo-endmember 1"."""
        return _names(len(self.endmembers), self.pseudo)

    @property
    def block(self) -> int:
        """Side of the blocks that tiles are made of."""
        return block_side(self._pixel_bytes)

    @property
    def _pixel_bytes(self) -> int:
        return 4 * (len(self.endmembers) + 1)

    def stream(self, write: WriteTile, *, progress: bool | None = None) -> None:
        """Hand abundances and, last, the error (rows, cols, p + 1) of every tile to ``write``."""
        for tile in cut_tiles(self.cube.rows, self.cube.cols, pixel_bytes=self._pixel_bytes):
            inside = tile.rows, tile.cols
            write(tile, np.concatenate([self.abundances[inside], self.error[inside][:, :, None]], axis=2))


def _names(count: int, pseudo: bool) -> tuple[str, ...]:
    word = "pseudo-endmember" if pseudo else "endmember"
    return tuple(f"{word} {number}" for number in range(1, count + 1))
