"""Measure clustering's cost in a fresh process each: `python benchmarks/cluster.py --out results.json`.

ridge: SalinasA (HSSSL_DATA) from the cube in memory to the sparse graph. scene: a generated scene of
512 x 512 x 200 int16 from the cube to the map. Beside the clock stands the CPU time, which other programs
disturb less. Peaks are of the whole process, torch included.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from measure import machine


def ridge() -> dict[str, Any]:
    import numpy as np

    import hsssl
    from hsssl.cluster.features import AveragedComponents, Pixels, rows_at
    from hsssl.cluster.landmarks import coefficient_graph
    from hsssl.cluster.methods import AffineRidge

    folder = Path(os.environ.get("HSSSL_DATA", "../shared/data")) / "salinas_a"
    cube = hsssl.open_cube(folder / "SalinasA_corrected.mat")
    labels = hsssl.open_labels(folder / "SalinasA_gt.mat")
    taken, cpu = [], []
    for _ in range(9):
        start, used = time.perf_counter(), time.process_time()
        prepared = hsssl.prepare(cube)
        pixels = Pixels(prepared, (labels > 0) & prepared.valid)
        rows = rows_at(AveragedComponents.of(pixels, window=5), pixels.places, cube.cols)
        factor = AffineRidge.of(rows)(rows)
        graph = coefficient_graph(factor, factor)
        taken.append(time.perf_counter() - start)
        cpu.append(time.process_time() - used)
    count = int(np.count_nonzero(labels))
    return {"pixels": count, "edges": int(graph.nnz), "seconds": taken, "cpu_s": cpu}


def scene() -> dict[str, Any]:
    import numpy as np

    import hsssl
    from hsssl.cluster import score_clusters
    from hsssl.cube import Cube

    rng = np.random.default_rng(0)
    side, bands, classes = 512, 200, 8
    truth = np.repeat(np.repeat(rng.integers(0, classes, (16, 16)), side // 16, 0), side // 16, 1)
    materials = rng.uniform(500, 5000, (classes, bands)).astype(np.float32)
    values = np.empty((side, side, bands), dtype=np.int16)
    for row in range(side):
        values[row] = materials[truth[row]] * rng.uniform(0.8, 1.2, (side, 1)) + rng.normal(
            0, 100, (side, bands)
        )
    start, used = time.perf_counter(), time.process_time()
    found = hsssl.cluster(Cube(values, source="generated"), clusters=classes)
    took = {"seconds": [time.perf_counter() - start], "cpu_s": [time.process_time() - used]}
    acc = score_clusters(truth + 1, found).acc
    return {"pixels": side * side, "bands": bands, "acc": acc} | took


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--only", choices=("ridge", "scene"), help="measure this one in this process")
    parser.add_argument("--out", help="write JSON here")
    options = parser.parse_args()
    if options.only:
        found = {"ridge": ridge, "scene": scene}[options.only]()
        status = Path("/proc/self/status").read_text().splitlines()
        peak = next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
        print(json.dumps(found | {"peak_mib": peak / 1024}))
        return 0
    result: dict[str, Any] = {"machine": machine("cpu")}
    for what in ("ridge", "scene"):
        done = subprocess.run(
            [sys.executable, __file__, "--only", what], capture_output=True, text=True, check=True
        )
        result[what] = json.loads(done.stdout.splitlines()[-1])
        print(what, result[what], flush=True)
    if options.out:
        Path(options.out).write_text(json.dumps(result, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
