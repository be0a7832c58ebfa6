"""Read damaged files: each must give a cube or one clear line, in time and within the size limit.

Run as a program: fuzz_readers.py [--cases 20000] [--seed 0] [--only FORMAT]. Each case is a fixture with
bytes flipped, cut, overwritten with extreme numbers, or with numbers and lines of its header changed. Cases
run in a child process with limited memory; a crash, a hang, an error without a path or over several lines,
and an allocation beyond the limit are failures, and are printed with what reproduces them.
"""

from __future__ import annotations

import argparse
import logging
import multiprocessing
import os
import re
import resource
import shutil
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np

from hsssl.lazy import RESIDENT_BYTES
from hsssl.readers import read
from make_fixtures import (
    small_values,
    write_emit,
    write_enmap,
    write_envi,
    write_mat,
    write_mat73,
    write_neon,
    write_prisma,
    write_safe,
    write_tif,
    write_zarr,
)

HANG_S = 5.0
# What a reader may hold at a time: the largest cube that is read whole, and a tile or two of it beside.
LIMIT_BYTES = RESIDENT_BYTES + 2**28
EXTREME = (0, 1, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**63 - 1, 2**64 - 1)
WORDS = (
    "0",
    "-1",
    "1e999",
    "nan",
    "99999999999",
    "4294967296",
    "65536",
    "1.5",
    "",
    "bsq",
    "{",
    "}",
    "µ",
    "\0",
)
# HDF5 and TIFF libraries take some sizes of their own records from the file, ask for that much, and say it
# where they do not get it; nothing in this package can ask them to look first. The readers' own arrays count.
_LIBRARY_ASKED = re.compile(
    "memory allocation failed for (?:chunk|on disk image buffer)|TIFFReadDirectory:Out of memory"
)
CENTRES = np.array([450.0, 550.0, 650.0, 850.0])


def seeds(folder: Path) -> dict[str, tuple[Path, list[Path]]]:
    """Write one sound example of each format; return what to open, and the files to damage, by format."""
    values, signed = small_values(rows=20, cols=18), small_values("i2", rows=20, cols=18)
    listed = "{" + ", ".join(map(str, CENTRES)) + "}"
    header = {"wavelength": listed, "wavelength units": "nm", "bbl": "{1, 1, 0, 1}", "data ignore value": "7"}
    header |= {
        "map info": "{UTM, 1, 1, 366015, 5809965, 30, 30, 33, North, WGS-84}",
        "band names": "{a, b, c, d}",
    }
    imagery = [{"CENTRAL_WAVELENGTH_UM": str(nm / 1000), "FWHM_UM": "0.01"} for nm in CENTRES]
    np.save(folder / "cube.npy", values)
    np.savez_compressed(folder / "cube.npz", cube=values, wavelengths=CENTRES)
    np.savez(folder / "plain.npz", cube=values, wavelengths=CENTRES)
    library = {"file type": "ENVI Spectral Library", "spectra names": "{x, y}", "wavelength": listed}
    (folder / "safe").mkdir()
    (folder / "enmap").mkdir()
    square = {name: small_values(rows=n, cols=n, bands=1)[:, :, 0] for name, n in (("B04", 24), ("B8A", 12))}
    pixels = {"V": np.ones((4, 30)), "nRow": np.array([[6.0]]), "nCol": np.array([[5.0]])}
    sent = ([900, 700, 500, 0.0], [1000, 0.0])
    opened = {
        "mat": write_mat(folder / "cube.mat", cube=values, wavelengths=CENTRES[None]),
        "pixel_list": write_mat(folder / "list.mat", **pixels),
        "mat73": write_mat73(folder / "cube73.mat", cube=values, wavelengths=CENTRES[None]),
        "tif": write_tif(folder / "cube.tif", signed, imagery=imagery, nodata=7, scale=1e-4),
        "vrt": vrt_of(folder / "cube.vrt", folder / "cube.tif"),
        "npy": folder / "cube.npy",
        "npz": folder / "cube.npz",
        "npz_plain": folder / "plain.npz",
        "neon": write_neon(folder / "neon.h5", signed, CENTRES),
        "prisma": write_prisma(folder / "prisma.he5", values, values[:, :, :2], sent),
        "emit": write_emit(folder / "emit.nc", signed, CENTRES, np.array([1, 1, 0, 1])),
    }
    found = {name: (path, [path]) for name, path in opened.items()}
    for name, interleave in (("bsq", "bsq"), ("bil", "bil")):
        path = write_envi(folder, values, header=header, name=name, interleave=interleave)
        found[f"envi_{name}"] = (path, [path, path, path.with_suffix(".img")])
    spectra = small_values("f4", rows=2, cols=4, bands=1)
    path = write_envi(folder, spectra, header=library, name="lib", suffix=".sli")
    found["library"] = (path, [path, path.with_suffix(".sli")])
    for name, product in (
        ("enmap", write_enmap(folder / "enmap", signed, CENTRES.tolist())),
        ("safe", write_safe(folder / "safe", square, {"B04": 10, "B8A": 20})),
        ("zarr", write_zarr(folder / "scene.zarr", signed, ("y", "x", "band"))),
    ):
        found[name] = (product, sorted(file for file in product.rglob("*") if file.is_file()))
    return found


