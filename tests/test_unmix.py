"""Unmixing: metrics by hand, exact solvers, corners of simplices, and scenes with all that goes wrong."""

from __future__ import annotations

import itertools
import json
import logging
import math
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.io import loadmat
from scipy.optimize import nnls as scipy_nnls

import hsssl
from hsssl.cli import main
from hsssl.cube import Cube
from hsssl.readers import read
from hsssl.unmix import (
    UNMIXERS,
    abundance_rmse,
    armse,
    atgp,
    fcls,
    hysime,
    match_endmembers,
    nfindr,
    nnls,
    pure_pixels,
    reconstruction_error,
    sad,
    signal_to_reconstruction_error,
    spa,
    spectral_angles,
    sunsal,
    vca,
)
from hsssl.unmix.figures import band_gaps
from hsssl.unmix.library import Library, read_library
from hsssl.unmix.output import files_of, write_unmixing


def scene(rows: int = 24, cols: int = 20, *, p: int = 3, bands: int = 12, seed: int = 0) -> Cube:
    """A cube of p materials with a pure corner of each, in integers, 5 nm apart."""
    rng = np.random.default_rng(seed)
    endmembers = rng.uniform(200, 3000, (p, bands))
    shares = rng.dirichlet(np.full(p, 0.4), rows * cols)
    for k in range(p):
        shares[10 * k : 10 * k + 10] = np.eye(p)[k]
    values = shares @ endmembers + rng.normal(0, 3, (rows * cols, bands))
    return Cube(values.round().reshape(rows, cols, bands), wavelengths=450 + 5.0 * np.arange(bands))


# --- metrics, by hand


def test_angles_and_matching_by_hand() -> None:
    estimated, true = [[0.0, 2.0], [1.0, 1.0], [3.0, 0.0]], [[1.0, 0.0], [0.0, 1.0]]
    angles = spectral_angles(estimated, true) * 4 / math.pi
    np.testing.assert_allclose(angles, [[2, 0], [1, 1], [0, 2]], atol=1e-12)
    assert match_endmembers(estimated, true).tolist() == [2, 0]
    np.testing.assert_allclose(sad(estimated, true), [0, 0], atol=1e-12)


def test_matching_is_not_greedy() -> None:
    """The first truth's nearest is the second's only near one: greedy matching would pay 80 degrees."""
    degrees = np.radians([10.0, 80.0])
    estimated = np.stack([np.cos(degrees), np.sin(degrees)], axis=1)
    true = np.array([[np.cos(0.4), np.sin(0.4)], [1.0, 0.0]])
    assert match_endmembers(estimated, true).tolist() == [1, 0]


def test_small_angles_and_zeros() -> None:
    assert spectral_angles([[1.0, 0.0]], [[1.0, 1e-9]])[0, 0] == pytest.approx(1e-9, rel=1e-6)
    np.testing.assert_allclose(spectral_angles([[0.0, 0.0]], [[1.0, 0.0], [0.0, 0.0]]), math.pi / 2)


def test_abundance_errors_by_hand() -> None:
    true = np.array([[[1.0, 0.0], [0.5, 0.5]]])
    estimated = np.array([[[1.0, 0.0], [0.1, 0.9]]])
    assert abundance_rmse(estimated, true) == pytest.approx(math.sqrt(0.32 / 4))
    assert armse(estimated, true) == pytest.approx((0 + math.sqrt(0.32 / 2)) / 2)
    assert signal_to_reconstruction_error(estimated, true) == pytest.approx(10 * math.log10(1.5 / 0.32))
    assert signal_to_reconstruction_error(true, true) == math.inf
    spoilt = np.concatenate([estimated, np.full((1, 2, 2), np.nan)])
    assert abundance_rmse(spoilt, np.concatenate([true, true])) == pytest.approx(math.sqrt(0.08))
    error = reconstruction_error([[3.0, 1.0]], [[1.0, 0.0], [0.0, 1.0]], [[0.5, 0.5]])
    assert error.tolist() == pytest.approx([math.sqrt((2.5**2 + 0.5**2) / 2)])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: spectral_angles([[1.0, 2.0]], [[1.0]]), "2 bands, y 1"),
        (lambda: match_endmembers([[1.0, 2.0]], [[1.0, 0.0], [0.0, 1.0]]), "2 true endmembers but 1"),
        (lambda: abundance_rmse([[1.0, 0.0]], [[1.0, 0.0, 0.0]]), r"one shape \(\.\.\., p\)"),
        (lambda: abundance_rmse([[np.nan, 0.0]], [[1.0, 0.0]]), "no pixel is known in both"),
        (lambda: reconstruction_error([[1.0]], [[1.0, 2.0]], [[1.0]]), "want pixels"),
    ],
)
def test_metrics_refuse(call, message) -> None:
    with pytest.raises(ValueError, match=message):
        call()


