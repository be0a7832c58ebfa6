"""Measure unmixing's cost, a fresh process a method: `python benchmarks/unmix.py --out results.json`.

A generated scene of 512 x 512 x 200 int16 (105 MB) of six materials, from the cube in memory to endmembers,
abundances and error. Peaks are of the whole process, torch and the scene included.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from measure import machine

METHODS = ("pure_pixels", "vca", "daeu", "egu_net", "egu_net_spatial")
SIDE, BANDS, MATERIALS = 512, 200, 6


def measure(method: str) -> dict[str, Any]:
    import numpy as np

    import hsssl
    from hsssl.unmix import match_endmembers, sad

    rng = np.random.default_rng(0)
    steps = rng.normal(0, 1, (MATERIALS, BANDS)).cumsum(axis=1)
    materials = 500 + 400 * (steps - steps.min(axis=1, keepdims=True))
    shares = np.empty((SIDE, SIDE, MATERIALS), dtype=np.float32)
    values = np.empty((SIDE, SIDE, BANDS), dtype=np.int16)
    for row in range(SIDE):
        shares[row] = rng.dirichlet(np.full(MATERIALS, 0.15), SIDE)
        values[row] = shares[row] @ materials + rng.normal(0, 20, (SIDE, BANDS))
    wall, cpu = time.perf_counter(), time.process_time()
    mix = hsssl.unmix(
        hsssl.Cube(values, source="generated"), endmembers=MATERIALS, method=method, progress=False
    )
    took = {"seconds": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu}
    order = match_endmembers(mix.endmembers, materials)
    off = float(np.sqrt(np.square(mix.abundances[:, :, order] - shares).mean()))
    return took | {"mean_sad": float(sad(mix.endmembers, materials).mean()), "rmse_of_area": off}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
    parser.add_argument("--only", choices=METHODS, help="measure this one in this process")
    parser.add_argument("--out", help="write JSON here")
    options = parser.parse_args()
    if options.only:
        found = measure(options.only)
        status = Path("/proc/self/status").read_text().splitlines()
        peak = next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
        print(json.dumps(found | {"peak_mib": peak / 1024}))
        return 0
    result: dict[str, Any] = {"machine": machine("cpu"), "scene": [SIDE, SIDE, BANDS], "methods": {}}
    for method in options.methods:
        done = subprocess.run(
            [sys.executable, __file__, "--only", method], capture_output=True, text=True, check=True
        )
        result["methods"][method] = json.loads(done.stdout.splitlines()[-1])
        print(method, result["methods"][method], flush=True)
        if options.out:
            Path(options.out).write_text(json.dumps(result, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
