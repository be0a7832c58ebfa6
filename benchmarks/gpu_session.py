"""One visit to a GPU: check every kernel and tile against float64, tune the table, then time everything.

`PYTHONPATH=kernels:. python benchmarks/gpu_session.py OUT` writes checks, the table and the times into OUT.
Checks compile in several processes, as a kernel takes seconds; nothing is timed beside them. Each part is
written as soon as it is known, and an op that is wrong stops the timing. Tuning rewrites the package's table
in place too, so that what is timed after it has the tuned tiles.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import patch_embed
import run
import torch
import views
from measure import error, machine, value_and_gradients
from ops import OPS

from hsssl_kernels import ViewSpec, nt_xent, resident_cube, spectral_views, table, tune
from hsssl_kernels.launch import architecture
from hsssl_kernels.nt_xent.reference import nt_xent_reference
from hsssl_kernels.spectral_views.reference import spectral_views_reference

PARTS = ("checks", "tune", "time")
ROWS, DIMS = 1500, (20, 64, 128, 256, 384, 1024)
SIZES = [16384, 65536, 262144]
VIEW_SPECS = {
    "full": replace(ViewSpec(), smooth=0.5),
    "no noise": replace(ViewSpec(), smooth=0.5, noise=0.0),
    "none": ViewSpec.none(),
}


class Job(NamedTuple):
    """A check of one kernel and configuration: what it is, and what says whether it is right."""

    run: Callable[..., dict[str, Any]]
    given: tuple[Any, ...]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, help="folder for the results")
    parser.add_argument("--part", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--kernel", nargs="+", help="kernels to tune (default: all of this GPU's table)")
    parser.add_argument("--largest", nargs="+", type=int, help="D of the entries to tune (default: all)")
    parser.add_argument("--bytes", nargs="+", type=int, default=[2, 4], help="a value, of what is tuned")
    parser.add_argument("--processes", type=int, default=14, help="that compile and check at a time")
    parser.add_argument("--seconds", type=float, default=0.5, help="time spent on each measurement, about")
    options = parser.parse_args(arguments)
    if not torch.cuda.is_available():
        print("gpu_session: needs a CUDA or ROCm device, found none", file=sys.stderr)
        return 2
    options.out.mkdir(parents=True, exist_ok=True)
    if "checks" in options.part and not check_all(options):
        return 1
    if "tune" in options.part:
        tune_all(options)
    return time_all(options) if "time" in options.part else 0


def check_all(options: argparse.Namespace) -> bool:
    """Check everything, write checks.json, and return whether all is right."""
    jobs = [*op_jobs(), *tile_jobs(), *view_jobs(), *patch_embed_jobs()]
    start = time.perf_counter()
    with _pool(options) as pool:
        found = list(pool.map(_run_job, jobs))
    wrong = [f for f in found if not f["right"]]
    written = {"machine": machine("cuda"), "checked": len(found), "wrong": len(wrong), "checks": found}
    (options.out / "checks.json").write_text(json.dumps(written, indent=1) + "\n")
    for f in wrong:
        print("wrong:", f, file=sys.stderr)
    took = time.perf_counter() - start
    print(f"{len(found)} checks in {took:.0f} s, {len(wrong)} wrong", file=sys.stderr, flush=True)
    return not wrong


def _pool(options: argparse.Namespace) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(options.processes, multiprocessing.get_context("spawn"))


def _run_job(job: Job) -> dict[str, Any]:
    start = time.perf_counter()
    try:
        found = job.run(*job.given)
    except Exception as failure:  # does not compile or launch: as wrong as a wrong number
        lines = str(failure).splitlines() or [""]
        found = {"right": False, "failure": f"{type(failure).__name__}: {lines[0][:200]}"}
    torch.cuda.empty_cache()
    given = [str(g) for g in job.given]
    return {
        "check": job.run.__name__,
        "given": given,
        "seconds": round(time.perf_counter() - start, 1),
    } | found


def op_jobs() -> list[Job]:
    """Every op in every dtype and several widths."""
    return [Job(check_op, case) for case in product(OPS, run.DTYPES, DIMS)]


def check_op(name: str, dtype: str, dim: int) -> dict[str, Any]:
    right, errors = run.check(OPS[name], dim, run.DTYPES[dtype], "cuda")
    return {"right": right, **errors}


def tile_jobs() -> list[Job]:
    """Every row of this GPU's table for log-sum-exps: fixed shift and running maximum, unit rows and raw."""
    found = []
    arch = architecture(torch.empty(1, device="cuda"))
    for (kernel, a, size), entries in table.TABLE.items():
        if a != arch or kernel != "lse_bwd":
            continue  # the backward's check runs the forward of the same width
        for largest, _ in entries:
            for dtype in ["fp32"] if size == 4 else ["bf16", "fp16"]:
                for temperature, normalize in ((0.1, True), (0.015, True), (0.01, False), (0.1, False)):
                    found.append(Job(check_tile, (min(largest, 1000), dtype, temperature, normalize)))
    return found


