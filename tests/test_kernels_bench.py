"""The benchmark runner refuses to time what is wrong, and the table is what its tool would write."""

from __future__ import annotations

import dataclasses
import importlib
import json
import os
import re
import resource
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from hsssl_kernels import table, tune

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch):
    """The modules run and ops of benchmarks/."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import ops
    import run

    return run, ops


def test_runner_writes_a_table_and_json_from_a_bare_checkout(tmp_path: Path) -> None:
    out = tmp_path / "result.json"
    command = [
        sys.executable,
        str(ROOT / "benchmarks" / "run.py"),
        "--op",
        "nt_xent",
        "--n",
        "256",
        "--dim",
        "16",
    ]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "kernels")}
    done = subprocess.run(
        [*command, "--seconds", "0.01", "--no-compile", "--device", "cpu", "--out", str(out)],
        capture_output=True,
        text=True,
        env=environment,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert "naive eager" in done.stdout
    assert "exp2" in done.stdout
    ours = next(line for line in done.stdout.splitlines() if re.match(r"nt_xent +256  hsssl_kernels", line))
    assert re.search(r" \d\.\de-\d\d ", ours)  # its error against float64
    result = json.loads(out.read_text())
    assert {"device", "torch", "triton", "commit"} <= set(result["machine"])
    rows = {row["implementation"]: row for row in result["rows"]}
    assert rows["hsssl_kernels"]["ours_over_this"] == 1
    parts = rows["hsssl_kernels"]["roofline"]
    assert parts["sum_ms"] == pytest.approx(parts["matrix_ms"] + parts["exp2_ms"] + parts["copy_ms"])
    assert all(ms > 0 for ms in parts.values())
    share = rows["hsssl_kernels"]["share_of_roofline"]
    assert share == pytest.approx(parts["sum_ms"] / rows["hsssl_kernels"]["both"]["median_ms"])
    for passed in ("forward", "backward", "both"):
        row = rows["lightly structure"][passed]
        assert 0 < row["p20_ms"] <= row["median_ms"] <= row["p80_ms"]
    for peer in ("lightly", "pytorch-metric-learning"):
        line = next(
            line for line in done.stdout.splitlines() if re.match(rf"nt_xent +256  {peer} +(not|\d)", line)
        )
        assert ("not measured: " in line) == ("unavailable" in rows[peer])


def test_runner_refuses_to_time_a_wrong_op(bench, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    run, ops = bench
    right = ops.OPS["nt_xent"]
    for wrong in (lambda *z: right.fused(*z) * 1.001, lambda *z: right.fused(*z) * float("nan")):
        monkeypatch.setitem(ops.OPS, "nt_xent", dataclasses.replace(right, fused=wrong))
        arguments = ["--op", "nt_xent", "--n", "64", "--dim", "8", "--device", "cpu", "--seconds", "0.01"]
        assert run.main([*arguments, "--no-peers"]) == 1
        said = capsys.readouterr()
        assert "nt_xent: the check against float64 failed, so it is not timed" in said.err
        assert "hsssl_kernels" not in said.out


def test_memory_is_limited_while_it_is_measured_and_not_after(bench) -> None:
    from measure import limit_memory

    before = resource.getrlimit(resource.RLIMIT_DATA)
    with limit_memory("cpu"):
        assert (
            0
            < resource.getrlimit(resource.RLIMIT_DATA)[0]
            < os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        )
    assert resource.getrlimit(resource.RLIMIT_DATA) == before
    with limit_memory("cuda"):
        assert resource.getrlimit(resource.RLIMIT_DATA) == before


def test_the_cost_is_drawn_and_other_ops_are_handed_on(bench, tmp_path: Path, monkeypatch) -> None:
    run, ops = bench
    asked = []
    for module in ops.OTHERS.values():
        monkeypatch.setattr(importlib.import_module(module), "main", lambda a: asked.append(a) or 0)
    arguments = ["--op", "sinkhorn", *ops.OTHERS, "--n", "64", "128", "--dim", "8", "--device", "cpu"]
    arguments += ["--seconds", "0.01", "--no-peers", "--no-compile", "--plot", str(tmp_path / "cost.png")]
    assert run.main([*arguments, "--out", str(tmp_path / "cpu.json")]) == 0
    assert (tmp_path / "cost.png").read_bytes().startswith(b"\x89PNG")
    shared = ["--device", "cpu", "--seconds", "0.01", "--out"]
    assert asked == [[*shared, str(tmp_path / f"cpu_{name}.json")] for name in ops.OTHERS]


def test_every_registered_op_passes_its_check(bench) -> None:
    run, ops = bench
    for name, op in ops.OPS.items():
        passed, errors = run.check(op, 32, torch.float32, "cpu")
        assert passed, (name, errors)


def test_time_can_be_the_processors(bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import measure

    monkeypatch.setattr(measure, "_clock", dict(measure._clock))
    assert measure.machine("cpu")["clock"] == "wall"
    threads = torch.get_num_threads()
    try:
        measure.count_cpu_time()
        asleep = measure.times(lambda: lambda: time.sleep(0.02), "cpu", 0.0)
        assert asleep["median_ms"] < 10
        assert (measure.machine("cpu")["clock"], torch.get_num_threads()) == ("CPU time, one thread", 1)
    finally:
        torch.set_num_threads(threads)


def test_peers_compute_the_same_loss(bench) -> None:
    _, ops = bench
    inputs = ops.OPS["nt_xent"].inputs(64, 8, torch.float64, "cpu")
    right = ops.OPS["nt_xent"].reference(*inputs)
    torch.testing.assert_close(ops.naive_nt_xent(*inputs), right)
    torch.testing.assert_close(ops.lightly_structure(*inputs), right)


@pytest.mark.parametrize(
    ("name", "naive"),
    [
        ("spectral_angle", "naive_spectral_angle"),
        ("spectral_angle_all", "naive_all_angles"),
        ("linear_mixing", "naive_mixing"),
    ],
)
def test_naive_forms_of_unmixing_have_the_same_gradients(bench, name: str, naive: str) -> None:
    _, ops = bench
    op = ops.OPS[name]
    assert op.plain is getattr(ops, naive)
    found = []
    for run in (op.fused, op.reference, op.plain):
        inputs = [x.requires_grad_(k < 2) for k, x in enumerate(op.inputs(40, 8, torch.float64, "cpu"))]
        value = run(*inputs)
        found.append([value.detach(), *torch.autograd.grad(value, inputs[:2])])
    for ours, theirs in zip(found[0], found[1], strict=True):
        torch.testing.assert_close(ours, theirs)
    for ours, theirs in zip(found[0], found[2], strict=True):  # cosine_similarity adds 1e-8 to lengths
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-7)


def test_the_table_is_what_its_tool_writes() -> None:
    assert Path(table.__file__).read_text() == tune.render()


def test_every_width_has_a_tile() -> None:
    for (kernel, architecture, _), entries in table.TABLE.items():
        widths = [largest for largest, _ in entries]
        assert widths == sorted(widths), (kernel, architecture)
        assert widths[-1] == 1024
        for largest, tile in entries:
            # a tile that keeps y for the second product must hold all its columns
            assert kernel.startswith("lse_fwd") or tile.block_d < largest or tile.block_d == tile.block_o


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU to tune on")
def test_tuning_without_a_gpu_says_so(capsys) -> None:
    assert tune.main([]) == 2
    assert "needs a CUDA or ROCm device" in capsys.readouterr().err


def test_a_step_is_measured_from_a_bare_checkout(tmp_path: Path) -> None:
    out = tmp_path / "step.json"
    command = [sys.executable, str(ROOT / "benchmarks" / "step.py"), "--case", "demo", "--device", "cpu"]
    done = subprocess.run(
        [*command, "--rounds", "1", "--seconds", "0.01", "--out", str(out)],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT / "kernels"), str(ROOT)])},
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    (row,) = json.loads(out.read_text())["rows"]
    for kind in ("hsssl", "dataloader"):
        m = row[kind]
        assert 0 < m["outside_ms"] < m["step_ms"]
        assert m["outside_share"] == pytest.approx(m["outside_ms"] / m["step_ms"])
        assert m["patches_per_second"] == pytest.approx(1e3 * 1024 / m["step_ms"])


def test_tokens_are_measured_with_all_and_with_few(bench, tmp_path: Path, monkeypatch, capsys) -> None:
    import patch_embed

    monkeypatch.setitem(patch_embed.SHAPES, "9x9", patch_embed.Shape(3, 20, 6, 3, 10, 16))
    arguments = ["--shape", "9x9", "--device", "cpu", "--seconds", "0.001", "--rounds", "2"]
    assert patch_embed.main([*arguments, "--out", str(tmp_path / "tokens.json")]) == 0
    rows = json.loads((tmp_path / "tokens.json").read_text())["rows"]
    kinds = [(row["input"], row["masked"]) for row in rows]
    assert kinds == [("float", False), ("float", True), ("int16", False), ("int16", True)]
    for row in rows:
        assert row["error"] < 1e-6
        for passed in ("forward", "both"):
            assert set(row[passed]) == {"hsssl_kernels", "conv3d", "unfold + matmul"}
            assert min(row[passed].values()) > 0
    gains = [row["times as fast as all"] for row in rows[1::2]]
    said = re.findall(r"75 % masked is ([0-9.]+) / ([0-9.]+) times", capsys.readouterr().out)
    assert said == [(f"{g['forward']:.2f}", f"{g['both']:.2f}") for g in gains]


def test_wrong_tokens_are_not_timed(bench, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    import embed_views
    import patch_embed

    right, fused = patch_embed.ours, embed_views.fused
    monkeypatch.setitem(patch_embed.SHAPES, "9x9", patch_embed.Shape(3, 20, 6, 3, 10, 16))
    monkeypatch.setattr(patch_embed, "ours", lambda *given: 1.001 * right(*given))
    assert patch_embed.main(["--shape", "9x9", "--device", "cpu", "--seconds", "0.001"]) == 1
    assert "the check against float64 failed, so it is not timed" in capsys.readouterr().err
    monkeypatch.setitem(embed_views.CASES, "9x9", embed_views.Case(3, 9, 3, False))
    monkeypatch.setattr(embed_views, "fused", lambda *given: [1.001 * x for x in fused(*given)])
    assert embed_views.main(["--case", "9x9", "--device", "cpu", "--seconds", "0.001"]) == 1
    assert "tokens are not those of views, so it is not timed" in capsys.readouterr().err


def test_views_into_tokens_are_measured(bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import embed_views

    monkeypatch.setitem(embed_views.CASES, "9x9 25 %", embed_views.Case(3, 9, 3, True))
    arguments = ["--case", "9x9 25 %", "--device", "cpu", "--seconds", "0.001", "--rounds", "2"]
    assert embed_views.main([*arguments, "--out", str(tmp_path / "views.json")]) == 0
    (row,) = json.loads((tmp_path / "views.json").read_text())["rows"]
    peers = {"embed_views", "spectral_views + spectral_patch_embed"}
    assert set(row["forward"]) == set(row["both"]) == set(row["extra_peak_mib"]) == peers
