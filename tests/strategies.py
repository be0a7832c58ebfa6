"""Hypothesis strategies: cubes of many dtypes, with and without nodata, wavelengths and bad bands."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from hsssl.cube import Cube

INTEGERS = ("u1", "i2", "u2", "i4")
REALS = ("f4", "f8")


@st.composite
def arrays(draw: st.DrawFn, *, dtypes: tuple[str, ...] = INTEGERS + REALS, largest: int = 6) -> np.ndarray:
    """Values (rows, cols, bands), integers between 0 and 120 in any of the dtypes."""
    shape = tuple(draw(st.integers(1, largest)) for _ in range(3))
    seed = draw(st.integers(0, 2**32 - 1))
    dtype = draw(st.sampled_from(dtypes))
    return np.random.default_rng(seed).integers(0, 121, shape).astype(dtype)


@st.composite
def wavelengths(draw: st.DrawFn, bands: int) -> np.ndarray | None:
    """Band centres in nm in any order, repeated ones too; or None."""
    if draw(st.booleans()):
        return None
    whole = st.integers(350, 2500)
    return np.array(draw(st.lists(whole, min_size=bands, max_size=bands)), dtype=np.float64)


@st.composite
def cubes(draw: st.DrawFn) -> Cube:
    """Cubes with void, constant and bad bands and unmeasured pixels among the ordinary ones."""
    values = draw(arrays())
    rows, cols, bands = values.shape
    nodata = draw(st.sampled_from([None, 0.0, 7.0]))
    flags = st.lists(st.sampled_from("     vcb"), min_size=bands, max_size=bands)
    kinds = draw(flags)
    for band, kind in enumerate(kinds):
        if kind == "v" and nodata is not None:
            values[:, :, band] = nodata
        if kind == "c":
            values[:, :, band] = 3
    if values.dtype.kind == "f" and draw(st.booleans()):
        values[draw(st.integers(0, rows - 1)), draw(st.integers(0, cols - 1))] = np.nan
    good = np.array([kind != "b" for kind in kinds])
    return Cube(values, wavelengths=draw(wavelengths(bands)), good_bands=good, nodata=nodata)
