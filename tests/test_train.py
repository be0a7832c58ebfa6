"""Training: the run directory, resuming bit-identically after a kill, refusals."""

import errno
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from torch import nn

from hsssl.cube import Cube
from hsssl.embed import embed
from hsssl.methods.simclr import SimCLR
from hsssl.run import Run, load_encoder
from hsssl.sampling import draw_views, load_resident
from hsssl.spec import Sensor
from hsssl.train import pretrain
from hsssl.views import DEFAULT_VIEWS, ViewSpec

SMALL = {"encoder_options": {"dim": 16, "hidden": 32, "channels": 32}, "batch_size": 32, "progress": False}


def synthetic(bands: int = 12, seed: int = 0, source: str = "synthetic") -> Cube:
    rng = np.random.default_rng(seed)
    values = rng.integers(100, 4000, (20, 24, bands)).astype(np.uint16)
    return Cube(values, wavelengths=np.linspace(420, 980, bands), source=source)


def contents(folder: Path) -> dict[str, str]:
    files = [file for file in folder.rglob("*") if file.is_file()]
    return {str(f.relative_to(folder)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}


def weights(run: Run) -> bytes:
    return run.weights_file.read_bytes()


def test_run_directory(tmp_path):
    cube = synthetic()
    run = pretrain([cube], out=tmp_path / "run", steps=25, seed=3, **SMALL)
    files = {"config.yaml", "metrics.jsonl", "checkpoint/state.pt", "encoder.safetensors", "encoder.json"}
    assert set(contents(run.path)) == files
    assert [row["step"] for row in run.metrics] == [0, 10, 20, 24]
    assert all(row["feature_std"] > 0 and row["effective_rank"] >= 1 for row in run.metrics)
    record = yaml.safe_load(run.config_file.read_text())
    assert record["settings"]["seed"] == 3
    assert record["versions"]["torch"] == torch.__version__
    assert record["inputs"][0]["values_sha256"] == hashlib.sha256(cube.values.tobytes()).hexdigest()
    assert {"commit", "device", "machine"} <= set(record)
    encoder = run.encoder()
    assert encoder.spec.sensors[0].wavelengths == tuple(cube.wavelengths)
    assert encoder.spec.footprint == 15


def test_file_hash_is_that_of_the_file(tmp_path):
    from scipy.io import savemat

    savemat(tmp_path / "cube.mat", {"cube": synthetic().values})
    run = pretrain(tmp_path / "cube.mat", out=tmp_path / "run", steps=1, **SMALL)
    digest = hashlib.sha256((tmp_path / "cube.mat").read_bytes()).hexdigest()
    assert run.config["inputs"][0]["file_sha256"] == digest


@pytest.mark.parametrize("method", ["byol", "simclr"])
def test_same_seed_same_weights_other_seed_other_weights(tmp_path, method):
    runs = [
        pretrain([synthetic()], method, out=tmp_path / str(i), steps=6, seed=seed, **SMALL)
        for i, seed in enumerate((0, 0, 1))
    ]
    assert weights(runs[0]) == weights(runs[1]) != weights(runs[2])


SCRIPT = """
import sys
sys.path.insert(0, {tests!r})
from test_train import SMALL, synthetic
from hsssl.train import pretrain
pretrain([synthetic()], "{method}", out={out!r}, steps=60, checkpoint_every=7, resume={resume}, **SMALL)
"""


def start(out: Path, method: str, *, resume: bool) -> subprocess.Popen:
    code = SCRIPT.format(tests=str(Path(__file__).parent), out=str(out), method=method, resume=resume)
    return subprocess.Popen([sys.executable, "-c", code])


@pytest.mark.parametrize(("method", "lines"), [("byol", 2), ("simclr", 4)])
def test_killed_and_resumed_run_is_bit_identical(tmp_path, method, lines):
    """Killed twice, wherever that falls, and resumed: weights and metrics are those of the unbroken run."""
    whole = pretrain([synthetic()], method, out=tmp_path / "whole", steps=60, checkpoint_every=7, **SMALL)
    broken = Run(tmp_path / "broken")
    for kill in (lines, lines + 2):
        process = start(broken.path, method, resume=kill > lines)
        deadline = time.monotonic() + 120
        while process.poll() is None and time.monotonic() < deadline:
            if broken.metrics_file.exists() and len(broken.metrics_file.read_bytes().split(b"\n")) > kill:
                break
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert not broken.spec_file.exists()
    resumed = pretrain(
        [synthetic()], method, out=broken.path, steps=60, checkpoint_every=7, resume=True, **SMALL
    )
    assert weights(resumed) == weights(whole)
    timed = {"patches_per_second"}
    for ours, theirs in zip(resumed.metrics, whole.metrics, strict=True):
        assert {k: v for k, v in ours.items() if k not in timed} == {
            k: v for k, v in theirs.items() if k not in timed
        }
    ours, theirs = (torch.load(run.checkpoint_file, weights_only=True) for run in (resumed, whole))
    assert str(ours) == str(theirs)


def test_resume_of_a_finished_run_changes_nothing(tmp_path):
    run = pretrain([synthetic()], out=tmp_path / "run", steps=5, **SMALL)
    before = {file: file.stat().st_mtime_ns for file in run.path.rglob("*")}
    pretrain([synthetic()], out=tmp_path / "run", steps=5, resume=True, **SMALL)
    assert before == {file: file.stat().st_mtime_ns for file in run.path.rglob("*")}


def test_resume_without_a_checkpoint_starts_at_step_0(tmp_path):
    whole = pretrain([synthetic()], out=tmp_path / "whole", steps=12, **SMALL)
    out = tmp_path / "run"
    out.mkdir()
    (out / "metrics.jsonl").write_text('{"step": 0, "loss": 9}\n{"st')
    run = pretrain([synthetic()], out=out, steps=12, resume=True, **SMALL)
    assert weights(run) == weights(whole)
    assert [row["step"] for row in run.metrics] == [0, 10, 11]


def test_resume_sweeps_what_a_kill_left_half_written(tmp_path):
    out = tmp_path / "run"
    (out / "checkpoint").mkdir(parents=True)
    (out / "checkpoint" / ".state.0123456789ab.tmp.pt").write_bytes(b"half")
    (out / ".keep").write_text("mine")
    run = pretrain([synthetic()], out=out, steps=2, resume=True, **SMALL)
    hidden = {name for name in contents(run.path) if Path(name).name.startswith(".")}
    assert hidden == {".keep"}


def test_metrics_are_cut_back_to_the_checkpoint(tmp_path):
    run = Run(tmp_path)
    rows = [{"step": step, "loss": 1.0} for step in (0, 10, 20)]
    run.metrics_file.write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"step": 30, "lo')
    assert run.cut_metrics(20) == rows[:2]
    assert run.metrics == rows[:2]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 1}, "made with seed=0, now it is 1"),
        ({"steps": 9}, "made with steps=5, now it is 9"),
        ({"cubes": [synthetic(seed=5)]}, "other cubes"),
        ({"cubes": [replace(synthetic(), wavelengths=np.linspace(420, 990, 12))]}, "other bands or wavel"),
        ({"cubes": [replace(synthetic(), valid=np.arange(480).reshape(20, 24) > 0)]}, "other valid pixels"),
    ],
)
def test_resume_with_other_settings_is_refused(tmp_path, change, message):
    arguments = {"cubes": [synthetic()], "out": tmp_path / "run", "steps": 5, **SMALL}
    pretrain(**arguments)
    before = contents(tmp_path)
    with pytest.raises(ValueError, match=message):
        pretrain(**(arguments | change), resume=True)
    assert contents(tmp_path) == before


