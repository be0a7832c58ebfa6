"""The signal-to-noise ratio of a cube, estimated from the image itself."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hsssl.cube import Cube, not_measured
from hsssl.prepare import read_parts

__all__ = ["estimate_snr"]

FloatArray = NDArray[np.float64]
_BLOCK = 6


def estimate_snr(cube: Cube) -> tuple[FloatArray, FloatArray]:
    """Estimate the signal-to-noise ratio of each band from the image itself.

    In every block of 6 x 6 valid pixels, a band is predicted from the two bands beside it, leaving out void
    ones, and from the pixel to the left, by least squares with a constant; what is left is noise, as signal
    is alike in neighbours and noise is not. The noise of a band is the median over blocks of sqrt(residual
    sum of squares / (30 - 4)); the signal is the mean physical value of valid pixels.

    Parameters
    ----------
    cube : Cube
        At least 3 bands measured in all valid pixels, and one block of valid pixels; bands in order of
        wavelength.

    Returns
    -------
    snr : ndarray, shape (bands,), float64
        Signal / noise; infinite where there is no noise, NaN in void bands and in bad ones with gaps.
    noise : ndarray, shape (bands,), float64
        Standard deviation in physical units (raw value x scale).

    Raises
    ------
    ValueError
        If there are fewer than 3 bands measured in all valid pixels, or no block of valid pixels.

    References
    ----------
    Roger, Arnold 1996: Reliably estimating the noise in AVIRIS hyperspectral images. Int. J. Remote
    Sensing 17, doi:10.1080/01431169608949071 (spectral and spatial decorrelation)
    """
    measured = np.flatnonzero(_measured_bands(cube))
    if measured.size < 3:
        raise ValueError(
            f"{cube.source}: noise is estimated from 3 bands and more, got {measured.size} of {cube.bands} "
            "measured in all valid pixels"
        )
    snr, noise = np.full((2, cube.bands), np.nan)
    snr[measured], noise[measured] = _of_measured(cube.take_bands(measured))
    return snr, noise


def _measured_bands(cube: Cube) -> NDArray[np.bool_]:
    """Mark bands measured in every valid pixel: void bands are not, nor bad ones with gaps of their own."""
    lacking = np.zeros(cube.bands, dtype=bool)
    for part, values in read_parts(cube):
        lacking |= not_measured(values[cube.valid[part]], cube.nodata).any(axis=0)
    return ~lacking


def _of_measured(cube: Cube) -> tuple[FloatArray, FloatArray]:
    """Return SNR and noise (bands,) of a cube without void bands."""
    found = [_block_noise(cube, slice(top, top + _BLOCK)) for top in range(0, cube.rows - _BLOCK + 1, _BLOCK)]
    blocks = np.concatenate(found) if found else np.zeros((0, cube.bands))
    if len(blocks) == 0:
        raise ValueError(f"{cube.source}: no block of {_BLOCK} x {_BLOCK} valid pixels to estimate noise in")
    noise = np.median(blocks, axis=0) * np.abs(cube.scale)
    total, pixels = np.zeros(cube.bands), int(np.count_nonzero(cube.valid))
    for part, values in read_parts(cube):
        total += values[cube.valid[part]].astype(np.float64).sum(axis=0)
    signal = total / pixels * cube.scale + cube.offset
    with np.errstate(divide="ignore", invalid="ignore"):
        return signal / noise, noise


def _block_noise(cube: Cube, rows: slice) -> FloatArray:
    """Return the noise (blocks, bands), raw, of the blocks of a strip whose pixels are all valid."""
    strip = np.asarray(cube.values[rows], dtype=np.float64)  # (6, cols, bands)
    whole = cube.cols // _BLOCK
    valid = cube.valid[rows, : whole * _BLOCK].reshape(_BLOCK, whole, _BLOCK).all(axis=(0, 2))
    tiled = strip[:, : whole * _BLOCK].reshape(_BLOCK, whole, _BLOCK, cube.bands)
    tiled = tiled.transpose(1, 0, 2, 3)[valid]  # (blocks, 6, 6, bands)
    here = tiled[:, :, 1:].reshape(len(tiled), _BLOCK * (_BLOCK - 1), cube.bands)  # (blocks, 30, bands)
    left = tiled[:, :, :-1].reshape(here.shape)
    noise = np.empty((len(tiled), cube.bands))
    for band in range(cube.bands):
        beside = [band - 1, band + 1]
        beside = [1, 2] if band == 0 else [band - 2, band - 1] if band == cube.bands - 1 else beside
        terms = np.stack([here[:, :, beside[0]], here[:, :, beside[1]], left[:, :, band]], axis=2)
        terms = terms - terms.mean(axis=1, keepdims=True)
        aim = here[:, :, band] - here[:, :, band].mean(axis=1, keepdims=True)
        weights = np.linalg.pinv(terms) @ aim[:, :, None]  # (blocks, 3, 1)
        rest = aim - (terms @ weights)[:, :, 0]
        noise[:, band] = np.sqrt((rest**2).sum(axis=1) / (here.shape[1] - 4))
    return noise
