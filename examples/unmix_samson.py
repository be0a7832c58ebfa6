"""Unmix Samson by every method and seed, and DLR HySU by the default, and write the tables with every run.

python examples/unmix_samson.py FOLDER_OF_SCENES [RESULTS.json] [SEEDS] [METHODS...]

FOLDER_OF_SCENES holds samson/ (samson_1.mat, end3.mat) and dlr_hysu/ (the GeoTIFF, masks.mat, the library).
The truth of Samson's abundances is that of end3.mat: NNLS on its endmembers, divided by the sum.
"""

import json
import sys
import time
from pathlib import Path

import numpy as np
from scipy.io import loadmat

import hsssl
from hsssl.unmix import UNMIXERS, abundance_rmse, armse, match_endmembers, sad, signal_to_reconstruction_error
from hsssl.unmix.library import read_library


def samson(folder: Path) -> tuple[hsssl.Cube, np.ndarray, np.ndarray]:
    """Return the cube, endmembers (3, 156) and abundances (95, 95, 3); the files list pixels by columns."""
    values = loadmat(folder / "samson_1.mat")["V"].reshape(156, 95, 95).transpose(2, 1, 0)
    truth = loadmat(folder / "end3.mat")
    return hsssl.Cube(values, source="samson"), truth["M"].T, truth["A"].reshape(3, 95, 95).transpose(2, 1, 0)


def score(cube, endmembers, abundances, method, rule, seed):
    start = time.perf_counter()
    mix = hsssl.unmix(cube, endmembers=3, method=method, rule=rule, seed=seed, progress=False)
    order = match_endmembers(mix.endmembers, endmembers)
    found = mix.abundances[:, :, order]
    return {
        "scene": "samson", "truth": "NNLS", "method": method, "rule": mix.rule, "seed": seed,
        "sad": sad(mix.endmembers, endmembers).round(5).tolist(), "pseudo_endmembers": mix.pseudo,
        "mean_sad": float(sad(mix.endmembers, endmembers).mean()),
        "rmse": abundance_rmse(found, abundances), "armse": armse(found, abundances),
        "sre_db": signal_to_reconstruction_error(found, abundances),
        "seconds": round(time.perf_counter() - start, 2),
    }  # fmt: skip


def hysu(folder: Path, rule: str) -> dict:
    """Unmix the 42 x 24 pixels with all targets; sizes are summed over each material's pixels, 0.7 m each."""
    library = read_library(folder / "DLR_HySU_HS_library.hdr")
    tif = folder / "DLR_HySU_HS_all_targets.tif"
    cube = hsssl.open_cube(tif, wavelengths=library.wavelengths)
    mix = hsssl.unmix(cube, endmembers=len(library.names), rule=rule)
    order = match_endmembers(mix.endmembers, library.spectra)
    masks = loadmat(folder / "masks.mat")
    # masks are of the full image, in which this part starts at row 19, column 39
    materials, sizes = (masks[key][19:61, 39:63] for key in ("materials", "targetsROI"))
    known = {1: 9.0, 2: 4.0, 3: 1.0, 4: 0.25, 5: 0.0625}
    areas = {}
    for k in range(materials.shape[2]):
        share = mix.abundances[:, :, order[k]]
        areas[library.names[k]] = {
            f"{known[s]:g} m2": round(float(share[(materials[:, :, k] > 0) & (sizes == s)].sum() * 0.49), 3)
            for s in known
            if ((materials[:, :, k] > 0) & (sizes == s)).any()
        }
    angles = dict(zip(library.names, sad(mix.endmembers, library.spectra).round(4).tolist(), strict=True))
    return {
        "scene": "dlr_hysu all_targets",
        "method": mix.method,
        "rule": mix.rule,
        "sad": angles,
        "areas": areas,
    }


def table(rows: list[dict]) -> str:
    lines = [
        "| method | abundances | seeds | mean SAD: median (worst) | RMSE: median (worst) | seconds |",
        "|---|---|---|---|---|---|",
    ]
    for method, rule in dict.fromkeys((row["method"], row["rule"]) for row in rows):
        runs = [row for row in rows if (row["method"], row["rule"]) == (method, rule)]
        angle, rmse = ([row[key] for row in runs] for key in ("mean_sad", "rmse"))
        lines.append(
            f"| {method} | {rule} | {len(runs)} | {np.median(angle):.3f} ({max(angle):.3f})"
            f"{' pseudo' if runs[0]['pseudo_endmembers'] else ''} | {np.median(rmse):.3f} ({max(rmse):.3f}) "
            f"| {np.median([row['seconds'] for row in runs]):.1f} |"
        )
    return "\n".join(lines)


def main() -> None:
    folder = Path(sys.argv[1])
    out = Path(sys.argv[2]) if len(sys.argv) > 2 else None
    seeds = int(sys.argv[3]) if len(sys.argv) > 3 else 10
    methods = sys.argv[4:] or list(UNMIXERS)
    cube, endmembers, abundances = samson(folder / "samson")
    rows = []
    for method in methods:
        rules = [None, "signal"] if UNMIXERS[method][1] == "fcls" else [None]
        rows += [score(cube, endmembers, abundances, method, r, seed) for r in rules for seed in range(seeds)]
    text = table(rows)
    print(text)
    targets = [hysu(folder / "dlr_hysu", rule) for rule in ("signal", "fcls")]
    print(json.dumps(targets, indent=1))
    if out:
        out.with_suffix(".md").write_text(
            f"Samson, against the NNLS truth, every seed in {out.name}:\n\n{text}\n"
        )
        out.write_text(json.dumps({"samson": rows, "dlr_hysu": targets}, indent=1) + "\n")


if __name__ == "__main__":
    main()
