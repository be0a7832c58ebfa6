"""What an unmixing leaves on the disk: maps, spectra, pictures and a report, all of it or nothing."""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from hsssl.atomic import refuse_existing
from hsssl.figures import false_colour
from hsssl.maps import open_map
from hsssl.messages import unknown_name
from hsssl.quicklook import Thinned
from hsssl.report import figure_html, html_page
from hsssl.report_parts import table
from hsssl.stream import Tile
from hsssl.unmix.figures import abundance_maps, endmember_spectra, error_map
from hsssl.unmix.learned import RULES
from hsssl.unmix.library import Library, envi_library, library_csv
from hsssl.unmix.metrics import spectral_angles
from hsssl.unmix.mixture import Mixture, Unmixing

__all__ = ["FILES", "MapFormat", "files_of", "matched", "refuse_unmixing", "write_unmixing"]

MapFormat = Literal["geotiff", "envi"]
_MAPS: dict[MapFormat, tuple[str, ...]] = {
    "geotiff": ("abundances.tif", "error.tif"),
    "envi": ("abundances.hdr", "abundances.img", "error.hdr", "error.img"),
}
_OTHERS = (
    "abundances.png", "error.png", "endmembers.csv", "endmembers.sli", "endmembers.hdr", "endmembers.png",
    "unmixing.json", "report.html",
)  # fmt: skip


#: All names that `write_unmixing` may write.
FILES = frozenset(_OTHERS).union(*_MAPS.values())


def files_of(maps: MapFormat = "geotiff") -> tuple[str, ...]:
    """Return the names of what `write_unmixing` writes, with the maps in that format; the report comes last.

    Raises
    ------
    ValueError
        If there is no such format.
    """
    if maps not in _MAPS:
        raise unknown_name("format of maps", maps, _MAPS)
    return _MAPS[maps] + _OTHERS


def refuse_unmixing(
    folder: str | os.PathLike[str], *, maps: MapFormat = "geotiff", overwrite: bool = False
) -> None:
    """Raise, before any work is done, what `write_unmixing` would say about the folder."""
    root = Path(folder)
    if not root.parent.is_dir():
        raise FileNotFoundError(f"{root}: there is no folder {root.parent}; create it first")
    if root.exists() and not root.is_dir():
        raise NotADirectoryError(f"{root}: is a file; give the name of a folder")
    files_of(maps)
    for name in sorted(FILES):
        refuse_existing(root / name, overwrite=overwrite)


def write_unmixing(
    folder: str | os.PathLike[str],
    mix: Unmixing | Mixture,
    *,
    reference: Library | None = None,
    maps: MapFormat = "geotiff",
    overwrite: bool = False,
    progress: bool | None = None,
) -> Path:
    """Write an unmixing into a folder: every file of `files_of`, or none.

    ``abundances.tif`` (float32, NaN where not measured, a band an endmember, georeferenced as the cube) and
    ``error.tif``, or both as ENVI images; ``endmembers.csv`` and the ENVI library ``endmembers.sli`` with its
    header; ``report.html``, one file with the pictures inside; the pictures, for which large scenes are
    thinned; ``unmixing.json`` with settings and figures. Maps are written tile by tile.

    Parameters
    ----------
    folder : path
        Made if its parent exists.
    mix : Unmixing or Mixture
        What `hsssl.unmix` returned; or a mixture whose abundances are made on their way to the file.
    reference : Library, optional
        Spectra to draw beside the endmembers; matched by least total angle.
    maps : {"geotiff", "envi"}
        Format of the abundances and the error.
    overwrite : bool
        Replace the files of an earlier unmixing there.
    progress : bool, optional
        Show a bar with pixels per second while a mixture is written; None shows it on a terminal.

    Returns
    -------
    Path
        The report.

    Raises
    ------
    FileExistsError
        If one of the files exists and ``overwrite`` is off.
    ValueError
        If the reference does not cover the cube's wavelengths.
    OSError
        If it cannot be written; what was in the folder is then as before.
    """
    refuse_unmixing(folder, maps=maps, overwrite=overwrite)
    root, names = Path(folder), files_of(maps)
    pairs = matched(mix, reference)
    made = root.with_name(f".{root.name}.{secrets.token_hex(6)}.tmp")
    made.mkdir()
    try:
        _write(made, mix, pairs, maps, progress)
        root.mkdir(exist_ok=True)
        for name in names:  # all are whole and on the disk; the report comes last
            (made / name).replace(root / name)
        for name in FILES.difference(names):  # the maps of an earlier unmixing, in the other format
            (root / name).unlink(missing_ok=True)
    finally:
        shutil.rmtree(made, ignore_errors=True)
    return root / "report.html"


