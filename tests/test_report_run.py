"""A run on a scene becomes a report: with labels its scores and a map, without them pictures alone."""

from __future__ import annotations

import json
import logging

import numpy as np
import pytest

import hsssl
from hsssl.cli import main
from hsssl.cube import Cube
from hsssl.readers import read
from hsssl.report_run import report_run
from hsssl.scenes import SCENES, Scene
from hsssl.train import pretrain

SMALL = {"dim": 8, "channels": 16}


@pytest.fixture(scope="module")
def stripes() -> Scene:
    """Two materials in six stripes, wide enough for blocks that are a footprint apart."""
    rng = np.random.default_rng(0)
    truth = np.repeat(np.repeat([[1, 2, 1, 2, 1, 2]], 48, axis=0), 8, axis=1)
    values = rng.integers(500, 3000, (3, 8))[truth] + rng.integers(0, 90, (48, 48, 8))
    cube = Cube(values.astype(np.uint16), wavelengths=np.linspace(450, 900, 8), source="stripes")
    return Scene(cube, truth, ("soil", "grass"))


@pytest.fixture
def run(stripes, tmp_path):
    return pretrain(
        [stripes.cube], "simclr", out=tmp_path / "run", steps=2, batch_size=32, windows=(1, 3),
        encoder_options=SMALL, progress=False,
    )  # fmt: skip


def test_report_with_labels_scores_features_beside_baselines_and_draws_a_map(run, stripes):
    page = report_run(
        run, stripes.cube, stripes.labels, class_names=stripes.class_names, seeds=2, progress=False
    )
    assert page == run.path / "report.html"
    assert "simclr on stripes" in page.read_text()
    rows = json.loads((run.path / "scores.json").read_text())
    assert {row["method"] for row in rows} > {"encoder", "raw spectrum"}
    assert {(row["split"], row["guard"]) for row in rows} == {("random", None), ("block", 4), ("block", 1)}
    assert {row["seed"] for row in rows} == {0, 1}
    assert (read(run.path / "map.tif").values[:, :, 0] == stripes.labels).mean() > 0.9
    with pytest.raises(FileExistsError):
        report_run(run.path, stripes.cube, progress=False)


def test_report_without_labels_has_pictures_and_training_but_no_scores(run, stripes, tmp_path):
    page = report_run(str(run.path), stripes.cube, out=tmp_path / "pictures", title="A <b>", progress=False)
    assert page.parent == tmp_path / "pictures"
    assert json.loads((page.parent / "scores.json").read_text()) == []
    assert "A &lt;b&gt;" in page.read_text()
    assert not (page.parent / "map.tif").exists()
    assert {file.name for file in (page.parent / "pictures").iterdir()} >= {"features.png", "training.png"}


def test_report_leaves_out_a_protocol_that_a_small_scene_cannot_hold(run, stripes, caplog):
    few = np.where(np.arange(48)[:, None] < 6, stripes.labels, 0)  # one row of tiles, 8 pixels wide stripes
    few[:, 16:] = 0
    with caplog.at_level(logging.WARNING, "hsssl"):
        report_run(run, stripes.cube, few, seeds=2, progress=False)
    assert "a protocol is left out: block split" in caplog.text
    rows = json.loads((run.path / "scores.json").read_text())
    assert {row["split"] for row in rows} == {"random"}


def test_pretrain_command_gives_a_report_with_scores_for_a_named_scene(
    stripes, tmp_path, monkeypatch, capsys
):
    monkeypatch.setitem(SCENES, "stripes", lambda: stripes)
    out = tmp_path / "run"
    words = ["pretrain", "stripes", "--out", str(out), "--steps", "2", "--batch-size", "32", "--report"]
    assert main([*words, "--encoder-options", "dim", "8", "channels", "16"]) == 0
    assert "report.html" in capsys.readouterr().out
    assert "grass" in (out / "report.html").read_text()
    assert main(["report", str(out), "stripes"]) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert main(["report", str(out), "stripes", "--overwrite", "--seeds", "1"]) == 0
    assert len({row["seed"] for row in json.loads((out / "scores.json").read_text())}) == 1


def test_finetune_command_prints_a_score_beside_the_frozen_one(stripes, run, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(hsssl.SCENES, "stripes", lambda: stripes)
    words = ["finetune", str(run.path), "stripes", "--split", "random", "--seeds", "1", "--epochs", "1"]
    assert main(words) == 0
    said = capsys.readouterr().out
    assert "encoder, fine-tuned" in said
    assert "encoder, frozen" in said
    assert "position alone" in said
    assert main([*words, "--epochs", "0"]) == 2
    assert "epochs must be at least 1" in capsys.readouterr().err
    assert main(["finetune", str(run.path), "stripes", "--split", "fixed"]) == 2
    assert "--test-labels" in capsys.readouterr().err
