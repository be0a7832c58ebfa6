"""The examples run as they stand, on few steps, and stay short."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from hsssl.run import Run

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
pytestmark = pytest.mark.usefixtures("indian_pines")


def run(*words: str) -> str:
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_pretrain_indian_pines(tmp_path):
    example = EXAMPLES / "pretrain_indian_pines.py"
    assert len(example.read_text().splitlines()) <= 25
    out = run(str(example), str(tmp_path / "run"), "20")
    assert "random split" in out
    assert "block split" in out
    assert (tmp_path / "run" / "map.tif").is_file()


def test_fixed_split(tmp_path, data_dir):
    words = ["--seeds", "0", "--steps", "2", "--epochs", "1", "--out", str(tmp_path / "table")]
    out = run(str(EXAMPLES / "fixed_split.py"), str(data_dir / "indian_pines"), *words)
    assert out.strip() == (tmp_path / "table.md").read_text().strip()
    assert "fixed split of 695 / 9,671 pixels" in out
    record = json.loads((tmp_path / "table.json").read_text())
    assert record["audit"]["coordinates_oa"] == pytest.approx(
        0.918, abs=5e-3
    )  # ties between neighbours fall either way
    methods = {(row["method"], row["classifier"]) for row in record["rows"]}
    assert {("encoder", "linear"), ("encoder, fine-tuned", "finetune"), ("raw spectrum", "linear")} < methods


def test_two_processes_share_a_run(tmp_path):
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    out = run(*command, str(EXAMPLES / "pretrain_two_processes.py"), str(tmp_path / "run"), "12")
    assert "after 12 steps" in out
    finished = Run(tmp_path / "run")
    assert [row["step"] for row in finished.metrics] == [0, 10, 11]
    assert finished.config["processes"] == 2
    assert finished.encoder().spec.encoder == "spectral_spatial"


def test_unmix_samson(tmp_path, data_dir):
    out = run(str(EXAMPLES / "unmix_samson.py"), str(data_dir), str(tmp_path / "s.json"), "1", "pure_pixels")
    assert "| pure_pixels | signal | 1 | 0.022 (0.022) | 0.020 (0.020) |" in out
    assert (tmp_path / "s.md").is_file()


def test_cluster_salinas(tmp_path, data_dir, monkeypatch):
    monkeypatch.setenv("HSSSL_DATA", str(data_dir))
    out = run(str(EXAMPLES / "cluster_salinas.py"), str(tmp_path / "table"), "1", "kmeans")
    assert "Indian Pines crop kmeans" in out
    table = (tmp_path / "table.md").read_text()
    assert "| SalinasA | kmeans | all pixels | 0." in table
    assert len(json.loads((tmp_path / "table.json").read_text())["rows"]) == 2
