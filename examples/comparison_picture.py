"""The picture of a comparison: what every kind of features scores, a panel a protocol."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from hsssl.figures import INK, blank_figure, figure_png

_FAINT = "#d5d9de"
# Okabe and Ito (2008): told apart with any colour vision.
_COLOURS = ("#0072b2", "#e69f00", "#009e73")


def dot_chart(
    names: Sequence[str], panels: Mapping[str, tuple[Mapping[str, np.ndarray], float]], bold: Sequence[str]
) -> bytes:
    """Return a PNG with a dot for every name and classifier, whiskers of one standard deviation over splits.

    ``panels`` maps a title to {classifier: values (names, splits)} and to the value its line is drawn at.
    """
    figure = blank_figure(320 + 560 * len(panels), 130 + 38 * len(names))
    axes_of = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    places = np.arange(len(names))
    for axes, (title, (classifiers, line)) in zip(axes_of, panels.items(), strict=True):
        for number, (classifier, values) in enumerate(classifiers.items()):
            error = values.std(axis=1, ddof=1) if values.shape[1] > 1 else None
            axes.errorbar(
                values.mean(axis=1), places + 0.2 * (number - 1), xerr=error, fmt="o", label=classifier,
                color=_COLOURS[number], markersize=4, elinewidth=1,
            )  # fmt: skip
        axes.axvline(line, color=INK, linewidth=1, linestyle="--", label="best hand-made baseline")
        axes.set_title(title, size=10, color=INK, loc="left", weight="bold")
        axes.set_xlabel("overall accuracy, %", size=9, color=INK)
        axes.grid(color=_FAINT, linewidth=0.7)
        axes.set_axisbelow(True)
        axes.tick_params(length=0, labelsize=8, labelcolor=INK)
        for spine in axes.spines.values():
            spine.set_color(_FAINT)
    axes_of[0].set_yticks(places, names, parse_math=False)
    axes_of[0].invert_yaxis()
    for tick, name in zip(axes_of[0].get_yticklabels(), names, strict=True):
        tick.set_fontweight("bold" if name in bold else "normal")
    handles, labels = axes_of[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower right", ncols=4, frameon=False, fontsize=8, labelcolor=INK)
    figure.set_layout_engine("tight", rect=(0, 30 / figure.bbox.height, 1, 1))
    return figure_png(figure)
