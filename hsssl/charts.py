"""Charts as PNG: confusion matrix, training curves, scores with their spread over seeds."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hsssl.comparison import ENCODER, Comparison, label
from hsssl.figures import DPI, INK, blank_figure, class_name, figure_png

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["confusion_matrix", "score_bars", "training_curves"]

_FAINT = "#d5d9de"
# Okabe and Ito (2008): told apart with any colour vision.
_COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#f0e442")
_CURVES = (("loss", "loss"), ("feature_std", "feature std"), ("effective_rank", "effective rank"))


def confusion_matrix(
    confusion: NDArray[Any], class_names: Sequence[str] = (), *, numbers: Sequence[int] | None = None
) -> bytes:
    """Show a confusion matrix as per cent of each true class.

    Parameters
    ----------
    confusion : ndarray, shape (classes, classes)
        Counts (or shares); rows are true, columns predicted.
    class_names : sequence of str
        Name of class 1, 2, and so on.
    numbers : sequence of int or None
        Class number of each row and column; None is 1, 2, and so on.

    Returns
    -------
    bytes
        A PNG; rows of classes that were not tested are grey.
    """
    counts = np.asarray(confusion, dtype=np.float64)
    total = counts.sum(axis=1, keepdims=True)
    share = np.full_like(counts, np.nan)
    np.divide(100 * counts, total, out=share, where=total > 0)
    classes = len(counts)
    numbers = range(1, classes + 1) if numbers is None else numbers
    names = [f"{class_name(number, class_names)}  {number}" for number in numbers]
    cell = 40 if classes <= 24 else max(8, 1000 // classes)
    left, bottom, top = 30 + 11 * max(len(name) for name in names), 64, 16
    figure = blank_figure(left + cell * classes + 20, bottom + cell * classes + top)
    wide, high = figure.get_size_inches() * DPI
    axes = figure.add_axes((left / wide, bottom / high, cell * classes / wide, cell * classes / high))
    axes.imshow(np.ma.masked_invalid(share), cmap="Blues", vmin=0, vmax=100, interpolation="nearest")
    axes.set_facecolor(_FAINT)
    axes.set_yticks(range(classes), names, parse_math=False)
    axes.set_xticks(range(classes), [str(number) for number in numbers])
    axes.set_xlabel("predicted class, % of the true class")
    _plain(axes, size=8 if classes <= 24 else 5)
    if classes <= 24:
        for row, col in zip(*np.nonzero(np.nan_to_num(share).round()), strict=True):
            colour = "white" if share[row, col] > 55 else INK
            axes.text(col, row, f"{share[row, col]:.0f}", ha="center", va="center", size=8, color=colour)
    return figure_png(figure)


def training_curves(metrics: Sequence[Mapping[str, Any]]) -> bytes:
    """Show loss, feature std and effective rank against the step.

    Parameters
    ----------
    metrics : sequence of mapping
        Logged steps: ``step`` and any of ``loss``, ``feature_std``, ``effective_rank``.

    Returns
    -------
    bytes
        A PNG; a quantity that was never logged has no panel.

    Raises
    ------
    ValueError
        If none of them was logged.
    """
    curves = [(key, name) for key, name in _CURVES if any(row.get(key) is not None for row in metrics)]
    if not curves:
        raise ValueError("training_curves: no logged step has loss, feature_std or effective_rank")
    figure = blank_figure(480 * len(curves), 400)
    for number, (key, name) in enumerate(curves):
        axes = figure.add_subplot(1, len(curves), number + 1)
        points = [(row["step"], row[key]) for row in metrics if row.get(key) is not None]
        steps, values = np.array(points, dtype=np.float64).T
        axes.plot(steps, values, color=_COLOURS[0], linewidth=1.6, marker="o" if len(points) == 1 else "")
        axes.set_title(name, size=10, color=INK, loc="left", weight="bold")
        axes.set_xlabel("step")
        axes.grid(color=_FAINT, linewidth=0.7)
        if key != "loss":
            # Collapse is a fall to zero: it must be in view.
            axes.set_ylim(0, 1.1 * max(np.nanmax(values), 1e-9))
        _plain(axes)
    figure.set_layout_engine("tight")
    return figure_png(figure)


def score_bars(protocols: Sequence[Comparison]) -> bytes:
    """Show the overall accuracy of every method and classifier, a panel a protocol.

    Parameters
    ----------
    protocols : sequence of Comparison
        What `hsssl.comparison.compare` returned.

    Returns
    -------
    bytes
        A PNG; whiskers are one standard error of the mean over the seeds.
    """
    classifiers = list(dict.fromkeys(name for protocol in protocols for name in protocol.classifiers))
    colours = {name: _COLOURS[number % len(_COLOURS)] for number, name in enumerate(classifiers)}
    most = max(len(protocol.methods) for protocol in protocols)
    across, deep = min(2, len(protocols)), math.ceil(len(protocols) / 2)
    figure = blank_figure(710 * across, 60 + deep * (90 + most * (30 + 24 * len(classifiers))))
    for number, protocol in enumerate(protocols):
        axes = figure.add_subplot(deep, across, number + 1)
        _bars(axes, protocol, colours)
        axes.set_title(protocol.name, size=10, color=INK, loc="left", weight="bold")
    handles, names = figure.axes[0].get_legend_handles_labels()
    figure.legend(
        handles, names, loc="lower right", ncols=len(names), frameon=False, fontsize=9, labelcolor=INK
    )
    figure.set_layout_engine("tight", rect=(0, 36 / figure.bbox.height, 1, 1))
    return figure_png(figure)


def _bars(axes: Axes, protocol: Comparison, colours: Mapping[str, str]) -> None:
    """Draw a horizontal bar for each method and classifier, the first method on top."""
    height = 0.8 / len(colours)
    for number, (classifier, colour) in enumerate(colours.items()):
        cells = {row: protocol.cell(method, classifier) for row, method in enumerate(protocol.methods)}
        found = {row: cell for row, cell in cells.items() if cell is not None}
        places = [row + (number - (len(colours) - 1) / 2) * height for row in found]
        means = [100 * cell.mean for cell in found.values()]
        errors = np.nan_to_num([100 * cell.error for cell in found.values()])
        axes.barh(places, means, 0.9 * height, color=colour, label=label(classifier))
        axes.errorbar(means, places, xerr=errors, fmt="none", ecolor=INK, elinewidth=1, capsize=2)
        for place, mean, error in zip(places, means, errors, strict=True):
            axes.text(mean + error + 1, place, f"{mean:.1f}", va="center_baseline", size=8, color=INK)
    axes.set_yticks(
        range(len(protocol.methods)),
        [textwrap.fill(label(name), 20) for name in protocol.methods],
        parse_math=False,
    )
    for tick, name in zip(axes.get_yticklabels(), protocol.methods, strict=True):
        tick.set_fontweight("bold" if name == ENCODER else "normal")
    axes.invert_yaxis()
    axes.set_xlim(0, 109)
    axes.set_xticks(range(0, 101, 20))
    axes.set_xlabel("overall accuracy, %")
    axes.grid(axis="x", color=_FAINT, linewidth=0.7)
    _plain(axes)


def _plain(axes: Axes, *, size: float = 9) -> None:
    """Take away what carries no information: frames, tick marks, black."""
    axes.set_axisbelow(True)
    axes.tick_params(length=0, labelsize=size, labelcolor=INK)
    axes.xaxis.label.set(size=9, color=INK)
    for spine in axes.spines.values():
        spine.set_color(_FAINT)