def test_a_run_without_its_record_is_not_resumed(tmp_path):
    run = pretrain([synthetic()], out=tmp_path / "run", steps=2, **SMALL)
    run.config_file.unlink()
    with pytest.raises(ValueError, match=r"config\.yaml: is missing; pass --overwrite"):
        pretrain([synthetic()], out=run.path, steps=2, resume=True, **SMALL)


def test_truncated_checkpoint_is_refused(tmp_path):
    run = pretrain([synthetic()], out=tmp_path / "run", steps=5, **SMALL)
    data = run.checkpoint_file.read_bytes()
    for keep in (0, 10, len(data) // 2, len(data) - 100):
        run.checkpoint_file.write_bytes(data[:keep])
        with pytest.raises(ValueError, match="damaged or truncated"):
            pretrain([synthetic()], out=run.path, steps=5, resume=True, **SMALL)


def test_a_checkpoint_runs_nothing(tmp_path):
    run = pretrain([synthetic()], out=tmp_path / "run", steps=2, **SMALL)

    class Evil:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'ran'}",)

    torch.save({"step": 1, "model": Evil()}, run.checkpoint_file)
    with pytest.raises(ValueError, match="damaged"):
        pretrain([synthetic()], out=run.path, steps=2, resume=True, **SMALL)
    assert not (tmp_path / "ran").exists()


