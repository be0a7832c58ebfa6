"""Measure `embed_views` against views and then tokens: `PYTHONPATH=kernels python benchmarks/embed_views.py`.

Views are made twice, but never written: it is time against memory. Needs torch, triton and numpy. Both take
turns, so that ratios hold on a busy machine.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import torch
from measure import extra_peak_mib, machine, times
from torch import Tensor
from views import scene

from hsssl_kernels import ViewSpec, embed_views, spectral_patch_embed, spectral_views
from hsssl_kernels.pages import release_idle

__all__ = ["CASES", "Case", "apart", "fused", "main"]

Pair = tuple[Tensor, Tensor]
DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


class Case(NamedTuple):
    """Samples, their side, a token's side, and whether one token in four is computed."""

    batch: int
    side: int
    patch: int
    masked: bool


CASES = {
    "9x9": Case(512, 9, 3, False),
    "9x9 25 %": Case(512, 9, 3, True),
    "11x11": Case(256, 11, 1, False),
    "11x11 25 %": Case(256, 11, 1, True),
}
GROUP, DIM, GPU_TIMES = 10, 128, 8


def inputs(case: Case, dtype: torch.dtype, device: str) -> dict[str, Any]:
    """Return arguments of `embed_views`, by name."""
    g = torch.Generator().manual_seed(1)
    batch, values = case.batch * (GPU_TIMES if device == "cuda" else 1), case.patch**2 * GROUP
    named: dict[str, Any] = scene("145x145x200", device, batch)
    named["weight"] = (torch.randn(DIM, values, generator=g) * values**-0.5).to(device, dtype)
    named["bias"] = torch.randn(DIM, generator=g).to(device, dtype)
    if case.masked:
        tokens = named["cube"].shape[2] // GROUP * (case.side // case.patch) ** 2
        order = torch.rand(2, batch, tokens, generator=g).argsort(2)
        named["visible"] = order[:, :, : tokens // 4].contiguous().to(device)
    return named


def fused(named: dict[str, Any], case: Case) -> Pair:
    return embed_views(**named, **_sizes(case))


def apart(named: dict[str, Any], case: Case) -> Pair:
    """Write both views, then cut and embed them."""
    sizes, rest = _sizes(case), dict(named)
    cut = {k: sizes.pop(k) for k in ("patch", "group")} | {k: rest.pop(k) for k in ("weight", "bias")}
    visible = rest.pop("visible", (None, None))
    views = spectral_views(**rest, **sizes, dtype=cut["weight"].dtype)
    a, b = (spectral_patch_embed(x, **cut, visible=v) for x, v in zip(views, visible, strict=True))
    return a, b


def _sizes(case: Case) -> dict[str, Any]:
    return {
        "patch_size": case.side,
        "patch": case.patch,
        "group": GROUP,
        "spec": ViewSpec(),
        "seed": 0,
        "step": 0,
    }


def measure(name: str, options: argparse.Namespace, device: str) -> dict[str, Any]:
    """Return times of both, forward and with the backward pass, and their extra peak memory."""
    case = CASES[name]
    named = inputs(case, DTYPES[options.dtype], device)
    with torch.no_grad():
        pairs = zip(fused(named, case), apart(named, case), strict=True)
        off = max(((a - b).norm() / b.norm()).nan_to_num(float("inf")).item() for a, b in pairs)
    if not off <= 2 * torch.finfo(named["weight"].dtype).eps:
        raise ValueError(f"embed_views {name}: tokens are not those of views, so it is not timed: {off}")
    named |= {k: named[k].requires_grad_() for k in ("weight", "bias")}
    row: dict[str, Any] = {"case": name, "batch": len(named["centres"]), "difference": off}
    calls = {"embed_views": fused, "spectral_views + spectral_patch_embed": apart}
    runs: dict[str, dict[str, Callable[[], Any]]] = {
        "forward": {peer: torch.no_grad()(partial(call, named, case)) for peer, call in calls.items()},
        "both": {peer: partial(_forward_backward, call, named, case) for peer, call in calls.items()},
    }
    for passed, each in runs.items():
        rounds = [
            {
                p: times(lambda run=run: run, device, options.seconds, 2)["median_ms"]
                for p, run in each.items()
            }
            for _ in range(options.rounds)
        ]
        row[passed] = {peer: median(taken[peer] for taken in rounds) for peer in each}
    row["extra_peak_mib"] = {}
    for peer, run in runs["both"].items():
        release_idle()  # or memory that is kept would not be counted
        row["extra_peak_mib"][peer] = extra_peak_mib(run, device)
    return row


def _forward_backward(call: Callable[..., Pair], named: dict[str, Any], case: Case) -> None:
    pair = call(named, case)
    torch.autograd.backward(pair, [torch.ones_like(tokens) for tokens in pair])
    named["weight"].grad = named["bias"].grad = None


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--case", nargs="+", choices=list(CASES), default=list(CASES))
    parser.add_argument("--dtype", choices=list(DTYPES), help="default: bf16 on a GPU, fp32 elsewhere")
    parser.add_argument("--device", choices=["cpu", "cuda"], help="default: cuda where there is one")
    parser.add_argument("--seconds", type=float, default=0.5, help="time of one measurement in one round")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each; medians are reported")
    parser.add_argument("--out", help="write JSON here")
    options = parser.parse_args(arguments)
    device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    options.dtype = options.dtype or ("bf16" if device == "cuda" else "fp32")
    result: dict[str, Any] = {"machine": machine(device), "dtype": options.dtype, "rows": []}
    print(f"{'case':<12}{'implementation':<40}{'forward':>9}{'both':>9}{'MiB':>7}")
    for name in options.case:
        try:
            row = measure(name, options, device)
        except ValueError as failure:
            print(failure, file=sys.stderr)
            return 1
        result["rows"].append(row)
        for peer, forward in row["forward"].items():
            peak = row["extra_peak_mib"][peer]
            said = "?" if peak is None else f"{peak:.0f}"
            print(f"{name:<12}{peer:<40}{forward:>9.2f}{row['both'][peer]:>9.2f}{said:>7}", flush=True)
        if options.out:  # after every case: a failure later keeps what was measured
            Path(options.out).write_text(json.dumps(result, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
