"""Unmix Samson by every method and seed, and DLR HySU by the default, and write the tables with every run.

python examples/unmix_samson.py FOLDER_OF_SCENES [RESULTS.json] [SEEDS] [METHODS...]

FOLDER_OF_SCENES holds samson/ (samson_1.mat, end3.mat) and dlr_hysu/ (the GeoTIFF, masks.mat, the library).
The truth of Samson's abundances is that of end3.mat: NNLS on its endmembers, divided by the sum.
"""

import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch
from scipy.io import loadmat

import hsssl
from hsssl.unmix import UNMIXERS, abundance_rmse, armse, match_endmembers, sad, signal_to_reconstruction_error
from hsssl.unmix.library import read_library

KNOWN_M2 = {1: 9.0, 2: 4.0, 3: 1.0, 4: 0.25, 5: 0.0625}  # of the targets, by their number in masks.mat
FULL_IMAGE = range(6, 15)  # endmembers asked for; it holds more than the six materials
PAGE = """# Unmixing

{command}
at commit {commit}; {machine}. Every seed is in {json}.

## Samson, against the NNLS truth

The truth is that of `end3.mat`: NNLS on its endmembers, divided by the sum. Mean SAD in radians after
Hungarian matching, abundance RMSE over all entries. "signal" and "fcls" say how abundances follow from
endmembers. The endmembers of the EGU-Nets are pseudo-endmembers, those of `pure_pixels`. `pure_pixels`, `spa`
and `atgp` draw nothing at random, so that their seeds agree. The share of 0.9 in `pure_pixels` and the form
of `egu_net_spatial` were chosen on this scene.

{samson}

## DLR HySU, all targets (42 x 24 pixels of 0.7 m), `pure_pixels`, 6 endmembers

Angle to the library, and the sum of abundances over a target's pixels times 0.49 m2, against its size
(squares of 3, 2, 1, 0.5 and 0.25 m). How `pure_pixels` looks for corners was chosen with this data set in
view.

{targets}

## DLR HySU, the full image (86 x 123 pixels), `pure_pixels`

It holds more than the six materials of the library, so that more endmembers are needed before each of these
has one: the angle of each to the endmember matched to it. The sheets' mask covers 67 of 10,578 pixels.

{full}

## A generated scene of 512 x 512 pixels and 200 bands, six materials

{cost}
"""


def samson(folder: Path) -> tuple[hsssl.Cube, np.ndarray, np.ndarray]:
    """Return the cube, endmembers (3, 156) and abundances (95, 95, 3); the files list pixels by columns."""
    values = loadmat(folder / "samson_1.mat")["V"].reshape(156, 95, 95).transpose(2, 1, 0)
    truth = loadmat(folder / "end3.mat")
    return hsssl.Cube(values, source="samson"), truth["M"].T, truth["A"].reshape(3, 95, 95).transpose(2, 1, 0)


def score(cube, endmembers, abundances, method, rule, seed):
    start = time.process_time()
    mix = hsssl.unmix(cube, endmembers=3, method=method, rule=rule, seed=seed, progress=False)
    order = match_endmembers(mix.endmembers, endmembers)
    found = mix.abundances[:, :, order]
    return {
        "scene": "samson", "truth": "NNLS", "method": method, "rule": mix.rule, "seed": seed,
        "sad": sad(mix.endmembers, endmembers).round(5).tolist(), "pseudo_endmembers": mix.pseudo,
        "mean_sad": float(sad(mix.endmembers, endmembers).mean()),
        "rmse": abundance_rmse(found, abundances), "armse": armse(found, abundances),
        "sre_db": signal_to_reconstruction_error(found, abundances),
        "cpu_s": round(time.process_time() - start, 2),
    }  # fmt: skip


def hysu(folder: Path, rule: str) -> dict:
    """Unmix the 42 x 24 pixels with all targets; sizes are summed over each material's pixels, 0.7 m each."""
    cube, library = hysu_image(folder, "all_targets")
    mix = hsssl.unmix(cube, endmembers=len(library.names), rule=rule)
    order = match_endmembers(mix.endmembers, library.spectra)
    masks = loadmat(folder / "masks.mat")
    # masks are of the full image, in which this part starts at row 19, column 39
    materials, sizes = (masks[key][19:61, 39:63] for key in ("materials", "targetsROI"))
    areas = {}
    for k in range(materials.shape[2]):
        share = mix.abundances[:, :, order[k]]
        areas[library.names[k]] = {
            f"{KNOWN_M2[s]:g} m2": round(
                float(share[(materials[:, :, k] > 0) & (sizes == s)].sum() * 0.49), 3
            )
            for s in KNOWN_M2
            if ((materials[:, :, k] > 0) & (sizes == s)).any()
        }
    angles = dict(zip(library.names, sad(mix.endmembers, library.spectra).round(4).tolist(), strict=True))
    scene = {"scene": "dlr_hysu all_targets", "method": mix.method, "rule": mix.rule}
    return scene | {"sad": angles, "areas": areas}


