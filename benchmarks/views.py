"""Measure `spectral_views` against others: `PYTHONPATH=kernels python benchmarks/views.py --out views.json`.

The others are eager torch, torch.compile of it, and a DataLoader with NumPy in two workers. All take turns,
so that ratios, which are of one round, hold on a busy machine too. Needs torch, triton and numpy.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from measure import copy_gbps, extra_peak_mib, host_ms, machine, times
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from hsssl_kernels import ViewSpec, resident_cube, spectral_views
from hsssl_kernels.pages import release_idle

__all__ = ["SCENES", "PatchDataset", "eager_views", "loader_views", "main", "ours", "scene"]

OURS = "hsssl_kernels"

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
SPECS = {
    "all": ViewSpec(),
    "no noise": replace(ViewSpec(), noise=0.0),
    "place alone": replace(ViewSpec.none(), flip=0.5, turn=True, jitter=4),
}
# Rows, columns and bands of Pavia University and Indian Pines.
SCENES = {"610x340x103": (610, 340, 103), "145x145x200": (145, 145, 200)}
PATCH, BATCH, GPU_BATCH = 11, 512, 4096


def scene(name: str, device: str, batch: int = BATCH) -> dict[str, Tensor]:
    """Return a generated int16 cube of a real scene's size, centres, and what normalises it."""
    rows, cols, bands = SCENES[name]
    g = torch.Generator().manual_seed(0)
    cube = torch.randint(0, 4000, (rows, cols, bands), generator=g).to(torch.int16)
    centres = torch.stack([torch.randint(n, (batch,), generator=g) for n in (rows, cols)], 1)
    mean, scale = cube.float().mean((0, 1)), 1 / cube.float().std((0, 1))
    found = {"cube": cube, "centres": centres, "mean": mean, "scale": scale}
    return {k: v.to(device) for k, v in found.items()}


