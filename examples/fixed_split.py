"""The fixed split of Indian Pines that papers compare on, with frozen features and by fine-tuning.

python examples/fixed_split.py DATA --out benchmarks/results/indian_pines_fixed_split

DATA holds split_train_695.tif and split_test_9671.tif (github.com/danfenghong/IEEE_TGRS_GCN). Each seed
pretrains an encoder of its own on all pixels of the scene without labels, those of the test included. The
audit says how far position alone classifies: these are figures to compare with the literature, not to trust.
"""

import argparse
import json
import os
import platform
import tempfile
from pathlib import Path

import numpy as np
import torch

import hsssl
from hsssl.run import describe_software

# The maps count the classes as an older truth did: the standard id of their 1, 2, ..., 16.
STANDARD = np.array([0, 2, 3, 4, 5, 6, 8, 10, 11, 12, 13, 14, 15, 16, 1, 7, 9])
PUBLISHED = {
    "SpectralFormer (Hong et al. 2022, doi:10.1109/TGRS.2021.3130716), supervised": 81.76,
    "MAEST (Ibañez et al. 2022, IEEE TGRS), masked pretraining, fine-tuned": 84.15,
    "FactoFormer (Mohamed et al. 2023, arXiv 2309.09431), masked pretraining, fine-tuned": 91.30,
}
PAGE = """# Indian Pines, fixed split of {train_pixels} / {test_pixels:,} pixels

{table}

Mean ± standard deviation over the pretraining seeds; all of them are in the JSON file. Every encoder was
pretrained by SimCLR on all pixels of the scene, those of the test included, without labels ({steps} steps,
learning rate {lr}). Fine-tuning: {epochs} epochs at the defaults of `hsssl.finetune`, the last epoch counts.
The pretraining's settings are those of `hsssl demo`, which were compared on this scene under other splits.

**What the split is worth.** Position alone (the class of the nearest training pixel, no spectra) scores OA
{position:.1f} %, and {inside:.1f} % of the test pixels lie in the footprint of a training pixel.

Published on the same split, as those papers report it:

| system | OA, % |
|---|---|
{published}

Machine: {machine}. Commit {commit}. Command: `{command}`.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", type=Path, help="folder with the two maps of the split")
    parser.add_argument("--out", type=Path, required=True, help="writes OUT.json and OUT.md")
    parser.add_argument("--seeds", type=int, nargs="+", default=range(5), help="each a pretraining")
    parser.add_argument("--steps", type=int, default=1500, help="pretraining steps")
    parser.add_argument("--epochs", type=int, default=20, help="of fine-tuning")
    args = parser.parse_args()
    scene = hsssl.load_scene("indian_pines")
    names = ("split_train_695.tif", "split_test_9671.tif")
    maps = [STANDARD[hsssl.open_labels(args.data / name)] for name in names]
    settings = {"steps": args.steps, "lr": 4e-3, "epochs": args.epochs}
    record = earlier(args.out, settings) or {
        "train_pixels": int(np.count_nonzero(maps[0])),
        "test_pixels": int(np.count_nonzero(maps[1])),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, "
        f"torch {torch.__version__}",
        "commit": describe_software(torch.device("cpu"))["commit"],
        "command": f"python examples/fixed_split.py DATA --out OUT --steps {args.steps} "
        f"--epochs {args.epochs}",
        "settings": settings,
        "published_oa_percent": PUBLISHED,
        "rows": [],
    }
    for seed in args.seeds:
        if any(row["seed"] == seed for row in record["rows"] if row["classifier"] == "finetune"):
            continue
        found = scores(scene, maps, seed, settings, baselines=not record["rows"])
        record["audit"] = vars(found[0].audit)
        record["rows"] += [row | {"seed": seed} for score in found for row in score.runs]
        # hand-made features know no seed
        record["rows"] += [row for one in found[0].baselines.values() for row in one.runs]
        write(args.out, record)  # anew after every seed: a run that was stopped goes on from there
    print(args.out.with_suffix(".md").read_text(encoding="utf-8"))


def earlier(out: Path, settings: dict) -> dict | None:
    """Return what an earlier run with these settings wrote, or None."""
    file = out.with_suffix(".json")
    record = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    return record if record.get("settings") == settings else None


def scores(scene, maps: list[np.ndarray], seed: int, settings: dict, *, baselines: bool) -> list:
    """Pretrain with one seed; return the scores of frozen features (linear) and of fine-tuning."""
    cube = hsssl.prepare(scene.cube)
    with tempfile.TemporaryDirectory() as folder:
        pretraining = {"method": "simclr", "steps": settings["steps"], "lr": settings["lr"], "seed": seed}
        encoder = hsssl.pretrain([cube], out=Path(folder) / "run", **pretraining).encoder()
    features = hsssl.embed(encoder, cube)
    options = {"split": "fixed", "patch_size": encoder.spec.footprint, "cube": cube if baselines else None}
    frozen = hsssl.evaluate(features, maps, "linear", **options)
    return [frozen, hsssl.finetune(encoder, cube, maps, "fixed", seeds=[seed], epochs=settings["epochs"])]


def write(out: Path, record: dict) -> None:
    out.parent.mkdir(parents=True, exist_ok=True)
    out.with_suffix(".json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    position, inside = (100 * record["audit"][key] for key in ("coordinates_oa", "test_in_train_patch"))
    published = "\n".join(f"| {name} | {oa:.2f} |" for name, oa in PUBLISHED.items())
    shown = {"table": table(record["rows"]), "published": published, "position": position, "inside": inside}
    out.with_suffix(".md").write_text(PAGE.format(**record, **record["settings"], **shown), encoding="utf-8")


def table(rows: list[dict]) -> str:
    """Return mean and standard deviation over the seeds as Markdown, the best first."""
    groups: dict[tuple[str, str], list[dict]] = {}
    for row in rows:
        groups.setdefault((row["method"], row["classifier"]), []).append(row)
    lines = ["| features | classifier | seeds | OA, % | AA, % | kappa, % |", "|---|---|---|---|---|---|"]
    for (method, classifier), of in sorted(groups.items(), key=lambda g: -np.mean([r["oa"] for r in g[1]])):
        cells = [cell([100 * row[measure] for row in of]) for measure in ("oa", "aa", "kappa")]
        lines.append(f"| {method} | {classifier} | {len(of)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def cell(values: list[float]) -> str:
    spread = f" ± {np.std(values, ddof=1):.2f}" if len(values) > 1 else ""
    return f"{np.mean(values):.2f}{spread}"


if __name__ == "__main__":
    main()