def test_non_empty_folder_is_refused_and_overwrite_leaves_other_files(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"is not empty; pass --resume"):
        pretrain([synthetic()], out=tmp_path, steps=2, **SMALL)
    assert set(contents(tmp_path)) == {"notes.txt"}
    pretrain([synthetic()], out=tmp_path, steps=2, overwrite=True, **SMALL)
    assert (tmp_path / "notes.txt").read_text() == "mine"
    with pytest.raises(ValueError, match="exclude each other"):
        pretrain([synthetic()], out=tmp_path, steps=2, resume=True, overwrite=True, **SMALL)


def test_full_disk_leaves_the_last_checkpoint_whole(tmp_path, monkeypatch):
    whole = pretrain([synthetic()], out=tmp_path / "whole", steps=20, checkpoint_every=5, **SMALL)
    real, calls = torch.save, []

    def full(state, path):
        calls.append(state["step"])
        if state["step"] == 15:
            real({"step": 15}, path)
            raise OSError(errno.ENOSPC, "No space left on device")
        real(state, path)

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match="No space left"):
        pretrain([synthetic()], out=tmp_path / "run", steps=20, checkpoint_every=5, **SMALL)
    monkeypatch.undo()
    run = Run(tmp_path / "run")
    assert calls == [5, 10, 15]
    assert set(contents(run.path)) == {"config.yaml", "metrics.jsonl", "checkpoint/state.pt"}
    assert torch.load(run.checkpoint_file, weights_only=True)["step"] == 10
    again = pretrain([synthetic()], out=run.path, steps=20, checkpoint_every=5, resume=True, **SMALL)
    assert weights(again) == weights(whole)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": 0}, "steps must be at least 1"),
        ({"steps": -5}, "steps must be at least 1"),
        ({"method": "bylo"}, "unknown method 'bylo'; did you mean byol"),
        ({"encoder": "spectral_vit"}, "unknown encoder.*spectral_spatial_vit"),
        ({"patch_size": 21}, "patch of 21 pixels is larger than the scene of 20 x 24"),
        ({"batch_size": 1}, "batch_size must be at least 2"),
        ({"windows": (2,)}, "windows must be odd"),
        ({"precision": "int4"}, "precision must be"),
        ({"log_every": 50}, "at most 10"),
        ({"cubes": []}, "at least one cube"),
        ({"method_options": {"momentun": 1}}, "momentun"),
    ],
)
def test_wrong_settings_leave_nothing_behind(tmp_path, change, message):
    arguments = {"cubes": [synthetic()], "out": tmp_path / "run", "steps": 2, **SMALL} | change
    with pytest.raises(ValueError, match=message):
        pretrain(**arguments)
    assert not (tmp_path / "run").exists()


def test_diverging_loss_is_an_error_not_a_result(tmp_path):
    with pytest.raises(FloatingPointError, match="lower the learning rate"):
        pretrain([synthetic()], out=tmp_path / "run", steps=40, lr=1e30, **SMALL)


def test_a_state_that_is_no_number_does_not_replace_the_last_good_one(tmp_path, monkeypatch):
    """The loss is nan from step 7 on; steps 0 and 10 are logged, and every second one is saved."""
    truth, steps = SimCLR.forward, iter(range(100))
    factor = lambda: float("nan") if next(steps) >= 7 else 1.0  # noqa: E731
    monkeypatch.setattr(SimCLR, "forward", lambda self, views: truth(self, views) * factor())
    with pytest.raises(FloatingPointError, match="step 7"):
        pretrain([synthetic()], "simclr", out=tmp_path / "run", steps=20, checkpoint_every=2, **SMALL)
    state = torch.load(tmp_path / "run" / "checkpoint" / "state.pt", weights_only=True)
    assert state["step"] == 6
    assert all(torch.isfinite(value).all() for value in state["model"].values())


def test_bf16_trains(tmp_path):
    run = pretrain([synthetic()], "simclr", out=tmp_path / "run", steps=3, precision="bf16", **SMALL)
    assert np.isfinite(run.metrics[-1]["loss"])


def test_cubes_of_two_sensors_share_one_run(tmp_path):
    cubes = [synthetic(12), synthetic(7, seed=1, source="other")]
    run = pretrain(cubes, out=tmp_path / "run", steps=12, **SMALL)
    encoder = load_encoder(run)
    assert [len(sensor.wavelengths) for sensor in encoder.spec.sensors] == [12, 7]
    for cube in cubes:
        assert embed(encoder, cube).shape == (20, 24, 16 * 5)