def ours(data: dict[str, Tensor], spec: ViewSpec, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    return spectral_views(**data, patch_size=PATCH, spec=spec, seed=0, step=0, dtype=dtype)


def eager_views(data: dict[str, Tensor], spec: ViewSpec, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Make two views in eager torch as people write it: one operation after another on the whole batch."""
    return _eager_view(**data, spec=spec).to(dtype), _eager_view(**data, spec=spec).to(dtype)


def _eager_view(cube: Tensor, centres: Tensor, mean: Tensor, scale: Tensor, spec: ViewSpec) -> Tensor:
    n, bands, device = len(centres), cube.shape[2], cube.device
    x = _eager_patches(cube, centres, spec)  # (B, P, P, C)
    x = x.float().permute(0, 3, 1, 2).contiguous()  # (B, C, P, P)
    gain = 1 + spec.gain * torch.randn(n, bands, 1, 1, device=device)
    position = (torch.arange(bands, device=device) + 0.5) * (torch.pi / bands)
    cosines = torch.cos(torch.arange(4, device=device)[:, None] * position)
    smooth_gain = torch.randn(n, 4, device=device) @ cosines * (spec.illumination / 2)
    x = x * (gain + smooth_gain[:, :, None, None])
    x = (x - mean[:, None, None]) * scale[:, None, None]
    x = x + spec.offset * torch.randn(n, bands, 1, 1, device=device)
    padded = torch.cat([x[:, :1], x, x[:, -1:]], 1)
    smoothed = 0.25 * padded[:, :-2] + 0.5 * x + 0.25 * padded[:, 2:]
    x = torch.where(torch.rand(n, 1, 1, 1, device=device) < spec.smooth, smoothed, x)
    if spec.noise:
        x = x + spec.noise * torch.randn_like(x)
    x = x * (torch.rand(n, bands, 1, 1, device=device) >= spec.band_drop)
    x = x * _eager_block(n, bands, spec, device)
    x = x * _eager_square(n, spec, device)
    x = torch.where(torch.rand(n, 1, 1, 1, device=device) < spec.flip, x.flip(2), x)
    x = torch.where(torch.rand(n, 1, 1, 1, device=device) < spec.flip, x.flip(3), x)
    if spec.turn:
        quarter = torch.randint(4, (n, 1, 1, 1), device=device)
        for k in (1, 2, 3):
            x = torch.where(quarter == k, x.rot90(k, (2, 3)), x)
    return x


def _eager_patches(cube: Tensor, centres: Tensor, spec: ViewSpec) -> Tensor:
    shift = torch.randint(-spec.jitter, spec.jitter + 1, centres.shape, device=cube.device)
    reach = torch.arange(PATCH, device=cube.device) - PATCH // 2
    at = (centres + shift)[:, :, None] + reach  # (B, 2, P)
    size = torch.tensor(cube.shape[:2], device=cube.device)[:, None]
    at = at.abs()
    at = torch.where(at < size, at, 2 * (size - 1) - at)  # mirrored at the border
    return cube[at[:, 0, :, None], at[:, 1, None, :]]


def _eager_block(n: int, bands: int, spec: ViewSpec, device: torch.device) -> Tensor:
    length = 1 + (torch.rand(n, 1, device=device) * int(spec.block_size * bands)).long()
    length = length * (torch.rand(n, 1, device=device) < spec.block_drop)
    first = (torch.rand(n, 1, device=device) * (bands - length + 1)).long()
    band = torch.arange(bands, device=device)
    return ((band < first) | (band >= first + length))[:, :, None, None]


def _eager_square(n: int, spec: ViewSpec, device: torch.device) -> Tensor:
    side = 1 + (torch.rand(n, 1, device=device) * int(spec.cutout_size * PATCH)).long()
    side = side * (torch.rand(n, 1, device=device) < spec.cutout)
    first = (torch.rand(n, 2, device=device) * (PATCH - side + 1)).long()
    at = torch.arange(PATCH, device=device)
    rows, cols = ((at >= first[:, i : i + 1]) & (at < first[:, i : i + 1] + side) for i in range(2))
    keep = ~(rows[:, :, None] & cols[:, None, :])
    keep[:, PATCH // 2, PATCH // 2] = True
    return keep[:, None]


class PatchDataset(Dataset[tuple[np.ndarray, np.ndarray]]):
    """Two views of a patch, cut and augmented sample by sample in NumPy, as the field's repositories do."""

    def __init__(self, data: dict[str, Tensor], spec: ViewSpec, length: int, patch_size: int = PATCH) -> None:
        self.patch_size, self.margin = patch_size, patch_size // 2 + spec.jitter
        cube = data["cube"].numpy()
        self.cube = np.pad(cube, ((self.margin,) * 2, (self.margin,) * 2, (0, 0)), "reflect")
        self.mean, self.scale = data["mean"].numpy(), data["scale"].numpy()
        self.centres = data["centres"].numpy()
        bands = cube.shape[2]
        position = (np.arange(bands) + 0.5) * (np.pi / bands)
        self.cosines = np.cos(np.arange(4)[:, None] * position).astype(np.float32)
        self.spec, self.length = spec, length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng(i)
        row, col = self.centres[i % len(self.centres)]
        return self.view(row, col, rng), self.view(row, col, rng)

    def view(self, row: int, col: int, rng: np.random.Generator) -> np.ndarray:
        """Return one view (C, P, P) of the patch around a pixel."""
        s, bands = self.spec, self.cube.shape[2]
        i, j = np.array([row, col]) + rng.integers(0, 2 * s.jitter + 1, 2)
        x = self.cube[i : i + self.patch_size, j : j + self.patch_size].astype(np.float32)
        gain = 1 + s.gain * rng.standard_normal(bands, dtype=np.float32)
        gain += rng.standard_normal(4, dtype=np.float32) @ self.cosines * np.float32(s.illumination / 2)
        x = (x * gain - self.mean) * self.scale
        x += s.offset * rng.standard_normal(bands, dtype=np.float32)
        if rng.random() < s.smooth:
            padded = np.concatenate([x[..., :1], x, x[..., -1:]], -1)
            x = 0.25 * padded[..., :-2] + 0.5 * x + 0.25 * padded[..., 2:]
        if s.noise:
            x += s.noise * rng.standard_normal(x.shape, dtype=np.float32)
        x[..., rng.random(bands) < s.band_drop] = 0
        self.drop(x, rng)
        for axis in (0, 1):
            if rng.random() < s.flip:
                x = np.flip(x, axis)
        if s.turn:
            x = np.rot90(x, rng.integers(4))
        return x.transpose(2, 0, 1).copy()

    def drop(self, x: np.ndarray, rng: np.random.Generator) -> None:
        """Set a block of bands and a square of pixels of x (P, P, C) to 0."""
        s, bands = self.spec, x.shape[2]
        longest, widest = int(s.block_size * bands), int(s.cutout_size * self.patch_size)
        if longest and rng.random() < s.block_drop:
            length = rng.integers(1, longest + 1)
            first = rng.integers(bands - length + 1)
            x[..., first : first + length] = 0
        if widest and rng.random() < s.cutout:
            side = rng.integers(1, widest + 1)
            i, j = rng.integers(0, self.patch_size - side + 1, 2)
            centre = x[self.patch_size // 2, self.patch_size // 2].copy()
            x[i : i + side, j : j + side] = 0
            x[self.patch_size // 2, self.patch_size // 2] = centre


def loader_views(
    data: dict[str, Tensor], spec: ViewSpec, batches: int, workers: int = 2
) -> Iterator[list[Tensor]]:
    """Yield batches of two views from a DataLoader over `PatchDataset`."""
    on_cpu = {k: v.cpu() for k, v in data.items()}
    batch = len(data["centres"])
    return iter(DataLoader(PatchDataset(on_cpu, spec, batches * batch), batch, num_workers=workers))


def _loader_ms(data: dict[str, Tensor], spec: ViewSpec, batches: int = 6) -> float:
    """Return the mean milliseconds between batches, the first of each worker left out."""
    stream = loader_views(data, spec, batches + 2)
    next(stream), next(stream)
    start = time.perf_counter()
    for _ in stream:
        pass
    return 1e3 * (time.perf_counter() - start) / batches


def measure(name: str, kind: str, options: argparse.Namespace) -> dict[str, Any]:
    """Return milliseconds a batch, pairs per second, extra memory and ratios of one scene."""
    dtype, batch = DTYPES[options.dtype], options.batch
    data = scene(name, options.device, batch)
    spec = SPECS[kind]
    # as the sampler holds a scene; centres where they are drawn, and checked without waiting
    given = data | {"centres": data["centres"].cpu(), "cube": resident_cube(data["cube"])}
    calls: dict[str, Callable[[], Any]] = {
        OURS: lambda: ours(given, spec, dtype),
        "eager": lambda: eager_views(data, spec, dtype),
    }
    if options.compile:
        compiled_views = torch.compile(eager_views)
        calls["torch.compile of it"] = lambda: compiled_views(data, spec, dtype)
    names = list(calls) if options.no_loader else [*calls, "dataloader"]
    rounds: dict[str, list[float]] = {k: [] for k in names}
    for _ in range(options.rounds):
        for k, f in calls.items():
            rounds[k].append(times(lambda f=f: f, options.device, options.seconds)["median_ms"])
        if not options.no_loader:
            rounds["dataloader"].append(_loader_ms(data, spec))
    faster = {k: [a / b for a, b in zip(ms, rounds[OURS], strict=True)] for k, ms in rounds.items()}
    a, b = ours(given, spec, dtype)
    views_mib = (a.nbytes + b.nbytes) / 2**20
    # each view's raw numbers are read, as its patch has a centre of its own, and the view is written
    moved = 2 * data["cube"].itemsize * a.numel() + a.nbytes + b.nbytes
    del a, b
    release_idle()  # or memory that is kept would not be counted
    ms = {k: median(v) for k, v in rounds.items()}
    row: dict[str, Any] = {
        "scene": name,
        "spec": kind,
        "batch": batch,
        "dtype": options.dtype,
        "patch_size": PATCH,
        "views_mib": views_mib,
        "extra_peak_mib": {k: extra_peak_mib(f, options.device) for k, f in calls.items()},
        "ms": ms,
        "ms_of_rounds": rounds,
        "pairs_per_second": {k: 1e3 * batch / v for k, v in ms.items()},
        "times_as_fast_as": {k: median(v) for k, v in faster.items() if k != OURS},
        "gbps": moved / ms[OURS] / 1e6,
    }
    if options.device == "cuda":
        row["host_ms"] = {k: host_ms(f) for k, f in calls.items()}
    return row


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=["cpu", "cuda"], help="default: cuda where there is one")
    parser.add_argument("--seconds", type=float, default=0.5, help="time of one measurement in one round")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each; medians are reported")
    parser.add_argument("--spec", nargs="+", choices=list(SPECS), default=["all", "no noise"])
    parser.add_argument("--batch", type=int, help=f"default: {BATCH}, on a GPU {GPU_BATCH}")
    parser.add_argument("--dtype", choices=list(DTYPES), default="fp32", help="of the views")
    parser.add_argument("--no-loader", action="store_true", help="without the DataLoader")
    parser.add_argument("--compile", action="store_true", help="torch.compile of the eager form too")
    parser.add_argument("--out", help="write JSON here")
    options = parser.parse_args(arguments)
    options.device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    options.batch = options.batch or (GPU_BATCH if options.device == "cuda" else BATCH)
    result: dict[str, Any] = {"machine": machine(options.device)}
    if options.device == "cuda":
        result["copy_gbps"] = copy_gbps(options.device)
    result |= {
        "command": " ".join(
            [
                "PYTHONPATH=kernels:. python benchmarks/views.py",
                *(sys.argv[1:] if arguments is None else arguments),
            ]
        ),
        "rows": [],
    }
    for name in SCENES:
        for kind in options.spec:
            row = measure(name, kind, options)
            if "copy_gbps" in result:
                row["share_of_copy"] = row["gbps"] / result["copy_gbps"]
            result["rows"].append(row)
            print_row(row)
            if options.out:  # after every row: a failure later keeps what was measured
                Path(options.out).write_text(json.dumps(result, indent=1) + "\n")
    return 0


def print_row(row: dict[str, Any]) -> None:
    """Print a line for each implementation: time, speed, memory, and how many times as fast ours is."""
    print(f"{row['scene']}, {row['spec']}, views {row['views_mib']:.0f} MiB")
    if "share_of_copy" in row:
        print(f"  {row['gbps']:.0f} GB/s, {row['share_of_copy']:.2f} of a copy's")
    for k, ms in row["ms"].items():
        memory, ratio = row["extra_peak_mib"].get(k), row["times_as_fast_as"].get(k)
        held = "" if memory is None else f", {memory:.0f} MiB more at most"
        ours_is = "" if ratio is None else f", ours is {ratio:.1f} times as fast"
        print(f"  {k:20}{ms:8.2f} ms {row['pairs_per_second'][k]:8.0f} pairs/s{ours_is}{held}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
