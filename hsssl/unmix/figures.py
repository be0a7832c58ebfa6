"""Pictures of an unmixing: abundance maps on one scale, endmembers beside their reference, the error map."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hsssl.figures import DPI, INK, blank_figure, figure_png

__all__ = ["abundance_maps", "band_gaps", "endmember_spectra", "error_map", "fitted"]

_FAINT, _GREY = "#d5d9de", "#808080"
_OURS, _REFERENCE = "#0072b2", "#d55e00"  # Okabe and Ito (2008): told apart with any colour vision
_SIDE = 420
# A picture is no longer than about this, in PNG pixels, whatever number of maps is in it.
_LONGEST = 2000
# Neighbours further apart than this many usual steps have bands missing between them.
_GAP_STEPS = 2.5


def abundance_maps(
    abundances: NDArray[np.floating[Any]], names: Sequence[str], *, highest: float = 1.0
) -> bytes:
    """Show each endmember's abundance as a map, all on one scale from 0 to ``highest``.

    Parameters
    ----------
    abundances : ndarray, shape (rows, cols, p)
        NaN is grey.
    names : sequence of str
        Title of each map.
    highest : float
        End of the scale; larger values have the colour of it.

    Returns
    -------
    bytes
        A PNG.
    """
    maps = [abundances[:, :, k] for k in range(abundances.shape[2])]
    return _maps(maps, names, highest, "abundance")


def error_map(error: NDArray[np.floating[Any]], *, unit: str = "raw numbers") -> bytes:
    """Show the reconstruction error of each pixel, from 0 to its 98th percentile.

    Parameters
    ----------
    error : ndarray, shape (rows, cols)
        Root mean squared error over the bands; NaN is grey.
    unit : str
        What it is measured in.

    Returns
    -------
    bytes
        A PNG.
    """
    known = error[np.isfinite(error)]
    highest = float(np.percentile(known, 98)) if known.size else 0.0
    return _maps([error], ["reconstruction error"], highest or 1.0, f"RMS, {unit}")


def endmember_spectra(
    endmembers: NDArray[np.floating[Any]],
    axis: NDArray[np.floating[Any]],
    names: Sequence[str],
    *,
    measured: bool = True,
    references: Sequence[tuple[str, NDArray[np.floating[Any]]] | None] = (),
) -> bytes:
    """Show each endmember against the wavelength, with gaps where bands are missing.

    Parameters
    ----------
    endmembers : ndarray, shape (p, bands)
        Spectra, raw numbers.
    axis : ndarray, shape (bands,)
        Wavelengths in nm, rising, or band numbers.
    names : sequence of str
        Title of each panel.
    measured : bool
        True if ``axis`` are wavelengths.
    references : sequence of (title, spectrum (bands,)) or None
        What is drawn beside each endmember, scaled to its length, for only the shape is compared.

    Returns
    -------
    bytes
        A PNG.
    """
    across = min(3, len(endmembers))
    deep = math.ceil(len(endmembers) / across)
    figure = blank_figure(max(560, 480 * across), 330 * deep)
    for k, spectrum in enumerate(endmembers):
        axes = figure.add_subplot(deep, across, k + 1)
        reference = references[k] if k < len(references) else None
        title = names[k]
        if reference is not None:
            label, shape = reference
            scaled = shape * np.linalg.norm(spectrum) / max(float(np.linalg.norm(shape)), 1e-300)
            axes.plot(*_broken(axis, scaled), color=_REFERENCE, linewidth=1.2, label="reference, scaled")
            title = f"{title}\n{label}"
        axes.plot(*_broken(axis, spectrum), color=_OURS, linewidth=1.5, label="endmember")
        axes.set_title(title, size=8, color=INK, loc="left", weight="bold", parse_math=False)
        if reference is not None:
            axes.legend(frameon=False, fontsize=7, labelcolor=INK)
        if k >= len(endmembers) - across:
            axes.set_xlabel("wavelength, nm" if measured else "band number", size=8, color=INK)
        if k % across == 0:
            axes.set_ylabel("raw numbers", size=8, color=INK)
        axes.set_ylim(min(0.0, float(np.nanmin(spectrum))), None)
        axes.grid(color=_FAINT, linewidth=0.6)
        axes.set_axisbelow(True)
        axes.tick_params(length=0, labelsize=7, labelcolor=INK)
        for spine in axes.spines.values():
            spine.set_color(_FAINT)
    figure.set_layout_engine("tight")
    return figure_png(figure)


def band_gaps(axis: NDArray[np.floating[Any]]) -> NDArray[np.int64]:
    """Return after which bands others are missing: where the next is over 2.5 usual steps away."""
    steps = np.diff(np.asarray(axis, dtype=np.float64))
    usual = np.median(steps[steps > 0]) if (steps > 0).any() else 0.0
    return np.flatnonzero(steps > _GAP_STEPS * usual) if usual else np.zeros(0, dtype=np.int64)


def _broken(axis: NDArray[Any], values: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Put a NaN into every gap, so that no line is drawn over bands that are missing."""
    after = band_gaps(axis) + 1
    x, y = np.asarray(axis, dtype=np.float64), np.asarray(values, dtype=np.float64)
    return np.insert(x, after, x[after] if after.size else 0), np.insert(y, after, np.nan)