def check_tile(dim: int, dtype: str, temperature: float, normalize: bool) -> dict[str, Any]:
    """Compare with float64 in which a positive's share of 1 - 1e-28 keeps what it leaves to the others."""
    narrow = run.DTYPES[dtype]
    inputs = OPS["nt_xent"].inputs(ROWS, dim, narrow, "cuda")
    if not normalize:
        inputs = [x / dim**0.5 for x in inputs]

    def fused(*z: torch.Tensor) -> torch.Tensor:
        return nt_xent(*z, temperature=temperature, normalize=normalize, backend="triton")

    def plain(*z: torch.Tensor) -> torch.Tensor:
        return nt_xent_reference(*z, temperature=temperature, normalize=normalize)

    def precise(*z: torch.Tensor) -> torch.Tensor:
        rows = torch.cat(z)
        rows = torch.nn.functional.normalize(rows) if normalize else rows
        similarity, place = rows @ rows.T / temperature, torch.arange(len(rows), device=rows.device)
        partner = place.roll(len(z[0]))
        near = (place == place[:, None]) | (partner == place[:, None])
        others = similarity.masked_fill(near, float("-inf")).logsumexp(1)
        behind = others - similarity[place, partner]
        return torch.logaddexp(behind, torch.zeros_like(behind)).mean()

    exact = value_and_gradients(precise, [x.double() for x in inputs])
    ours, theirs = error(fused, inputs, exact), error(plain, inputs, exact)
    floor = max(1e-6, torch.finfo(narrow).eps / 8) / temperature
    right = all(a <= 2 * b + floor for a, b in zip(ours, theirs, strict=True))
    return {"right": right, "fused": ours, "plain": theirs}


def view_jobs() -> list[Job]:
    """Views of every benchmarked scene, as it is and resident, by each specification, of two sizes."""
    cases = product(views.SCENES, run.DTYPES, VIEW_SPECS, (False, True), (9, views.PATCH))
    return [Job(check_views, case) for case in cases]


def check_views(name: str, dtype: str, kind: str, resident: bool, patch_size: int) -> dict[str, Any]:
    """Compare views with the reference: the same bits."""
    data, spec = views.scene(name, "cuda"), VIEW_SPECS[kind]
    if resident:
        data["cube"] = resident_cube(data["cube"])
    settings = {"patch_size": patch_size, "spec": spec, "seed": 3, "step": 5, "dtype": run.DTYPES[dtype]}
    ours = spectral_views(backend="triton", **data, **settings)
    right = spectral_views_reference(**data, **settings)
    pairs = list(zip(ours, right, strict=True))
    off = max((a.double() - b.double()).abs().max().item() for a, b in pairs)
    return {"right": all(torch.equal(a, b) for a, b in pairs), "error": off}