Pair = tuple[str, float, NDArray[np.float64]]


def matched(mix: Unmixing | Mixture, reference: Library | None) -> list[Pair | None]:
    """Return for each endmember the reference spectrum matched to it: name, angle (radians), spectrum.

    The matching has the least total angle; where there are fewer references, endmembers stay without.
    """
    from scipy.optimize import linear_sum_assignment

    pairs: list[Pair | None] = [None] * len(mix.endmembers)
    if reference is None:
        return pairs
    spectra = reference.on(mix.cube)
    angles = spectral_angles(mix.endmembers, spectra)
    for k, r in zip(*linear_sum_assignment(angles), strict=True):
        pairs[int(k)] = (reference.names[int(r)], float(angles[k, r]), spectra[r])
    return pairs


@dataclass(eq=False)
class _Seen:
    """What is kept of an unmixing that goes by: thinned maps for the pictures, and sums over all pixels."""

    maps: Thinned
    total: NDArray[np.float64]  # (p + 1,), of the abundances and of the error
    pixels: int = 0

    def put(self, tile: Tile, block: NDArray[np.float32]) -> None:
        known = np.isfinite(block[:, :, -1])
        self.pixels += int(np.count_nonzero(known))
        self.total += block[known].sum(axis=0, dtype=np.float64)
        self.maps.put(tile, block)

    @property
    def mean(self) -> list[float]:
        """Mean abundances and, last, the mean error."""
        return [float(part) for part in self.total / self.pixels]


