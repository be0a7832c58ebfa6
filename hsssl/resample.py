"""A cube brought to the bands of another sensor by its spectral response."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hsssl.cube import Cube
from hsssl.messages import log
from hsssl.prepare import read_parts, unmeasured_bands
from hsssl.sensors import sensor_bands
from hsssl.spectral_tools import band_centres

__all__ = ["resample"]

FloatArray = NDArray[np.float64]
# A Gaussian of full width w at half maximum is exp(-4 ln 2 (x / w)^2).
_FOUR_LN_2 = 4 * np.log(2)


def resample(
    cube: Cube,
    target: str | NDArray[np.floating[Any]],
    fwhm: NDArray[np.floating[Any]] | Sequence[float] | None = None,
) -> Cube:
    """Bring a cube to the bands of another sensor by its spectral response.

    The response of target band i is a Gaussian of its FWHM w about its centre c; the value is the mean of the
    physical values y over the good bands j, weighted by response and by the width d of the spectrum that each
    stands for (to the middles between its neighbours):

        Y_i = sum_j r_ij d_j y_j / sum_j r_ij d_j,    r_ij = exp(-4 ln 2 ((l_j - c_i) / w_i)^2)

    Parameters
    ----------
    cube : Cube
        With wavelengths; bands that are marked bad, or void, are not used. Physical values are
        raw value x scale + offset.
    target : str or ndarray, shape (m,)
        A sensor or some of its bands as `hsssl.sensors.sensor_bands` takes them ("sentinel-2a"), or centres
        in nm.
    fwhm : array_like, shape (m,), or None
        Widths in nm; needed with centres, and with sensors whose widths are not known.

    Returns
    -------
    Cube
        Physical values, float32, scale 1; NaN where a pixel is not valid.

    Raises
    ------
    ValueError
        If widths are missing or not positive, or a target band has no source band within half its FWHM on
        each side, so that it would be an extrapolation or lie in a gap.

    Examples
    --------
    >>> resample(cube, "sentinel-2a:B2,B3,B4,B8")                           # doctest: +SKIP
    """
    source = band_centres(cube, "resample")
    centres, widths = _target(target, fwhm, cube.source)
    used = np.flatnonzero(cube.good_bands & ~unmeasured_bands(cube))
    weights = _response(source[used], centres, widths, cube.source)  # (m, used)
    picked = cube.take_bands(used)
    out = np.full((cube.rows, cube.cols, centres.size), np.nan, dtype=np.float32)
    for part, values in read_parts(picked):
        physical = np.asarray(values, dtype=np.float64) * picked.scale + picked.offset
        mixed = physical @ weights.T
        out[part][cube.valid[part]] = mixed[cube.valid[part]]
    log.warning("%s: resampled %d of %d bands to %d", cube.source, used.size, cube.bands, centres.size)
    return Cube(
        values=out,
        wavelengths=centres,
        fwhm=widths,
        nodata=np.nan,
        valid=cube.valid,
        crs=cube.crs,
        transform=cube.transform,
        source=f"{cube.source} (resampled)",
        details={**cube.details, "resampled": "Gaussian response from FWHM"},
    )


def _target(target: Any, fwhm: Any, source: str) -> tuple[FloatArray, FloatArray]:
    centres, widths = sensor_bands(target) if isinstance(target, str) else (np.asarray(target, float), None)
    widths = widths if fwhm is None else np.asarray(fwhm, dtype=np.float64)
    if widths is None or widths.shape != centres.shape or not (np.isfinite(widths) & (widths > 0)).all():
        shape = None if widths is None else widths.shape
        raise ValueError(
            f"{source}: resampling needs a positive FWHM in nm for each of {centres.size} bands, "
            f"got {shape}; give fwhm"
        )
    return np.asarray(centres, dtype=np.float64), widths


def _response(source: FloatArray, centres: FloatArray, widths: FloatArray, name: str) -> FloatArray:
    """Return the weights (m, n) of n source bands in m target bands; rows sum to 1."""
    order = np.argsort(source, kind="stable")
    ordered = source[order]
    half = widths[:, None] / 2
    apart = ordered - centres[:, None]  # (m, n)
    below = ((apart <= 0) & (apart >= -half)).any(axis=1)
    above = ((apart >= 0) & (apart <= half)).any(axis=1)
    bare = np.flatnonzero(~(below & above))
    if bare.size:
        listed = ", ".join(f"{centres[i]:g} (FWHM {widths[i]:g})" for i in bare[:6])
        raise ValueError(
            f"{name}: no bands within half the FWHM on both sides of {bare.size} target bands: {listed} nm; "
            f"leave these out"
        )
    middles = (ordered[1:] + ordered[:-1]) / 2
    edges = np.concatenate([[ordered[0]], middles, [ordered[-1]]])
    stands_for = np.maximum(np.diff(edges), 1e-9)  # two bands at one wavelength share what they stand for
    weights: FloatArray = np.exp(-_FOUR_LN_2 * (apart / widths[:, None]) ** 2) * stands_for
    weights /= weights.sum(axis=1, keepdims=True)
    return weights[:, np.argsort(order)]
