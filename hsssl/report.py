"""The report: one HTML file that needs nothing else, its pictures as PNG, and the scores as JSON."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hsssl.atomic import atomic_path, refuse_existing
from hsssl.comparison import compare, score_rows
from hsssl.cube import Cube
from hsssl.report_parts import config_section, scores_section, strictest, training_section

if TYPE_CHECKING:
    from hsssl.evaluate import Score

__all__ = ["figure_html", "html_page", "write_report"]

_CAPTIONS = {
    "natural.png": "The scene in the bands nearest 660, 550 and 470 nm",
    "thirds.png": "The scene in the middle bands of its last, second and first third",
    "infrared.png": "Near-infrared false colour (860, 660, 550 nm): vegetation is red",
    "features.png": "Features: their first three principal components as red, green, blue",
    "classes.png": "Class map beside the truth",
    "scores.png": "Overall accuracy, mean over the seeds; whiskers are one standard error",
    "confusion.png": "Confusion matrix",
    "training.png": "Training",
}


def write_report(
    folder: str | os.PathLike[str],
    *,
    title: str,
    cube: Cube,
    labels: NDArray[np.integer[Any]] | None,
    class_names: Sequence[str],
    features: NDArray[np.floating[Any]],
    class_map: NDArray[np.integer[Any]] | None,
    scores: Sequence[Score],
    metrics: Sequence[Mapping[str, Any]],
    config: Mapping[str, Any],
    map_note: str = "",
    overwrite: bool = False,
) -> Path:
    """Write ``report.html``, ``scores.json`` and ``pictures/*.png``, all of them or none.

    Parameters
    ----------
    folder : path
        Where to write; made if its parent exists.
    title : str
        Heading of the report.
    cube : Cube
        The prepared scene.
    labels : ndarray, shape (rows, cols), integer, or None
        True class, 0 where unlabelled.
    class_names : sequence of str
        Name of class 1, 2, and so on.
    features : ndarray, shape (rows, cols, dim), real
        Features of the encoder, NaN at invalid pixels.
    class_map : ndarray, shape (rows, cols), integer, or None
        Predicted class, 0 where there is none.
    scores : sequence of Score
        What `hsssl.evaluate` returned, one for each classifier and protocol.
    metrics : sequence of mapping
        Logged steps: step, loss, feature_std, effective_rank, patches_per_second, lr.
    config : mapping
        Settings of the run, nested.
    map_note : str
        How the class map was made, for its caption.
    overwrite : bool
        Replace an earlier report.

    Returns
    -------
    Path
        The file ``report.html``.

    Raises
    ------
    FileExistsError
        If there is a report and ``overwrite`` is off.
    ValueError
        If shapes or scores do not fit together.
    OSError
        If it cannot be written, as on a full disk; what was in the folder is then as before.

    Examples
    --------
    >>> write_report("out", title="Scene", cube=cube, labels=labels, class_names=names,  # doctest: +SKIP
    ...              features=features, class_map=classes, scores=[score], metrics=run.metrics,
    ...              config=run.config)
    """
    root = Path(folder)
    for name in ("report.html", "scores.json", "pictures"):
        refuse_existing(root / name, overwrite=overwrite)
    for what, array in (("features", features), ("labels", labels), ("class_map", class_map)):
        if array is not None and array.shape[:2] != (cube.rows, cube.cols):
            raise ValueError(f"report: {what} must have {cube.rows} x {cube.cols} pixels, got {array.shape}")
    rows = score_rows(scores)
    pictures = _pictures(cube, labels, class_names, features, class_map)
    pictures |= _charts(class_names, scores, metrics)
    bars, confusion, curves = (
        _shown(pictures, name) for name in ("scores.png", "confusion.png", "training.png")
    )
    classes = _shown(pictures, "classes.png", f"; {map_note}" if map_note else "")
    page = _page(title, _facts(cube, labels, features), pictures, [
        classes,
        scores_section(scores, class_names, bars, confusion),
        training_section(metrics, curves),
        config_section(config),
    ])  # fmt: skip
    files = {"report.html": page.encode(), "scores.json": (json.dumps(rows, indent=1) + "\n").encode()}
    files |= {f"pictures/{name}": png for name, png in pictures.items()}
    _write_all(root, files)
    return root / "report.html"


def _pictures(
    cube: Cube,
    labels: NDArray[np.integer[Any]] | None,
    class_names: Sequence[str],
    features: NDArray[np.floating[Any]],
    class_map: NDArray[np.integer[Any]] | None,
) -> dict[str, bytes]:
    """Draw the scene; file name -> PNG."""
    from hsssl.figures import class_maps, false_colour, feature_colour, has_infrared, has_natural

    pictures = {"natural.png" if has_natural(cube) else "thirds.png": false_colour(cube)}
    if has_infrared(cube):
        pictures["infrared.png"] = false_colour(cube, infrared=True)
    pictures["features.png"] = feature_colour(features)
    if class_map is not None:
        pictures["classes.png"] = class_maps(class_map, labels, class_names=class_names)
    return pictures


def _charts(
    class_names: Sequence[str], scores: Sequence[Score], metrics: Sequence[Mapping[str, Any]]
) -> dict[str, bytes]:
    """Draw what there are figures for; file name -> PNG."""
    from hsssl.charts import confusion_matrix, score_bars, training_curves

    pictures = {}
    if scores:
        pictures["scores.png"] = score_bars(compare(score_rows(scores)))
    if shown := strictest(scores):
        pictures["confusion.png"] = confusion_matrix(
            shown[1].confusion, class_names, numbers=shown[1].classes
        )
    if any(row.get("loss") is not None for row in metrics):
        pictures["training.png"] = training_curves(metrics)
    return pictures


def _shown(pictures: Mapping[str, bytes], name: str, more: str = "") -> str:
    """Return a picture with its caption as HTML, or nothing if it was not drawn."""
    if name not in pictures:
        return ""
    return figure_html(pictures[name], _CAPTIONS[name] + more)


def figure_html(png: bytes, caption: str) -> str:
    """Return a picture with its caption as HTML, the picture inside."""
    said, data = escape(caption), base64.b64encode(png).decode()
    return (
        f'<figure><img src="data:image/png;base64,{data}" alt="{said}">'
        f"<figcaption>{said}</figcaption></figure>"
    )


def _facts(
    cube: Cube, labels: NDArray[np.integer[Any]] | None, features: NDArray[np.floating[Any]]
) -> list[str]:
    """Say in a few words what was looked at."""
    facts = [cube.source, f"{cube.rows} × {cube.cols} pixels", f"{cube.bands} bands"]
    if cube.wavelengths is not None:
        facts[-1] += f", {cube.wavelengths.min():.0f} to {cube.wavelengths.max():.0f} nm"
    facts.append(f"{int(cube.valid.sum()):,} valid pixels")
    if labels is not None:
        facts.append(f"{np.count_nonzero(labels):,} labelled, {np.unique(labels[labels > 0]).size} classes")
    return [*facts, f"{features.shape[2]} features a pixel"]


def _page(title: str, facts: Sequence[str], pictures: Mapping[str, bytes], sections: Sequence[str]) -> str:
    """Put the page together, pictures of the scene first."""
    row = "".join(
        _shown(pictures, name) for name in ("natural.png", "thirds.png", "infrared.png", "features.png")
    )
    return html_page(title, facts, f'<div class="row">{row}</div>\n{"".join(sections)}')


def html_page(title: str, facts: Sequence[str], body: str) -> str:
    """Return a page that needs nothing else and runs nothing; only ``title`` and ``facts`` are escaped."""
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<title>{escape(title)}</title>
<style>{_STYLE}</style>
</head>
<body>
<h1>{escape(title)}</h1>
<p class="facts">{escape(" · ".join(facts))}</p>
{body}
</body>
</html>
"""


def _write_all(root: Path, files: Mapping[str, bytes]) -> None:
    """Write all files or none: each is on the disk in full before the first gets its name."""
    if not root.parent.is_dir():
        raise FileNotFoundError(f"{root}: there is no folder {root.parent}; create it first")
    made = [folder for folder in (root, root / "pictures") if not folder.exists()]
    try:
        for folder in made:
            folder.mkdir()
        with ExitStack() as stack:
            # Left in reverse order: the report appears last, when all it goes with is there.
            for name, data in files.items():
                with stack.enter_context(atomic_path(root / name)).open("wb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
    except BaseException:
        for folder in reversed(made):
            with suppress(OSError):
                folder.rmdir()
        raise
    for name in _CAPTIONS.keys() - {Path(name).name for name in files}:
        (root / "pictures" / name).unlink(missing_ok=True)


# Nothing is loaded and nothing runs, whatever a class name holds.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
_STYLE = """
:root { color-scheme: light dark;
  --ink: #22262b; --soft: #5d6670; --line: #d5d9de; --mark: #e8f1fa; --back: #fff; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e4e7eb; --soft: #9aa4af; --line: #3a4149; --mark: #1d3042; --back: #16191d; }
}
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--back); max-width: 1080px;
  margin: 2rem auto; padding: 0 1rem; overflow-wrap: anywhere; }
h1 { font-size: 1.7rem; margin: 0; } h2 { font-size: 1.25rem; margin: 2.5rem 0 .5rem; }
h3 { font-size: 1.05rem; margin: 1.75rem 0 .25rem; } p { margin: .4rem 0; }
.facts, figcaption, .note, summary { color: var(--soft); font-size: .88rem; }
.facts { margin-bottom: 1.25rem; }
figure { margin: 0 0 1.25rem; } figcaption { margin-top: .3rem; }
img { display: block; max-width: 100%; border-radius: 4px; background: #fff; }
.row { display: flex; flex-wrap: wrap; gap: 0 1rem; }
.row figure { flex: 1 1 260px; max-width: 500px; } .row img { width: 100%; image-rendering: pixelated; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; margin: .6rem 0; font-size: .92rem; }
th, td { padding: .3rem .8rem; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap;
  font-variant-numeric: tabular-nums; font-weight: normal; }
th:first-child, .settings td { text-align: left; } thead th { color: var(--soft); }
tr.encoder { background: var(--mark); } .best { font-weight: 700; } .settings td { white-space: normal; }
"""
