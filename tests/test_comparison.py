"""The comparison of methods: end to end on a small scene, and its statistics worked out by hand."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import torch

import hsssl
from hsssl.encoders import build_encoder
from hsssl.evaluate import BASELINES, CLASSIFIERS
from hsssl_kernels.random import stream_key

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


@pytest.fixture(autouse=True)
def _examples_are_importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLES))


def write_scene(folder: Path) -> list[str]:
    """Write 64 x 64 pixels of 8 bands, fields of 8 x 8 pixels of 3 classes, and return the options for it."""
    rng = np.random.default_rng(0)
    labels = rng.integers(1, 4, (8, 8)).repeat(8, 0).repeat(8, 1)
    means = rng.normal(size=(4, 8))
    values = 1000 + 100 * (means[labels] + rng.normal(size=(64, 64, 8)))
    scipy.io.savemat(folder / "small.mat", {"small": values.astype(np.int16)})
    scipy.io.savemat(folder / "small_gt.mat", {"labels": labels})
    return ["--scene", str(folder / "small.mat"), "--labels", str(folder / "small_gt.mat")]


def test_end_to_end_and_again(tmp_path, monkeypatch, capsys):
    """Two methods, two seeds, tables; a second call changes nothing, and one run lost is made again."""
    import compare_methods

    monkeypatch.setattr(compare_methods, "apart", lambda work, *arguments: work(*arguments))
    monkeypatch.setattr(compare_methods, "BATCH", 64)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    options = [*write_scene(tmp_path), "--seconds", "0.01", "--seeds", "2", "--splits", "3"]
    options += ["--out", str(tmp_path / "out"), "--methods", "simclr", "vae"]

    def run(*more: str) -> list[str]:
        assert compare_methods.main([*options, *more]) == 0
        return [
            line for line in capsys.readouterr().out.splitlines() if "seed" in line or "baselines" in line
        ]

    folder = tmp_path / "out" / "small"
    run("--calibrate")
    assert set(json.loads((folder / "costs.json").read_text())) == {"untrained encoder", "simclr", "vae"}
    assert len(run()) == 7  # the baselines, and two seeds of the untrained encoder and of both methods
    text, table = (folder / "table.md").read_text(), json.loads((folder / "table.json").read_text())
    assert (folder / "table.png").read_bytes()[1:4] == b"PNG"
    for name in ("simclr", "vae", "untrained encoder", "position alone", *BASELINES):
        assert f"| {name} |" in text
    assert "Leakage audit" in text
    assert "The untrained encoder, averaged over the same windows, is " in text
    assert "Pretraining seeds [0, 1], splits [10, 11, 12]" in text
    found = {(run["made_by"].get("entry"), run["made_by"].get("seed")): run for run in table["runs"]}
    assert set(found) == {(None, None)} | {
        (name, seed) for name in ("simclr", "vae", "untrained encoder") for seed in (0, 1)
    }
    scores = found["vae", 1]["scores"]["vae"]
    assert set(scores) == {"random", "block"}
    assert {len(scores["block"][name]["kappa"]) for name in CLASSIFIERS} == {3}
    assert found["simclr", 0]["made_by"]["settings"] == found["simclr", 1]["made_by"]["settings"]
    assert found["simclr", 0]["scores"] != found["simclr", 1]["scores"]

    assert run() == []
    (folder / "vae" / "seed1" / "record.json").unlink()
    assert run() == [str(folder / "vae" / "seed1")]
    again = json.loads((folder / "table.json").read_text())["runs"]
    assert (
        next(one for one in again if one["made_by"] == found["vae", 1]["made_by"])["scores"]["vae"] == scores
    )
    assert [Path(line).parent.name for line in run("--redo", "simclr") if "seed" in line] == ["simclr"] * 2


def test_a_run_has_a_process_of_its_own():
    import compare_methods

    assert compare_methods.apart(os.getpid) != os.getpid()


def test_a_method_that_fails_does_not_stop_the_others(tmp_path, monkeypatch, capsys):
    import compare_methods

    def apart(function, *arguments):
        if function is compare_methods.measure and arguments[2]["entry"] == "simclr":
            raise FloatingPointError("step 3: the loss is nan")
        return function(*arguments)

    monkeypatch.setattr(compare_methods, "apart", apart)
    monkeypatch.setattr(compare_methods, "BATCH", 64)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    (tmp_path / "small").mkdir()
    costs = dict.fromkeys(["simclr", "vae", "untrained encoder"], 1.0)
    (tmp_path / "small" / "costs.json").write_text(json.dumps(costs))
    options = [*write_scene(tmp_path), "--seconds", "0.01", "--seeds", "1", "--splits", "2"]
    assert compare_methods.main([*options, "--out", str(tmp_path), "--methods", "simclr", "vae"]) == 1
    assert "simclr/seed0: failed: step 3: the loss is nan" in capsys.readouterr().err
    text = (tmp_path / "small" / "table.md").read_text()
    assert "| vae |" in text
    assert "| simclr |" not in text


def test_untrained_encoder_is_where_training_starts(tmp_path):
    """Its weights are those that each method of the same seed starts from."""
    import compare_methods
    from comparison_scenes import load_task

    scene = write_scene(tmp_path)
    task = load_task(scene[1], scene[3], None)
    settings = compare_methods.ENTRIES["untrained encoder"]
    run = hsssl.pretrain([task.cube], out=tmp_path / "run", seed=5, progress=False, **settings)
    torch.manual_seed(stream_key(5, 3))
    fresh = build_encoder("spectral_spatial", patch_size=1).state_dict()
    for name, weights in run.encoder().state_dict().items():
        torch.testing.assert_close(weights, fresh[name], rtol=0, atol=1e-11)


def row(name: str, values: list[list[float]]):
    """Return features with these OA (a list a seed) by the linear classifier, and 0 by the others."""
    from comparison_verdicts import Row

    zero = [0.0] * len(values[0])
    scores = [{"random": {c: {"oa": oa if c == "linear" else zero} for c in CLASSIFIERS}} for oa in values]
    return Row(name, [{"scores": {name: one}} for one in scores])


def verdicts(**better: list[list[float]]):
    """Return the verdicts over four splits on which the best baseline has OA .5, .6, .7, .8."""
    from comparison_verdicts import Verdicts

    rows = [row(name, [[0.1] * 4]) for name in list(BASELINES)[:-1]]
    rows.append(row(list(BASELINES)[-1], [[0.5, 0.6, 0.7, 0.8]]))
    return Verdicts([*rows, *(row(name, values) for name, values in better.items())], "random")


def test_gain_is_paired_over_splits():
    """Differences 4, 8, 6, 10: mean 7, s = 2.582, t(.975, 3) = 3.182 (table): 7 - 3.182 x 1.291 = 2.892."""
    from comparison_verdicts import Gain

    found = verdicts(simclr=[[0.52, 0.66, 0.74, 0.88], [0.56, 0.70, 0.78, 0.92]])
    gain = found.gain(("simclr", "linear"))
    assert found.baseline == (list(BASELINES)[-1], "linear")
    assert gain.mean == pytest.approx(7.0)
    assert gain.lower == pytest.approx(2.892, abs=2e-3)
    assert str(gain) == "+7.0 (≥ +2.9)"
    assert str(Gain.of(np.array([3.0]))) == "+3.0"


def test_seeds_do_not_count_as_splits():
    """Ten copies of the same seed leave the interval as it is."""
    once = verdicts(simclr=[[0.52, 0.66, 0.74, 0.88]]).gain(("simclr", "linear"))
    assert verdicts(simclr=[[0.52, 0.66, 0.74, 0.88]] * 10).gain(("simclr", "linear")) == once


def test_best_is_chosen_on_the_other_splits():
    """Each of two methods wins by luck on one split: chosen on the others, the luck is gone."""
    base = [0.5, 0.6, 0.7, 0.8]
    found = verdicts(simclr=[[0.9, *base[1:]]], vae=[[*base[:3], 1.1]])
    # on split 0 vae leads the other three, elsewhere simclr does: gains 0, 0, 0, 0
    assert found.gain(found.highest(found.pretrained)).mean == pytest.approx(10.0)
    assert found.cross_chosen().mean == pytest.approx(0.0)


def test_beating_the_raw_spectrum():
    found = verdicts(simclr=[[0.26] * 4], vae=[[0.24] * 4])
    assert found.beating_raw(["simclr", "vae"]) == ["simclr"]


def test_spread_tells_splits_from_seeds():
    """Columns are splits (means 15, 17), rows are seeds (means 11, 21)."""
    from comparison_table import spread

    assert spread(np.array([[10.0, 12.0], [20.0, 22.0]])) == "16.0 ± 1.4 (7.1)"
    assert spread(np.array([[10.0]])) == "10.0"


def test_thinned_training_pixels():
    import compare_methods

    train, test = np.zeros((40, 40), np.int64), np.ones((40, 40), np.int64)
    train[:10], train[10:12, :30] = 1, 2
    test[:12] = 0
    drawn = compare_methods.drawn((train, test), [10, 11])
    assert [seed for seed, _ in drawn] == [10, 11]
    for _, (kept, tested) in drawn:
        assert np.bincount(kept.ravel()).tolist()[1:] == [100, 60]
        assert ((kept == 0) | (kept == train)).all()
        assert tested is test
    assert (drawn[0][1][0] != drawn[1][1][0]).any()
    few = np.where(np.arange(1600).reshape(40, 40) < 100, 1, 0)
    assert len(compare_methods.drawn((few, test), [10, 11])) == 1


def test_tiles_lie_where_they_were_taken(data_dir):
    """The 18 EnMAP tiles: tile_128_32 is 32 pixels south of tile_128_0 and 64 east of tile_64_0."""
    from comparison_scenes import load_task, trained_tiles

    folder = data_dir / "enmap_potsdam"
    task = load_task(str(folder), None, None)
    assert task.cube.values.shape == (192, 160, 218)
    assert task.cube.valid.sum() == 18 * 32 * 32
    tile = hsssl.prepare(hsssl.open_cube(folder / "images" / "enmap_potsdam_tile_128_32.tif"))
    assert (task.cube.values[32:64, 64:96] == tile.values).all()
    train, test = task.fixed
    assert np.count_nonzero(train) == 4055
    assert 0 < np.count_nonzero(test) < 1617
    here = hsssl.open_labels(folder / "labels" / "enmap_potsdam_tile_160_96.tif")
    assert (test[96 + 7 : 128 - 7, 96 + 7 : 128 - 7] == here[7:-7, 7:-7]).all()
    assert len(trained_tiles(folder / "train_files.csv")) == 14


def test_wrong_inputs(tmp_path, monkeypatch, capsys):
    import compare_methods
    from comparison_scenes import load_task

    monkeypatch.setattr(compare_methods, "apart", lambda work, *arguments: work(*arguments))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert compare_methods.main(["--scene", "indian_pine", "--labels", "x", "--out", str(tmp_path)]) == 2
    assert "indian_pines" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        compare_methods.main(["--seeds", "0", "--out", str(tmp_path)])

    with pytest.raises(ValueError, match="give its label map as --labels"):
        load_task("cube.mat", None, None)
    with pytest.raises(ValueError, match="no tiles"):
        load_task(str(tmp_path), None, None)