def _write(
    root: Path, mix: Unmixing | Mixture, pairs: list[Pair | None], maps: MapFormat, progress: bool | None
) -> None:
    cube, names = mix.cube, mix.names
    seen = _write_maps(root, mix, Path(_MAPS[maps][0]).suffix, progress)
    measured = cube.wavelengths is not None
    axis = cube.wavelengths if cube.wavelengths is not None else cube.source_index.astype(np.float64)
    head = "wavelength_nm" if measured else "band"
    (root / "endmembers.csv").write_bytes(library_csv(names, axis.tolist(), mix.endmembers, head=head))
    header, data = envi_library(
        names, cube.wavelengths, mix.endmembers, description=f"{mix.method} on {cube.source}"
    )
    (root / "endmembers.hdr").write_bytes(header)
    (root / "endmembers.sli").write_bytes(data)
    record = _record(mix, pairs, seen)
    (root / "unmixing.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    drawn = [None if pair is None else (f"{pair[0]}, SAD {pair[1]:.3f}", pair[2]) for pair in pairs]
    abundances, error = seen.maps.image[:, :, :-1], seen.maps.image[:, :, -1]
    highest = max(1.0, float(np.nanpercentile(abundances, 98))) if mix.rule == "nnls" else 1.0
    pictures = {
        "abundances.png": abundance_maps(abundances, _titles(names, pairs), highest=highest),
        "endmembers.png": endmember_spectra(mix.endmembers, axis, names, measured=measured, references=drawn),
        "error.png": error_map(error),
    }
    for name, png in pictures.items():
        (root / name).write_bytes(png)
    (root / "report.html").write_text(_page(mix, record, pictures), encoding="utf-8")
    for file in root.iterdir():
        with file.open("r+b") as opened:
            os.fsync(opened.fileno())


def _titles(names: Sequence[str], pairs: list[Pair | None]) -> list[str]:
    """Return the endmembers' names, or their numbers with the references matched to them."""
    both = enumerate(zip(names, pairs, strict=True), 1)
    return [name if pair is None else f"{number}: {pair[0]}" for number, (name, pair) in both]


def _write_maps(root: Path, mix: Unmixing | Mixture, suffix: str, progress: bool | None) -> _Seen:
    """Write abundances and error tile by tile, and return what was seen of them."""
    cube, p = mix.cube, len(mix.endmembers)
    seen = _Seen(Thinned.of(cube.rows, cube.cols, p + 1), np.zeros(p + 1))
    layout: dict[str, Any] = {"dtype": "float32", "nodata": np.nan, "block": mix.block}
    error_name = ["RMS reconstruction error"]
    with (
        open_map(root / f"abundances{suffix}", cube, count=p, descriptions=mix.names, **layout) as shares,
        open_map(root / f"error{suffix}", cube, count=1, descriptions=error_name, **layout) as error,
    ):

        def write(tile: Tile, block: NDArray[np.float32]) -> None:
            shares(tile, block[:, :, :-1])
            error(tile, block[:, :, -1])
            seen.put(tile, block)

        mix.stream(write, progress=progress)
    return seen


def _record(mix: Unmixing | Mixture, pairs: list[Pair | None], seen: _Seen) -> dict[str, Any]:
    *shares, error = seen.mean
    return {
        "cube": mix.cube.source, "method": mix.method, "rule": mix.rule, "seed": mix.seed,
        "pseudo_endmembers": mix.pseudo, "pixels": seen.pixels,
        "left_out": mix.cube.rows * mix.cube.cols - seen.pixels,
        "bands": [int(band) for band in mix.cube.source_index],
        "mean_error": error,
        "endmembers": [
            {"name": name, "mean_abundance": share}
            | ({} if pair is None else {"reference": pair[0], "sad": pair[1]})
            for name, share, pair in zip(mix.names, shares, pairs, strict=True)
        ],
    }  # fmt: skip


def _page(mix: Unmixing | Mixture, record: dict[str, Any], pictures: dict[str, bytes]) -> str:
    cube, compared = mix.cube, any("sad" in entry for entry in record["endmembers"])
    rule = RULES.get(mix.rule, "the network's own output")
    rows = [
        [entry["name"], f"{100 * entry['mean_abundance']:.1f}"]
        + (
            [entry.get("reference", "–"), f"{entry['sad']:.3f}" if "sad" in entry else "–"]
            if compared
            else []
        )
        for entry in record["endmembers"]
    ]
    head = ["endmember", "mean abundance, %"] + (["nearest reference", "SAD, radians"] if compared else [])
    facts = [
        cube.source, f"{cube.rows} × {cube.cols} pixels", f"{cube.bands} bands used",
        f"{record['left_out']:,} pixels left out", f"method {mix.method}, seed {mix.seed}",
    ]  # fmt: skip
    pseudo = (
        "<p>The spectra are pseudo-endmembers: found beforehand to guide the network, which reconstructs "
        "without an endmember matrix.</p>"
        if mix.pseudo
        else ""
    )
    mean = record["mean_error"]
    body = "".join([
        figure_html(pictures["abundances.png"], f"Abundances on one scale; {rule}"),
        f"<h2>Endmembers</h2>{pseudo}", table(head, rows),
        figure_html(pictures["endmembers.png"], "Endmember spectra, raw numbers; gaps at dropped bands"),
        "<h2>Reconstruction</h2>",
        f'<p class="note">Mean error {mean:.4g} in raw numbers.</p>',
        '<div class="row">',
        figure_html(pictures["error.png"], "Error map, to its 98th percentile"),
        figure_html(false_colour(cube), "The scene"),
        "</div>",
    ])  # fmt: skip
    return html_page(f"Unmixing of {Path(cube.source).name}", facts, body)
