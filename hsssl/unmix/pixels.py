"""The pixels of a scene that can be unmixed, and the spectra that endmembers are learnt from."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hsssl.cube import Cube, not_measured
from hsssl.messages import say_once
from hsssl.prepare import read_parts
from hsssl.stream import places_inside

__all__ = ["measured_pixels", "sample_pixels"]

#: Most values that endmembers are learnt from: 128 MiB as float32, and some times that on the way.
LEARN_VALUES = 2**25


def measured_pixels(cube: Cube) -> NDArray[np.bool_]:
    """Return which pixels (rows, cols) were measured in every band of a prepared cube, and say what is odd.

    One NaN in one band takes the pixel out, for it would spread over all its abundances.
    """
    measured = cube.valid.copy()
    negative = 0
    for part, values in read_parts(cube):
        measured[part] &= ~not_measured(values, cube.nodata).any(axis=2)
        known = values[measured[part]]
        negative += int(np.count_nonzero(known * cube.scale + cube.offset < 0)) if known.size else 0
    lost = int(cube.valid.sum() - measured.sum())
    if lost:
        say_once("%s: left out %d more pixels with a band that was not measured", cube.source, lost)
    if negative:
        share = 100 * negative / (measured.sum() * cube.bands)
        say_once(
            "%s: %d values (%.2g %%) are negative, which no mixture of reflecting materials is; they stay "
            "as they are and count in the error; check the atmospheric correction",
            cube.source, negative, share,
        )  # fmt: skip
    if not measured.any():
        raise ValueError(
            f"{cube.source}: no pixel was measured in every band; drop the bands that lack values"
        )
    return measured


def sample_pixels(cube: Cube, measured: NDArray[np.bool_], *, seed: int = 0) -> NDArray[np.float32]:
    """Return the spectra (n, bands) to learn endmembers from: all measured ones, or a random part of many.

    Raises
    ------
    ValueError
        If no pixel was measured.
    """
    places = np.flatnonzero(measured)
    most = max(LEARN_VALUES // cube.bands, 1)
    if places.size > most:
        say_once(
            "%s: learns endmembers from %d of %d pixels, drawn by the seed", cube.source, most, places.size
        )
        places = np.sort(np.random.default_rng(seed).choice(places, most, replace=False))
    spectra = np.empty((places.size, cube.bands), dtype=np.float32)
    for (rows, cols), values in read_parts(cube):
        which, row, col = places_inside(places, cube.cols, rows, cols)
        spectra[which] = values[row, col]
    return spectra
