"""Measure scenes larger than memory: `PYTHONPATH=kernels:. python benchmarks/stream.py --out stream.json`.

peak: a sparse ENVI cube of --gib, with true values in 32 rows of every 256, is embedded, classified, unmixed
and clustered in a fresh process each; the peak of its memory is compared with that of embedding a small part.
rate: a scene of --rows, full of values, in memory and in its file in turn, from a cold page cache; embedded
to an array and to a GeoTIFF, and classified to a GeoTIFF. The encoder is the default one, untrained.
compressed: tiles of an embedding, and parts of statistics, read from such a scene of --compressed rows
as a deflated GeoTIFF, in strips and in blocks; with decoded blocks kept, and each decoded anew, in turn.
"""

from __future__ import annotations

# first, as it sets how threads wait before torch loads
import hsssl

# isort: split
import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import rasterio
import torch
from measure import machine
from numpy.typing import NDArray

from hsssl import blocks
from hsssl.cube import Cube
from hsssl.encoders import build_encoder
from hsssl.prepare import read_parts
from hsssl.readers.envi_header import braced
from hsssl.spec import EncoderSpec, Sensor
from hsssl.stream import cut_tiles
from hsssl.train import WINDOWS

COLS, BANDS, STRIP, EVERY, CLASSES = 1000, 224, 32, 256, 6
JOBS = ("embed", "classify", "unmix", "cluster")
LAYOUTS: dict[str, dict[str, Any]] = {
    "strips of a row": {"interleave": "pixel"},
    "blocks of 256 x 256": {"tiled": True, "blockxsize": 256, "blockysize": 256, "interleave": "band"},
}
CENTRES = np.linspace(420, 2450, BANDS)
MATERIALS = np.random.default_rng(0).uniform(500, 5000, (CLASSES, BANDS)).astype(np.float32)


def values_of(rows: int, seed: int) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Return values (rows, COLS, BANDS) of squares of some materials, and the materials from 1."""
    rng = np.random.default_rng(seed)
    squares = rng.integers(0, CLASSES, (rows // 16 + 1, COLS // 16 + 1))
    truth = squares.repeat(16, 0).repeat(16, 1)[:rows, :COLS]
    values = MATERIALS[truth] * rng.uniform(0.8, 1.2, (rows, COLS, 1)).astype(np.float32)
    values += rng.standard_normal(values.shape, dtype=np.float32) * 100
    return values, (truth + 1).astype(np.uint8)


def write_scene(path: Path, rows: int, *, every: int) -> NDArray[np.uint8]:
    """Write a BIL cube with values in 32 rows of ``every``, the rest zeros; return the materials."""
    fields = {
        "samples": COLS, "lines": rows, "bands": BANDS, "header offset": 0, "file type": "ENVI Standard",
        "data type": 4, "interleave": "bil", "byte order": 0, "wavelength units": "Nanometers",
        "wavelength": braced([f"{nm:.2f}" for nm in CENTRES]),
    }  # fmt: skip
    path.write_text("ENVI\n" + "".join(f"{key} = {value}\n" for key, value in fields.items()))
    materials = np.zeros((rows, COLS), dtype=np.uint8)
    with path.with_suffix(".img").open("wb") as stream:
        stream.truncate(rows * COLS * BANDS * 4)
        for first in range(0, rows, every):
            values, materials[first : first + STRIP] = values_of(min(STRIP, rows - first), first)
            stream.seek(first * COLS * BANDS * 4)
            stream.write(np.ascontiguousarray(values.transpose(0, 2, 1)).data)
    return materials


def some_labels(materials: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Keep 200 pixels of each material."""
    rng, kept = np.random.default_rng(0), np.zeros_like(materials)
    for material in range(1, CLASSES + 1):
        places = np.flatnonzero(materials == material)
        kept.flat[rng.choice(places, min(200, places.size), replace=False)] = material
    return kept


