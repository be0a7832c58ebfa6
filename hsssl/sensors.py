"""Wavelengths and widths of the bands of common sensors, from published tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hsssl.messages import unknown_name

__all__ = ["SENSORS", "Sensor", "guess_sensor", "sensor_bands"]


@dataclass(frozen=True, eq=False)
class Sensor:
    """The bands of one sensor.

    Parameters
    ----------
    names : tuple of str
        Name of each band, as the mission calls it.
    wavelengths : ndarray, shape (bands,), float64
        Band centres in nm.
    fwhm : ndarray, shape (bands,), float64, or None
        Full width at half maximum in nm, or the nominal width where that is what is published.
    nominal : bool
        True where the grid is an even spread over the published ranges and not a table of each band:
        every product of such a sensor brings its own calibrated wavelengths, which are to be preferred.
    source : str
        Where the numbers are published.
    """

    names: tuple[str, ...]
    wavelengths: NDArray[np.float64]
    fwhm: NDArray[np.float64] | None
    nominal: bool
    source: str

    def band(self, name: str) -> tuple[float, float | None]:
        """Return centre and width in nm of the band called ``name``."""
        if name not in self.names:
            raise ValueError(f"unknown band {name!r}; there are: {', '.join(self.names)}")
        at = self.names.index(name)
        return float(self.wavelengths[at]), None if self.fwhm is None else float(self.fwhm[at])


def sensor_bands(text: str) -> tuple[NDArray[np.float64], NDArray[np.float64] | None]:
    """Return band centres and widths by name: "sentinel-2a", or some bands of it, "sentinel-2a:B2,B3,B4,B8".

    Parameters
    ----------
    text : str
        A key of `SENSORS`; after a colon, names of bands in the order wanted.

    Returns
    -------
    wavelengths : ndarray, shape (bands,), float64
        In nm.
    fwhm : ndarray, shape (bands,), float64, or None
        In nm.

    Raises
    ------
    ValueError
        If there is no such sensor or band.

    Examples
    --------
    >>> sensor_bands("sentinel-2a:B4,B8")[0]
    array([664.6, 832.8])
    """
    key, _, listed = text.partition(":")
    key = key.strip().lower()
    if key not in SENSORS:
        raise unknown_name("sensor", key, SENSORS)
    sensor = SENSORS[key]
    wanted = [name.strip() for name in listed.split(",")] if listed else list(sensor.names)
    picked = [sensor.band(name) for name in wanted]
    widths = None if sensor.fwhm is None else np.array([width for _, width in picked], dtype=np.float64)
    return np.array([centre for centre, _ in picked]), widths


def guess_sensor(wavelengths: NDArray[np.floating[Any]]) -> str | None:
    """Name the sensor that band centres look like they are of; None if none of `SENSORS` comes close.

    Some bands of a sensor with a table fit if each lies within 0.6 nm of one of its centres. A sensor with a
    nominal grid fits if both ends lie within 25 nm of the sensor's, and the number of bands within 15 %,
    since bands of water are often left out; the closest number wins.

    Parameters
    ----------
    wavelengths : ndarray, shape (bands,)
        In nm, in any order.
    """
    centres = np.sort(np.asarray(wavelengths, dtype=np.float64))
    misses = {name: _miss(centres, sensor) for name, sensor in SENSORS.items()}
    best = min(misses, key=lambda name: misses[name])
    return best if misses[best] <= 1 else None


def _miss(centres: NDArray[np.float64], sensor: Sensor) -> float:
    """Return how far sorted centres are from a sensor, in units of what still fits."""
    theirs = np.sort(sensor.wavelengths)
    if not sensor.nominal:
        return float(np.abs(centres[:, None] - theirs).min(axis=1).max()) / 0.6
    if max(abs(centres[0] - theirs[0]), abs(centres[-1] - theirs[-1])) > 25:
        return np.inf
    return abs(centres.size - theirs.size) / theirs.size / 0.15


def _table(source: str, **bands: tuple[float, float]) -> Sensor:
    """Make a sensor of ``name=(centre, width)``, in nm."""
    numbers = np.array(list(bands.values()), dtype=np.float64)
    return Sensor(tuple(bands), numbers[:, 0], numbers[:, 1], nominal=False, source=source)


def _centres(source: str, **bands: float) -> Sensor:
    """Make a sensor of ``name=centre``, in nm, whose widths are not at hand."""
    numbers = np.array(list(bands.values()), dtype=np.float64)
    return Sensor(tuple(bands), numbers, None, nominal=False, source=source)


def _ranges(source: str, **bands: tuple[float, float]) -> Sensor:
    """Make a sensor of ``name=(from, to)`` in micrometres: centre and width of the published range."""
    edges = np.array(list(bands.values()), dtype=np.float64)
    low, high = edges.T * 1e3
    centres, widths = np.round((low + high) / 2, 1), np.round(high - low, 1)
    return Sensor(tuple(bands), centres, widths.astype(np.float64), nominal=False, source=source)


def _spread(source: str, *detectors: tuple[float, float, int], fwhm: Sequence[float] | None = None) -> Sensor:
    """Make a sensor of (first, last, bands) in nm for each detector, evenly spread."""
    grids = [np.linspace(first, last, bands) for first, last, bands in detectors]
    widths = None
    if fwhm is not None:
        widths = np.repeat(np.array(fwhm, dtype=np.float64), [len(grid) for grid in grids])
    names = tuple(str(number + 1) for number in range(sum(map(len, grids))))
    centres = np.asarray(np.round(np.concatenate(grids), 2), dtype=np.float64)
    return Sensor(names, centres, widths, nominal=True, source=source)


_ESA = (
    "ESA, Sentinel-2 MSI User Guide, Resolutions: Spatial and Spectral (bandwidths of the in-flight units), "
    "sentiwiki.copernicus.eu, 2026-01"
)
_ESA_CENTRES = (
    "ESA, Sentinel-2 MSI User Guide, spatial and spectral resolutions (band centres of Sentinel-2B)"
)
_USGS = (
    "USGS, What are the band designations for the Landsat satellites? (nominal band edges), "
    "usgs.gov/faqs/what-are-band-designations-landsat-satellites, 2026-01"
)
_TM = {
    "B1": (0.45, 0.52), "B2": (0.52, 0.60), "B3": (0.63, 0.69), "B4": (0.76, 0.90), "B5": (1.55, 1.75),
    "B6": (10.40, 12.50), "B7": (2.08, 2.35),
}  # fmt: skip
_ETM = _TM | {"B4": (0.77, 0.90), "B7": (2.09, 2.35), "B8": (0.52, 0.90)}
_OLI = {
    "B1": (0.43, 0.45), "B2": (0.45, 0.51), "B3": (0.53, 0.59), "B4": (0.64, 0.67), "B5": (0.85, 0.88),
    "B6": (1.57, 1.65), "B7": (2.11, 2.29), "B8": (0.50, 0.68), "B9": (1.36, 1.38), "B10": (10.60, 11.19),
    "B11": (11.50, 12.51),
}  # fmt: skip

#: Sensors by name.
SENSORS: dict[str, Sensor] = {
    "sentinel-2a": _table(
        _ESA, B1=(442.7, 21), B2=(492.4, 66), B3=(559.8, 36), B4=(664.6, 31), B5=(704.1, 15), B6=(740.5, 15),
        B7=(782.8, 20), B8=(832.8, 106), B8A=(864.7, 21), B9=(945.1, 20), B10=(1373.5, 31), B11=(1613.7, 91),
        B12=(2202.4, 175),
    ),
    "sentinel-2b": _centres(
        _ESA_CENTRES, B1=442.2, B2=492.1, B3=559.0, B4=664.9, B5=703.8, B6=739.1,
        B7=779.7, B8=832.9, B8A=864.0, B9=943.2, B10=1376.9, B11=1610.4,
        B12=2185.7,
    ),
    "landsat-5": _ranges(_USGS, **_TM),
    "landsat-7": _ranges(_USGS, **_ETM),
    "landsat-8": _ranges(_USGS, **_OLI),
    "landsat-9": _ranges(_USGS, **_OLI),
    "enmap": _spread(
        "DLR: VNIR 420 to 1000 nm, SWIR 900 to 2450 nm, 91 + 133 of the 224 bands of L2A products; mean "
        "sampling and resolution 6.5 and 10 nm: Guanter et al. 2015, doi:10.3390/rs70708830",
        (420, 1000, 91), (900, 2450, 133), fwhm=(6.5, 10),
    ),
    "prisma": _spread(
        "eoPortal, PRISMA: VNIR 400 to 1010 nm in 66 bands, SWIR 920 to 2505 nm in 173; FWHM at most 12 nm",
        (400, 1010, 66), (920, 2505, 173), fwhm=(12, 12),
    ),
    "emit": _spread(
        "NASA LP DAAC, EMITL1BRAD v001: 285 bands from 381 to 2493 nm, resolution about 7.5 nm",
        (381, 2493, 285), fwhm=(7.5,),
    ),
    "aviris": _spread(
        "JPL, AVIRIS Concept: 224 detectors of about 10 nm each from 380 to 2500 nm, "
        "aviris.jpl.nasa.gov/html/aviris.concept.html",
        (380, 2500, 224), fwhm=(10,),
    ),
    "hyspex-vnir-1600": _spread(
        "Cerra et al. 2021, DLR HySU, doi:10.3390/rs13132559: the 135 bands of the published images",
        (417.4, 902.79, 135),
    ),
}  # fmt: skip
