"""A scene unmixed: one face for all methods."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from numpy.typing import NDArray

from hsssl.cube import Cube
from hsssl.messages import unknown_name
from hsssl.prepare import prepare
from hsssl.unmix.extraction import atgp, check_pixels, nfindr, spa, vca
from hsssl.unmix.learned import RULES, Learned
from hsssl.unmix.mixture import Mixture, Unmixing
from hsssl.unmix.pixels import measured_pixels, sample_pixels
from hsssl.unmix.pure_pixels import pure_pixels

if TYPE_CHECKING:
    from hsssl.unmix.output import MapFormat

__all__ = ["UNMIXERS", "find_mixture", "unmix"]

Fit = Callable[..., Learned]


@overload
def unmix(
    cube: Cube,
    *,
    endmembers: int,
    method: str = "pure_pixels",
    seed: int = 0,
    rule: str | None = None,
    out: None = None,
    maps: MapFormat = "geotiff",
    overwrite: bool = False,
    progress: bool | None = None,
) -> Unmixing: ...


@overload
def unmix(
    cube: Cube,
    *,
    endmembers: int,
    method: str = "pure_pixels",
    seed: int = 0,
    rule: str | None = None,
    out: str | Path,
    maps: MapFormat = "geotiff",
    overwrite: bool = False,
    progress: bool | None = None,
) -> Path: ...


def unmix(
    cube: Cube,
    *,
    endmembers: int,
    method: str = "pure_pixels",
    seed: int = 0,
    rule: str | None = None,
    out: str | Path | None = None,
    maps: MapFormat = "geotiff",
    overwrite: bool = False,
    progress: bool | None = None,
) -> Unmixing | Path:
    """Find the endmembers of a scene and how much of each is in every pixel, or write all of it to a folder.

    The cube is prepared first (`hsssl.prepare`): void, bad and constant bands are dropped; pixels that were
    not measured in every band left get NaN and influence nothing. Endmembers are learnt from a bounded
    number of values (`hsssl.unmix.pixels.LEARN_VALUES`); abundances are computed tile by tile. With ``out``,
    memory is bounded by the tile; without, abundances and error take 4 (p + 1) bytes a pixel.

    Parameters
    ----------
    cube : Cube
        Raw or prepared.
    endmembers : int
        How many, p; `hsssl.unmix.hysime` estimates it.
    method : str
        Key of `UNMIXERS`. The default is the best on the scenes that it was measured on.
    seed : int
        Key of all that is drawn. ``pure_pixels`` and ``spa`` draw nothing below that number of values.
    rule : {"signal", "fcls", "nnls"}, optional
        How abundances follow from the endmembers, see `hsssl.unmix.RULES`. None is the method's own: "fcls"
        for vca, nfindr, spa and atgp, "signal" for pure_pixels and daeu, the network for egu_net. "signal"
        does not care for the brightness of materials, light and shade; "fcls" are shares of area where it is
        all known.
    out : path, optional
        Write maps, spectra, pictures and a report to this folder (`hsssl.unmix.output.write_unmixing`), and
        return no array.
    maps : {"geotiff", "envi"}
        Format of the maps at ``out``.
    overwrite : bool
        Replace the files of an earlier unmixing at ``out``.
    progress : bool, optional
        Show a progress bar with pixels per second; None shows it on a terminal.

    Returns
    -------
    Unmixing
        With ``.endmembers`` (p, bands) in raw numbers and ``.abundances`` (rows, cols, p). With ``out``, its
        path.

    Raises
    ------
    FileExistsError
        If a file of an earlier unmixing is at ``out`` and ``overwrite`` is off.
    ValueError
        If there are fewer pixels, bands or independent spectra than endmembers, no pixel was measured, or
        method, rule or format of the maps is unknown.

    Examples
    --------
    >>> mix = np.array([[0.0, 0.25], [0.5, 1.0]])[:, :, None]
    >>> cube = Cube(mix * [1.0, 3.0, 5.0] + (1 - mix) * [4.0, 4.0, 1.0])
    >>> unmix(cube, endmembers=2, method="spa").abundances[:, :, 0].round(2).tolist()
    [[0.0, 0.25], [0.5, 1.0]]
    """
    how: dict[str, Any] = {"method": method, "seed": seed, "rule": rule, "progress": progress}
    if out is None:
        return find_mixture(cube, endmembers, **how).over_scene(progress=progress)
    from hsssl.unmix.output import refuse_unmixing, write_unmixing

    refuse_unmixing(out, maps=maps, overwrite=overwrite)  # before the work, not after it
    found = find_mixture(cube, endmembers, **how)
    write_unmixing(out, found, maps=maps, overwrite=overwrite, progress=progress)
    return Path(out)


def find_mixture(
    cube: Cube,
    endmembers: int,
    *,
    method: str = "pure_pixels",
    seed: int = 0,
    rule: str | None = None,
    progress: bool | None = None,
) -> Mixture:
    """Find the endmembers; no abundance is computed yet. Parameters and errors as of `unmix`."""
    if method not in UNMIXERS:
        raise unknown_name("unmixing method", method, UNMIXERS)
    if rule is not None and rule not in RULES:
        raise unknown_name("abundance rule", rule, RULES)
    if isinstance(endmembers, bool) or not isinstance(endmembers, (int, np.integer)) or endmembers < 1:
        raise ValueError(f"unmix: endmembers must be a whole number, at least 1, got {endmembers!r}")
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or seed < 0:
        raise ValueError(f"unmix: seed must be a whole number, at least 0, got {seed!r}")
    prepared = prepare(cube)
    measured = measured_pixels(prepared)
    if endmembers > min(prepared.bands, int(measured.sum())):
        raise ValueError(
            f"{cube.source}: {endmembers} endmembers need as many bands and pixels; there are "
            f"{prepared.bands} usable bands and {int(measured.sum())} measured pixels"
        )
    fit, own = UNMIXERS[method]
    learned = fit(prepared, measured, endmembers, seed=seed, progress=progress)
    return Mixture(learned, measured, prepared, method, rule or own, seed)


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
