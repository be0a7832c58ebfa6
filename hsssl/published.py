"""The published benchmark scenes: where they come from, what their files are called, and what is in them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from hsssl.messages import say_once

__all__ = ["PUBLISHED", "PublishedScene", "find_file", "scene_files"]

_FOLDERS_DEEP = 4


@dataclass(frozen=True)
class PublishedScene:
    """One scene as its source publishes it.

    Parameters
    ----------
    page : str
        Where to get it.
    cube : str
        Name of the file with the image.
    shape : tuple of 3 int
        Rows, columns, bands of the image.
    sensor : str
        What took it.
    labels : str
        Name of the file with the classes; empty if there is none.
    class_names : tuple of str
        Name of class 1, 2, and so on.
    truth : str
        Name of the file with endmembers M (bands, p) and abundances A (p, pixels); empty if there is none.
    endmember_names : tuple of str
        Names of the endmembers, in the order of that file.
    sha256 : dict of str to str
        SHA-256 of the files it is known of.
    """

    page: str
    cube: str
    shape: tuple[int, int, int]
    sensor: str
    labels: str = ""
    class_names: tuple[str, ...] = ()
    truth: str = ""
    endmember_names: tuple[str, ...] = ()
    sha256: dict[str, str] = field(default_factory=dict)

    @property
    def files(self) -> tuple[str, ...]:
        """Names of all its files."""
        return tuple(name for name in (self.cube, self.labels, self.truth) if name)


# Shapes, files and classes as the pages have them, 2026-01; names of files, shapes and classes are also those
# that public code reading these scenes expects (2026-11). The order of the endmembers of Jasper Ridge and of
# Urban is not confirmed: no copy of their files was at hand.
_GIC = "https://www.ehu.eus/ccwintco/index.php/Hyperspectral_Remote_Sensing_Scenes"
_RSLAB = "https://rslab.ut.ac.ir/data (Zhu 2017, arXiv:1708.05125)"
_SALINAS = (
    "Brocoli_green_weeds_1", "Brocoli_green_weeds_2", "Fallow", "Fallow_rough_plow", "Fallow_smooth",
    "Stubble", "Celery", "Grapes_untrained", "Soil_vinyard_develop", "Corn_senesced_green_weeds",
    "Lettuce_romaine_4wk", "Lettuce_romaine_5wk", "Lettuce_romaine_6wk", "Lettuce_romaine_7wk",
    "Vinyard_untrained", "Vinyard_vertical_trellis",
)  # fmt: skip

#: Scenes by name. None is downloaded; see `scene_files`.
PUBLISHED: dict[str, PublishedScene] = {
    "pavia_university": PublishedScene(
        _GIC, "PaviaU.mat", (610, 340, 103), "ROSIS", "PaviaU_gt.mat",
        ("Asphalt", "Meadows", "Gravel", "Trees", "Painted metal sheets", "Bare Soil", "Bitumen",
         "Self-Blocking Bricks", "Shadows"),
    ),
    "pavia_centre": PublishedScene(
        _GIC, "Pavia.mat", (1096, 715, 102), "ROSIS", "Pavia_gt.mat",
        ("Water", "Trees", "Asphalt", "Self-Blocking Bricks", "Bitumen", "Tiles", "Shadows", "Meadows",
         "Bare Soil"),
    ),
    "salinas": PublishedScene(
        _GIC, "Salinas_corrected.mat", (512, 217, 204), "AVIRIS", "Salinas_gt.mat", _SALINAS
    ),
    "salinas_a": PublishedScene(
        _GIC, "SalinasA_corrected.mat", (83, 86, 204), "AVIRIS", "SalinasA_gt.mat", _SALINAS[:14],
        sha256={
            "SalinasA_corrected.mat": "d75684ed3ab71a1024cee0f9db9061f50a3523a92ff5edfbbb1eed976b9f1721",
            "SalinasA_gt.mat": "17814c1d3296c0e29b27f320f2c4174d2a68adb87e376abe78f02923e2c2e454",
        },
    ),
    "ksc": PublishedScene(
        _GIC, "KSC.mat", (512, 614, 176), "AVIRIS", "KSC_gt.mat",
        # Another list is about, without class 4 and with "Hardwood" and "Swamp" as two classes.
        ("Scrub", "Willow swamp", "Cabbage palm hammock", "Cabbage palm/oak hammock", "Slash pine",
         "Oak/broadleaf hammock", "Hardwood swamp", "Graminoid marsh", "Spartina marsh", "Cattail marsh",
         "Salt marsh", "Mud flats", "Water"),
    ),
    "botswana": PublishedScene(
        _GIC, "Botswana.mat", (1476, 256, 145), "Hyperion", "Botswana_gt.mat",
        ("Water", "Hippo grass", "Floodplain grasses 1", "Floodplain grasses 2", "Reeds 1", "Riparian",
         "Firescar 2", "Island interior", "Acacia woodlands", "Acacia shrublands", "Acacia grasslands",
         "Short mopane", "Mixed mopane", "Exposed soils"),
    ),
    "houston2013": PublishedScene(
        "https://machinelearning.ee.uh.edu (2013 IEEE GRSS Data Fusion Contest, samples as regions)",
        "2013_IEEE_GRSS_DF_Contest_CASI.tif", (349, 1905, 144), "CASI",
        class_names=("Healthy grass", "Stressed grass", "Synthetic grass", "Trees", "Soil", "Water",
                     "Residential", "Commercial", "Road", "Highway", "Railway", "Parking lot 1",
                     "Parking lot 2", "Tennis court", "Running track"),
    ),
    "samson": PublishedScene(
        _RSLAB, "samson_1.mat", (95, 95, 156), "SAMSON", truth="end3.mat",
        endmember_names=("Rock", "Tree", "Water"),
        sha256={
            "samson_1.mat": "1ebacaf7cd32bfc31c0ee3fd56c63a7f29a434893a8b45705fb59cd8a0c8beb6",
            "end3.mat": "ce768182ce5292390180f827ff5769112cf3d299f4e64ab43e950a310b7ec9fa",
        },
    ),
    "jasper_ridge": PublishedScene(
        _RSLAB, "jasperRidge2_R198.mat", (100, 100, 198), "AVIRIS", truth="end4.mat",
        endmember_names=("Tree", "Water", "Dirt", "Road"),
    ),
    "urban": PublishedScene(
        _RSLAB, "Urban_R162.mat", (307, 307, 162), "HYDICE", truth="end4_groundTruth.mat",
        endmember_names=("Asphalt", "Grass", "Tree", "Roof"),
    ),
}  # fmt: skip


def scene_files(name: str) -> dict[str, Path]:
    """Find the files of a published scene in the data folder, the environment variable ``HSSSL_DATA``.

    Files may lie in it or up to four folders deep; capital letters do not matter. Where the SHA-256 is known
    and differs, that is said: there are re-saved copies of these scenes.

    Parameters
    ----------
    name : str
        Key of `PUBLISHED`.

    Returns
    -------
    dict of str to Path
        Path of each of `PublishedScene.files`.

    Raises
    ------
    FileNotFoundError
        If the folder or a file is missing; says where to get it.
    """
    scene = PUBLISHED[name]
    stated = os.environ.get("HSSSL_DATA", "")
    advice = f"get {' and '.join(scene.files)} from {scene.page} and put them there"
    if not stated or not Path(stated).is_dir():
        where = f"HSSSL_DATA={stated} is no folder" if stated else "HSSSL_DATA is not set"
        raise FileNotFoundError(f"{name}: {where}; set it to a folder for scenes, {advice}")
    found: dict[str, Path] = {}
    for file in scene.files:
        near = found[scene.cube].parent if scene.cube in found else None
        path = find_file(Path(stated), file, near=near)
        if path is None:
            raise FileNotFoundError(f"{name}: no {file} in {stated} (HSSSL_DATA); {advice}")
        found[file] = path
        known = scene.sha256.get(file)
        if known is not None and hashlib.sha256(path.read_bytes()).hexdigest() != known:
            say_once("%s: its SHA-256 is not that of the %s known here; a re-saved copy?", path, file)
    return found


def find_file(folder: Path, name: str, *, near: Path | None = None) -> Path | None:
    """Return the file called ``name`` under ``folder``: the one closest to ``near``, or the least deep."""
    fitting = [file for file in _walk(folder, _FOLDERS_DEEP) if file.name.lower() == name.lower()]
    if not fitting:
        return None
    return min(fitting, key=lambda file: (_apart(file.parent, near or folder), str(file)))


def _walk(folder: Path, deep: int) -> Iterator[Path]:
    try:
        entries = sorted(folder.iterdir())
    except OSError:
        return  # a folder that may not be read holds nothing to find
    for entry in entries:
        if entry.is_dir() and deep:
            yield from _walk(entry, deep - 1)
        elif entry.is_file():
            yield entry


def _apart(one: Path, other: Path) -> int:
    common = len(os.path.commonpath([one.resolve(), other.resolve()]).split(os.sep))
    return len(one.resolve().parts) + len(other.resolve().parts) - 2 * common
