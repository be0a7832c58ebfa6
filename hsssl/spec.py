"""What an encoder remembers of its training: its making, and the bands and normalisation of every sensor."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from hsssl.cube import Cube
from hsssl.messages import say_once
from hsssl.prepare import band_axis, band_statistics, prepare

__all__ = ["EncoderSpec", "Sensor", "fit_cube", "spec_of"]

# Files round wavelengths to 0.01 nm or so; bands of one sensor lie 1 nm apart or more.
_SAME_NM = 0.1
# Statistics of one scene differ by rounding, those of two by more than this share of the deviation.
_SAME_SHARE = 1e-3


@dataclass(frozen=True)
class Sensor:
    """The bands one cube was seen with, and their normalisation.

    Parameters
    ----------
    source : str
        Where the cube came from.
    source_bands : int
        How many bands the file has.
    source_index : tuple of int
        The bands used, by number in the file, in the order the encoder gets them.
    wavelengths : tuple of float
        What the encoder takes for their wavelengths, in nm.
    measured : bool
        True if those are the file's wavelengths; False if band numbers stand in for them.
    mean, std : tuple of float
        Of each band over the valid pixels, in raw numbers; an encoder sees (x - mean) / std.
    """

    source: str
    source_bands: int
    source_index: tuple[int, ...]
    wavelengths: tuple[float, ...]
    measured: bool
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def of(cls, cube: Cube) -> Sensor:
        """Return the sensor of a prepared cube, with statistics over its valid pixels."""
        mean, std = band_statistics(cube)
        return cls(
            source=cube.source,
            source_bands=cube.source_bands,
            source_index=tuple(int(i) for i in cube.source_index),
            wavelengths=tuple(float(w) for w in band_axis(cube)),
            measured=cube.wavelengths is not None,
            mean=tuple(float(v) for v in mean),
            std=tuple(float(v) for v in std),
        )

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Sensor:
        """Return the sensor from its JSON record, lists made tuples again."""
        plain: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in record.items()}
        return cls(**plain)

    def find_bands(self, cube: Cube) -> NDArray[np.int64] | None:
        """Return where this sensor's bands lie in ``cube``, or None if it is another sensor's.

        Matched by number in the file and by recorded wavelength, never by position in the cube.
        """
        if cube.source_bands != self.source_bands or (self.measured and cube.wavelengths is None):
            return None
        position = {int(number): at for at, number in enumerate(cube.source_index)}
        if not all(number in position for number in self.source_index):
            return None
        found = np.array([position[number] for number in self.source_index], dtype=np.int64)
        if self.measured and cube.wavelengths is not None:
            apart = np.abs(cube.wavelengths[found] - np.array(self.wavelengths))
            if apart.max() > _SAME_NM:
                return None
        return found


@dataclass(frozen=True)
class EncoderSpec:
    """Everything that is needed to build an encoder again and to feed it.

    Parameters
    ----------
    encoder : str
        Name in `hsssl.encoders.ENCODERS`, or ``module`` for one that was passed in.
    options : dict
        Arguments it is built with.
    embed_dim : int
        Size D of its embedding.
    patch_size : int
        Side of the patches it takes, in pixels.
    windows : tuple of int
        Sides of the square windows over which `hsssl.embed` averages the embedding.
    sensors : tuple of Sensor
        One for each sensor seen in training.
    """

    encoder: str
    options: Mapping[str, Any]
    embed_dim: int
    patch_size: int
    windows: tuple[int, ...]
    sensors: tuple[Sensor, ...]

    @property
    def footprint(self) -> int:
        """Side of the square of pixels that a feature of `hsssl.embed` depends on."""
        return self.patch_size + max(self.windows) - 1

    @property
    def any_sensor(self) -> bool:
        """Whether it runs on sensors it was not trained on."""
        return self.encoder != "module" and all(sensor.measured for sensor in self.sensors)

    def to_json(self) -> str:
        """Return the specification as JSON text."""
        return json.dumps(asdict(self), indent=1)

    @classmethod
    def read(cls, path: Path) -> EncoderSpec:
        """Read a specification that `to_json` wrote.

        Raises
        ------
        ValueError
            If the file is damaged or not such a specification.
        """
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            sensors = tuple(Sensor.from_record(sensor) for sensor in record.pop("sensors"))
            return cls(**(record | {"windows": tuple(record["windows"]), "sensors": sensors}))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ValueError(
                f"{path}: not a readable encoder specification ({error}); train again"
            ) from error


def spec_of(encoder: nn.Module) -> EncoderSpec:
    """Return the specification of a trained encoder.

    Raises
    ------
    ValueError
        If the encoder has none: it was not loaded from a run.
    """
    spec = getattr(encoder, "spec", None)
    if not isinstance(spec, EncoderSpec):
        raise ValueError("the encoder has no .spec; take it from hsssl.load_encoder(run)")
    return spec


def fit_cube(spec: EncoderSpec, cube: Cube) -> tuple[Cube, Sensor]:
    """Return the bands of ``cube`` that the encoder takes, in its order, with the normalisation to use.

    A cube of a sensor seen in training gets that sensor's bands and stored statistics: its own where it was
    among the training cubes, which is known by the numbers in it, else those of the first, which is said.
    Another sensor's cube is prepared by itself, with its own statistics; that is said too.

    Raises
    ------
    ValueError
        If the encoder cannot take this cube: trained on band numbers, or made for fixed bands,
        and the cube has others; or the cube has no wavelengths.
    """
    fits = [(sensor, found) for sensor in spec.sensors if (found := sensor.find_bands(cube)) is not None]
    if fits:
        sensor, found = fits[0] if len(fits) == 1 else _own(fits, cube)
        return cube.take_bands(found), sensor
    trained = " and ".join(
        f"{len(s.source_index)} of {s.source_bands} {'bands' if s.measured else 'numbered bands'}"
        for s in spec.sensors
    )
    if not spec.any_sensor:
        why = (
            "one fixed set of bands" if spec.encoder == "module" else "bare band numbers, without wavelengths"
        )
        raise ValueError(
            f"{cube.source}: has {cube.bands} of {cube.source_bands} bands, but the encoder was trained on "
            f"{why} ({trained}); train with --wavelengths to use it on other sensors"
        )
    if cube.wavelengths is None:
        raise ValueError(
            f"{cube.source}: has no wavelengths, and the encoder matches bands by them; give --wavelengths"
        )
    other = prepare(cube)
    say_once(
        "%s: another sensor than in training (%s bands; trained on %s); its own mean and std are used",
        cube.source,
        other.bands,
        trained,
    )
    return other, Sensor.of(other)


def _own(fits: Sequence[tuple[Sensor, NDArray[np.int64]]], cube: Cube) -> tuple[Sensor, NDArray[np.int64]]:
    """Return the one of several scenes of a sensor that ``cube`` is, by its statistics; else the first."""
    for sensor, found in fits:
        mean, std = band_statistics(cube.take_bands(found))
        apart = np.abs(mean - sensor.mean) + np.abs(std - sensor.std)
        if (apart <= _SAME_SHARE * np.array(sensor.std)).all():
            return sensor, found
    say_once(
        "%s: not among the %d training scenes of its sensor; the mean and std of %s are used",
        cube.source,
        len(fits),
        fits[0][0].source,
    )
    return fits[0]
