"""Sections of the report as HTML: scores with their verdicts and audit, training, configuration."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from hsssl.comparison import ENCODER, Comparison, Estimate, compare, label, score_rows
from hsssl.figures import class_name

if TYPE_CHECKING:
    from hsssl.evaluate import Score

__all__ = ["config_section", "scores_section", "strictest", "training_section"]

_LONGEST_VALUE = 300
_MEASURES = {"oa": "OA, %", "aa": "AA, %", "kappa": "kappa"}
_UNITS: dict[str, dict[str, Any]] = {"oa": {}, "aa": {}, "kappa": {"scale": 1.0, "digits": 3}}
_HOW_TO_READ = (
    "Mean ± standard error of the mean over the seeds; each seed is another split, the same for every row. "
    "The best of each column is bold; tied means a paired difference of at most one standard error. "
    "Pretraining saw all valid pixels of this scene, those tested here too, but no label (transductive); "
    "the PCA of the baselines saw the same pixels."
)


def per_cent(cell: Estimate | None, *, scale: float = 100.0, digits: int = 1) -> str:
    """Write mean ± standard error, in per cent unless scaled otherwise."""
    if cell is None or not math.isfinite(cell.mean):
        return "–"
    spread = f" ± {scale * cell.error:.{digits}f}" if math.isfinite(cell.error) else ""
    return f"{scale * cell.mean:.{digits}f}{spread}"


def verdict_sentence(protocol: Comparison) -> str:
    """Say in one sentence whether the encoder won or lost against the best baseline, and by how much."""
    verdict = protocol.verdict()
    if verdict is None:
        return "Nothing to compare: an encoder and a baseline on the same splits are needed."
    ours = per_cent(protocol.cell(ENCODER, verdict.encoder))
    theirs = per_cent(protocol.cell(verdict.baseline_method, verdict.baseline))
    baseline = f"{label(verdict.baseline_method)}, {label(verdict.baseline)}"
    gain = f"{100 * verdict.gain.mean:+.1f}".replace("-", "−")
    if math.isfinite(verdict.gain.error):
        gain += f" ± {100 * verdict.gain.error:.1f}"
    return (
        f"{verdict.word}: the encoder's best OA, {ours} % ({label(verdict.encoder)}), against the "
        f"best baseline's, {theirs} % ({baseline}): {gain} points, paired over the same "
        f"{_count(verdict.gain.seeds, 'split')}; ahead on {verdict.ahead} of them."
    )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def table(
    head: Sequence[str],
    body: Sequence[Sequence[str]],
    *,
    mark: int | None = None,
    bold: Collection[tuple[int, int]] = (),
    style: str = "",
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
    return f'<div class="scroll"><table class="{style}">{"".join(lines)}</table></div>'


def protocol_table(protocol: Comparison, measure: str, score: Score | None = None) -> str:
    """Return a table of one measure: methods by classifiers, the best of each column in bold.

    With ``score``, a last column has the share of test pixels inside a training pixel's footprint.
    """
    methods, classifiers = protocol.methods, protocol.classifiers
    cells = [[protocol.cell(method, name, measure) for name in classifiers] for method in methods]
    bold = set()
    for col in range(len(classifiers)):
        means = [
            -math.inf if (cell := row[col]) is None or math.isnan(cell.mean) else cell.mean for row in cells
        ]
        bold |= {(number, col + 1) for number, mean in enumerate(means) if mean == max(means) > -math.inf}
    body = [
        [label(method), *(per_cent(cell, **_UNITS[measure]) for cell in row)]
        for method, row in zip(methods, cells, strict=True)
    ]
    head = [_MEASURES[measure], *map(label, classifiers)]
    if score is not None:
        head.append("tested inside a training patch, %")
        made = {score.method: score, **score.baselines}
        for method, line in zip(methods, body, strict=True):
            inside, side = made[method].audit.test_in_train_patch, made[method].patch_size
            line.append(f"{100 * inside:.1f} ({side}x{side})")
    mark = methods.index(ENCODER) if ENCODER in methods else None
    return table(head, body, mark=mark, bold=bold)


def heading(score: Score) -> str:
    """Name the protocol of a score with all that defines it."""
    drawn = {
        "random": f", {score.train_per_class} training pixels a class",
        "block": f", at most {score.train_per_class} training pixels a class, guard {score.guard} px",
    }
    tested = sorted({len(classes) for classes in score.classes_tested})
    number = " to ".join(str(count) for count in dict.fromkeys((tested[0], tested[-1])))
    seeds = ", ".join(str(run["seed"]) for run in score.runs)
    return (
        f"{score.split.capitalize()} split{drawn.get(score.split, '')}; {number} of {len(score.classes)} "
        f"classes tested; seed{'s' * (len(score.runs) > 1)} {seeds}"
    )


def scores_section(scores: Sequence[Score], class_names: Sequence[str], bars: str, confusion: str) -> str:
    """Return the scores: tables with verdict and audit for each protocol, class accuracies, charts.

    Parameters
    ----------
    scores : sequence of Score
        For each classifier and protocol.
    class_names : sequence of str
        Name of class 1, 2, and so on.
    bars, confusion : str
        The two charts as HTML.
    """
    if not scores:
        return ""
    parts = ["<h2>Scores</h2>", f'<p class="note">{_HOW_TO_READ}</p>']
    for protocol in compare(score_rows(scores)):
        score = protocol_scores(protocol, scores)[0]
        parts += [
            f"<h3>{escape(heading(score))}</h3>",
            f"<p>{escape(verdict_sentence(protocol))}</p>",
            protocol_table(protocol, "oa", score),
            f'<p class="note">{escape(audit_sentence(score))}</p>',
            f"<details><summary>AA and kappa</summary>{protocol_table(protocol, 'aa')}",
            f"{protocol_table(protocol, 'kappa')}</details>",
        ]
    return "".join([*parts, bars, "<h3>Accuracy by class</h3>", class_table(scores, class_names), confusion])


def training_section(metrics: Sequence[Mapping[str, Any]], curves: str) -> str:
    """Return the course of the training, or nothing if no step was logged."""
    if not metrics:
        return ""
    last = metrics[-1]
    facts = [f"{len(metrics)} logged steps, the last {last.get('step', '–')}"]
    for key, name in (("loss", "loss"), ("feature_std", "feature std"), ("effective_rank", "effective rank")):
        if last.get(key) is not None:
            facts.append(f"{name} {float(last[key]):.4g}")
    speeds = [
        float(row["patches_per_second"]) for row in metrics if row.get("patches_per_second") is not None
    ]
    if speeds:
        facts.append(f"{np.median(speeds):,.0f} patches per second (median)")
    return f"<h2>Training</h2><p>{escape('; '.join(facts))}.</p>{curves}"


def config_section(config: Mapping[str, Any]) -> str:
    """Return the configuration, folded, a line a setting."""
    rows = [[key, value] for key, value in flattened(config)]
    if not rows:
        return ""
    settings = table(["setting", "value"], rows, style="settings")
    return f"<h2>Configuration</h2><details><summary>{len(rows)} settings</summary>{settings}</details>"


def flattened(config: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield the settings of a nested configuration as ("a.b.0", text), long texts cut."""
    if isinstance(config, Mapping) and config:
        for key, value in config.items():
            yield from flattened(value, f"{prefix}.{key}" if prefix else str(key))
    elif isinstance(config, list | tuple) and any(isinstance(item, Mapping) for item in config):
        for number, item in enumerate(config):
            yield from flattened(item, f"{prefix}.{number}")
    elif prefix:
        text = str(config)
        yield prefix, text if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]} …"


