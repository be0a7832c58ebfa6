"""How it is measured: time, extra peak memory, error against float64, and the machine's own ceilings."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import gc
import math
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import torch
from torch import Tensor

__all__ = [
    "ceilings",
    "copy_gbps",
    "count_cpu_time",
    "error",
    "extra_peak_mib",
    "host_ms",
    "limit_memory",
    "machine",
    "release",
    "synchronize",
    "times",
    "value_and_gradients",
]


_clock: dict[str, Any] = {"name": "wall", "now": time.perf_counter}


def count_cpu_time() -> None:
    """Time by the processor's time of one thread from now on: on a busy machine the clock tells its load."""
    torch.set_num_threads(1)
    _clock.update(name="CPU time, one thread", now=time.process_time)


def synchronize(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def times(run: Callable[[], Any], device: str, seconds: float, least: int = 3) -> dict[str, float]:
    """Return median, 20 and 80 % of the milliseconds a call; ``run`` prepares, and returns what is timed.

    On a GPU it is the device's time, with nothing in its cache and the host running ahead.
    """
    run()()
    synchronize(device)
    time_one = _gpu_clock(run()) if device == "cuda" else _seconds
    taken: list[float] = []
    while len(taken) < least or (sum(taken) < seconds and len(taken) < 100):
        taken.append(time_one(run()))
    tenths = quantiles(taken, n=10, method="inclusive")
    return {
        "median_ms": 1e3 * tenths[4],
        "p20_ms": 1e3 * tenths[1],
        "p80_ms": 1e3 * tenths[7],
        "calls": len(taken),
    }


def _seconds(timed: Callable[[], Any]) -> float:
    start = _clock["now"]()
    timed()
    return float(_clock["now"]() - start)


def _gpu_clock(timed: Callable[[], Any]) -> Callable[[Callable[[], Any]], float]:
    """Return what times calls like this one, each queued whole before the device begins it, up to 5 ms."""
    begun = time.perf_counter()
    timed()
    on_host = time.perf_counter() - begun
    torch.cuda.synchronize()
    # a pass takes .2 ms or more: twice what the host takes, as it may be held up
    passes = 1 + min(50, math.ceil(2 * on_host / 2e-4))

    def seconds(timed: Callable[[], Any]) -> float:
        for _ in range(passes):
            _beyond_the_cache().zero_()
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        timed()
        end.record()
        end.synchronize()
        return 1e-3 * start.elapsed_time(end)

    return seconds


@functools.cache
def _beyond_the_cache() -> Tensor:
    return torch.empty(2**30, dtype=torch.uint8, device="cuda")


def host_ms(run: Callable[[], Any], calls: int = 50) -> float:
    """Return the median milliseconds that a call keeps the host, on a GPU that does the work meanwhile."""
    taken = []
    for _ in range(calls):
        torch.cuda.synchronize()
        start = time.perf_counter()
        run()
        taken.append(1e3 * (time.perf_counter() - start))
    torch.cuda.synchronize()
    return median(taken)


def extra_peak_mib(run: Callable[[], Any], device: str) -> float | None:
    """Return the peak of memory during ``run`` above what was held before, None where it cannot be known."""
    release(device)
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        synchronize(device)
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    try:
        Path("/proc/self/clear_refs").write_text("5")  # resets the peak of resident memory
    except OSError:
        return None
    before = _status("VmRSS")
    run()
    return (_status("VmHWM") - before) / 2**10


@contextlib.contextmanager
def limit_memory(device: str, share: float = 0.85) -> Iterator[None]:
    """Let allocations beyond a share of the memory fail meanwhile, so that no peer gets the run killed."""
    if sys.platform != "linux" or device != "cpu":
        yield
        return
    import resource

    before = resource.getrlimit(resource.RLIMIT_DATA)
    most = int(share * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    resource.setrlimit(resource.RLIMIT_DATA, (most, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, before)


def release(device: str) -> None:
    """Give freed memory back, so that what is held does not hide what is taken next."""
    gc.collect()
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).malloc_trim(0)
    if device == "cuda":
        torch.cuda.empty_cache()


def _status(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key + ":"))


def error(run: Callable[..., Tensor], inputs: list[Tensor], exact: list[Tensor]) -> list[float]:
    """Return the largest error of the value and the relative error, by norm, of each gradient."""
    got = value_and_gradients(run, inputs)
    errors = [(got[0] - exact[0]).abs().max().item()]
    for a, b in zip(got[1:], exact[1:], strict=True):
        errors.append(((a - b).norm() / b.norm()).item())
    return errors


def value_and_gradients(run: Callable[..., Tensor], inputs: list[Tensor]) -> list[Tensor]:
    """Return the value and the gradients by the floating-point inputs that have one, in float64."""
    leaves = [x.detach().requires_grad_() if x.is_floating_point() else x for x in inputs]
    value = run(*leaves)
    if value.requires_grad:
        value.sum().backward()
    gradients = [x.grad for x in leaves if x.grad is not None]
    return [x.detach().double() for x in (value, *gradients)]


def ceilings(dtype: torch.dtype, device: str) -> dict[str, float]:
    """Return what this machine does at best now: TFLOP/s of a matmul, GB/s of a copy, 10^9 exp2 a second."""
    n = 8192 if device == "cuda" else 3072
    a, b = (torch.randn(n, n, dtype=dtype, device=device) for _ in range(2))
    matmul = times(lambda: lambda: a @ b, device, 1.0)
    return {
        "matmul_tflops": 2 * n**3 / matmul["median_ms"] / 1e9,
        "copy_gbps": copy_gbps(device),
        "exp2_gops": _exp2_ceiling(device),
    }


def copy_gbps(device: str) -> float:
    """Return GB/s of a large copy, bytes read and bytes written."""
    source = torch.empty(2**28 if device == "cuda" else 2**26, dtype=torch.float32, device=device).zero_()
    target = torch.empty_like(source).zero_()
    copy = times(lambda: lambda: target.copy_(source), device, 1.0)
    return 2 * source.nbytes / copy["median_ms"] / 1e6


def _exp2_ceiling(device: str) -> float:
    """Return 10^9 float32 exp2 a second: out of the cache on a CPU, out of registers on a GPU."""
    if device == "cuda":
        from exp2 import launch_exp2

        count, run = launch_exp2()
    else:
        x = torch.linspace(-1, 0, 2**18)
        out, count = torch.empty_like(x), 16 * len(x)

        def run() -> None:
            for _ in range(16):
                torch.exp2(x, out=out)

    return count / times(lambda: run, device, 0.5)["median_ms"] / 1e6


def machine(device: str) -> dict[str, Any]:
    """Return the device, the versions and the commit; nothing that names a host or a person."""
    import numpy

    found: dict[str, Any] = {
        "device": torch.cuda.get_device_name() if device == "cuda" else _cpu_name(),
        "cores": torch.get_num_threads(),
        "clock": _clock["name"],
        "python": platform.python_version(),
        "torch": torch.__version__,
        "triton": _version("triton"),
        "numpy": numpy.__version__,
        "load_average_at_start": round(os.getloadavg()[0], 2),
        "commit": _git("rev-parse", "HEAD"),
        "uncommitted_changes": bool(_git("status", "--porcelain", "--", "kernels", "benchmarks")),
    }
    if device == "cuda":
        found["capability"] = ".".join(map(str, torch.cuda.get_device_capability()))
    return found


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.machine()


def _version(package: str) -> str | None:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _git(*arguments: str) -> str | None:
    folder = Path(__file__).parent.parent
    try:
        done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