def encoder_for(cube: Cube) -> torch.nn.Module:
    """Return the default encoder with random weights and the statistics of the first values."""
    torch.manual_seed(0)
    encoder = build_encoder("spectral_spatial").eval()
    sensor = Sensor.of(cube.window(slice(0, STRIP)))
    encoder.spec = EncoderSpec("spectral_spatial", {}, 128, 1, WINDOWS, (sensor,))  # type: ignore[assignment]
    return encoder


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def peak(what: str, scene: Path, classifier: str) -> dict[str, Any]:
    """Return time and peak memory of a large scene, in this process."""
    cube = hsssl.open_cube(scene, lazy=True)
    encoder = encoder_for(cube)
    hsssl.embed(encoder, cube.window(slice(0, STRIP), slice(0, STRIP)))
    labels = np.load(scene.with_name("labels.npy"))
    jobs: dict[str, Callable[[Path], Any]] = {
        "embed": lambda out: hsssl.embed(encoder, cube, out=out / "map.tif", quicklook=True),
        "classify": lambda out: hsssl.classify(
            encoder, cube, labels, classifier=classifier, out=out / "map.tif", quicklook=True
        ),
        "unmix": lambda out: hsssl.unmix(cube, endmembers=CLASSES, out=out),
        "cluster": lambda out: hsssl.cluster(cube, clusters=CLASSES, out=out / "map.tif", quicklook=True),
    }
    before, start = peak_mib(), time.perf_counter()
    with tempfile.TemporaryDirectory(dir=scene.parent) as out:
        jobs[what](Path(out))
        seconds = time.perf_counter() - start
        size = sum(file.stat().st_size for file in Path(out).iterdir())
    return {
        "gib": cube.values.nbytes / 2**30, "pixels": cube.rows * cube.cols, "seconds": seconds,
        "pixels_per_second": cube.rows * cube.cols / seconds, "mib_before": before,
        "mib_peak": peak_mib(), "mib_beyond": peak_mib() - before, "mib_written": size / 2**20,
    }  # fmt: skip


def forget(path: Path) -> None:
    """Ask the system to drop a file from its page cache."""
    with path.open("r+b") as stream:
        os.fsync(stream.fileno())
        os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def rate(folder: Path, rows: int, rounds: int, classifier: str) -> Iterator[dict[str, Any]]:
    """Yield pixels per second of a scene in memory and in its file, in turn, job by job."""
    labels = some_labels(write_scene(folder / "rate.hdr", rows, every=STRIP))
    cubes = {
        where: hsssl.open_cube(folder / "rate.hdr", lazy=where == "file") for where in ("memory", "file")
    }
    encoder, out = encoder_for(cubes["memory"]), folder / "rate.tif"
    jobs: dict[str, Callable[[Cube], Any]] = {
        "embed to an array": lambda cube: hsssl.embed(encoder, cube),
        "embed to a file": lambda cube: hsssl.embed(encoder, cube, out=out, overwrite=True),
        "classify to a file": lambda cube: hsssl.classify(
            encoder, cube, labels, classifier=classifier, out=out, overwrite=True
        ),
    }
    yield {"pixels": labels.size, "gib": cubes["file"].values.nbytes / 2**30}
    for name, job in jobs.items():
        taken: dict[str, list[tuple[float, float]]] = {"memory": [], "file": []}
        for number in range(rounds):
            for where in ("memory", "file")[:: 1 if number % 2 else -1]:  # each is first in turn
                forget(folder / "rate.img")
                start = time.perf_counter(), time.process_time()
                job(cubes[where])
                taken[where].append((time.perf_counter() - start[0], time.process_time() - start[1]))
        yield {name: _compared(taken, labels.size)}


def compressed(folder: Path, rows: int, rounds: int) -> Iterator[dict[str, Any]]:
    """Yield the processor's seconds that all tiles, and all parts, of a deflated GeoTIFF take to read."""
    values = np.moveaxis(values_of(rows, 0)[0].round().astype(np.int16), 2, 0)
    yield {"pixels": rows * COLS, "mib": values.nbytes / 2**20}
    tiles = cut_tiles(rows, COLS, pixel_bytes=4 * (BANDS + 128 + 640), halo=7)
    jobs: dict[str, Callable[[Cube], Any]] = {
        "tiles": lambda cube: [cube.values[tile.around].shape for tile in tiles],
        "parts": lambda cube: [values.shape for _, values in read_parts(cube)],
    }
    profile = {"driver": "GTiff", "height": rows, "width": COLS, "count": BANDS, "dtype": "int16"}
    profile |= {"compress": "deflate", "transform": rasterio.Affine(1, 0, 0, 0, -1, rows)}
    for layout, more in LAYOUTS.items():
        with rasterio.open(folder / "compressed.tif", "w", **profile, **more) as raster:
            raster.write(values)
        for name, job in jobs.items():
            yield {f"{name} of {layout}": _kept_or_not(folder / "compressed.tif", job, rounds)}


