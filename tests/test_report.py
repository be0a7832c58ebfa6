"""The report is one safe file whose figures are the scores', and it is written whole or not at all."""

import errno
import json
import math
import os
import re
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hsssl.comparison import ROW_KEYS, compare, score_rows
from hsssl.cube import Cube
from hsssl.evaluate import evaluate
from hsssl.report import write_report

HOSTILE = "<script>alert('x')</script>\"&"
VOID = {"meta", "img", "br", "link"}


class Page(HTMLParser):
    """Collects tags, addresses, table rows and text; fails on tags that do not match."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.links: list[str] = []
        self.rows: list[list[str]] = []
        self.feed(source)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "action")]
        assert not any(name.startswith("on") for name, _ in attrs)
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in ("td", "th"):
            self.rows[-1][-1] += data


@pytest.fixture(scope="module")
def inputs() -> dict[str, Any]:
    """A small scene of 4 fields, scored by the real protocol."""
    rng = np.random.default_rng(0)
    labels = np.kron(np.arange(16).reshape(4, 4) % 4 + 1, np.ones((16, 16), np.int64))
    labels[::9] = 0
    means = rng.normal(size=(5, 6))
    values = 100 + 10 * means[labels] + 20 * rng.normal(size=(64, 64, 6))
    cube = Cube(values.astype(np.float32), wavelengths=np.array([450.0, 550.0, 650.0, 850.0, 1200.0, 1600.0]))
    features = (means[labels] + rng.normal(size=(64, 64, 6))).astype(np.float32)
    scores = [
        evaluate(features, labels, classifier, split, per_class, 1, guard=guard, seeds=3, cube=cube)
        for classifier in ("knn", "linear")
        for split, per_class, guard in (("random", 10, None), ("block", 100, 4))
    ]
    return {
        "title": f"Scene {HOSTILE}", "cube": cube, "labels": labels, "class_names": (HOSTILE, "b", "c", "d"),
        "features": features, "class_map": labels.astype(np.uint8), "scores": scores,
        "metrics": [
            {"step": step, "loss": 1.0 / (1 + step), "feature_std": 0.9, "effective_rank": 12.0,
             "patches_per_second": 1000.0, "lr": 1e-3} for step in range(20)
        ],
        "config": {"settings": {"out": f"/data/{HOSTILE}", "windows": [1, 3]}, HOSTILE: {"seed": 0}},
    }  # fmt: skip


@pytest.fixture(scope="module")
def report(inputs: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(tmp_path_factory.mktemp("run") / "report", **inputs)


def snapshot(folder: Path) -> dict[str, bytes | None]:
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
    }


def test_page_is_whole_and_needs_nothing_else(report: Path) -> None:
    source = report.read_text(encoding="utf-8")
    page = Page(source)
    assert page.links
    assert all(link.startswith("data:image/png;base64,") for link in page.links)
    assert not {"script", "link", "iframe", "object", "form"} & set(page.tags)
    assert "url(" not in source
    assert "@import" not in source
    assert "http" not in source.replace("http-equiv", "")
    assert page.tags.index("img") < page.tags.index("table")


def test_all_that_is_shown_is_escaped(report: Path) -> None:
    source = report.read_text(encoding="utf-8")
    assert "<script" not in source
    assert source.count("&lt;script&gt;alert(&#x27;x&#x27;)&lt;/script&gt;&quot;&amp;") >= 5


def test_tables_hold_the_scores(report: Path, inputs: dict[str, Any]) -> None:
    rows = [row for row in Page(report.read_text(encoding="utf-8")).rows if row]
    for protocol in compare(score_rows(inputs["scores"])):
        for method in protocol.methods:
            values = [list(protocol.by_seed(method, name).values()) for name in ("knn", "linear")]
            cells = [f"{100 * np.mean(v):.1f} ± {100 * np.std(v, ddof=1) / 3**0.5:.1f}" for v in values]
            assert any(row[1:3] == cells for row in rows)


def test_every_protocol_has_its_verdict_and_audit(report: Path, inputs: dict[str, Any]) -> None:
    text = re.sub(r"<[^>]+>", " ", report.read_text(encoding="utf-8"))
    verdicts = re.findall(r"(Won|Lost|Tied): .*? paired over the same 3 splits", text)
    assert len(verdicts) == len(compare(score_rows(inputs["scores"]))) == 2
    assert text.count("Leakage audit:") == 2
    assert "transductive" in text


def test_scores_json_has_a_row_for_each_seed(report: Path, inputs: dict[str, Any]) -> None:
    rows = json.loads((report.parent / "scores.json").read_text(encoding="utf-8"))
    assert rows == score_rows(inputs["scores"])
    assert all(tuple(row) == ROW_KEYS for row in rows)
    assert {row["seed"] for row in rows} == {0, 1, 2}
    score = inputs["scores"][3]
    ours = [
        row["oa"]
        for row in rows
        if (row["method"], row["classifier"], row["split"]) == ("encoder", "linear", "block")
    ]
    assert score.oa == pytest.approx(np.mean(ours))


def test_pictures_lie_beside_the_page_and_in_it(report: Path) -> None:
    from PIL import Image

    names = {path.name for path in (report.parent / "pictures").iterdir()}
    assert names == {
        "natural.png", "infrared.png", "features.png", "classes.png", "scores.png", "confusion.png",
        "training.png",
    }  # fmt: skip
    for name in names:
        picture = np.asarray(Image.open(report.parent / "pictures" / name).convert("RGB"))
        assert picture.std() > 5
    assert len(Page(report.read_text(encoding="utf-8")).links) == len(names)


def test_nothing_is_overwritten_unasked(report: Path, inputs: dict[str, Any]) -> None:
    before = snapshot(report.parent)
    with pytest.raises(FileExistsError, match="--overwrite"):
        write_report(report.parent, **inputs)
    assert snapshot(report.parent) == before


@pytest.mark.parametrize("where", ["write", "fsync"])
@pytest.mark.parametrize("earlier", [False, True])
def test_a_full_disk_leaves_the_folder_as_it_was(
    where: str, earlier: bool, inputs: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = inputs | {"scores": [], "metrics": []}
    if earlier:
        write_report(tmp_path / "report", **plain | {"title": "earlier"})
    before = snapshot(tmp_path)
    calls = 0

    def full(*_: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise OSError(errno.ENOSPC, "No space left on device")

    if where == "fsync":
        monkeypatch.setattr(os, "fsync", full)
    else:
        opened = Path.open

        def narrow(path: Path, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
            if "w" in mode:
                full()
            return opened(path, mode, *args, **kwargs)

        monkeypatch.setattr(Path, "open", narrow)
    with pytest.raises(OSError, match="No space"):
        write_report(tmp_path / "report", **plain, overwrite=True)
    assert calls == 3
    assert snapshot(tmp_path) == before


def test_an_overwritten_report_keeps_no_pictures_of_the_earlier_one(
    inputs: dict[str, Any], tmp_path: Path
) -> None:
    write_report(tmp_path, **inputs | {"scores": []})
    bare = inputs | {
        "scores": [],
        "metrics": [],
        "labels": None,
        "class_map": None,
        "class_names": (),
        "config": {},
    }
    page = write_report(tmp_path, **bare, overwrite=True)
    assert {path.name for path in (tmp_path / "pictures").iterdir()} == {
        "natural.png",
        "infrared.png",
        "features.png",
    }
    assert "table" not in Page(page.read_text(encoding="utf-8")).tags
    assert json.loads((tmp_path / "scores.json").read_text()) == []


def test_what_does_not_fit_is_refused_before_anything_is_written(
    inputs: dict[str, Any], tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="features must have 64 x 64 pixels"):
        write_report(tmp_path / "report", **inputs | {"features": inputs["features"][:5]})
    with pytest.raises(FileNotFoundError, match="create it first"):
        write_report(tmp_path / "no" / "report", **inputs | {"scores": [], "metrics": []})
    assert not list(tmp_path.iterdir())


@dataclass
class Rows:
    """What the comparison needs of a score."""

    rows: list[dict[str, Any]]


def row(method: str, seed: int, oa: float, **more: Any) -> dict[str, Any]:
    base = {"method": method, "classifier": "linear", "split": "block", "guard": 4, "seed": seed, "oa": oa}
    return base | {"aa": np.float32(0.5), "kappa": math.nan} | more


@pytest.mark.parametrize(
    ("ours", "theirs", "word", "gain", "error"),
    [
        ([0.7, 0.8, 0.9], [0.6, 0.7, 0.8], "Won", 0.1, 0.0),
        ([0.6, 0.7, 0.8], [0.7, 0.8, 0.9], "Lost", -0.1, 0.0),
        # Differences 0.2, -0.1, 0.05: mean 0.05, s = sqrt((0.15^2 + 0.15^2) / 2) = 0.15.
        ([0.8, 0.7, 0.75], [0.6, 0.8, 0.7], "Tied", 0.05, 0.15 / 3**0.5),
        ([0.8], [0.7], "Won", 0.1, math.nan),
    ],
)
def test_verdict_is_paired_by_seed(
    ours: list[float], theirs: list[float], word: str, gain: float, error: float
) -> None:
    found = [row("raw spectrum", seed, oa) for seed, oa in enumerate(theirs)]
    found += [row("encoder", seed, oa) for seed, oa in reversed(list(enumerate(ours)))]
    found += [row("poor", seed, 0.1) for seed in range(len(ours))]
    (protocol,) = compare(score_rows([Rows(found)]))
    assert protocol.methods == ["encoder", "raw spectrum", "poor"]
    verdict = protocol.verdict()
    assert verdict is not None
    assert verdict.word == word
    assert verdict.baseline_method == "raw spectrum"
    assert verdict.gain.mean == pytest.approx(gain)
    assert verdict.gain.error == pytest.approx(error, abs=1e-12, nan_ok=True)
    assert verdict.ahead == sum(a > b for a, b in zip(ours, theirs, strict=True))


def test_there_is_no_verdict_without_both_sides_on_one_split() -> None:
    (alone,) = compare([row("encoder", 0, 0.5)])
    assert alone.verdict() is None
    (apart,) = compare([row("encoder", 0, 0.5), row("raw spectrum", 1, 0.5)])
    assert apart.verdict() is None


def test_rows_are_plain_numbers_each_once() -> None:
    twice = [Rows([row("encoder", 0, 0.5)]), Rows([row("encoder", 0, 0.5, extra=1)])]
    (only,) = score_rows(twice)
    assert tuple(only) == ROW_KEYS
    assert type(only["aa"]) is float
    assert only["kappa"] is None
    with pytest.raises(ValueError, match="two results"):
        score_rows([*twice, Rows([row("encoder", 0, 0.6)])])
    with pytest.raises(ValueError, match="it lacks seed"):
        score_rows([Rows([{key: 0 for key in ROW_KEYS if key != "seed"}])])