def hysu_image(folder: Path, which: str):
    library = read_library(folder / "DLR_HySU_HS_library.hdr")
    tif = folder / f"DLR_HySU_HS_{which}.tif"
    return hsssl.open_cube(tif, wavelengths=library.wavelengths), library


def hysu_full(folder: Path, count: int) -> dict:
    cube, library = hysu_image(folder, "full")
    angles = sad(hsssl.unmix(cube, endmembers=count).endmembers, library.spectra)
    return {"endmembers": count, "sad": dict(zip(library.names, angles.round(4).tolist(), strict=True))}


def rows_of(cells: list[list]) -> str:
    head = "| " + " | ".join(cells[0]) + " |\n" + "|---" * len(cells[0]) + "|\n"
    return head + "\n".join("| " + " | ".join(map(str, line)) + " |" for line in cells[1:])


def targets_table(targets: list[dict]) -> str:
    sizes = [f"{size:g} m2" for size in KNOWN_M2.values()]
    cells = [["material", "SAD", "abundances", *sizes]]
    for found in targets:
        for name in found["sad"]:
            areas = found["areas"].get(name, {})  # grass is no target
            shown = [f"{areas[size]:.2f}" if size in areas else "–" for size in sizes]
            cells.append([name, f"{found['sad'][name]:.3f}", found["rule"], *shown])
    return rows_of(cells)


def full_table(full: list[dict]) -> str:
    cells = [["endmembers", *full[0]["sad"]]]
    cells += [[found["endmembers"], *(f"{a:.3f}" for a in found["sad"].values())] for found in full]
    return rows_of(cells)


def table(rows: list[dict]) -> str:
    lines = [
        "| method | abundances | seeds | mean SAD: median (worst) | RMSE: median (worst) | CPU s |",
        "|---|---|---|---|---|---|",
    ]
    for method, rule in dict.fromkeys((row["method"], row["rule"]) for row in rows):
        runs = [row for row in rows if (row["method"], row["rule"]) == (method, rule)]
        angle, rmse = ([row[key] for row in runs] for key in ("mean_sad", "rmse"))
        lines.append(
            f"| {method} | {rule} | {len(runs)} | {np.median(angle):.3f} ({max(angle):.3f})"
            f"{' pseudo' if runs[0]['pseudo_endmembers'] else ''} | {np.median(rmse):.3f} ({max(rmse):.3f}) "
            f"| {np.median([row['cpu_s'] for row in runs]):.1f} |"
        )
    return "\n".join(lines)


def main() -> None:
    folder = Path(sys.argv[1])
    out = Path(sys.argv[2]) if len(sys.argv) > 2 else None
    seeds = int(sys.argv[3]) if len(sys.argv) > 3 else 10
    methods = sys.argv[4:] or list(UNMIXERS)
    git = subprocess.run(
        ["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False
    )
    named = ["FOLDER", out.name if out else "", str(seeds), *sys.argv[4:]]
    record = {
        "command": "`python examples/unmix_samson.py " + " ".join(named) + "`",
        "commit": git.stdout.strip(),
        "machine": f"{os.cpu_count()}-core {platform.machine()} {platform.system()}, "
        f"torch {torch.__version__}, {torch.get_num_threads()} threads",
        "dlr_hysu": [hysu(folder / "dlr_hysu", rule) for rule in ("signal", "fcls")],
        "dlr_hysu_full": [hysu_full(folder / "dlr_hysu", count) for count in FULL_IMAGE],
        "samson": [],
    }
    cube, endmembers, abundances = samson(folder / "samson")
    for method in methods:
        for rule in [None, "signal"] if UNMIXERS[method][1] == "fcls" else [None]:
            for seed in range(seeds):
                record["samson"].append(score(cube, endmembers, abundances, method, rule, seed))
                if out:
                    out.write_text(json.dumps(record, indent=1) + "\n")
    text = page(record, out)
    print(text)
    if out:
        out.with_suffix(".md").write_text(text)


def page(record: dict, out: Path | None) -> str:
    """Return the tables as Markdown; what a large scene costs is read from beside the results."""
    return PAGE.format(
        **{key: record[key] for key in ("command", "commit", "machine")},
        json=f"[{out.name}]({out.name})" if out else "no file",
        samson=table(record["samson"]),
        targets=targets_table(record["dlr_hysu"]),
        full=full_table(record["dlr_hysu_full"]),
        cost=cost_table(out.with_name("unmix_cost.json") if out else None),
    )


def cost_table(file: Path | None) -> str:
    if file is None or not file.is_file():
        return "Not measured here: `python benchmarks/unmix.py --out unmix_cost.json`."
    found = json.loads(file.read_text())
    cells = [["method", "CPU s", "peak of the process, GiB", "mean SAD"]]
    for name, row in found["methods"].items():
        cells.append([name, f"{row['cpu_s']:.0f}", f"{row['peak_mib'] / 1024:.2f}", f"{row['mean_sad']:.3f}"])
    threads, commit = found["machine"]["cores"], found["machine"]["commit"][:7]
    source = f"`python benchmarks/unmix.py`, threads: {threads}, commit {commit}: [{file.name}]({file.name})"
    return f"{source}\n\n{rows_of(cells)}"


if __name__ == "__main__":
    main()