def _maps(maps: Sequence[NDArray[Any]], names: Sequence[str], highest: float, scale: str) -> bytes:
    rows, cols = maps[0].shape
    most = _LONGEST // math.ceil(math.sqrt(len(maps))) - 46
    step = math.ceil(max(rows, cols) / min(2 * _SIDE, most))
    shown = [panel[::step, ::step] for panel in maps]
    times = max(1, min(_SIDE, most) // max(shown[0].shape))
    high, wide = (side * times for side in shown[0].shape)
    across = max(1, min(len(maps), _LONGEST // (wide + 16)))
    deep = math.ceil(len(maps) / across)
    pad, line, bar = 16, 30, 74
    full, tall = max(across * (wide + pad) + pad, 480), deep * (high + line) + pad + bar
    figure = blank_figure(full, tall)
    picture = None
    for k, (panel, name) in enumerate(zip(shown, names, strict=True)):
        left = pad + (k % across) * (wide + pad)
        top = pad + (k // across) * (high + line)
        axes = figure.add_axes((left / full, 1 - (top + line + high) / tall, wide / full, high / tall))
        axes.set_facecolor(_GREY)
        picture = axes.imshow(
            np.ma.masked_invalid(panel), cmap="viridis", vmin=0, vmax=highest, interpolation="nearest"
        )
        axes.set_axis_off()
        axes.add_patch(_background(axes))
        figure.text(
            left / full, 1 - (top + line / 2 + 4) / tall, fitted(name, wide), size=8, color=INK,
            weight="bold", va="center", parse_math=False,
        )  # fmt: skip
    place = figure.add_axes((pad / full, 46 / tall, min(1 - 2 * pad / full, 480 / full), 12 / tall))
    assert picture is not None
    colours = figure.colorbar(picture, cax=place, orientation="horizontal")
    colours.outline.set_visible(False)
    place.tick_params(length=0, labelsize=7, labelcolor=INK)
    place.set_xlabel(f"{scale} (grey: not measured)", size=7, color=INK)
    assert figure.dpi == DPI
    return figure_png(figure)


def fitted(title: str, width: int) -> str:
    """Cut a title that is longer than a map is wide (PNG pixels); a bold letter takes about 11."""
    most = max(8, width // 11)
    return title if len(title) <= most else title[: most - 1].rstrip() + "…"


def _background(axes: Any) -> Any:
    """Return a grey ground for the pixels that are masked, which an axis without frame does not paint."""
    from matplotlib.patches import Rectangle

    return Rectangle((0, 0), 1, 1, transform=axes.transAxes, color=_GREY, zorder=-1)
