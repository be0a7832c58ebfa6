"""Sections of the report as HTML: scores with their verdicts and audit, training, configuration."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from hsssl.comparison import ENCODER, Estimate, Protocol, compare, label, score_rows

if TYPE_CHECKING:
    from hsssl.evaluate import Score

__all__ = ["config_section", "scores_section", "strictest", "training_section"]

_LONGEST_VALUE = 300


def per_cent(cell: Estimate | None, *, scale: float = 100.0, digits: int = 1) -> str:
    """Write mean ± standard error, in per cent unless scaled otherwise."""
    if cell is None or not math.isfinite(cell.mean):
        return "–"
    spread = f" ± {scale * cell.error:.{digits}f}" if math.isfinite(cell.error) else ""
    return f"{scale * cell.mean:.{digits}f}{spread}"


def verdict_sentence(protocol: Protocol) -> str:
    """Say in one sentence whether the encoder won or lost against the best baseline, and by how much."""
    verdict = protocol.verdict()
    if verdict is None:
        return "Nothing to compare: an encoder and a baseline on the same splits are needed."
    ours = protocol.cell(ENCODER, verdict.encoder)
    theirs = protocol.cell(verdict.baseline_method, verdict.baseline)
    gain = verdict.gain
    spread = f" ± {100 * gain.error:.1f}" if math.isfinite(gain.error) else ""
    return (
        f"{verdict.word}: the encoder's best, {per_cent(ours)} % with {label(verdict.encoder)}, against the best "
        f"baseline's {per_cent(theirs)} % ({label(verdict.baseline_method)}, {label(verdict.baseline)}): "
        f"{100 * gain.mean:+.1f}{spread} points paired over the same {gain.seeds} splits, "
        f"ahead on {verdict.ahead} of them."
    ).replace("+-", "-")


def table(
    head: Sequence[str], body: Sequence[Sequence[str]], *, mark: int | None = None, bold: set[tuple[int, int]] = frozenset()  # type: ignore[assignment]
) -> str:
    """Return an HTML table of plain texts, all escaped; the first column heads its row."""
    lines = ["<tr>" + "".join(f'<th scope="col">{escape(cell)}</th>' for cell in head) + "</tr>"]
    lines = [f"<thead>{lines[0]}</thead>"]
    for number, row in enumerate(body):
        cells = "".join(
            f'<td class="best">{escape(cell)}</td>' if (number, col) in bold else f"<td>{escape(cell)}</td>"
            for col, cell in enumerate(row[1:], 1)
        )
        opening = '<tr class="encoder">' if number == mark else "<tr>"
        lines.append(f'{opening}<th scope="row">{escape(row[0])}</th>{cells}</tr>')
    return f'<div class="scroll"><table>{"".join(lines)}</table></div>'
