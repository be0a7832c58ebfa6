"""The examples run as they stand, on few steps, and stay short."""

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