# --- solvers


def best_of_all_sets(x: np.ndarray, e: np.ndarray) -> np.ndarray:
    """Solve the constrained problem by trying every set of endmembers, with the multiplier's equations."""
    p, best, at = len(e), np.inf, np.zeros(len(e))
    for size in range(1, p + 1):
        for chosen in map(list, itertools.combinations(range(p), size)):
            ones = np.ones((size, 1))
            system = np.block([[e[chosen] @ e[chosen].T, ones], [ones.T, np.zeros((1, 1))]])
            a = np.linalg.lstsq(system, np.append(e[chosen] @ x, 1), rcond=None)[0][:size]
            off = np.square(x - a @ e[chosen]).sum()
            if a.min() >= -1e-12 and off < best - 1e-15:
                best, at = off, np.zeros(p)
                at[chosen] = a
    return at


@given(st.integers(0, 2**31), st.integers(1, 6), st.sampled_from([0.1, 1.0, 30.0]), st.booleans())
@settings(max_examples=30, deadline=None)
def test_solvers_agree_with_references(seed: int, p: int, scale: float, negative: bool) -> None:
    rng = np.random.default_rng(seed)
    bands = int(rng.integers(p + 1, 14))
    e = rng.normal(size=(p, bands)) if negative else rng.random((p, bands))
    x = scale * rng.random((4, bands))
    exact = np.array([best_of_all_sets(pixel, e) for pixel in x])
    np.testing.assert_allclose(fcls(x, e), exact, atol=1e-6)
    np.testing.assert_allclose(nnls(x, e), [scipy_nnls(e.T, pixel)[0] for pixel in x], atol=1e-6 * scale)


@given(st.integers(0, 2**31), st.sampled_from(["twins", "zero", "collinear", "all_zero", "more_than_bands"]))
@settings(max_examples=30, deadline=None)
def test_degenerate_problems_keep_the_constraints(seed: int, kind: str) -> None:
    rng = np.random.default_rng(seed)
    e, x = rng.random((5, 7)), rng.random((20, 7))
    x[:4] = 0
    if kind == "twins":
        e = e[[0, 0, 1, 1, 1]]
    elif kind == "zero":
        e[2] = 0
    elif kind == "collinear":
        e[1] = (e[0] + e[2]) / 2
    elif kind == "all_zero":
        e[:] = 0
    else:
        e, x = e[:, :2], x[:, :2]
    a = fcls(x, e)
    assert a.min() >= 0
    np.testing.assert_allclose(a.sum(axis=1), 1, atol=1e-6)
    if kind != "all_zero":  # no feasible point nearby, and no vertex, does better
        own = np.square(x - a @ e).sum(axis=1)
        for other in [*np.eye(5), *rng.dirichlet(np.ones(5), 20)]:
            mixed = 0.99 * a + 0.01 * other
            assert (own <= np.square(x - mixed @ e).sum(axis=1) + 1e-9).all()
    assert (nnls(x, e) >= 0).all()


def test_many_endmembers_meet_the_conditions_of_optimality() -> None:
    rng = np.random.default_rng(0)
    e = rng.random((20, 30))
    x = rng.dirichlet(np.full(20, 0.1), 200) @ e + rng.normal(0, 0.05, (200, 30))
    a = fcls(x, e)
    fall = (x - a @ e) @ e.T
    level = (fall * a).sum(axis=1, keepdims=True)
    assert (fall - level).max() < 1e-9
    np.testing.assert_allclose(np.where(a > 0, fall - level, 0), 0, atol=1e-9)


def test_kinds_and_dtypes_come_back() -> None:
    e, x = torch.rand(3, 6), torch.rand(5, 6)
    got = fcls(x, e)
    assert (type(got), got.dtype) == (torch.Tensor, torch.float32)
    np.testing.assert_allclose(got.numpy(), fcls(x.double().numpy(), e.double().numpy()), atol=1e-6)
    assert fcls(x.numpy(), e.numpy()).dtype == np.float32


