"""Measure a whole pretraining step: `PYTHONPATH=kernels:. python benchmarks/step.py --out step.json`.

Ours draws centres and views from the resident cube and descends on SimCLR with the fused loss. The other is
the loop that lightly's users write: a DataLoader of per-sample views with two workers, the same encoder,
projector and optimiser, and the loss in the structure of lightly's NTXentLoss. Both take turns. What a step
spends outside the model, that is on its input, is timed apart: on a CPU by the clock; on a GPU, which is
given work ahead, as what a step takes beyond one that has its batch already. There the share of the time in
which the GPU computes for the model is read from its trace too. Needs torch, triton and numpy.
"""

from __future__ import annotations

# first, as it sets how threads wait before torch loads
import hsssl  # noqa: F401

# isort: split
import argparse
import itertools
import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import torch
from measure import machine
from ops import lightly_structure
from torch import Tensor
from torch.utils.data import DataLoader
from views import PatchDataset, scene

from hsssl.encoders import build_encoder
from hsssl.memory import kept_memory
from hsssl.methods import build_method
from hsssl.methods.simclr import SimCLR
from hsssl.sampling import ResidentScene, draw_views
from hsssl.views import DEFAULT_VIEWS, Views, ViewSpec

__all__ = ["CASES", "Case", "main", "measure"]

LR, WORKERS = 4e-3, 2
# Largest batch that the DataLoader is given: larger ones take it seconds each.
LOADED = 1024
VIEW_KERNELS = ("_spectral_views_kernel", "_choose_kernel")


class Case(NamedTuple):
    """A scene, the patches and views of a batch; the encoder is the default one."""

    scene: str
    patch_size: int
    batch: int
    views: str


CASES = {
    "demo": Case("145x145x200", 1, 1024, "default"),
    "9x9": Case("145x145x200", 9, 512, "default"),
    "9x9 all views": Case("145x145x200", 9, 512, "all"),
    "11x11": Case("610x340x103", 11, 512, "default"),
    "11x11 all views": Case("610x340x103", 11, 512, "all"),
}
# Batches that fill a GPU.
LARGE = {
    "pixels large": Case("145x145x200", 1, 65536, "default"),
    "9x9 large": Case("145x145x200", 9, 4096, "all"),
    "11x11 large": Case("610x340x103", 11, 4096, "all"),
}
SPECS = {"default": DEFAULT_VIEWS, "all": ViewSpec()}


