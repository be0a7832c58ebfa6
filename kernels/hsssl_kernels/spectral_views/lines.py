"""How a resident cube lies in memory: pixel after pixel, each with its bands, or a little more, in a line."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["AT_ONCE", "filled", "in_lines", "is_padded", "padded", "resident_cube", "resident_line"]

# Bands that a thread of the GPU's kernel takes at once, and its smoothing spells out.
AT_ONCE = 8


def resident_cube(cube: Tensor, device: torch.device | str | None = None) -> Tensor:
    """Return a cube on a device as `spectral_views` reads it fastest there.

    Anywhere but on the CPU each pixel's bands then begin at a multiple of eight numbers, for a thread to load
    eight bands at once, unless that took more than a quarter more memory. Of 103 bands, views then take two
    thirds of the instructions that they take from a contiguous cube, and the cube a hundredth more memory.

    Parameters
    ----------
    cube : Tensor, shape (rows, cols, bands)
        Raw numbers of any dtype.
    device : torch.device or str, optional
        Where it shall be; where it is unless given.

    Returns
    -------
    cube : Tensor, shape (rows, cols, bands)
        The same numbers; on the CPU contiguous.

    Raises
    ------
    ValueError
        If the cube has not three axes.

    Examples
    --------
    >>> cube = resident_cube(torch.zeros(610, 340, 103, dtype=torch.int16))
    """
    if cube.ndim != 3:
        raise ValueError(
            f"resident_cube: `cube` must be (rows, cols, bands), got {tuple(cube.shape)}; bands come last"
        )
    target = cube.device if device is None else torch.device(device)
    if resident_line(cube.shape[2], target) == cube.shape[2]:
        return cube.to(target).contiguous()
    return padded(cube, target)


def resident_line(bands: int, device: torch.device) -> int:
    """Return the numbers that each pixel of a `resident_cube` takes."""
    wide = filled(bands)
    return wide if device.type != "cpu" and 4 * wide <= 5 * bands else bands


def padded(cube: Tensor, device: torch.device) -> Tensor:
    """Return a cube on a device in which every pixel has as many numbers as `filled` says, those added 0."""
    rows, cols, bands = cube.shape
    lines = cube.new_zeros(rows, cols, filled(bands))
    lines[:, :, :bands] = cube
    return lines.to(device)[:, :, :bands]


def filled(bands: int) -> int:
    """Return the number of bands, filled up to a multiple of those taken at once."""
    return -(-bands // AT_ONCE) * AT_ONCE


def in_lines(cube: Tensor) -> tuple[Tensor, int]:
    """Return a cube whose pixels lie at one distance, each with its bands side by side, and the distance."""
    _, cols, bands = cube.shape
    row, pixel, band = cube.stride()
    if not cube.is_contiguous() and band == 1 and pixel >= bands and row == cols * pixel:
        return cube, pixel
    return cube.contiguous(), bands


def is_padded(cube: Tensor, line: int) -> bool:
    """Return whether every pixel of a cube `in_lines` has as many numbers to read as `filled` says."""
    rows, cols, bands = cube.shape
    end = cube.storage_offset() + (rows * cols - 1) * line + filled(bands)
    return line % AT_ONCE == 0 and end * cube.itemsize <= cube.untyped_storage().nbytes()
