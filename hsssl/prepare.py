"""From the raw cube to what a model sees: which bands, in which order, which pixels; values stay."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hsssl.blocks import cut_parts
from hsssl.cube import Cube, block_of, not_measured
from hsssl.messages import say_once
from hsssl.stream import read_ahead

__all__ = [
    "BandScan",
    "band_axis",
    "band_statistics",
    "number_ranges",
    "prepare",
    "read_parts",
    "scan_bands",
    "unmeasured_bands",
]

FloatArray = NDArray[np.float64]
# Where water vapour leaves no light, in nm (both ends included).
WATER_WINDOWS = ((1350.0, 1430.0), (1800.0, 1960.0), (2450.0, np.inf))
_TILE_VALUES = 2**21


@dataclass(frozen=True)
class BandScan:
    """Statistics of each band over valid pixels, raw numbers; NaN where nothing was measured."""

    minimum: FloatArray  # (bands,)
    maximum: FloatArray
    mean: FloatArray
    std: FloatArray
    measured: NDArray[np.int64]

    @property
    def void(self) -> NDArray[np.bool_]:
        """Bands in which no valid pixel was measured."""
        return np.equal(self.measured, 0)

    @property
    def constant(self) -> NDArray[np.bool_]:
        """Bands with one value over all valid pixels."""
        return np.equal(self.minimum, self.maximum)


def prepare(
    cube: Cube, *, keep: Sequence[int] | NDArray[np.int64] | None = None, drop_water: bool = False
) -> Cube:
    """Drop bands that say nothing, sort the rest by wavelength, and say each of it once.

    Dropped are bands that are void (nodata throughout), bad (by the file's own list), or constant
    over valid pixels. Where two detectors overlap, both bands stay, in order of wavelength, file
    order among equals. Pixels are not changed: ``valid`` marks those to use.

    Parameters
    ----------
    cube : Cube
        The raw cube.
    keep : sequence of int or None
        Band numbers in the file (`Cube.source_index`, from 0) to keep, exactly these: what an
        encoder was trained on, for another image of the same sensor. None chooses as above.
    drop_water : bool
        Drop bands in the windows of water vapour too (1350 to 1430, 1800 to 1960, from 2450 nm);
        for scenes from which they are not removed yet and that have no list of bad bands.

    Returns
    -------
    Cube
        Kept bands with the raw values, dtype kept (in the machine's byte order); ``source_index``
        says which band of the file each is.

    Raises
    ------
    ValueError
        If no valid pixel or no band remains, or ``keep`` names a band that is missing or void.

    Examples
    --------
    >>> values = np.stack([np.zeros((2, 2)), [[1, 2], [3, 4]]], axis=2)
    >>> prepare(Cube(values, wavelengths=np.array([500.0, 510.0]))).source_index
    array([1])
    """
    if not cube.valid.any():
        raise ValueError(
            f"{cube.source}: no valid pixel, all are nodata ({cube.nodata}) or not finite; check nodata"
        )
    scan = scan_bands(cube)
    kept = ~_dropped(cube, scan, drop_water=drop_water) if keep is None else _asked_for(cube, scan, keep)
    index = np.flatnonzero(kept)
    if cube.wavelengths is None:
        say_once(
            "%s: no wavelengths; band n counts as 400 + 10 n nm; give --wavelengths for the true ones",
            cube.source,
        )
    elif (np.diff(cube.wavelengths[index]) < 0).any():
        index = index[np.argsort(cube.wavelengths[index], kind="stable")]
        say_once("%s: sorted its %d bands by wavelength; the file's order differs", cube.source, index.size)
    invalid = int(cube.valid.size - np.count_nonzero(cube.valid))
    if invalid:
        share = 100 * invalid / cube.valid.size
        say_once("%s: masked %d pixels (%.2g %%): nodata or not finite", cube.source, invalid, share)
    prepared = cube if np.array_equal(index, np.arange(cube.bands)) else cube.take_bands(index)
    if not prepared.values.dtype.isnative:
        native = prepared.values.dtype.newbyteorder("=")
        prepared = replace(prepared, values=prepared.values.astype(native))
    return prepared


def band_axis(cube: Cube) -> FloatArray:
    """Return band centres in nm, or a stand-in where the cube has none.

    The stand-in is 400 + 10 n nm for band n (from 0) of the file, the spacing of common sensors; it
    depends on the file's numbering only, so dropping bands does not move the others.

    Returns
    -------
    ndarray, shape (bands,), float64
    """
    if cube.wavelengths is None:
        return 400.0 + 10.0 * cube.source_index.astype(np.float64)
    return np.asarray(cube.wavelengths, dtype=np.float64)


def band_statistics(cube: Cube) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return mean and standard deviation of each band over valid pixels, in raw numbers.

    Sums run in float64 over parts; the cube is never copied as a whole. The standard
    deviation is that of the population (divided by n).

    Returns
    -------
    mean, std : ndarray, shape (bands,), float32
        NaN in a band in which no valid pixel was measured.

    Raises
    ------
    ValueError
        If there is no valid pixel.
    """
    if not cube.valid.any():
        raise ValueError(f"{cube.source}: no valid pixel to take statistics of; check the nodata value")
    scan = scan_bands(cube)
    return scan.mean.astype(np.float32), scan.std.astype(np.float32)


def scan_bands(cube: Cube) -> BandScan:
    """Take the statistics of every band over valid pixels in one pass, tile by tile."""
    bands = cube.bands
    count = np.zeros(bands, dtype=np.int64)
    mean, squares = np.zeros(bands), np.zeros(bands)
    minimum, maximum = np.full(bands, np.inf), np.full(bands, -np.inf)
    for part, values in read_parts(cube):
        raw = values[cube.valid[part]]  # (pixels, bands)
        measured = ~not_measured(raw, cube.nodata)
        tile = raw.astype(np.float64)
        number = measured.sum(axis=0)
        total = count + number
        safe = np.maximum(total, 1)
        # Merging means and squared deviations (Chan, Golub, LeVeque 1983) loses no digits to large offsets.
        tile_mean = tile.sum(axis=0, where=measured) / np.maximum(number, 1)
        step = np.where(number > 0, tile_mean - mean, 0.0)
        deviation = np.square(np.subtract(tile, tile_mean, out=np.zeros_like(tile), where=measured))
        squares += deviation.sum(axis=0) + step**2 * count * number / safe
        mean += step * number / safe
        count = total
        minimum = np.minimum(minimum, tile.min(axis=0, where=measured, initial=np.inf))
        maximum = np.maximum(maximum, tile.max(axis=0, where=measured, initial=-np.inf))
    void = count == 0
    std = np.sqrt(squares / np.maximum(count, 1))
    for array in (minimum, maximum, mean, std):
        array[void] = np.nan
    return BandScan(minimum, maximum, mean, std, count)


def read_parts(cube: Cube, *, in_order: bool = False) -> Iterator[tuple[tuple[slice, slice], NDArray[Any]]]:
    """Yield parts of about two million values, (rows, cols), and their values; the next is read meanwhile.

    They follow the blocks of a compressed file; otherwise, or ``in_order``, they are strips of rows, from the
    first to the last.
    """
    block = None if in_order else block_of(cube.values)
    parts = list(cut_parts(cube.values.shape, _TILE_VALUES, block))
    return read_ahead(parts, cube.values.__getitem__)


def unmeasured_bands(cube: Cube) -> NDArray[np.bool_]:
    """Mark bands in which no valid pixel was measured."""
    measured = np.zeros(cube.bands, dtype=bool)
    for part, values in read_parts(cube):
        measured |= (~not_measured(values[cube.valid[part]], cube.nodata)).any(axis=0)
    return ~measured


def number_ranges(numbers: Sequence[int] | NDArray[np.int64]) -> str:
    """Write sorted numbers briefly: 3, 5-9, 12."""
    runs: list[list[int]] = []
    for number in sorted(int(number) for number in numbers):
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)


def _dropped(cube: Cube, scan: BandScan, *, drop_water: bool) -> NDArray[np.bool_]:
    """Mark the bands to drop, and say for each reason how many and which."""
    reasons = [
        ("void", scan.void, "no pixel measured"),
        ("bad", ~cube.good_bands, "marked bad in the file"),
        ("constant", scan.constant, "one value over all valid pixels"),
    ]
    if drop_water:
        reasons.append(("water", _in_water_windows(cube), "no light passes water vapour there"))
    dropped = np.zeros(cube.bands, dtype=bool)
    said = []
    for kind, marked, why in reasons:
        new = marked & ~dropped
        if new.any():
            which = number_ranges(cube.source_index[new])
            say_once("%s: dropped %d %s bands (%s, from 0): %s", cube.source, new.sum(), kind, which, why)
            said.append(f"{new.sum()} {kind}")
        dropped |= new
    if dropped.all():
        raise ValueError(
            f"{cube.source}: no band remains: {', '.join(said)}; check nodata and the bad-band list"
        )
    return dropped


def _in_water_windows(cube: Cube) -> NDArray[np.bool_]:
    if cube.wavelengths is None:
        raise ValueError(f"{cube.source}: dropping water windows needs wavelengths; give --wavelengths")
    centres = cube.wavelengths
    water = np.zeros(cube.bands, dtype=bool)
    for low, high in WATER_WINDOWS:
        water |= (low <= centres) & (centres <= high)
    return water


def _asked_for(cube: Cube, scan: BandScan, keep: Sequence[int] | NDArray[np.int64]) -> NDArray[np.bool_]:
    wanted = np.unique(np.asarray(keep, dtype=np.int64))
    missing = np.setdiff1d(wanted, cube.source_index)
    if missing.size or not wanted.size:
        which = number_ranges(missing) or "none"
        raise ValueError(
            f"{cube.source}: bands to keep are not in the cube ({which}); it has {cube.bands} bands"
        )
    kept = np.isin(cube.source_index, wanted)
    if (kept & scan.void).any():
        which = number_ranges(cube.source_index[kept & scan.void])
        raise ValueError(
            f"{cube.source}: bands to keep are void ({which}, from 0); use an image that has them"
        )
    return kept