def test_sunsal_meets_the_exact_solvers_and_the_soft_threshold() -> None:
    rng = np.random.default_rng(0)
    e = rng.random((4, 9))
    x = rng.random((50, 9))
    np.testing.assert_allclose(sunsal(x, e), nnls(x, e), atol=1e-5)
    np.testing.assert_allclose(sunsal(x, e, sum_to_one=True), fcls(x, e), atol=1e-5)
    # orthonormal endmembers: the minimum is max(x - sparsity, 0)
    np.testing.assert_allclose(
        sunsal(np.array([[1.0, 0.3, 0.1]]), np.eye(3), sparsity=0.2), [[0.8, 0.1, 0]], atol=1e-6
    )


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: fcls(np.ones((2, 3)), np.ones((2, 4))), r"want pixels \(n, bands\)"),
        (lambda: fcls(np.full((2, 3), np.nan), np.ones((2, 3))), "pixels hold NaN"),
        (lambda: nnls(np.ones((2, 3)), np.full((2, 3), np.inf)), "endmembers hold NaN"),
        (lambda: sunsal(np.ones((2, 3)), np.ones((2, 3)), sparsity=-1), "sparsity >= 0"),
    ],
)
def test_solvers_refuse(call, message) -> None:
    with pytest.raises(ValueError, match=message):
        call()


# --- extraction


@pytest.mark.parametrize("extract", [spa, atgp, vca, nfindr])
@pytest.mark.parametrize("p", [2, 3, 5])
def test_corners_of_a_simplex_are_found(extract, p: int) -> None:
    rng = np.random.default_rng(p)
    corners = rng.random((p, 20)) + 0.1
    mixed = rng.dirichlet(np.ones(p), 300).clip(0, 0.9)
    pixels = np.vstack([corners, mixed / mixed.sum(axis=1, keepdims=True) @ corners])
    assert sorted(extract(pixels, p).tolist()) == list(range(p))


@pytest.mark.parametrize("extract", [vca, nfindr])
def test_seeds_repeat(extract) -> None:
    pixels = np.random.default_rng(0).random((200, 8))
    assert np.array_equal(extract(pixels, 4, seed=3), extract(pixels, 4, seed=3))


@pytest.mark.parametrize("extract", [spa, vca, nfindr, pure_pixels])
def test_extraction_refuses(extract) -> None:
    flat = np.outer(np.linspace(1, 2, 30), np.arange(1.0, 6.0))
    with pytest.raises(ValueError, match=r"span \d dimensions.* ask for at most \d"):
        extract(flat, 3)
    with pytest.raises(ValueError, match="between 1 and the 5"):
        extract(flat, 6)
    with pytest.raises(ValueError, match="NaN"):
        extract(np.full((5, 5), np.nan), 2)


def test_pure_pixels_do_not_see_brightness() -> None:
    rng = np.random.default_rng(0)
    pixels = scene().values.reshape(-1, 12)
    shaded = pixels * rng.uniform(0.3, 3, (len(pixels), 1))
    assert sad(pure_pixels(shaded, 3), pure_pixels(pixels, 3)).max() < 0.01


def test_hysime_counts_materials() -> None:
    rng = np.random.default_rng(1)
    for p in (2, 5):
        mixed = rng.dirichlet(np.ones(p), 3000) @ rng.random((p, 30))
        assert hysime(mixed + 0.005 * rng.normal(size=mixed.shape)) == p
    with pytest.raises(ValueError, match="more pixels than bands"):
        hysime(np.ones((5, 9)))


# --- scenes


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


def test_a_part_of_many_pixels_is_enough(monkeypatch: pytest.MonkeyPatch, caplog) -> None:
    monkeypatch.setattr(import_module("hsssl.unmix.pixels"), "LEARN_VALUES", 300 * 12)
    with caplog.at_level(logging.WARNING):
        mix = hsssl.unmix(scene(), endmembers=3)
    assert "learns endmembers from 300 of 480 pixels" in caplog.text
    assert sad(mix.endmembers, pure_pixels(scene().values.reshape(-1, 12), 3)).max() < 0.1
    assert np.isfinite(mix.abundances).all()


# --- files


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


def test_dlr_hysu_targets_by_the_default(data_dir: Path) -> None:
    folder = data_dir / "dlr_hysu"
    library = read_library(folder / "DLR_HySU_HS_library.hdr")
    cube = hsssl.open_cube(folder / "DLR_HySU_HS_all_targets.tif", wavelengths=library.wavelengths)
    mix = hsssl.unmix(cube, endmembers=6)
    assert sad(mix.endmembers, library.spectra).max() < 0.05
