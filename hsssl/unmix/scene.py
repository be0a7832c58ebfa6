"""A scene unmixed: one face for all methods, tile by tile."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hsssl.cube import Cube
from hsssl.messages import unknown_name
from hsssl.prepare import prepare
from hsssl.stream import Tick, Tile, cut_tiles, stream_tiles
from hsssl.unmix.extraction import atgp, check_pixels, nfindr, spa, vca
from hsssl.unmix.learned import RULES, Learned, abundances_of
from hsssl.unmix.pixels import measured_pixels, sample_pixels
from hsssl.unmix.pure_pixels import pure_pixels

__all__ = ["UNMIXERS", "Unmixing", "unmix"]

Fit = Callable[..., Learned]
FloatArray = NDArray[np.floating[Any]]


@dataclass(frozen=True, eq=False)
class Unmixing:
    """Endmembers of a scene and their abundance in every pixel.

    Parameters
    ----------
    endmembers : ndarray, shape (p, bands), float32
        Spectra in the cube's raw numbers, on the bands of ``cube``.
    abundances : ndarray, shape (rows, cols, p), float32
        Non-negative; NaN where a pixel was not measured.
    error : ndarray, shape (rows, cols), float32
        Root mean squared difference between a pixel and its reconstruction over the bands, raw numbers.
    cube : Cube
        The prepared cube: bands that say nothing are dropped.
    method : str
        Key of `UNMIXERS`.
    rule : str
        How abundances follow from the endmembers, a key of `hsssl.unmix.RULES`; "network" where a network
        gives them.
    pseudo : bool
        True if ``endmembers`` are pseudo-endmembers: spectra found beforehand that guide a network, which
        reconstructs without them.
    seed : int
        Key of all that was drawn.
    """

    endmembers: NDArray[np.float32]
    abundances: NDArray[np.float32]
    error: NDArray[np.float32]
    cube: Cube
    method: str
    rule: str
    pseudo: bool
    seed: int

    @property
    def names(self) -> tuple[str, ...]:
        """Name of each endmember: "endmember 1" and so on, or "pseudo-endmember 1"."""
        word = "pseudo-endmember" if self.pseudo else "endmember"
        return tuple(f"{word} {number}" for number in range(1, len(self.endmembers) + 1))


def unmix(
    cube: Cube,
    *,
    endmembers: int,
    method: str = "pure_pixels",
    seed: int = 0,
    rule: str | None = None,
    progress: bool | None = None,
) -> Unmixing:
    """Find the endmembers of a scene and how much of each is in every pixel.

    The cube is prepared first (`hsssl.prepare`): void, bad and constant bands are dropped; pixels that were
    not measured in every band left get NaN and influence nothing. Endmembers are learnt from at most 2^26
    values; abundances are computed tile by tile, and take 4 (p + 1) bytes a pixel with their error.

    Parameters
    ----------
    cube : Cube
        Raw or prepared.
    endmembers : int
        How many, p; `hsssl.unmix.hysime` estimates it.
    method : str
        Key of `UNMIXERS`. The default is the best on the scenes that it was measured on.
    seed : int
        Key of all that is drawn. ``pure_pixels`` and ``spa`` draw nothing below 2^26 values.
    rule : {"signal", "fcls", "nnls"}, optional
        How abundances follow from the endmembers, see `hsssl.unmix.RULES`. None is the method's own: "fcls"
        for vca, nfindr, spa and atgp, "signal" for pure_pixels and daeu, the network for egu_net. "signal"
        does not care for the brightness of materials, light and shade; "fcls" are shares of area where it is
        all known.
    progress : bool, optional
        Show a progress bar; None shows it on a terminal.

    Returns
    -------
    Unmixing
        With ``.endmembers`` (p, bands) in raw numbers and ``.abundances`` (rows, cols, p).

    Raises
    ------
    ValueError
        If there are fewer pixels, bands or independent spectra than endmembers, no pixel was measured, or
        method or rule is unknown.

    Examples
    --------
    >>> mix = np.array([[0.0, 0.25], [0.5, 1.0]])[:, :, None]
    >>> cube = Cube(mix * [1.0, 3.0, 5.0] + (1 - mix) * [4.0, 4.0, 1.0])
    >>> unmix(cube, endmembers=2, method="spa").abundances[:, :, 0].round(2).tolist()
    [[0.0, 0.25], [0.5, 1.0]]
    """
    if method not in UNMIXERS:
        raise unknown_name("unmixing method", method, UNMIXERS)
    if rule is not None and rule not in RULES:
        raise unknown_name("abundance rule", rule, RULES)
    if isinstance(endmembers, bool) or not isinstance(endmembers, (int, np.integer)) or endmembers < 1:
        raise ValueError(f"unmix: endmembers must be a whole number, at least 1, got {endmembers!r}")
    prepared = prepare(cube)
    measured = measured_pixels(prepared)
    if endmembers > min(prepared.bands, int(measured.sum())):
        raise ValueError(
            f"{cube.source}: {endmembers} endmembers need as many bands and pixels; there are "
            f"{prepared.bands} usable bands and {int(measured.sum())} measured pixels"
        )
    fit, own = UNMIXERS[method]
    learned = fit(prepared, measured, endmembers, seed=seed, progress=progress)
    used = rule or own
    abundances, error = _over_scene(
        prepared, measured, learned, None if used == "network" else used, progress
    )
    return Unmixing(
        learned.endmembers.astype(np.float32), abundances, error, prepared, method, used, learned.pseudo, seed
    )


def _over_scene(
    cube: Cube, measured: NDArray[np.bool_], learned: Learned, rule: str | None, progress: bool | None
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return abundances (rows, cols, p) and error (rows, cols), by a rule or else by the model."""
    p = len(learned.endmembers)
    abundances = np.full((cube.rows, cube.cols, p), np.nan, dtype=np.float32)
    error = np.full((cube.rows, cube.cols), np.nan, dtype=np.float32)

    def read(tile: Tile) -> NDArray[np.float32]:
        values = cube.values[tile.around].astype(np.float32)
        values[~measured[tile.around]] = 0
        return values

    def compute(tile: Tile, values: NDArray[np.float32], tick: Tick) -> tuple[FloatArray, FloatArray]:
        known = measured[tile.rows, tile.cols]
        seen = values[tile.inner][known]  # (n, bands)
        if not len(seen):
            return np.empty((0, p)), np.empty(0)
        if rule is not None:
            shares, rebuilt = abundances_of(seen, learned.endmembers, rule)
        else:
            assert learned.model is not None
            shares, rebuilt = (part[tile.inner][known] for part in learned.model(values))
        return shares, np.sqrt(np.square(seen - rebuilt).mean(axis=1))

    def write(tile: Tile, found: tuple[FloatArray, FloatArray]) -> None:
        known = measured[tile.rows, tile.cols]
        for image, part in zip((abundances, error), found, strict=True):
            image[tile.rows, tile.cols][known] = part

    # float32 as read, and float64 three times in the solver and for the error
    layout = {"pixel_bytes": 28 * cube.bands, "halo": learned.margin if rule is None else 0}
    tiles = cut_tiles(cube.rows, cube.cols, **layout)
    stream_tiles(tiles, read, compute, write, desc="abundances", progress=progress)
    return abundances, error


