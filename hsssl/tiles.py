"""Scenes larger than the device's memory: strips of rows that take turns on the device."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch

from hsssl.cube import Cube
from hsssl.sampling import ResidentScene, load_resident, resident_bytes
from hsssl.spec import Sensor
from hsssl_kernels.random import stream_key

__all__ = ["TiledScene", "load_scenes"]

_TILE = 4  # name of a random stream


class TiledScene:
    """A scene cut into strips of rows, of which one is on the device and the next is on its way.

    Every ``turn`` steps another strip is drawn, in proportion to its valid pixels, by the seed and the
    number of the turn alone. Strips overlap by ``margin`` rows, so that a patch looks as it would
    in the whole scene.

    Parameters
    ----------
    cube : Cube
        The prepared scene; it stays where it is, in memory or mapped from its file.
    sensor : Sensor
        What normalises it.
    device : torch.device or str
        Where strips are put.
    strip_rows : int
        Rows of a strip that centres are drawn from.
    margin : int
        Rows beyond them that a patch may reach: its radius and the jitter of its centre.
    seed : int
        Key of the drawing.
    turn : int
        Steps between two exchanges.
    """

    def __init__(
        self,
        cube: Cube,
        sensor: Sensor,
        device: torch.device | str,
        *,
        strip_rows: int,
        margin: int,
        seed: int,
        turn: int = 50,
    ) -> None:
        if strip_rows < 1 or turn < 1 or margin < 0:
            raise ValueError(
                "a tiled scene needs strip_rows >= 1, turn >= 1 and margin >= 0, "
                f"got {strip_rows}, {turn}, {margin}"
            )
        self.cube, self.sensor, self.device = cube, sensor, device
        self.margin, self.seed, self.turn = margin, seed, turn
        starts = range(0, cube.rows, strip_rows)
        pixels = [int(cube.valid[s : s + strip_rows].sum()) for s in starts]
        self.strips = [
            slice(s, min(s + strip_rows, cube.rows)) for s, n in zip(starts, pixels, strict=True) if n
        ]
        self.shares = torch.tensor([float(n) for n in pixels if n], dtype=torch.float64)
        self._loader = ThreadPoolExecutor(1, thread_name_prefix="hsssl-tile")
        self._coming: dict[int, Future[ResidentScene]] = {}
        self._here: tuple[int, ResidentScene] | None = None

    @property
    def pixels(self) -> int:
        """Valid pixels of the whole scene."""
        return int(self.shares.sum())

    def at(self, step: int) -> ResidentScene:
        """Return the strip that is on the device at ``step``, and start loading the next."""
        number = step // self.turn
        if self._here is None or self._here[0] != number:
            coming = self._coming.pop(number, None)
            self._coming.clear()
            self._here = None  # its memory goes before the next strip but one is asked for
            self._here = (number, coming.result() if coming else self._load(number))
            self._coming[number + 1] = self._loader.submit(self._load, number + 1)
        return self._here[1]

    def _load(self, number: int) -> ResidentScene:
        strip = self.strips[self._draw(number)]
        first, last = max(0, strip.start - self.margin), min(self.cube.rows, strip.stop + self.margin)
        centres = np.argwhere(self.cube.valid[strip]) + np.array([strip.start - first, 0])
        return load_resident(self.cube, self.sensor, self.device, rows=slice(first, last), centres=centres)

    def _draw(self, number: int) -> int:
        generator = torch.Generator().manual_seed(stream_key(self.seed, number, _TILE))
        return int(torch.multinomial(self.shares, 1, generator=generator))


def load_scenes(
    cubes: Sequence[Cube], device: torch.device | str, *, resident_gib: float | None, margin: int, seed: int
) -> list[ResidentScene | TiledScene]:
    """Put every cube on the device, whole if all fit into ``resident_gib``, else by strips.

    Parameters
    ----------
    cubes : sequence of Cube
        Prepared scenes.
    device : torch.device or str
        Where to.
    resident_gib : float or None
        GiB that all scenes together may take on the device. None is half of what is free on an
        accelerator; on a CPU, where the scenes are in memory already, it is no limit.
    margin : int
        Rows a patch may reach beyond its centre's.
    seed : int
        Key of the strips' order.

    Raises
    ------
    ValueError
        If two strips of a single row each, which is the least, do not fit.
    """
    sizes = [resident_bytes(cube, device) for cube in cubes]
    limit = _limit(torch.device(device), resident_gib)
    if sum(sizes) <= limit:
        return [load_resident(cube, Sensor.of(cube), device) for cube in cubes]
    scenes: list[ResidentScene | TiledScene] = []
    for cube, size in zip(cubes, sizes, strict=True):
        # two strips of each scene are on the device at a time, each with its margins
        strip_rows = int(limit * size / sum(sizes) / 2 / (size / cube.rows)) - 2 * margin
        if strip_rows < 1:
            least = sum(sizes) / size * 2 * (2 * margin + 1) * (size / cube.rows) / 2**30
            raise ValueError(
                f"{cube.source}: {limit / 2**30:.3g} GiB do not hold two strips of the scene; "
                f"give resident_gib of at least {least:.2g}"
            )
        scenes.append(
            TiledScene(cube, Sensor.of(cube), device, strip_rows=strip_rows, margin=margin, seed=seed)
        )
    return scenes


def _limit(device: torch.device, resident_gib: float | None) -> float:
    if resident_gib is not None:
        return resident_gib * 2**30
    if device.type != "cuda":
        return float("inf")
    return torch.cuda.mem_get_info(device)[0] / 2
