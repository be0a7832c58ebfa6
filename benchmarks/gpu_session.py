"""One visit to a GPU: check every kernel and tile against float64, tune the table, then time everything.

`PYTHONPATH=kernels python benchmarks/gpu_session.py OUT` writes checks, the table and the times into OUT.
Each part is written as soon as it is known, and a tile that is wrong stops the timing.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import patch_embed
import run
import torch
import views
from measure import error, machine, value_and_gradients
from ops import OPS, OTHERS

from hsssl_kernels import ViewSpec, nt_xent, spectral_views, table, tune
from hsssl_kernels.launch import architecture
from hsssl_kernels.nt_xent.reference import nt_xent_reference
from hsssl_kernels.spectral_views.reference import spectral_views_reference

ROWS, QUICK = 1500, [16384, 65536, 262144]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, help="folder for the results")
    parser.add_argument("--no-tune", action="store_true", help="keep the table as it is")
    options = parser.parse_args(arguments)
    if not torch.cuda.is_available():
        print("gpu_session: needs a CUDA or ROCm device, found none", file=sys.stderr)
        return 2
    options.out.mkdir(parents=True, exist_ok=True)
    checks = {"ops": check_ops(), "tiles": check_tiles(), "views": check_views()}
    checks["patch_embed"] = check_patch_embed()
    written = {"machine": machine("cuda")} | checks
    (options.out / "checks.json").write_text(json.dumps(written, indent=1) + "\n")
    wrong = [c for part in checks.values() for c in part if not c["right"]]
    for c in wrong:
        print("wrong:", c, file=sys.stderr)
    if wrong:
        return 1
    if not options.no_tune:
        tuned = tune_all()
        (options.out / "tuned.json").write_text(json.dumps(tuned, indent=1) + "\n")
        (options.out / "table.py").write_text(tune.render())
    code = 0
    for n in QUICK:  # a file each: a failure at the largest keeps the rest
        extra = ["--no-peers"] if n > 65536 else []
        code |= run.main(
            ["--op", "nt_xent", "info_nce", "--n", str(n), "--out", f"{options.out}/bench_{n}.json", *extra]
        )
    rest = [name for name in (*OPS, *OTHERS) if name not in ("nt_xent", "info_nce")]
    return code | run.main(["--op", *rest, "--n", "16384", "--out", f"{options.out}/bench_rest.json"])


def check_ops() -> list[dict[str, Any]]:
    """Check every op in every dtype and several widths."""
    found = []
    for name, op in OPS.items():
        for label, dtype in run.DTYPES.items():
            for dim in (20, 64, 128, 256, 384, 1024):
                right, errors = run.check(op, dim, dtype, "cuda")
                found.append({"op": name, "dtype": label, "dim": dim, "right": right, **errors})
    return found


def check_tiles() -> list[dict[str, Any]]:
    """Check every row of this GPU's table: fixed shift and running maximum, unit rows and raw ones."""
    found = []
    arch = architecture(torch.empty(1, device="cuda"))
    for (kernel, a, size), entries in table.TABLE.items():
        if a != arch or kernel != "lse_bwd":
            continue  # the backward's check runs the forward of the same width
        for largest, tile in entries:
            for dtype in [torch.float32] if size == 4 else [torch.bfloat16, torch.float16]:
                for temperature, normalize in ((0.1, True), (0.015, True), (0.01, False), (0.1, False)):
                    found.append(
                        _check_tile(min(largest, 1000), dtype, temperature, normalize) | {"tile": tuple(tile)}
                    )
    return found


def check_views() -> list[dict[str, Any]]:
    """Check that views are the reference's up to rounding, with everything drawn and with nothing."""
    found = []
    for name in views.SCENES:
        data = views.scene(name, "cuda")
        for label, dtype in run.DTYPES.items():
            for kind, spec in (("full", replace(ViewSpec(), smooth=0.5)), ("none", ViewSpec.none())):
                settings = {"patch_size": views.PATCH, "spec": spec, "seed": 3, "step": 5, "dtype": dtype}
                ours = spectral_views(backend="triton", **data, **settings)
                right = spectral_views_reference(**data, **settings)
                off = max(
                    (a.double() - b.double()).abs().max().item() for a, b in zip(ours, right, strict=True)
                )
                floor = max(1e-5, 16 * torch.finfo(dtype).eps)  # values reach some tens
                found.append(
                    {"scene": name, "dtype": label, "spec": kind, "right": off <= floor, "error": off}
                )
    return found


def check_patch_embed() -> list[dict[str, Any]]:
    """Check tokens of every benchmarked shape, raw or not, all of them and a quarter."""
    found = []
    for name, shape in patch_embed.SHAPES.items():
        for label, dtype in run.DTYPES.items():
            for raw, masked in product((False, True), repeat=2):
                off = patch_embed.check(patch_embed.inputs(shape, raw, masked, dtype, "cuda"), shape)
                right = off <= max(1e-5, 2 * torch.finfo(dtype).eps)
                case = {"shape": name, "dtype": label, "raw": raw, "masked": masked}
                found.append(case | {"right": right, "error": off})
    return found


def _check_tile(dim: int, dtype: torch.dtype, temperature: float, normalize: bool) -> dict[str, Any]:
    inputs = OPS["nt_xent"].inputs(ROWS, dim, dtype, "cuda")
    if not normalize:
        inputs = [x / dim**0.5 for x in inputs]

    def fused(*z: torch.Tensor) -> torch.Tensor:
        return nt_xent(*z, temperature=temperature, normalize=normalize, backend="triton")

    def plain(*z: torch.Tensor) -> torch.Tensor:
        return nt_xent_reference(*z, temperature=temperature, normalize=normalize)

    exact = value_and_gradients(plain, [x.double() for x in inputs])
    ours, theirs = error(fused, inputs, exact), error(plain, inputs, exact)
    floor = max(1e-6, torch.finfo(dtype).eps / 8) / temperature
    return {
        "dim": dim,
        "dtype": str(dtype),
        "temperature": temperature,
        "normalize": normalize,
        "right": all(a <= 2 * b + floor for a, b in zip(ours, theirs, strict=True)),
        "fused": ours,
        "plain": theirs,
    }


def tune_all() -> list[dict[str, Any]]:
    """Tune every entry of this GPU's table; return the five fastest tiles of each."""
    arch = architecture(torch.empty(1, device="cuda"))
    found = []
    for key, entries in table.TABLE.items():
        for i in range(len(entries) if key[1] == arch else 0):
            timed = tune.tune_entry(key, i, 16384 if key[2] == 2 else 4096)
            found.append(
                {"key": key, "largest": entries[i][0], "ms": [(ms, tuple(t)) for ms, t in timed[:5]]}
            )
    return found


if __name__ == "__main__":
    sys.exit(main())
