"""Every shipped launch, compiled ahead of time for GPUs that need not be here."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hsssl_kernels.aot import SHARED_LIMIT

if importlib.util.find_spec("triton") is None:
    pytest.skip("the package triton is not installed", allow_module_level=True)


@pytest.fixture(scope="module")
def reports() -> dict[str, list[dict[str, Any]]]:
    """What each kernel needs, by architecture; compiled in other processes, without the interpreter."""
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    started = {
        architecture: subprocess.Popen(
            [sys.executable, "-m", "hsssl_kernels.shipped", architecture],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for architecture in SHARED_LIMIT
    }
    found = {}
    for architecture, process in started.items():
        out, err = process.communicate(timeout=600)
        assert process.returncode == 0, err[-2000:]
        found[architecture] = [json.loads(line) for line in out.splitlines()]
    return found


@pytest.mark.parametrize("architecture", SHARED_LIMIT)
def test_every_launch_fits_its_target(architecture: str, reports: dict[str, list[dict[str, Any]]]) -> None:
    compiled = reports[architecture]
    assert len(compiled) >= 20
    assert {name["name"].split()[0] for name in compiled} >= {
        "lse_fwd",
        "lse_bwd",
        "_finish_rows_kernel",
        "spectral_views",
    }
    named = [report["name"] for report in compiled]
    for kernel in ("lse_fwd", "lse_bwd"):
        assert any(n.startswith(f"{kernel} D=1024 ") and n.endswith(" pair") for n in named)
        assert any(n.startswith(f"{kernel} D=1012 ") and n.endswith(" none") for n in named)
        assert any(n.startswith(f"{kernel}_classes D=1012 ") for n in named)
    for report in compiled:
        assert report["spills"] == 0, report
        assert report["atomics"] == 0, report
        assert 0 < report["registers"] <= 512, report
        assert report["shared"] <= SHARED_LIMIT[architecture], report
        if report["dot"] and report["dtype"] != "fp32":
            assert report["matrix"], report
            assert report["wgmma"] == (architecture == "sm_90"), report


def test_the_report_sees_spills_atomics_and_plain_code(tmp_path: Path) -> None:
    """A kernel written to spill and to add atomically is reported so: the check above can fail."""
    script = """
import triton, triton.language as tl
from hsssl_kernels.aot import compile_ahead
@triton.jit
def bad(x_ptr, N: tl.constexpr):
    i = tl.arange(0, N)
    x = tl.load(x_ptr + i)
    tl.atomic_add(x_ptr + i, x / tl.sum(x))
for arch, n in (("sm_80", 16384), ("gfx942", 65536)):
    r = compile_ahead(bad, {"x_ptr": "*fp32"}, {"N": n}, arch, {"num_warps": 1})
    print(arch, r.spills > 0, r.atomics > 0, r.wgmma or r.matrix)
"""
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    path = tmp_path / "bad.py"  # Triton reads its kernels' source, so this must be a file
    path.write_text(script)
    done = subprocess.run([sys.executable, str(path)], capture_output=True, text=True, env=environment)
    assert done.stdout.splitlines() == ["sm_80 True True False", "gfx942 True True False"], done.stderr[
        -2000:
    ]
