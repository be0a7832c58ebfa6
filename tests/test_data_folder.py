"""Every file and folder of the real scenes opens, or is refused with one line that says what to do."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import numpy as np
import pytest

from hsssl.info import describe, format_description
from hsssl.scenes import open_cube

# What holds no cube, by the end of its name, and what its refusal says.
NO_CUBE = {
    ".md": "text, no image",
    ".txt": "text, no image",
    ".csv": "a table, no image",
    ".json": "text, no image",
    "corn-kernel-hyperspectral.hdr": "add the line: byte order = 0",
    "corn-kernel-hyperspectral.raw": "add the line: byte order = 0",
    "corn-kernel-hyperspectral_fixed.hdr": "rename one after the other, or open the header with data=",
    "DLR_HySU_HS_full.hdr": "open .*DLR_HySU_HS_full.tif",
    "DLR_HySU_HS_all_targets.hdr": "open .*DLR_HySU_HS_all_targets.tif",
    "Indian_pines_gt.mat": "no variable has three dimensions",
    "SalinasA_gt.mat": "no variable has three dimensions",
    "end3.mat": "no variable has three dimensions",
    "usgs_splib06a.npz": "no array is",
    "spectra.csv": "a table, no image",
}


def refusal(file: Path) -> str | None:
    named = [NO_CUBE[end] for end in NO_CUBE if file.name.endswith(end)]
    return named[-1] if named else None


def test_every_file_opens_or_is_refused_in_one_line(data_dir, caplog):
    caplog.set_level(logging.ERROR)
    files = sorted(path for path in data_dir.rglob("*") if path.is_file())
    opened, refused = 0, 0
    for file in files:
        expected = refusal(file)
        if expected is None:
            cube = open_cube(file)
            assert cube.values.ndim == 3, file
            assert cube.valid.any(), file
            opened += 1
            continue
        with pytest.raises((ValueError, FileNotFoundError), match=expected) as error:
            open_cube(file)
        assert "\n" not in str(error.value)
        assert str(file.with_suffix("")) in str(error.value)
        refused += 1
    assert opened >= 180
    assert refused >= 20


def test_info_of_one_file_of_each_kind(data_dir, caplog):
    caplog.set_level(logging.ERROR)
    seen = set()
    for file in sorted(path for path in data_dir.rglob("*") if path.is_file()):
        kind = (file.parent.name.split("_")[0], file.suffix)
        if refusal(file) is None and kind not in seen and file.stat().st_size < 3e6:
            seen.add(kind)
            text = format_description(describe(open_cube(file)))
            assert re.search(r"^shape +\d+ rows", text, re.MULTILINE), file
    assert len(seen) >= 15


def test_folders_that_are_cubes(data_dir):
    patches = sorted((data_dir / "bigearthnet").iterdir())
    for patch in patches:
        cube = open_cube(patch)
        assert cube.values.shape == (120, 120, 12)
        assert cube.band_names[7:9] == ("B8", "B8A")
        assert (np.diff(cube.wavelengths) > 0).all()
    with pytest.raises(ValueError, match="has 224 bands; a stack of files takes one band of each"):
        open_cube(data_dir / "enmap_potsdam" / "images")


def test_the_header_without_byte_order_opens_when_asked(data_dir, caplog):
    folder = data_dir / "envi"
    cube = open_cube(folder / "corn-kernel-hyperspectral.hdr", byte_order="little")
    assert "no byte order; read as little-endian, as asked for" in caplog.text
    assert cube.values.shape == (31, 43, 580)
    assert 0 < np.median(cube.values) < 4096
    fixed = open_cube(
        folder / "corn-kernel-hyperspectral_fixed.hdr", data=folder / "corn-kernel-hyperspectral.raw"
    )
    np.testing.assert_array_equal(fixed.values, cube.values)
    swapped = open_cube(folder / "corn-kernel-hyperspectral.hdr", byte_order="big")
    np.testing.assert_array_equal(swapped.values, cube.values.byteswap())
    with pytest.raises(ValueError, match="byte_order must be little or big"):
        open_cube(folder / "corn-kernel-hyperspectral.hdr", byte_order="middle")