def patch_embed_jobs() -> list[Job]:
    """Tokens and gradients of every benchmarked shape, raw or not, all of them and a quarter."""
    names = patch_embed.LARGE  # the smaller ones differ in the batch alone
    return [Job(check_patch_embed, case) for case in product(names, run.DTYPES, (False, True), (False, True))]


def check_patch_embed(name: str, dtype: str, raw: bool, masked: bool) -> dict[str, Any]:
    narrow, shape = run.DTYPES[dtype], patch_embed.LARGE[name]
    off = patch_embed.check(patch_embed.inputs(shape._replace(batch=4), raw, masked, narrow, "cuda"), shape)
    return {"right": off <= max(1e-5, 2 * torch.finfo(narrow).eps), "error": off}


def tune_all(options: argparse.Namespace) -> None:
    """Tune every entry of this GPU's table: write the five fastest tiles of each, and the table in place."""
    arch = architecture(torch.empty(1, device="cuda"))
    keys = [key for key in table.TABLE if key[1] == arch and key[0] in (options.kernel or [key[0]])]
    keys = [key for key in keys if key[2] in options.bytes]
    entries = [(key, i) for key in keys for i in range(len(table.TABLE[key]))]
    if options.largest:
        entries = [(key, i) for key, i in entries if table.TABLE[key][i][0] in options.largest]
    jobs = [(key, i, tile) for key, i in entries for tile in tune.tiles_to_try(key, i)]
    start = time.perf_counter()
    with _pool(options) as pool:
        right = list(pool.map(tune.is_right, *zip(*jobs, strict=True), chunksize=2))
    took = time.perf_counter() - start
    print(f"{len(jobs)} tiles compiled in {took:.0f} s, {sum(right)} right", file=sys.stderr, flush=True)
    found = []
    for key, i in entries:
        good = [tile for (k, j, tile), r in zip(jobs, right, strict=True) if (k, j) == (key, i) and r]
        timed = tune.tune_entry(key, i, 16384 if key[2] == 2 else 4096, good)
        rows = [(ms, tuple(t)) for ms, t in timed[:5]]
        found.append({"key": key, "largest": table.TABLE[key][i][0], "ms": rows})
        print(key, found[-1]["largest"], rows[:2], file=sys.stderr, flush=True)
        (options.out / "tuned.json").write_text(json.dumps(found, indent=1) + "\n")
        (options.out / "table.py").write_text(tune.render())
    Path(table.__file__).write_text(tune.render())  # which the processes that time read


def time_all(options: argparse.Namespace) -> int:
    """Time every op; a process each, so that a failure in one keeps the rest, and memory is clean."""
    here = Path(__file__).parent
    rest = [name for name in OPS if name not in ("nt_xent", "info_nce")]
    of_views = ["views.py", "--compile", "--rounds", "3", "--no-loader", "--spec", *views.SPECS]
    calls = {
        "gpu_views": of_views,
        "gpu_views_bf16": [*of_views, "--dtype", "bf16"],
        "gpu_patch_embed": ["patch_embed.py", "--compile", "--rounds", "3"],
        "gpu_embed_views": ["embed_views.py", "--rounds", "3"],
        "gpu_step": ["step.py", "--rounds", "2", "--seconds", "2"],
    }
    for n in SIZES:
        peers = ["--no-peers"] if n > 65536 else []
        calls[f"gpu_infonce_{n}"] = ["run.py", "--op", "nt_xent", "info_nce", "--n", str(n), *peers]
    calls["gpu_rest"] = ["run.py", "--op", *rest, "--n", "16384"]
    code = 0
    for name, (script, *given) in calls.items():
        start = time.perf_counter()
        shared = [] if "--seconds" in given else ["--seconds", str(options.seconds)]
        out = ["--out", str(options.out / f"{name}.json")]
        done = subprocess.run([sys.executable, str(here / script), *given, *shared, *out], check=False)
        took = time.perf_counter() - start
        print(f"{name}: {took:.0f} s, exit {done.returncode}", file=sys.stderr, flush=True)
        code |= done.returncode
    return code


if __name__ == "__main__":
    sys.exit(main())