def best_scores(scores: Sequence[Score]) -> list[tuple[Comparison, Score]]:
    """Return each protocol with the score of the classifier that does best on the encoder's features."""
    found = []
    for protocol in compare(score_rows(scores)):
        best = protocol.best([ENCODER])
        own = [score for score in protocol_scores(protocol, scores) if best and score.classifier == best[1]]
        found += [(protocol, score) for score in own[:1]]
    return found


def protocol_scores(protocol: Comparison, scores: Sequence[Score]) -> list[Score]:
    """Return the scores made by a protocol."""
    return [score for score in scores if (score.split, score.guard) == (protocol.split, protocol.guard)]


def strictest(scores: Sequence[Score]) -> tuple[str, Score] | None:
    """Return the score tested furthest from its training pixels, with its name; None if there is none."""
    found = best_scores(scores)
    if not found:
        return None
    protocol, score = max(found, key=lambda pair: (pair[0].split == "block", pair[0].guard or 0))
    return f"{protocol.name}, {label(score.classifier)}", score


def class_table(scores: Sequence[Score], class_names: Sequence[str]) -> str:
    """Return the encoder's accuracy by class, a column a protocol, in per cent."""
    columns = best_scores(scores)
    numbers = sorted({number for _, score in columns for number in score.per_class})
    body = [
        [
            f"{number}  {class_name(number, class_names)}",
            *(_class_cell(score, number) for _, score in columns),
        ]
        for number in numbers
    ]
    head = [f"{protocol.name}, {label(score.classifier)}" for protocol, score in columns]
    return table(["class", *head], body)


def _class_cell(score: Score, number: int) -> str:
    accuracy = score.per_class.get(number, math.nan)
    return f"{100 * accuracy:.1f}" if math.isfinite(accuracy) else "–"


def audit_sentence(score: Score) -> str:
    """Say how far position alone gets on the same splits, and how far the encoder's patches overlap."""
    return (
        f"Leakage audit: position alone (the class of the nearest training pixel, no spectrum) scores OA "
        f"{100 * score.audit.coordinates_oa:.1f} %; {100 * score.audit.test_in_train_patch:.1f} % of "
        f"the test pixels lie inside a training pixel's {score.patch_size}x{score.patch_size} patch."
    )
