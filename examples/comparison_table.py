"""The table of a comparison as Markdown, JSON and a picture, from the records of its runs."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from comparison_picture import dot_chart
from comparison_verdicts import UNTRAINED, Pair, Row, Verdicts

from hsssl.atomic import write_bytes_atomic, write_text_atomic
from hsssl.evaluate import CLASSIFIERS
from hsssl.methods import METHODS

BATCH = 1024

Record = dict[str, Any]
_HEADINGS = {"random": "random, 10 a class", "block": "block, guard 4 px", "fixed": "fixed split"}
_LABELS = {"knn": "k-NN", "linear": "linear", "svm": "SVM"}
_NOTE = """\
Overall accuracy in %: mean ± standard deviation over the splits (of the mean over the pretraining seeds),
in brackets the standard deviation over the seeds (of the mean over the splits). *Gain*: the features' best
classifier less the best hand-made baseline, paired over the same splits, in points, and in brackets the
lower end of its 95 % interval (Student's t; a split is the unit, the seeds are averaged within it). The
interval is about other splits of this scene, not about other scenes. *Rank*: effective rank of the
embedding, at the start and at the end. *Std*: its standard deviation over that at the start. *Steps*: what
the budget buys by the cost of a step in a short run; *seconds* are those it took. Neither pretraining nor
the baselines' PCA saw a label; both saw all pixels (transductive)."""


def write_tables(folder: Path, records: Sequence[Record], about: Mapping[str, Any]) -> None:
    """Write table.md, table.json and table.png into ``folder``."""
    rows = table_rows(records)
    protocols = list(next(iter(records[0]["scores"].values())))
    verdicts = [Verdicts(rows, protocol) for protocol in protocols]
    write_text_atomic(folder / "table.md", markdown(rows, verdicts, about))
    write_text_atomic(folder / "table.json", as_json(records, verdicts, about))
    write_bytes_atomic(folder / "table.png", picture(rows, verdicts))


def table_rows(records: Sequence[Record]) -> list[Row]:
    """Group records by what was scored: pretrained first, the best under the last protocol on top."""
    grouped: dict[str, list[Record]] = {}
    for record in records:
        for name in record["scores"]:
            grouped.setdefault(name, []).append(record)
    rows = [Row(name, found) for name, found in grouped.items()]
    return sorted(rows, key=lambda row: (not row.pretrained, -row.values("block", "linear").mean()))


def markdown(rows: Sequence[Row], verdicts: Sequence[Verdicts], about: Mapping[str, Any]) -> str:
    """Return the tables, what they mean, and how they were made."""
    protocols = [verdict.protocol for verdict in verdicts]
    parts = [f"# Methods compared on {about['scene']}", made_with(rows, about), _NOTE]
    parts += [" ".join(sentences(verdict)) for verdict in verdicts]
    parts += [audit_sentence(rows, protocol) for protocol in protocols]
    head = [f"{_HEADINGS[p]}: {_LABELS[c]}" for p in protocols for c in CLASSIFIERS]
    head += [f"gain, {_HEADINGS[p]}" for p in protocols]
    head += ["rank", "std", "steps", "seconds", "patches/s", "peak MiB (extra)"]
    body = []
    for row in rows:
        cells = [spread(row.values(p, c)) for p in protocols for c in CLASSIFIERS]
        cells += [str(verdict.gain(row.best(verdict.protocol))) for verdict in verdicts]
        body.append([row.name, *cells, *cost_cells(row, about)])
    parts.append(grid(["overall accuracy, %", *head], body))
    for measure, title in (("aa", "average accuracy, %"), ("kappa", "kappa x 100")):
        head = [f"{_HEADINGS[p]}: {_LABELS[c]}" for p in protocols for c in CLASSIFIERS]
        body = [
            [row.name, *(spread(row.values(p, c, measure)) for p in protocols for c in CLASSIFIERS)]
            for row in rows
        ]
        parts.append(grid([title, *head], body))
    return "\n\n".join(parts) + "\n"


def sentences(verdict: Verdicts) -> list[str]:
    """Say in words who won."""
    best, baseline = verdict.highest(verdict.pretrained), verdict.baseline
    ours, theirs = (float(verdict.by_split[pair].mean()) for pair in (best, baseline))
    splits = len(verdict.by_split[baseline])
    beating = verdict.beating_raw([name for name in METHODS if (name, "linear") in verdict.by_split])
    said = [
        f"**{_HEADINGS[verdict.protocol]}**, {splits} split{'s' * (splits > 1)}: the best is {_named(best)}, "
        f"{ours:.1f}; the best hand-made baseline is {_named(baseline)}, {theirs:.1f}: "
        f"{verdict.gain(best)} points.",
        f"{len(beating)} of {len(METHODS)} methods are 15 points or more over the raw spectrum (linear): "
        f"{', '.join(beating) or 'none'}. The untrained encoder, averaged over the same windows, is "
        f"{verdict.gain((UNTRAINED, 'linear'), ('raw spectrum', 'linear')).mean:+.1f} points over it.",
    ]
    if splits > 2:
        said.insert(
            1, f"Chosen for each split on the others, the best gains {verdict.cross_chosen()} points."
        )
    return said


def made_with(rows: Sequence[Row], about: Mapping[str, Any]) -> str:
    """Say with what command, commits, machine and seeds the table was made."""
    records = [record for row in rows for record in row.records if "software" in record]
    software = [record["software"] for record in records]
    commits = sorted({str(one["commit"]) for one in software})
    machines = sorted(
        {f"{one['machine']}, {one['device']}, torch {one['versions']['torch']}" for one in software}
    )
    seeds = sorted({record["made_by"]["seed"] for record in records})
    splits = records[0]["made_by"]["splits"]
    return (
        f"`{about['command']}`, commit {', '.join(commits)}; {'; '.join(machines)}, "
        f"{os.cpu_count()} cores, other programs beside it. Pretraining seeds {seeds}, splits {splits}."
    )


def audit_sentence(rows: Sequence[Row], protocol: str) -> str:
    """Say how far position alone gets, and how many test pixels lie in a training pixel's window."""
    encoder = next(row for row in rows if row.name == UNTRAINED)
    position, inside = np.mean(encoder.records[0]["scores"][UNTRAINED][protocol]["audits"], axis=0)
    return (
        f"Leakage audit, {_HEADINGS[protocol]}: the class of the nearest training pixel in the image, no "
        f"spectrum, is right for {100 * position:.1f} % of the test pixels; {100 * inside:.1f} % of them lie "
        "inside a training pixel's 15x15 window."
    )


def cost_cells(row: Row, about: Mapping[str, Any]) -> list[str]:
    """Return what the training did to the features and what it cost, means over the seeds."""
    if "effective_rank" not in row.records[0]:
        return ["–"] * 6
    start, end = np.mean([record["effective_rank"] for record in row.records], axis=0)
    if not row.pretrained:
        return [f"{end:.1f}", *["–"] * 5]
    std = np.array([record["feature_std"] for record in row.records])  # (seeds, 2)
    seconds, peak, extra = (
        np.mean([record[key] for record in row.records]) for key in ("seconds", "peak_mib", "extra_mib")
    )
    batch, cost = BATCH, about["seconds_per_step"][row.name]
    return [
        f"{start:.1f} → {end:.1f}",
        f"{(std[:, 1] / std[:, 0]).mean():.2f}",
        f"{row.records[0]['made_by']['settings']['steps']:,}",
        f"{seconds:.0f}",
        f"{batch / cost:,.0f}",
        f"{peak:,.0f} ({extra:,.0f})",
    ]


def as_json(records: Sequence[Record], verdicts: Sequence[Verdicts], about: Mapping[str, Any]) -> str:
    """Return everything, a run a line."""
    told = {}
    for verdict in verdicts:
        best = verdict.highest(verdict.pretrained)
        found = {"best": verdict.gain(best), "chosen on the other splits": verdict.cross_chosen()}
        told[verdict.protocol] = {"best": best, "baseline": verdict.baseline} | {
            f"gain, {name}": [_number(gain.mean), _number(gain.lower)] for name, gain in found.items()
        }
    head = json.dumps({"about": dict(about), "verdicts": told}, indent=1)
    runs = ",\n".join(json.dumps(record) for record in records)
    return f'{head[:-2]},\n "runs": [\n{runs}\n]\n}}\n'


def picture(rows: Sequence[Row], verdicts: Sequence[Verdicts]) -> bytes:
    """Show the OA of all features, a panel a protocol; the line is the best hand-made baseline."""
    panels = {}
    for verdict in verdicts:
        values = {_LABELS[c]: np.array([verdict.by_split[row.name, c] for row in rows]) for c in CLASSIFIERS}
        panels[_HEADINGS[verdict.protocol]] = (values, float(verdict.by_split[verdict.baseline].mean()))
    names = [row.name for row in rows]
    return dot_chart(names, panels, bold=[row.name for row in rows if row.pretrained])


def spread(values: np.ndarray) -> str:
    """Write (seeds, splits) as mean ± deviation over splits (deviation over seeds)."""
    seeds, splits = values.shape
    text = f"{values.mean():.1f}"
    if splits > 1:
        text += f" ± {values.mean(axis=0).std(ddof=1):.1f}"
    return f"{text} ({values.mean(axis=1).std(ddof=1):.1f})" if seeds > 1 else text


def grid(head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [head, ["---"] * len(head), *body]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _named(pair: Pair) -> str:
    return f"{pair[0]} ({_LABELS[pair[1]]})"


def _number(value: float) -> float | None:
    return round(value, 3) if math.isfinite(value) else None