def measure(case: Case, device: str, seconds: float, rounds: int) -> dict[str, Any]:
    """Return what a step takes, ours and with the DataLoader, in all and outside the model."""
    torch.manual_seed(0)
    data = scene(case.scene, device)
    rows, cols, bands = data["cube"].shape
    order = torch.randperm(rows * cols)
    centres = torch.stack([order // cols, order % cols], 1)
    wavelengths = torch.linspace(400, 2500, bands).to(device)
    resident = ResidentScene(
        data["cube"],
        torch.ones(rows, cols, dtype=torch.bool, device=device),
        centres,
        data["mean"],
        data["scale"],
        wavelengths,
    )
    encoder = build_encoder("spectral_spatial", patch_size=case.patch_size)
    model = build_method("simclr", encoder).to(device)
    assert isinstance(model, SimCLR)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR)

    def fused(views: Views) -> Tensor:
        return model(views)  # type: ignore[no-any-return]

    def plain(views: Views) -> Tensor:
        return lightly_structure(*(model.projector(model.encoder(x, wavelengths)) for x in views.pair))

    taken: dict[str, list[dict[str, float]]] = {"hsssl": []}
    if case.batch <= LOADED:
        taken["dataloader"] = []
    steps = _queued_steps if device == "cuda" else _steps
    for number in range(rounds):
        ours = _resident_batches(resident, case, 100_000 * number)
        with kept_memory():  # as `hsssl.pretrain` does
            taken["hsssl"].append(steps(ours, fused, optimizer, seconds))
        if "dataloader" in taken:
            theirs = _loaded_batches(data | {"centres": centres}, case, wavelengths)
            taken["dataloader"].append(steps(theirs, plain, optimizer, seconds))
    row = {"case": case._asdict()} | {k: _summary(v, case.batch) for k, v in taken.items()}
    if device == "cuda":
        row["hsssl"] |= _busy(_resident_batches(resident, case, 0), fused, optimizer)
    return row


def _resident_batches(resident: ResidentScene, case: Case, first: int) -> Iterator[Views]:
    for step in range(first, sys.maxsize):
        spec = SPECS[case.views]
        yield draw_views([resident], case.batch, patch_size=case.patch_size, spec=spec, seed=0, step=step)


def _loaded_batches(data: dict[str, Tensor], case: Case, wavelengths: Tensor) -> Iterator[Views]:
    on_cpu = {k: v.cpu() for k, v in data.items()}
    dataset = PatchDataset(on_cpu, SPECS[case.views], 1000 * case.batch, case.patch_size)
    for a, b in DataLoader(dataset, case.batch, num_workers=WORKERS, pin_memory=wavelengths.is_cuda):
        yield Views(*(x.to(wavelengths.device, non_blocking=True) for x in (a, b)), wavelengths)


def _steps(
    batches: Iterator[Views],
    loss_of: Callable[[Views], Tensor],
    optimizer: torch.optim.Optimizer,
    seconds: float,
) -> dict[str, float]:
    """Return mean milliseconds of a step, and of its part outside the model, over about some seconds."""
    outside, steps = 0.0, -WORKERS  # the first batch of each worker is left out
    start = 0.0
    while steps < 3 or time.perf_counter() - start < seconds:
        asked = time.perf_counter()
        if steps == 0:
            start, outside = asked, 0.0
        views = next(batches)
        outside += time.perf_counter() - asked
        _descend(views, loss_of, optimizer)
        steps += 1
    each = 1e3 / steps
    return {"step_ms": (time.perf_counter() - start) * each, "outside_ms": outside * each}


def _descend(views: Views, loss_of: Callable[[Views], Tensor], optimizer: torch.optim.Optimizer) -> None:
    loss_of(views).backward()
    optimizer.step()
    optimizer.zero_grad()


def _queued_steps(
    batches: Iterator[Views],
    loss_of: Callable[[Views], Tensor],
    optimizer: torch.optim.Optimizer,
    seconds: float,
) -> dict[str, float]:
    """Return what `_steps` does where steps are queued; a step that has its batch is the model alone."""
    step_ms = _mean_ms(batches, loss_of, optimizer, seconds)
    model_ms = _mean_ms(itertools.repeat(next(batches)), loss_of, optimizer, seconds)
    return {"step_ms": step_ms, "outside_ms": max(0.0, step_ms - model_ms)}


def _mean_ms(
    batches: Iterator[Views],
    loss_of: Callable[[Views], Tensor],
    optimizer: torch.optim.Optimizer,
    seconds: float,
) -> float:
    first = 0.0
    for n in (3, 3):  # what is compiled, and the first batch of each worker, is left out
        start = time.perf_counter()
        for _ in range(n):
            _descend(next(batches), loss_of, optimizer)
        torch.cuda.synchronize()
        first = (time.perf_counter() - start) / n
    count = min(500, max(3, round(seconds / first)))
    start = time.perf_counter()
    for _ in range(count):
        _descend(next(batches), loss_of, optimizer)
    torch.cuda.synchronize()
    return 1e3 * (time.perf_counter() - start) / count


def _busy(
    batches: Iterator[Views], loss_of: Callable[[Views], Tensor], optimizer: torch.optim.Optimizer
) -> dict[str, float]:
    """Return shares of the time in which the GPU computes at all, and for the model: of 10 traced steps."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CUDA]) as trace:
        for _ in range(10):
            _descend(next(batches), loss_of, optimizer)
        torch.cuda.synchronize()
    spans = [
        (e.time_range.start, e.time_range.end, e.name) for e in trace.events() if e.device_type.name == "CUDA"
    ]
    elapsed = max(end for _, end, _ in spans) - min(start for start, _, _ in spans)
    views = sum(end - start for start, end, name in spans if name in VIEW_KERNELS)
    busy = sum(end - start for start, end, _ in spans)  # one stream: none overlap
    return {"busy_share": busy / elapsed, "busy_with_model_share": (busy - views) / elapsed}


def _summary(rounds: list[dict[str, float]], batch: int) -> dict[str, Any]:
    step_ms, outside_ms = (median(r[k] for r in rounds) for k in ("step_ms", "outside_ms"))
    return {
        "step_ms": step_ms,
        "outside_ms": outside_ms,
        "outside_share": median(r["outside_ms"] / r["step_ms"] for r in rounds),
        "patches_per_second": 1e3 * batch / step_ms,
        "rounds": rounds,
    }


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--case", nargs="+", choices=[*CASES, *LARGE], help="default: a CPU's or a GPU's")
    parser.add_argument("--device", choices=["cpu", "cuda"], help="default: cuda where there is one")
    parser.add_argument("--seconds", type=float, default=3.0, help="time of one measurement in one round")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each; medians are reported")
    parser.add_argument("--out", help="write JSON here")
    options = parser.parse_args(arguments)
    device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    command = " ".join(
        [
            "PYTHONPATH=kernels:. python benchmarks/step.py",
            *(sys.argv[1:] if arguments is None else arguments),
        ]
    )
    result: dict[str, Any] = {"machine": machine(device), "command": command, "rows": []}
    print(f"{'case':<18}{'input':<13}{'step':>10}{'outside the model':>24}{'patches/s':>12}")
    for name in options.case or ([*CASES, *LARGE] if device == "cuda" else CASES):
        row = {"name": name} | measure((CASES | LARGE)[name], device, options.seconds, options.rounds)
        result["rows"].append(row)
        for k in ("hsssl", "dataloader"):
            if k not in row:
                continue
            m = row[k]
            outside = f"{m['outside_ms']:.1f} ms = {100 * m['outside_share']:.1f} %"
            rate = m["patches_per_second"]
            busy = f", busy with the model {m['busy_with_model_share']:.2f}" if "busy_share" in m else ""
            print(f"{name:<18}{k:<13}{m['step_ms']:>7.1f} ms{outside:>24}{rate:>12,.0f}{busy}", flush=True)
        if options.out:  # after every row: a failure later keeps what was measured
            Path(options.out).write_text(json.dumps(result, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
