"""Unmixing of scenes, by every method and by the command, with all that goes wrong."""

from __future__ import annotations

import io
import json
import logging
import weakref
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from PIL import Image
from scipy.io import loadmat

import hsssl
from hsssl.cli import main
from hsssl.cube import Cube
from hsssl.lazy import LazyValues
from hsssl.readers import read
from hsssl.unmix import (
    UNMIXERS,
    abundance_rmse,
    match_endmembers,
    pure_pixels,
    sad,
)
from hsssl.unmix.figures import abundance_maps, band_gaps, fitted
from hsssl.unmix.library import Library, read_library
from hsssl.unmix.output import files_of, write_unmixing
from make_fixtures import small_values, write_envi
from mixtures import scene


@pytest.fixture
def few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Train the networks just long enough for a scene of 480 pixels."""
    for name, fit in (("daeu", "fit_daeu"), ("egu_net", "fit_egu_net")):
        function = getattr(import_module(f"hsssl.unmix.{name}"), fit)
        monkeypatch.setitem(function.__kwdefaults__, "steps", 60)


@pytest.mark.parametrize("method", UNMIXERS)
def test_every_method_unmixes_a_scene(method: str, few_steps: None) -> None:
    cube = scene()
    mix = hsssl.unmix(cube, endmembers=3, method=method, progress=False)
    assert mix.endmembers.shape == (3, 12)
    assert mix.abundances.shape == (24, 20, 3)
    assert mix.abundances.min() >= 0
    np.testing.assert_allclose(mix.abundances.sum(axis=2), 1, atol=1e-5)
    assert mix.pseudo == method.startswith("egu_net")
    order = match_endmembers(mix.endmembers, pure_pixels(cube.values.reshape(-1, 12), 3))
    top = mix.abundances[:, :, order].reshape(-1, 3)
    # the first thirty pixels are pure, ten of each material
    assert all(len(set(top[10 * k : 10 * k + 10].argmax(axis=1).tolist())) == 1 for k in range(3))
    again = hsssl.unmix(cube, endmembers=3, method=method, progress=False)
    assert np.array_equal(mix.abundances, again.abundances)


def test_unmeasured_pixels_are_nan_and_spread_nothing(caplog: pytest.LogCaptureFixture) -> None:
    cube = scene()
    values = cube.values.copy()
    values[20, 5] = -9999
    values[20, 6, 4] = np.nan
    spoilt = Cube(values, wavelengths=cube.wavelengths, nodata=-9999.0, valid=values[:, :, 0] != -9999)
    with caplog.at_level(logging.WARNING):
        mix = hsssl.unmix(spoilt, endmembers=3)
    assert "left out 1 more pixels" in caplog.text
    lost = np.zeros((24, 20), dtype=bool)
    lost[20, 5:7] = True
    assert np.array_equal(np.isnan(mix.abundances).any(axis=2), lost)
    assert np.array_equal(np.isnan(mix.error), lost)
    whole = hsssl.unmix(cube, endmembers=3)
    order = match_endmembers(mix.endmembers, whole.endmembers)
    np.testing.assert_allclose(mix.abundances[~lost][:, order], whole.abundances[~lost], atol=0.02)


def test_bad_bands_are_dropped_and_negative_reflectance_is_warned_of(caplog) -> None:
    cube = scene()
    values = cube.values.copy()
    values[:, :, 3] = 7
    values[0, 0, 0] = -4
    with caplog.at_level(logging.WARNING):
        mix = hsssl.unmix(Cube(values, wavelengths=cube.wavelengths), endmembers=3)
    assert mix.endmembers.shape == (3, 11)
    assert 3 not in mix.cube.source_index
    assert "1 values" in caplog.text
    assert "are negative" in caplog.text


@pytest.mark.parametrize(
    ("cube", "options", "message"),
    [
        (scene(), {"endmembers": 13}, "13 endmembers need as many bands and pixels"),
        (scene(1, 2, p=2), {"endmembers": 3}, "3 endmembers need as many bands"),
        (scene(), {"endmembers": 0}, "at least 1, got 0"),
        (scene(), {"endmembers": 2.5}, "a whole number, at least 1, got 2.5"),
        (scene(), {"endmembers": 3, "method": "vcaa"}, "did you mean vca"),
        (scene(), {"endmembers": 3, "rule": "fclss"}, "did you mean fcls"),
        (Cube(np.ones((4, 4, 3))), {"endmembers": 2}, "no band remains: 3 constant"),
        (Cube(np.full((4, 4, 3), np.nan)), {"endmembers": 2}, "no valid pixel"),
    ],
)
def test_unmix_refuses(cube: Cube, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        hsssl.unmix(cube, **options)


def test_tiles_change_nothing(few_steps: None, monkeypatch: pytest.MonkeyPatch) -> None:
    for method in ("pure_pixels", "egu_net_spatial"):
        whole = hsssl.unmix(scene(), endmembers=3, method=method, progress=False)
        with monkeypatch.context() as small:
            small.setattr(import_module("hsssl.prepare"), "_TILE_VALUES", 20 * 12 * 5)
            small.setattr(import_module("hsssl.stream"), "BLOCK", 8)
            small.setattr(import_module("hsssl.stream"), "TILE_BYTES", 1)
            tiles = hsssl.unmix(scene(), endmembers=3, method=method, progress=False)
        np.testing.assert_allclose(tiles.abundances, whole.abundances, atol=1e-5)


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.parametrize("maps", ["geotiff", "envi"])
def test_written_tile_by_tile_the_abundances_are_those_of_memory(
    maps: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(import_module("hsssl.stream"), "BLOCK", 16)
    monkeypatch.setattr(import_module("hsssl.stream"), "TILE_BYTES", 1)
    cube, alive, windows = scene(), [0, 0], []
    values = cube.values.copy()
    values[7, 3] = np.nan

    def read_window(rows: slice, cols: slice, bands: np.ndarray) -> np.ndarray:
        windows.append((rows.stop - rows.start) * (cols.stop - cols.start))
        part = values[rows, cols][:, :, bands]
        alive[0] += 1
        alive[1] = max(alive)
        weakref.finalize(part, lambda: alive.__setitem__(0, alive[0] - 1))
        return part

    late = Cube(LazyValues(read_window, 24, 20, values.dtype, np.arange(12)), cube.wavelengths)
    memory = hsssl.unmix(Cube(values, cube.wavelengths), endmembers=3)
    alive[1], windows = 0, []
    assert hsssl.unmix(late, endmembers=3, out=tmp_path / "mix", maps=maps) == tmp_path / "mix"
    assert {file.name for file in (tmp_path / "mix").iterdir()} == set(files_of(maps))
    suffix = {"geotiff": ".tif", "envi": ".hdr"}[maps]
    np.testing.assert_array_equal(read(tmp_path / "mix" / f"abundances{suffix}").values, memory.abundances)
    np.testing.assert_array_equal(read(tmp_path / "mix" / f"error{suffix}").values[:, :, 0], memory.error)
    # two by two tiles, of which two are in memory; then the picture of the scene
    assert windows[-5:-1] == [16 * 16, 16 * 4, 8 * 16, 8 * 4]
    assert alive[1] <= 2
    record = json.loads((tmp_path / "mix" / "unmixing.json").read_text())
    assert (record["pixels"], record["left_out"]) == (479, 1)
    means = [entry["mean_abundance"] for entry in record["endmembers"]]
    np.testing.assert_allclose(means, np.nanmean(memory.abundances, axis=(0, 1)), rtol=1e-5)
    np.testing.assert_allclose(record["mean_error"], np.nanmean(memory.error), rtol=1e-5)
    # the files of memory are the same, but for the place that the values came from
    write_unmixing(tmp_path / "memory", memory, maps=maps)
    for name in set(files_of(maps)) - {"report.html"}:
        assert (tmp_path / "memory" / name).read_bytes() == (tmp_path / "mix" / name).read_bytes()


def test_folders_that_cannot_be_are_refused_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "error.png").touch()
    nothing: Any = None  # whose first use would fail
    for name, error, message in (
        ("file", NotADirectoryError, "is a file"),
        ("absent/mix", FileNotFoundError, "there is no folder"),
        ("old", FileExistsError, r"error\.png: exists; pass --overwrite"),
    ):
        with pytest.raises(error, match=message):
            hsssl.unmix(nothing, endmembers=2, out=tmp_path / name)
    with pytest.raises(ValueError, match="did you mean envi"):
        hsssl.unmix(nothing, endmembers=2, out=tmp_path / "new", maps="env")


def test_pictures_of_many_or_large_maps_stay_small() -> None:
    for rows, cols, p in ((30, 40, 20), (2500, 300, 9), (1200, 1200, 4), (5, 5, 1)):
        shares = np.zeros((rows, cols, p), dtype=np.float32)
        png = abundance_maps(shares, [f"endmember {k}" for k in range(p)])
        assert max(Image.open(io.BytesIO(png)).size) <= 2100


def test_a_part_of_many_pixels_is_enough(monkeypatch: pytest.MonkeyPatch, caplog) -> None:
    monkeypatch.setattr(import_module("hsssl.unmix.pixels"), "LEARN_VALUES", 300 * 12)
    with caplog.at_level(logging.WARNING):
        mix = hsssl.unmix(scene(), endmembers=3)
    assert "learns endmembers from 300 of 480 pixels" in caplog.text
    assert sad(mix.endmembers, pure_pixels(scene().values.reshape(-1, 12), 3)).max() < 0.1
    assert np.isfinite(mix.abundances).all()


def test_titles_keep_to_the_width_of_their_map() -> None:
    assert fitted("2: Red Metal Sheets", 240) == "2: Red Metal Sheets"
    assert fitted("7: Weathered calcareous grassland", 240) == "7: Weathered calcare…"


def test_gaps_are_where_bands_are_missing() -> None:
    assert band_gaps(np.array([400.0, 410.0, 420.0, 460.0, 470.0])).tolist() == [2]
    assert band_gaps(np.array([400.0])).tolist() == []


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_command_writes_what_can_be_read_again(tmp_path: Path, capsys) -> None:
    cube = scene()
    np.savetxt(tmp_path / "nm.txt", cube.wavelengths)
    from scipy.io import savemat

    savemat(tmp_path / "cube.mat", {"cube": cube.values.astype(np.int16)})
    out = tmp_path / "mix"
    words = ["unmix", str(tmp_path / "cube.mat"), "--endmembers", "3", "--out", str(out)]
    words += ["--wavelengths", str(tmp_path / "nm.txt")]
    assert main(words) == 0
    assert {file.name for file in out.iterdir()} == set(files_of())
    with rasterio.open(out / "abundances.tif") as raster:
        assert raster.descriptions == ("endmember 1", "endmember 2", "endmember 3")
        assert (raster.dtypes[0], np.isnan(raster.nodata)) == ("float32", True)
        np.testing.assert_allclose(raster.read().sum(axis=0), 1, atol=1e-5)
    envi, text = read_library(out / "endmembers.sli"), read_library(out / "endmembers.csv")
    np.testing.assert_allclose(envi.spectra, text.spectra, rtol=1e-6)
    np.testing.assert_allclose(envi.wavelengths, cube.wavelengths)
    assert "http" not in (out / "report.html").read_text().replace("http-equiv", "")
    assert json.loads((out / "unmixing.json").read_text())["pixels"] == 480
    before = {file.name: file.read_bytes() for file in out.iterdir()}
    assert main(words) == 2
    assert "exists; pass --overwrite" in capsys.readouterr().err
    assert main([*words, "--overwrite", "--reference", str(out / "endmembers.csv")]) == 0
    assert "endmember 2: endmember 2, spectral angle 0.000" in capsys.readouterr().out
    assert before["abundances.tif"] == (out / "abundances.tif").read_bytes()
    np.savetxt(tmp_path / "nm.txt", cube.wavelengths + 900)
    assert main([*words, "--overwrite", "--reference", str(out / "endmembers.csv")]) == 2
    assert "give a library that covers the cube" in capsys.readouterr().err


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_maps_can_be_envi_images(tmp_path: Path) -> None:
    mix = hsssl.unmix(scene(), endmembers=2)
    write_unmixing(tmp_path / "mix", mix)
    with pytest.raises(ValueError, match="did you mean envi"):
        write_unmixing(tmp_path / "mix", mix, maps="env", overwrite=True)
    write_unmixing(tmp_path / "mix", mix, maps="envi", overwrite=True)
    assert {file.name for file in (tmp_path / "mix").iterdir()} == set(files_of("envi"))
    with rasterio.open(tmp_path / "mix" / "abundances.img") as raster:
        np.testing.assert_array_equal(np.moveaxis(raster.read(), 0, 2), mix.abundances)
        assert raster.descriptions == ("endmember 1", "endmember 2")
    np.testing.assert_array_equal(read(tmp_path / "mix" / "error.hdr").values[:, :, 0], mix.error)


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_maps_are_named_by_what_matches_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mix = hsssl.unmix(scene(), endmembers=2)
    drawn = []
    output = import_module("hsssl.unmix.output")
    draw = output.abundance_maps
    monkeypatch.setattr(
        output, "abundance_maps", lambda a, names, **k: drawn.append(names) or draw(a, names, **k)
    )
    library = Library(("sand",), mix.cube.wavelengths, mix.endmembers[1:])
    write_unmixing(tmp_path / "mix", mix, reference=library)
    assert drawn == [["endmember 1", "2: sand"]]


def test_nothing_is_left_when_writing_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mix = hsssl.unmix(scene(), endmembers=2)

    def full(_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(import_module("hsssl.unmix.output"), "error_map", full)
    with pytest.raises(OSError, match="No space left"):
        write_unmixing(tmp_path / "mix", mix)
    assert list(tmp_path.iterdir()) == []


def test_a_library_of_other_wavelengths_is_interpolated() -> None:
    library = Library(("a",), np.array([400.0, 500.0]), np.array([[1.0, 3.0]]))
    np.testing.assert_allclose(library.at(np.array([425.0, 500.0])), [[1.5, 3.0]])
    with pytest.raises(ValueError, match="has no wavelengths to compare with"):
        library.on(Cube(np.ones((1, 1, 1))))


def test_samson_by_the_default(data_dir: Path) -> None:
    """Against the NNLS truth: mean SAD at most .05, RMSE at most .10, whatever half of the pixels is seen."""
    values = loadmat(data_dir / "samson" / "samson_1.mat")["V"].reshape(156, 95, 95).transpose(2, 1, 0)
    truth = loadmat(data_dir / "samson" / "end3.mat")
    mix = hsssl.unmix(Cube(values), endmembers=3)
    order = match_endmembers(mix.endmembers, truth["M"].T)
    true = truth["A"].reshape(3, 95, 95).transpose(2, 1, 0)
    assert sad(mix.endmembers, truth["M"].T).mean() < 0.03
    assert abundance_rmse(mix.abundances[:, :, order], true) < 0.03


def test_an_envi_library_is_read_as_elsewhere(tmp_path: Path) -> None:
    spectra = small_values("i2", rows=2, cols=3, bands=1)
    fields = {"file type": "ENVI Spectral Library", "spectra names": "{clay, grass}"}
    stated = {"wavelength": "{0.65, 0.45, 0.55}", "wavelength units": "Micrometers"}
    for path in (
        write_envi(tmp_path, spectra, suffix=".sli", header=fields | stated),
        tmp_path / "scene.sli",
    ):
        library = read_library(path)
        assert library.names == ("clay", "grass")
        assert library.wavelengths.tolist() == [450, 550, 650]
        np.testing.assert_array_equal(library.spectra, spectra[:, [1, 2, 0], 0])
    with pytest.raises(ValueError, match="has no wavelengths; add them"):
        read_library(write_envi(tmp_path, spectra, suffix=".sli", header=fields))
    with pytest.raises(ValueError, match="not a spectral library but ENVI Standard"):
        read_library(write_envi(tmp_path, spectra))


def test_dlr_hysu_targets_by_the_default(data_dir: Path) -> None:
    folder = data_dir / "dlr_hysu"
    library = read_library(folder / "DLR_HySU_HS_library.hdr")
    cube = hsssl.open_cube(folder / "DLR_HySU_HS_all_targets.tif", wavelengths=library.wavelengths)
    mix = hsssl.unmix(cube, endmembers=6)
    assert sad(mix.endmembers, library.spectra).max() < 0.05
    # any half of the pixels tells the same
    prepared = hsssl.prepare(cube)
    for first in (0, 1):
        half = pure_pixels(prepared.values[prepared.valid][first::2], 6)
        assert sad(half, library.spectra).max() < 0.05


def test_dlr_hysu_full_image_by_the_default(data_dir: Path) -> None:
    """Sheets of few pixels among more than six materials are found from nine endmembers on."""
    folder = data_dir / "dlr_hysu"
    library = read_library(folder / "DLR_HySU_HS_library.hdr")
    cube = hsssl.open_cube(folder / "DLR_HySU_HS_full.tif", wavelengths=library.wavelengths)
    for count in (9, 12):
        assert sad(hsssl.unmix(cube, endmembers=count).endmembers, library.spectra).max() < 0.1
