"""The scene sampler: resident cubes, centres drawn by index, two views of a batch in one gather."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hsssl.cube import Cube, not_measured
from hsssl.messages import say_once
from hsssl.spec import Sensor
from hsssl.views import Views, ViewSpec
from hsssl_kernels.random import stream_key
from hsssl_kernels.spectral_views import resident_cube, spectral_views
from hsssl_kernels.spectral_views.lines import resident_line

__all__ = ["ResidentScene", "Scene", "draw_views", "load_resident", "resident_bytes"]

_CENTRES, _SCENE = 1, 2  # names of random streams


@dataclass(frozen=True)
class ResidentScene:
    """A cube on the device, as raw numbers with bands last, and what normalises it.

    Parameters
    ----------
    values : Tensor, shape (rows, cols, bands)
        Raw numbers, the sensor's integers where they fit.
    valid : Tensor, shape (rows, cols), bool
        False where a pixel was not measured.
    centres : Tensor, shape (n, 2), int64
        Row and column of every valid pixel, on the CPU.
    mean, scale, wavelengths : Tensor, shape (bands,), float32
        Normalisation (x - mean) * scale, and band centres in nm.
    """

    values: Tensor
    valid: Tensor
    centres: Tensor
    mean: Tensor
    scale: Tensor
    wavelengths: Tensor

    @property
    def pixels(self) -> int:
        """Number of pixels that centres are drawn from."""
        return len(self.centres)

    def at(self, step: int) -> ResidentScene:
        """Return what is on the device at ``step``: all of the scene, at any step."""
        return self


class Scene(Protocol):
    """What batches are drawn from: a `ResidentScene`, or a `TiledScene` of which a part is resident."""

    @property
    def pixels(self) -> int:
        """Valid pixels of the whole scene."""

    def at(self, step: int) -> ResidentScene:
        """Return what is on the device at ``step``; it depends on the seed and the step alone."""


def load_resident(
    cube: Cube,
    sensor: Sensor,
    device: torch.device | str = "cpu",
    *,
    rows: slice = slice(None),
    centres: NDArray[np.int64] | None = None,
) -> ResidentScene:
    """Put a cube, its bands in the sensor's order, or some rows of it, on ``device``.

    ``centres`` (n, 2), counted from the first of the rows, are all valid pixels unless given.
    """
    values, valid = cube.values[rows], cube.valid[rows]
    if values.dtype.kind == "f" or cube.nodata is not None:
        values = _fill(cube, values, valid, sensor)
    on: dict[str, Any] = {"dtype": torch.float32, "device": device}
    return ResidentScene(
        values=resident_cube(
            torch.from_numpy(np.ascontiguousarray(values, dtype=_resident_dtype(values))), device
        ),
        valid=torch.from_numpy(np.ascontiguousarray(valid)).to(device),
        # on the CPU, where they are drawn and checked without waiting for the device
        centres=torch.from_numpy(np.argwhere(valid) if centres is None else centres),
        mean=torch.tensor(sensor.mean, **on),
        scale=1 / torch.tensor(sensor.std, **on),
        wavelengths=torch.tensor(sensor.wavelengths, **on),
    )


def _fill(cube: Cube, values: NDArray[Any], valid: NDArray[np.bool_], sensor: Sensor) -> NDArray[Any]:
    """Return values with the band's mean of training where nothing was measured."""
    void = not_measured(values, cube.nodata)
    if not void.any():
        return values
    if (void & valid[..., None]).any():  # a band that this scene lacks, or a mask that the caller made
        say_once("%s: valid pixels lack some bands; the bands' means of training stand in", cube.source)
    mean = np.array(sensor.mean)
    if values.dtype.kind != "f":
        mean = mean.round()
    return np.where(void, mean.astype(values.dtype), values)


def resident_bytes(cube: Cube, device: torch.device | str = "cpu") -> int:
    """Return the bytes a cube takes on the device."""
    line = resident_line(cube.bands, torch.device(device))
    return cube.rows * cube.cols * line * _resident_dtype(cube.values).itemsize


def _resident_dtype(values: NDArray[Any]) -> np.dtype[Any]:
    """Return the smallest dtype that torch indexes and that holds the raw numbers."""
    if values.dtype.kind != "f" and values.min() >= -(2**15) and values.max() < 2**15:
        return np.dtype(np.int16)
    if values.dtype.kind != "f" and values.min() >= -(2**31) and values.max() < 2**31:
        return np.dtype(np.int32)
    return np.dtype(np.float32)


def draw_views(
    scenes: Sequence[Scene],
    batch_size: int,
    *,
    patch_size: int,
    spec: ViewSpec,
    seed: int,
    step: int,
    rank: int = 0,
    ranks: int = 1,
) -> Views:
    """Draw one batch: a scene in proportion to its valid pixels, centres uniformly among them, two views.

    Everything drawn depends on (seed, step) alone. With several ranks the centres are those of
    one process with the whole batch, dealt out in turn.

    Parameters
    ----------
    scenes : sequence of ResidentScene or TiledScene
        A batch comes from one of them.
    batch_size : int
        Samples over all ranks.
    patch_size : int
        Side of the patches in pixels.
    spec : ViewSpec
        Strengths of the augmentations.
    seed, step : int
        Key of the random streams.
    rank, ranks : int
        Which share of the batch to return.

    Returns
    -------
    Views
        Two views (batch_size / ranks, bands, patch_size, patch_size) float32, and the wavelengths.
    """
    scene = scenes[_pick_scene(scenes, stream_key(seed, step, _SCENE))].at(step)
    generator = torch.Generator().manual_seed(stream_key(seed, step, _CENTRES))
    picked = torch.randint(len(scene.centres), (batch_size,), generator=generator)[rank::ranks]
    a, b = spectral_views(
        scene.values,
        scene.centres[picked],
        patch_size=patch_size,
        mean=scene.mean,
        scale=scene.scale,
        spec=spec,
        seed=seed,
        step=step,
        # the views too are those of one process
        sample_ids=torch.arange(batch_size)[rank::ranks] if ranks > 1 else None,
        valid=scene.valid,
    )
    return Views(a, b, scene.wavelengths)


def _pick_scene(scenes: Sequence[Scene], key: int) -> int:
    if len(scenes) == 1:
        return 0
    pixels = torch.tensor([float(scene.pixels) for scene in scenes], dtype=torch.float64)
    generator = torch.Generator().manual_seed(key)
    return int(torch.multinomial(pixels, 1, generator=generator))
