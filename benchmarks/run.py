"""Measure the fused ops against others: `PYTHONPATH=kernels python benchmarks/run.py --op nt_xent`.

Needs torch, triton and numpy. An op is checked against float64 first and not timed if it fails.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from measure import (
    ceilings,
    count_cpu_time,
    error,
    extra_peak_mib,
    limit_memory,
    machine,
    release,
    times,
    value_and_gradients,
)
from ops import OPS, OTHERS, TEMPERATURE, Op
from torch import Tensor

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
PASSES = ("forward", "backward", "both")
# A CPU sweeps small batches once, larger ones twice and in tiles of 2,048 rows: one size of each.
CHECK_ROWS = (1000, 4200)


def main(arguments: list[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    if options.cpu_time:
        if device != "cpu":
            raise SystemExit("run.py: --cpu-time is for the CPU; leave it out on a GPU")
        count_cpu_time()
    names = options.op or [*OPS, *OTHERS]
    code = measure_ops([name for name in names if name in OPS], device, options)
    for name in names:
        if name in OTHERS:
            code |= importlib.import_module(OTHERS[name]).main(_passed_on(name, device, options))
    return code


def _passed_on(name: str, device: str, options: argparse.Namespace) -> list[str]:
    """Return the arguments for an op that is measured by a module of its own; its JSON has its name."""
    passed = ["--device", device, "--seconds", str(options.seconds)]
    if options.out:
        out = Path(options.out)
        passed += ["--out", str(out.with_stem(f"{out.stem}_{name}"))]
    return passed if options.no_compile else [*passed, "--compile"]


def measure_ops(names: list[str], device: str, options: argparse.Namespace) -> int:
    """Check and time ops on (n, D) matrices, and print and write what came out."""
    if not names:
        return 0
    dtype = DTYPES[options.dtype or ("bf16" if device == "cuda" else "fp32")]
    torch.manual_seed(0)
    result: dict[str, Any] = {"machine": machine(device), "dtype": str(dtype).partition(".")[2]}
    result["ceilings"] = ceilings(dtype, device)
    result |= {"temperature": TEMPERATURE, "errors": {}, "rows": []}
    failed = False
    for name in names:
        passed, errors = check(OPS[name], options.dim, dtype, device)
        result["errors"][name] = errors
        if not passed:
            print(f"{name}: the check against float64 failed, so it is not timed: {errors}", file=sys.stderr)
            failed = True
            continue
        for n in options.n:
            with limit_memory(device):
                result["rows"] += _measure(name, n, dtype, device, result["ceilings"], options)
            if options.out:  # after every row of work: a failure later keeps what was measured
                Path(options.out).write_text(json.dumps(result, indent=1) + "\n")
    print_table(result)
    if options.plot:
        plot(result, options.plot)
    return 1 if failed else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--op", nargs="+", choices=[*OPS, *OTHERS], help="ops to measure (default: all)")
    parser.add_argument("--n", nargs="+", type=int, default=[16384], help="rows of the similarity matrix")
    parser.add_argument("--dim", type=int, default=128, help="columns D of the embeddings")
    parser.add_argument("--dtype", choices=list(DTYPES), help="default: bf16 on a GPU, fp32 elsewhere")
    parser.add_argument("--device", choices=["cpu", "cuda"], help="default: cuda where there is one")
    parser.add_argument("--seconds", type=float, default=3.0, help="time spent on each measurement, about")
    parser.add_argument(
        "--cpu-time", action="store_true", help="time by one thread's CPU time, not the clock"
    )
    parser.add_argument("--no-peers", action="store_true", help="the fused ops alone")
    parser.add_argument("--no-compile", action="store_true", help="without torch.compile of the naive form")
    parser.add_argument("--out", help="write JSON here")
    parser.add_argument("--plot", help="draw cost against n into this picture")
    return parser


def check(op: Op, dim: int, dtype: torch.dtype, device: str) -> tuple[bool, dict[str, list[float]]]:
    """Compare value and gradients with float64; the plain form in the same dtype says how far off is fine.

    Of the sizes in `CHECK_ROWS` the larger errors are returned, each implementation's.
    """
    found = [_check_at(n, op, dim, dtype, device) for n in CHECK_ROWS]
    worst = {
        name: [max(both) for both in zip(*(errors[name] for _, errors in found), strict=True)]
        for name in found[0][1]
    }
    return all(passed for passed, _ in found), worst


def _check_at(
    n: int, op: Op, dim: int, dtype: torch.dtype, device: str
) -> tuple[bool, dict[str, list[float]]]:
    inputs = op.inputs(n, dim, dtype, device)
    exact = value_and_gradients(op.reference, [x.double() if x.is_floating_point() else x for x in inputs])
    ours, plain = error(op.fused, inputs, exact), error(op.reference, inputs, exact)
    naive = error(op.plain if op.differentiable else torch.no_grad()(op.plain), inputs, exact)
    floor = max(1e-6, torch.finfo(dtype).eps / 8) / TEMPERATURE
    # a value of several hundred, as the decorrelating losses have, is not known better than its own spacing
    spacing = 2 * torch.finfo(torch.float32).eps * exact[0].abs().max().item()
    floors = [floor + spacing, *[floor] * (len(exact) - 1)]
    # written so that NaN fails
    passed = all(a <= 2 * b + least for a, b, least in zip(ours, plain, floors, strict=True))
    return passed, {"hsssl_kernels": ours, "reference": plain, "naive eager": naive}


def _measure(
    name: str, n: int, dtype: torch.dtype, device: str, limits: dict[str, float], options: argparse.Namespace
) -> list[dict[str, Any]]:
    op = OPS[name]
    rows = []
    for peer, get in _implementations(op, options).items():
        row: dict[str, Any] = {"op": name, "n": n, "dim": options.dim, "implementation": peer}
        try:
            inputs = op.inputs(n, options.dim, dtype, device)
            row |= time_passes(get(), inputs, op.differentiable, device, options.seconds)
        except Exception as failure:  # a peer's import, compilation or memory: said, never hidden
            if peer == "hsssl_kernels":
                raise
            row["unavailable"] = f"{type(failure).__name__}: {str(failure).splitlines()[0][:120]}"
        rows.append(row)
        took = row["both"]["median_ms"] if "both" in row else float("nan")
        print(f"{name} n={n} {peer}: {took:.4g} ms", file=sys.stderr, flush=True)
        release(device)
    _add_ratios(rows, op, n, options.dim, dtype, limits)
    return rows


def _implementations(op: Op, options: argparse.Namespace) -> dict[str, Callable[[], Callable[..., Tensor]]]:
    found: dict[str, Callable[[], Callable[..., Tensor]]] = {"hsssl_kernels": lambda: op.fused}
    if not options.no_peers:
        found["naive eager"] = lambda: op.plain
        if not options.no_compile:
            found["torch.compile of it"] = lambda: torch.compile(op.plain)
        found |= op.peers
    return found


def time_passes(
    run: Callable[..., Tensor], inputs: list[Tensor], differentiable: bool, device: str, seconds: float
) -> dict[str, Any]:
    """Return times of forward, backward and both, and the extra peak of memory of both."""
    # a queue or labels, which come third and second, are no leaves of anyone's training
    leaves = [
        x.detach().requires_grad_(differentiable and x.is_floating_point() and i < 2)
        for i, x in enumerate(inputs)
    ]

    def forward_alone() -> Tensor:
        with torch.no_grad():
            return run(*leaves)

    def both() -> None:
        value = run(*leaves)
        if differentiable:
            value.backward()
        for leaf in leaves:
            leaf.grad = None

    row: dict[str, Any] = {"forward": times(lambda: forward_alone, device, seconds)}
    if differentiable:
        row["backward"] = times(lambda: run(*leaves).backward, device, seconds)
    row["both"] = times(lambda: both, device, seconds)
    row["extra_peak_mib"] = extra_peak_mib(both, device)
    return row


def _add_ratios(
    rows: list[dict[str, Any]], op: Op, n: int, dim: int, dtype: torch.dtype, limits: dict[str, float]
) -> None:
    """Add rates, ratios to ours, and the share of the roofline: what the ceilings allow over what it took.

    The roofline is the sum of the least times of the matrix operations, the exponentials and the
    copies, as if none hid behind another.
    """
    flops, exps, moved = op.flops(n, dim), op.exps(n, dim), op.values(n, dim) * dtype.itemsize
    parts = {
        "matrix_ms": flops / limits["matmul_tflops"] / 1e9,
        "exp2_ms": exps / limits["exp2_gops"] / 1e6,
        "copy_ms": moved / limits["copy_gbps"] / 1e6,
    }
    parts["sum_ms"] = sum(parts.values())
    ours = rows[0]["both"]["median_ms"]
    for row in rows:
        if "both" in row:
            ms = row["both"]["median_ms"]
            row |= {"tflops": flops / ms / 1e9, "gbps": moved / ms / 1e6}
            row |= {"roofline": parts, "share_of_roofline": parts["sum_ms"] / ms, "ours_over_this": ours / ms}
            if row["extra_peak_mib"] and rows[0]["extra_peak_mib"] is not None:
                row["our_memory_over_this"] = rows[0]["extra_peak_mib"] / row["extra_peak_mib"]


def print_table(result: dict[str, Any]) -> None:
    """Print one line an implementation; times in ms, the last columns are ours over theirs."""
    m, c = result["machine"], result["ceilings"]
    print(f"{m['device']}, {m['cores']} threads, torch {m['torch']}, triton {m['triton']}, {result['dtype']}")
    print(
        f"measured ceilings: matmul {c['matmul_tflops']:.3g} TFLOP/s, exp2 {c['exp2_gops']:.3g} G/s, "
        f"copy {c['copy_gbps']:.3g} GB/s; roof: the sum of the least times by all three, over the time taken"
    )
    for name in dict.fromkeys(row["op"] for row in result["rows"]):
        print(f"{name}: error against float64, n of {CHECK_ROWS}: {_said(result['errors'][name])}")
    print(
        f"{'op':<19}{'n':>7}  {'implementation':<24}{'forward':>10}{'backward':>10}{'both':>10}"
        f" {'20-80 %':>17}{'MiB':>9}{'error':>9}{'TFLOP/s':>9}{'GB/s':>9}{'roof':>6}{'time':>7}{'memory':>8}"
    )
    for row in result["rows"]:
        head = f"{row['op']:<19}{row['n']:>7}  {row['implementation']:<24}"
        if "unavailable" in row:
            print(f"{head}not measured: {row['unavailable']}")
            continue
        each = "".join(f"{row[p]['median_ms']:>10.1f}" if p in row else f"{'-':>10}" for p in PASSES)
        spread = f"{row['both']['p20_ms']:.1f}-{row['both']['p80_ms']:.1f}"
        mib = "-" if row["extra_peak_mib"] is None else f"{row['extra_peak_mib']:.0f}"
        memory = f"{row['our_memory_over_this']:.3f}" if "our_memory_over_this" in row else "-"
        print(
            f"{head}{each} {spread:>17}{mib:>9}{_largest(row, result):>9}{row['tflops']:>9.3g}"
            f"{row['gbps']:>9.3g}{row['share_of_roofline']:>6.2f}{row['ours_over_this']:>7.3f}{memory:>8}"
        )


def _said(errors: dict[str, list[float]]) -> str:
    """Return the errors of value and gradients in words."""
    each = []
    for name, (value, *gradients) in errors.items():
        listed = "".join(f", gradient {g:.1e}" for g in gradients)
        each.append(f"{name} value {value:.1e}{listed}")
    return "; ".join(each)


def _largest(row: dict[str, Any], result: dict[str, Any]) -> str:
    """Return the largest of the errors that were checked for this implementation."""
    errors = result["errors"][row["op"]].get(row["implementation"])
    return f"{max(errors):.1e}" if errors else "-"


def plot(result: dict[str, Any], path: str) -> None:
    """Draw forward + backward time against n, a line an implementation."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    measured = [row for row in result["rows"] if "both" in row]
    names = list(dict.fromkeys(row["op"] for row in measured))
    figure, axes = plt.subplots(1, len(names), figsize=(5 * len(names), 4), squeeze=False)
    for axis, name in zip(axes[0], names, strict=True):
        for peer in dict.fromkeys(row["implementation"] for row in measured if row["op"] == name):
            line = [r for r in measured if (r["op"], r["implementation"]) == (name, peer)]
            axis.loglog([r["n"] for r in line], [r["both"]["median_ms"] for r in line], "o-", label=peer)
        axis.set(title=name, xlabel="n (rows)", ylabel="forward + backward (ms)")
        axis.legend(fontsize=7)
    figure.suptitle(f"{result['machine']['device']}, {result['dtype']}", fontsize=9)
    figure.tight_layout()
    figure.savefig(path)


if __name__ == "__main__":
    sys.exit(main())
