"""Pseudo-endmembers: a bundle of spectra from tiles of the scene, with the shares each of them stands for."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hsssl.cube import Cube
from hsssl.rows import unit_rows
from hsssl.unmix.extraction import vca
from hsssl.unmix.pure_pixels import pure_pixels
from hsssl.unmix.solvers import nnls

__all__ = ["pseudo_endmembers"]

FloatArray = NDArray[np.float64]


def pseudo_endmembers(
    cube: Cube, measured: NDArray[np.bool_], endmembers: int, *, seed: int = 0, tiles: int = 6
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return endmembers of the scene, and spectra of its tiles with their shares of these.

    The scene is cut into ``tiles`` x ``tiles`` overlapping squares; VCA finds p spectra in each. Their shares
    come from sparse unmixing at sparsity 0, which is NNLS, divided by the sum (Hong et al. 2021). A choice of
    this package: the endmembers that shares refer to are those of `hsssl.unmix.pure_pixels` on the whole
    scene, for a clustering of the tiles' spectra follows VCA's bad seeds; all of it on spectra of length one.

    Parameters
    ----------
    cube : Cube
        Prepared.
    measured : ndarray, shape (rows, cols), bool
        Pixels to use; a tile with fewer than 4 p of them is skipped, and so is a flat one.
    endmembers : int
        How many, p.
    seed : int
        Of VCA, another one in each tile.
    tiles : int
        Tiles along each side.

    Returns
    -------
    endmembers : ndarray, shape (p, bands)
        Of the scene, raw numbers.
    spectra : ndarray, shape (n, bands)
        Of length one: the endmembers first, then the tiles'.
    shares : ndarray, shape (n, p)
        Of sum one.

    References
    ----------
    Hong et al. 2021, "Endmember-guided unmixing network (EGU-Net)", arXiv:2105.10194, section III.
    """
    from hsssl.unmix.pixels import sample_pixels

    found = pure_pixels(sample_pixels(cube, measured, seed=seed), endmembers)
    axes = unit_rows(found)
    bundle = [axes]
    for number, (rows, cols) in enumerate(_squares(cube.rows, cube.cols, tiles)):
        here = measured[rows, cols]
        if here.sum() < 4 * endmembers:
            continue
        pixels = unit_rows(cube.values[rows, cols][here])
        try:
            bundle.append(pixels[vca(pixels, endmembers, seed=seed * tiles * tiles + number)])
        except ValueError:  # a tile of one material has no p corners
            continue
    spectra = np.concatenate(bundle)
    spectra = spectra[np.linalg.norm(spectra, axis=1) > 0]
    signal: FloatArray = nnls(spectra, axes)
    return found, spectra, signal / np.maximum(signal.sum(axis=1, keepdims=True), 1e-12)


def _squares(rows: int, cols: int, tiles: int) -> list[tuple[slice, slice]]:
    """Cut both sides into ``tiles`` parts that overlap by half."""
    sides = []
    for length in (rows, cols):
        side = max(1, int(np.ceil(2 * length / (tiles + 1))))
        starts = np.unique(np.linspace(0, max(0, length - side), tiles).round().astype(int))
        sides.append([slice(start, start + side) for start in starts.tolist()])
    return [(row, col) for row in sides[0] for col in sides[1]]