def vrt_of(path: Path, source: Path) -> Path:
    """Write a virtual raster with one band of ``source``."""
    inside = f'<SourceFilename relativeToVRT="1">{source.name}</SourceFilename><SourceBand>1</SourceBand>'
    band = f'<VRTRasterBand dataType="Int16" band="1"><SimpleSource>{inside}</SimpleSource></VRTRasterBand>'
    path.write_text(f'<VRTDataset rasterXSize="18" rasterYSize="20">{band}</VRTDataset>')
    return path


def damage(data: bytes, rng: np.random.Generator) -> bytes:
    """Return the bytes of a file with one to three kinds of damage."""
    for _ in range(rng.integers(1, 4)):
        kind: Callable[[bytes, np.random.Generator], bytes] = rng.choice(
            [flip, flip, cut, blot, extreme, repeat] + ([rewrite] * 6 if is_text(data) else [extreme])
        )
        data = kind(data, rng)
    return data


def is_text(data: bytes) -> bool:
    return bool(data) and b"\0" not in data[:2000] and not data.startswith((b"\x89HDF", b"PK"))


def flip(data: bytes, rng: np.random.Generator) -> bytes:
    array = bytearray(data)
    for _ in range(min(len(array), int(rng.integers(1, 9)))):
        # The first bytes of a file say most about it.
        end = len(array) if rng.random() < 0.5 else min(len(array), 512)
        array[rng.integers(0, end)] ^= 1 << int(rng.integers(0, 8))
    return bytes(array)


def cut(data: bytes, rng: np.random.Generator) -> bytes:
    return data[: rng.integers(0, len(data) + 1)]


def blot(data: bytes, rng: np.random.Generator) -> bytes:
    start = int(rng.integers(0, len(data) + 1))
    size = int(rng.integers(1, 65))
    return data[:start] + bytes([int(rng.choice([0, 255, 32]))]) * size + data[start + size :]


def repeat(data: bytes, rng: np.random.Generator) -> bytes:
    start, end = sorted(int(at) for at in rng.integers(0, len(data) + 1, 2))
    return data[:end] + data[start : min(end, start + 4096)] + data[end:]


def extreme(data: bytes, rng: np.random.Generator) -> bytes:
    """Overwrite a number of 2, 4 or 8 bytes with one at the edge of its range."""
    width = int(rng.choice([2, 4, 8]))
    start = int(rng.integers(0, max(1, min(len(data), int(rng.choice([512, 4096, len(data) + 1]))))))
    number = int(rng.choice(np.array(EXTREME, dtype=object))) % 256**width
    order = "little" if rng.random() < 0.7 else "big"
    return data[:start] + number.to_bytes(width, order) + data[start + width :]


def rewrite(data: bytes, rng: np.random.Generator) -> bytes:
    """Change a number of a text, or drop, double or swap its lines."""
    text = data.decode("latin-1")
    numbers = list(re.finditer(r"-?\d+(?:\.\d+)?", text))
    if numbers and rng.random() < 0.7:
        found = numbers[rng.integers(0, len(numbers))]
        text = text[: found.start()] + str(rng.choice(WORDS)) + text[found.end() :]
        return text.encode("latin-1")
    lines = text.splitlines(keepends=True)
    first, second = (int(at) for at in rng.integers(0, max(1, len(lines)), 2))
    if lines and rng.random() < 0.4:
        del lines[first]
    elif lines and rng.random() < 0.5:
        lines.insert(second, lines[first])
    elif lines:
        lines[first] = lines[first].replace("=", " ", 1)
    return "".join(lines).encode("latin-1")