def _extracted(
    extract: Callable[..., NDArray[np.int64]], cube: Cube, measured: NDArray[np.bool_], p: int, **options: Any
) -> Learned:
    """Fit by choosing pixels."""
    pixels = sample_pixels(cube, measured, seed=options["seed"])
    drawn = {"seed": options["seed"]} if extract in (vca, nfindr) else {}
    return Learned(pixels[extract(pixels, p, **drawn)].astype(np.float64))


def _pure_pixels(cube: Cube, measured: NDArray[np.bool_], p: int, *, seed: int, progress: Any) -> Learned:
    """Fit by `hsssl.unmix.pure_pixels`."""
    pixels = sample_pixels(cube, measured, seed=seed)
    check_pixels(cube.source, pixels, p)
    return Learned(pure_pixels(pixels, p))


def _daeu(*given: Any, **options: Any) -> Learned:
    from hsssl.unmix.daeu import fit_daeu

    return fit_daeu(*given, **options)


def _egu_net(*given: Any, **options: Any) -> Learned:
    from hsssl.unmix.egu_net import fit_egu_net

    return fit_egu_net(*given, **options)


#: Name -> (how it is fitted, the rule of its abundances).
UNMIXERS: dict[str, tuple[Fit, str]] = {
    "pure_pixels": (_pure_pixels, "signal"),
    "daeu": (_daeu, "signal"),
    "egu_net": (_egu_net, "network"),
    "egu_net_spatial": (partial(_egu_net, spatial=True), "network"),
    "spa": (partial(_extracted, spa), "fcls"),
    "atgp": (partial(_extracted, atgp), "fcls"),
    "vca": (partial(_extracted, vca), "fcls"),
    "nfindr": (partial(_extracted, nfindr), "fcls"),
}