def test_own_module_serves_as_encoder(tmp_path):
    def module():
        return nn.Sequential(nn.Flatten(), nn.Linear(12 * 9, 8))

    own = {k: v for k, v in SMALL.items() if k != "encoder_options"}
    run = pretrain([synthetic()], encoder=module(), out=tmp_path / "run", steps=3, patch_size=3, **own)
    with pytest.raises(ValueError, match="pass it as `module`"):
        load_encoder(run.path)
    features = embed(load_encoder(run.path, module()), synthetic(), windows=(1,))
    assert features.shape == (20, 24, 8)
    with pytest.raises(ValueError, match="one fixed set of bands"):
        embed(load_encoder(run.path, module()), synthetic(7))


def test_a_module_in_evaluation_mode_trains_and_resumes_as_any(tmp_path):
    def module():
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.BatchNorm1d(8)).eval()

    class Killed(Exception):
        pass

    own = {k: v for k, v in SMALL.items() if k != "encoder_options"}
    arguments = {"cubes": [synthetic()], "method": "vicreg", "steps": 8, "checkpoint_every": 3, **own}
    whole = pretrain(**arguments, encoder=module(), out=tmp_path / "whole")
    broken = module()
    calls = iter(range(100))

    def stop(*_):
        if next(calls) == 12:  # two views a step, and one more where it is logged
            raise Killed

    handle = broken.register_forward_hook(stop)
    with pytest.raises(Killed):
        pretrain(**arguments, encoder=broken, out=tmp_path / "broken")
    handle.remove()
    resumed = pretrain(**arguments, encoder=module(), out=tmp_path / "broken", resume=True)
    assert resumed.weights_file.read_bytes() == whole.weights_file.read_bytes()


def test_unfinished_or_absent_runs_are_refused(tmp_path):
    with pytest.raises(ValueError, match="no trained encoder here"):
        load_encoder(tmp_path)
    run = pretrain([synthetic()], out=tmp_path / "run", steps=2, **SMALL)
    run.weights_file.write_bytes(run.weights_file.read_bytes()[:-50])
    with pytest.raises(ValueError, match="does not hold the weights"):
        load_encoder(run.path)
    run.spec_file.write_text("{}")
    with pytest.raises(ValueError, match="not a readable encoder specification"):
        load_encoder(run.path)


def test_sampler_deals_one_process_batch_to_the_ranks():
    cube = synthetic()
    scene = load_resident(cube, Sensor.of(cube))
    none = ViewSpec.none()

    def batch(rank, ranks, spec=none):
        return draw_views([scene], 32, patch_size=3, spec=spec, seed=0, step=4, rank=rank, ranks=ranks)

    whole, first, second = batch(0, 1), batch(0, 2), batch(1, 2)
    assert torch.equal(whole.a[0::2], first.a)
    assert torch.equal(whole.a[1::2], second.a)
    jittered = [batch(rank, 2, DEFAULT_VIEWS).a for rank in (0, 1)]
    assert not torch.equal(jittered[0] - first.a, jittered[1] - second.a)


def test_sampler_draws_valid_pixels_only_and_scenes_by_their_pixels():
    cubes = [synthetic(5), synthetic(5, seed=1)]
    valid = np.zeros((20, 24), dtype=bool)
    valid[3, 4] = valid[7, 7] = valid[9, 20] = True
    masked = Cube(cubes[1].values, cubes[1].wavelengths, valid=valid)
    scenes = [load_resident(cube, Sensor.of(cubes[0])) for cube in (cubes[0], masked)]
    assert scenes[1].centres.tolist() == [[3, 4], [7, 7], [9, 20]]
    expected = (masked.values[valid] - np.array(Sensor.of(cubes[0]).mean)) / np.array(Sensor.of(cubes[0]).std)
    drawn = draw_views(scenes[1:], 64, patch_size=1, spec=ViewSpec.none(), seed=0, step=0).a.flatten(1)
    assert {tuple(np.round(row, 3)) for row in drawn.tolist()} == {tuple(np.round(r, 3)) for r in expected}


def test_a_batch_comes_from_one_sensor_in_proportion_to_its_valid_pixels():
    cubes = [synthetic(5), synthetic(7, seed=1)]
    valid = np.zeros((20, 24), dtype=bool)
    valid[:5] = True  # 120 pixels, a fifth of all
    cubes[1] = Cube(cubes[1].values, cubes[1].wavelengths, valid=valid)
    scenes = [load_resident(cube, Sensor.of(cube)) for cube in cubes]
    steps, counts = 600, {5: 0, 7: 0}
    for step in range(steps):
        drawn = draw_views(scenes, 2, patch_size=1, spec=ViewSpec.none(), seed=0, step=step)
        assert drawn.a.shape == drawn.b.shape == (2, len(drawn.wavelengths), 1, 1)
        counts[len(drawn.wavelengths)] += 1
    # a binomial of 600 draws at 0.2: four standard deviations are 39
    assert abs(counts[7] - 0.2 * steps) < 39