def attempt(folder: Path, name: str, path: Path, targets: list[Path], case: int, seed: int) -> str:
    """Damage a copy of the example and read it; return "cube", "refused", or what went wrong."""
    rng = np.random.default_rng([seed, case])
    work = folder / "work"
    shutil.rmtree(work, ignore_errors=True)
    root = path.parent
    if path.is_dir():
        shutil.copytree(path, work / path.name)
    else:
        work.mkdir()
        for file in {path, *targets, *([root / "cube.tif"] if name == "vrt" else [])}:
            shutil.copyfile(file, work / file.name)
    target = targets[rng.integers(0, len(targets))]
    victim = work / target.relative_to(root)
    victim.write_bytes(damage(victim.read_bytes(), rng))
    try:
        cube = read(work / path.name, lazy=bool(rng.integers(0, 2)) or None)
        cube.window(slice(0, 64), slice(0, 64)).take_bands(np.array([cube.bands - 1]))
    except (ValueError, OSError) as error:
        message = str(error)
        if "\n" in message or "work" not in message:
            return f"unclear {type(error).__name__}: {message!r}"
        if _LIBRARY_ASKED.search(message):
            return "refused, a library asked for too much"
        return f"memory: {message}" if re.search("memory|than is free", message) else "refused"
    except MemoryError as error:
        return f"memory: {error!r}"
    except Exception as error:
        return f"raised {type(error).__name__}: {error!r}"
    sound = cube.values.dtype.kind in "iuf" and cube.valid.shape == cube.values.shape[:2]
    return "cube" if sound else f"unsound cube {cube.values.shape} {cube.values.dtype}"


def work(connection: Connection, folder: Path, cases: range, seed: int, only: str | None) -> None:
    """Run cases one after the other, and say before and after each where it stands."""
    logging.disable(logging.CRITICAL)
    sys.unraisablehook = lambda _: None  # rasterio's logging of messages that are no text
    warnings.simplefilter("ignore")
    examples = {name: pair for name, pair in seeds(folder).items() if only in (None, name)}
    names = sorted(examples)
    for name in names:  # what is loaded on the first use is no allocation of a case
        read(examples[name][0])
    held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (held + LIMIT_BYTES, resource.RLIM_INFINITY))
    for case in cases:
        name = names[case % len(names)]
        connection.send((case, name, None))
        connection.send((case, name, attempt(folder, name, *examples[name], case, seed)))
    connection.close()


def outcomes(
    first: int, cases: int, seed: int, only: str | None, hang_s: float
) -> Iterator[tuple[int, str, str]]:
    """Yield (case, format, outcome); the child is started again after a crash or a hang."""
    context = multiprocessing.get_context("spawn")
    while first < cases:
        with tempfile.TemporaryDirectory() as folder:
            ours, theirs = context.Pipe(duplex=False)
            arguments = (theirs, Path(folder), range(first, cases), seed, only)
            child = context.Process(target=work, args=arguments, daemon=True)
            child.start()
            theirs.close()
            running: tuple[int, str] | None = None
            spent, silent = None, 0
            while True:
                if not ours.poll(1):
                    silent += 1
                    # By the child's own time: on a busy machine, a second of the clock says little.
                    used = 0.0 if spent is None else cpu_seconds(child.pid) - spent
                    if used <= hang_s and silent <= 60 * hang_s:
                        continue
                    stuck = "hang"
                    break
                try:
                    case, name, outcome = ours.recv()
                except EOFError:
                    stuck = ""
                    break
                spent, running, silent = cpu_seconds(child.pid), (case, name), 0
                if outcome is not None:
                    running, first = None, case + 1
                    yield case, name, outcome
            child.kill()
            child.join()
            if running is None and first >= cases:
                return
            if running is None:
                raise RuntimeError(f"the child process stopped between cases: exit status {child.exitcode}")
            yield *running, stuck or f"crash: exit status {child.exitcode}"
            first = running[0] + 1


def cpu_seconds(pid: int | None) -> float:
    """Return the time that a process has used (Linux)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")  # user and system


def fuzz(
    cases: int, *, first: int = 0, seed: int = 0, only: str | None = None, hang_s: float = HANG_S
) -> tuple[Counter[str], list[str]]:
    """Run the cases; return how often each outcome came, and a line for every failure."""
    counts: Counter[str] = Counter()
    failures = []
    for case, name, outcome in outcomes(first, cases, seed, only, hang_s):
        good = outcome == "cube" or outcome.startswith("refused")
        counts[outcome if good else "failure"] += 1
        counts[f"{name}: {outcome if good else 'failure'}"] += 1
        if not good:
            failures.append(f"case {case} ({name}, seed {seed}): {outcome}")
    return counts, failures


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", help="one format alone")
    parser.add_argument("--case", type=int, help="one case alone")
    options = parser.parse_args()
    start = time.monotonic()
    first, end = (0, options.cases) if options.case is None else (options.case, options.case + 1)
    counts, failures = fuzz(end, first=first, seed=options.seed, only=options.only)
    for line in failures:
        print(line)
    took = time.monotonic() - start
    print(f"{end - first} damaged files in {took:.0f} s, seed {options.seed}: {dict(sorted(counts.items()))}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