def _kept_or_not(file: Path, job: Callable[[Cube], Any], rounds: int) -> dict[str, Any]:
    """Read with decoded blocks kept, as it is done, and with each decoded anew for every window, in turn."""
    seconds: dict[str, list[float]] = {"kept": [], "anew": []}
    most = blocks.KEPT_BYTES
    for number in range(rounds):
        for how in ("kept", "anew")[:: 1 if number % 2 else -1]:
            cube = hsssl.open_cube(file, lazy=True)
            blocks.KEPT_BYTES = most if how == "kept" else 0
            start = time.process_time()
            job(cube)
            seconds[how].append(time.process_time() - start)
    blocks.KEPT_BYTES = most
    ratio = median(b / a for a, b in zip(seconds["kept"], seconds["anew"], strict=True))
    return {"cpu_seconds": seconds, "anew_over_kept": ratio}


def _compared(taken: dict[str, list[tuple[float, float]]], pixels: int) -> dict[str, Any]:
    """Return pixels per second by clock and by processor, and the median ratio of neighbouring runs."""
    found: dict[str, Any] = {}
    for number, kind in enumerate(("per_second", "per_cpu_second")):
        memory, file = ([pixels / run[number] for run in taken[where]] for where in ("memory", "file"))
        ratio = median(b / a for a, b in zip(memory, file, strict=True))
        found[f"pixels_{kind}"] = {"memory": memory, "file": file, "file_over_memory": ratio}
    return found


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gib", type=float, default=4.0, help="size of the sparse cube; 0 leaves it out")
    parser.add_argument("--rows", type=int, default=512, help="rows of the smaller scene; 0 leaves it out")
    parser.add_argument("--compressed", type=int, default=512, help="rows of the GeoTIFF; 0: none")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each; neighbours are compared")
    parser.add_argument("--classifier", choices=("knn", "linear", "svm"), default="linear")
    parser.add_argument("--folder", help="where scenes and maps are put; default: the system's")
    parser.add_argument("--jobs", nargs="+", choices=JOBS, default=JOBS, help="of the sparse cube")
    parser.add_argument("--only", choices=JOBS, help=argparse.SUPPRESS)
    parser.add_argument("--scene", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--out", help="write JSON here")
    options = parser.parse_args(arguments)
    if options.only:
        print(json.dumps(peak(options.only, options.scene, options.classifier)))
        return 0
    command = (
        f"PYTHONPATH=kernels:. python benchmarks/stream.py --gib {options.gib:g} --rows {options.rows} "
        f"--compressed {options.compressed} --rounds {options.rounds} --classifier {options.classifier} "
        f"--jobs {' '.join(options.jobs)}"
    )
    result: dict[str, Any] = {"machine": machine("cpu"), "command": command}
    with tempfile.TemporaryDirectory(dir=options.folder) as made:
        folder = Path(made)
        if options.gib:
            rows = round(options.gib * 2**30 / (COLS * BANDS * 4))
            materials = write_scene(folder / "scene.hdr", rows, every=EVERY)
            np.save(folder / "labels.npy", some_labels(materials))
            held = (folder / "scene.img").stat().st_blocks * 512 / 2**30
            result["peak"] = {"gib_on_disk": held}
            for what in options.jobs:
                found = {what: _alone(what, folder / "scene.hdr", options.classifier)}
                _record(result, "peak", found, options.out)
            (folder / "scene.img").unlink()
        if options.rows:
            result["rate"] = {}
            for found in rate(folder, options.rows, options.rounds, options.classifier):
                _record(result, "rate", found, options.out)
        if options.compressed:
            result["compressed"] = {}
            for found in compressed(folder, options.compressed, options.rounds):
                _record(result, "compressed", found, options.out)
    return 0


def _record(result: dict[str, Any], part: str, found: dict[str, Any], out: str | None) -> None:
    """Print and keep a result; written after every one, for a failure later keeps what was measured."""
    print(part, found, flush=True)
    result[part] |= found
    result["load_average_at_end"] = round(os.getloadavg()[0], 2)
    if out:
        Path(out).write_text(json.dumps(result, indent=1) + "\n")


def _alone(what: str, scene: Path, classifier: str) -> Any:
    """Measure in a fresh process."""
    words = [sys.executable, __file__, "--only", what, "--scene", str(scene), "--classifier", classifier]
    done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    sys.exit(main())
