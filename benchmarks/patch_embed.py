"""Measure `spectral_patch_embed` against others: `PYTHONPATH=kernels python benchmarks/patch_embed.py`.

The others are Conv3d with stride = kernel, unfold + matmul, and torch.compile of that, each from float
samples and from int16 ones that have to be normalised first. With tokens masked out the others compute all
and pick. The gradient by the tokens is given, and the same for all.
Needs torch, triton and numpy. Times of one input are taken in turns, with all tokens and with few, so that
ratios hold on a busy machine.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple, TypeAlias

import torch
import torch.nn.functional as F
from measure import extra_peak_mib, host_ms, limit_memory, machine, times
from torch import Tensor

from hsssl_kernels import spectral_patch_embed
from hsssl_kernels.pages import release_idle
from hsssl_kernels.spectral_patch_embed.reference import spectral_patch_embed_reference

__all__ = ["LARGE", "SHAPES", "Shape", "conv3d", "inputs", "main", "ours", "unfold_matmul"]


class Shape(NamedTuple):
    """Samples, their bands and side, a token's side and bands, and its size."""

    batch: int
    bands: int
    side: int
    patch: int
    group: int
    dim: int


SHAPES = {
    "9x9": Shape(256, 200, 9, 3, 10, 128),
    "11x11": Shape(256, 200, 11, 1, 10, 128),
    "64x64": Shape(32, 200, 64, 8, 10, 256),
}
# Batches that fill a GPU.
LARGE = {
    "9x9 large": SHAPES["9x9"]._replace(batch=4096),
    "11x11 large": SHAPES["11x11"]._replace(batch=1024),
    "64x64 large": SHAPES["64x64"]._replace(batch=256),
}
LEARNED = ("weight", "bias")
# What is timed: forward and both, each by the name of the implementation.
Runs: TypeAlias = dict[str, dict[str, Callable[[], Any]]]
DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def inputs(shape: Shape, raw: bool, masked: bool, dtype: torch.dtype, device: str) -> dict[str, Any]:
    """Return arguments by name: float samples (B, C, H, W), or ``raw`` int16 (B, H, W, C) to normalise."""
    g = torch.Generator().manual_seed(0)
    places, groups = (shape.side // shape.patch) ** 2, -(-shape.bands // shape.group)
    values = shape.patch**2 * shape.group
    named: dict[str, Any] = {
        "weight": (torch.randn(shape.dim, values, generator=g) * values**-0.5).to(dtype),
        "bias": torch.randn(shape.dim, generator=g).to(dtype),
    }
    if raw:
        size = (shape.batch, shape.side, shape.side, shape.bands)
        named["x"] = torch.randint(0, 4000, size, generator=g, dtype=torch.int16)
        named |= {"mean": torch.full((shape.bands,), 2e3), "scale": torch.full((shape.bands,), 1e-3)}
    else:
        size = (shape.batch, shape.bands, shape.side, shape.side)
        named["x"] = torch.randn(size, generator=g).to(dtype)
    if masked:
        order = torch.rand(shape.batch, groups * places, generator=g).argsort(1)
        named["visible"] = order[:, : groups * places // 4].contiguous()
    return {k: v.to(device) for k, v in named.items()}


def ours(named: dict[str, Any], shape: Shape) -> Tensor:
    last = "mean" in named
    return spectral_patch_embed(**named, patch=shape.patch, group=shape.group, bands_last=last)


def conv3d(named: dict[str, Any], shape: Shape) -> Tensor:
    """Project by a Conv3d over (B, 1, C, H, W) whose stride is its kernel, as ViTs for cubes do."""
    size = (shape.group, shape.patch, shape.patch)
    weight = named["weight"].view(shape.dim, 1, shape.patch, shape.patch, shape.group).permute(0, 1, 4, 2, 3)
    x = _floats(named).unsqueeze(1)
    tokens = F.conv3d(x, weight.contiguous(), named["bias"], stride=size)
    return _pick(tokens.flatten(2).transpose(1, 2), named)


def unfold_matmul(named: dict[str, Any], shape: Shape) -> Tensor:
    """Copy all tokens' values side by side, then multiply."""
    x, (p, g, high) = _floats(named), (shape.patch, shape.group, shape.side // shape.patch)
    x = x.view(shape.batch, -1, g, high, p, high, p).permute(0, 1, 3, 5, 4, 6, 2)
    return _pick(F.linear(x.reshape(shape.batch, -1, p * p * g), named["weight"], named["bias"]), named)


def _floats(named: dict[str, Any]) -> Tensor:
    if "mean" not in named:
        return named["x"]
    x = (named["x"].float() - named["mean"]) * named["scale"]
    return x.permute(0, 3, 1, 2).to(named["weight"].dtype).contiguous()


def _pick(tokens: Tensor, named: dict[str, Any]) -> Tensor:
    if "visible" not in named:
        return tokens
    return tokens.gather(1, named["visible"].unsqueeze(2).expand(-1, -1, tokens.shape[2]))


def check(named: dict[str, Any], shape: Shape) -> float:
    """Return our largest relative error against float64, of tokens and both gradients, on two samples."""
    few = {k: v[:2] if k in ("x", "visible") else v for k, v in named.items()}
    wide = {k: v.double() if k in LEARNED else v for k, v in few.items()}
    last = "mean" in named
    plain = partial(spectral_patch_embed_reference, patch=shape.patch, group=shape.group, bands_last=last)
    exact = _tokens_and_gradients(lambda given: plain(**given), wide)
    found = _tokens_and_gradients(lambda given: ours(given, shape), few)
    pairs = zip(found, exact, strict=True)
    return max(((a.double() - b).norm() / b.norm()).nan_to_num(float("inf")).item() for a, b in pairs)


def _tokens_and_gradients(call: Callable[[dict[str, Any]], Tensor], named: dict[str, Any]) -> list[Tensor]:
    leaves = {k: named[k].detach().requires_grad_() for k in LEARNED}
    tokens = call(named | leaves)
    g = torch.Generator().manual_seed(1)
    by_tokens = torch.randn(tokens.shape, generator=g).to(torch.bfloat16).to(tokens)  # the same in any dtype
    return [tokens.detach(), *torch.autograd.grad(tokens, list(leaves.values()), by_tokens)]


def measure(name: str, raw: bool, options: argparse.Namespace, device: str) -> list[dict[str, Any]]:
    """Return times of all implementations on one input: with all tokens, and with one in four."""
    rows: list[dict[str, Any]] = []
    all_runs: list[Runs] = []
    for masked in (False, True):
        runs, off = _runs(name, raw, masked, options, device)
        rows.append({"shape": name, "input": "int16" if raw else "float", "masked": masked, "error": off})
        all_runs.append(runs)
    for passed in ("forward", "both"):
        rounds = [
            [
                {
                    p: times(lambda run=run: run, device, options.seconds, 2)["median_ms"]
                    for p, run in each.items()
                }
                for each in (runs[passed] for runs in all_runs)
            ]
            for _ in range(options.rounds)
        ]
        for i, row in enumerate(rows):
            row[passed] = {p: median(taken[i][p] for taken in rounds) for p in rounds[0][i]}
        gains = [whole["hsssl_kernels"] / few["hsssl_kernels"] for whole, few in rounds]
        rows[1].setdefault("times as fast as all", {})[passed] = median(gains)
    for row, runs in zip(rows, all_runs, strict=True):
        row["extra_peak_mib"] = {}
        for peer, run in runs["both"].items():
            release_idle()  # or memory that is kept would not be counted
            row["extra_peak_mib"][peer] = extra_peak_mib(run, device)
        if device == "cuda":
            row["host_ms"] = {
                passed: {peer: host_ms(run) for peer, run in runs[passed].items()} for passed in runs
            }
    return rows


def _runs(name: str, raw: bool, masked: bool, options: argparse.Namespace, device: str) -> tuple[Runs, float]:
    """Return what is timed, forward and forward + backward of each implementation, and our error."""
    shape, dtype = (SHAPES | LARGE)[name], DTYPES[options.dtype]
    named = inputs(shape, raw, masked, dtype, device)
    off = check(named, shape)
    if not off <= max(1e-5, 2 * torch.finfo(dtype).eps):  # NaN fails too
        raise ValueError(f"patch_embed {name}: the check against float64 failed, so it is not timed: {off}")
    named |= {k: named[k].requires_grad_() for k in ("weight", "bias")}
    calls: dict[str, Callable[..., Tensor]] = {"hsssl_kernels": ours}
    calls |= {"conv3d": conv3d, "unfold + matmul": unfold_matmul}
    if options.compile:
        if not masked:
            torch.compiler.reset()  # beyond a few shapes it would silently stop compiling
        calls["torch.compile of it"] = torch.compile(unfold_matmul, dynamic=False)
    with torch.no_grad():
        gradient = torch.ones_like(ours(named, shape))
    runs: Runs = {"forward": {}, "both": {}}
    for peer, call in calls.items():
        runs["forward"][peer] = torch.no_grad()(partial(call, named, shape))
        runs["both"][peer] = partial(_forward_backward, call, named, shape, gradient)
    return runs, off


def _forward_backward(
    call: Callable[..., Tensor], named: dict[str, Any], shape: Shape, gradient: Tensor
) -> None:
    call(named, shape).backward(gradient)
    named["weight"].grad = named["bias"].grad = None


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", nargs="+", choices=[*SHAPES, *LARGE], help="default: a CPU's or a GPU's")
    parser.add_argument("--dtype", choices=list(DTYPES), help="default: bf16 on a GPU, fp32 elsewhere")
    parser.add_argument("--device", choices=["cpu", "cuda"], help="default: cuda where there is one")
    parser.add_argument("--seconds", type=float, default=0.5, help="time of one measurement in one round")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each; medians are reported")
    parser.add_argument("--compile", action="store_true", help="torch.compile of unfold + matmul too")
    parser.add_argument("--out", help="write JSON here")
    options = parser.parse_args(arguments)
    device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    options.dtype = options.dtype or ("bf16" if device == "cuda" else "fp32")
    result: dict[str, Any] = {"machine": machine(device), "dtype": options.dtype, "rows": []}
    print(
        f"{'shape':<12}{'input':<7}{'tokens':<8}{'implementation':<21}"
        f"{'forward':>9}{'both':>9}{'ours / it':>16}"
    )
    for name in options.shape or (LARGE if device == "cuda" else SHAPES):
        for raw in (False, True):
            try:
                with limit_memory(device):
                    rows = measure(name, raw, options, device)
            except ValueError as failure:
                print(failure, file=sys.stderr)
                return 1
            result["rows"] += rows
            for row in rows:
                print_row(row)
            if options.out:  # after every input: a failure later keeps what was measured
                Path(options.out).write_text(json.dumps(result, indent=1) + "\n")
    print_masking(result["rows"])
    return 0


def print_row(row: dict[str, Any]) -> None:
    """Print a line for each implementation: ms, and ours over theirs, forward and both."""
    for peer, forward in row["forward"].items():
        both = row["both"][peer]
        ratios = [row[p]["hsssl_kernels"] / row[p][peer] for p in ("forward", "both")]
        head = f"{row['shape']:<12}{row['input']:<7}{'25 %' if row['masked'] else 'all':<8}{peer:<21}"
        print(f"{head}{forward:>9.2f}{both:>9.2f}{ratios[0]:>9.3f}{ratios[1]:>7.3f}", flush=True)


def print_masking(rows: list[dict[str, Any]]) -> None:
    """Print how many times faster we are with three tokens in four masked out."""
    for row in rows:
        if row["masked"]:
            forward, both = row["times as fast as all"].values()
            print(f"{row['shape']} {row['input']}: 75 % masked is {forward:.2f} / {both:.2f} times as fast")


if __name__ == "__main__":
    sys.exit(main())
