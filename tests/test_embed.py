"""Embedding and sensors: the right bands with the right normalisation, on the same and on other cubes."""

import logging
from dataclasses import replace

import numpy as np
import pytest
import torch

from hsssl.classify import classify
from hsssl.cube import Cube
from hsssl.embed import embed
from hsssl.encoders import build_encoder
from hsssl.prepare import prepare
from hsssl.readers import read
from hsssl.spec import EncoderSpec, Sensor, fit_cube


def cube(bands: int = 12, *, wavelengths: bool = True, seed: int = 0, rows: int = 9, cols: int = 11) -> Cube:
    rng = np.random.default_rng(seed)
    values = rng.integers(100, 4000, (rows, cols, bands)).astype(np.uint16)
    nm = np.linspace(420, 980, bands) if wavelengths else None
    return Cube(values, wavelengths=nm, source=f"cube{seed}")


def encoder_for(trained: Cube, *, patch_size: int = 1, windows: tuple[int, ...] = (1,)) -> torch.nn.Module:
    torch.manual_seed(0)
    options = {"patch_size": patch_size, "dim": 16, "hidden": 32, "channels": 32}
    encoder = build_encoder("spectral_spatial", **options)
    encoder.spec = EncoderSpec(
        "spectral_spatial", options, 16, patch_size, windows, (Sensor.of(prepare(trained)),)
    )
    return encoder.eval()


def test_features_are_the_encoder_on_normalised_patches():
    scene = cube()
    encoder = encoder_for(scene, patch_size=3)
    features = embed(encoder, scene)
    z = (scene.values - scene.values.mean((0, 1))) / scene.values.std((0, 1))
    patch = torch.tensor(z[3:6, 4:7], dtype=torch.float32).permute(2, 0, 1)[None]
    with torch.no_grad():
        expected = encoder(patch, torch.tensor(scene.wavelengths, dtype=torch.float32))[0]
    np.testing.assert_allclose(features[4, 5], expected.numpy(), rtol=1e-4, atol=1e-5)


def test_small_batches_give_the_same_features():
    encoder = encoder_for(cube(), patch_size=3, windows=(1, 3))
    np.testing.assert_allclose(
        embed(encoder, cube()), embed(encoder, cube(), batch_values=500), rtol=1e-4, atol=1e-5
    )


def test_windows_stand_side_by_side():
    encoder = encoder_for(cube())
    single, both = embed(encoder, cube()), embed(encoder, cube(), windows=(1, 3))
    assert both.shape == (9, 11, 32)
    np.testing.assert_array_equal(both[..., :16], single)
    np.testing.assert_allclose(both[4, 5, 16:], single[3:6, 4:7].mean((0, 1)), rtol=1e-4, atol=1e-5)


def test_footprint_bounds_what_a_feature_depends_on():
    encoder = encoder_for(cube(rows=21, cols=21), patch_size=3, windows=(1, 5))
    scene = cube(rows=21, cols=21)
    values = scene.values.copy()
    values[10, 10] = 9999
    # the averages are running sums: beyond the window only their rounding differs
    changed = np.abs(embed(encoder, replace(scene, values=values)) - embed(encoder, scene)) > 1e-5
    row, col = np.nonzero(changed.any(2))
    reach = (encoder.spec.footprint - 1) // 2
    assert reach == 3
    assert (row.min(), row.max(), col.min(), col.max()) == (7, 13, 7, 13)


def test_invalid_pixels_are_nan_and_do_not_spread():
    scene = cube()
    encoder = encoder_for(scene, windows=(1, 3))
    values = scene.values.astype(np.float32)
    values[2, 3] = np.nan
    holed = Cube(values, scene.wavelengths, source="holed")
    features, plain = embed(encoder, holed), embed(encoder, scene)
    assert np.isnan(features[2, 3]).all()
    assert np.isfinite(np.delete(features.reshape(99, -1), 2 * 11 + 3, axis=0)).all()
    np.testing.assert_allclose(features[6:, 6:], plain[6:, 6:], rtol=1e-4, atol=1e-5)


def test_stored_normalisation_is_used_on_the_same_sensor():
    encoder = encoder_for(cube(seed=0))
    brighter = replace(cube(seed=0), values=cube(seed=0).values + np.uint16(500))
    assert np.abs(embed(encoder, brighter) - embed(encoder, cube(seed=0))).max() > 0.05


def test_of_several_scenes_of_a_sensor_each_has_its_own_normalisation():
    first, second, unseen = cube(seed=0), cube(seed=1), cube(seed=2)
    spec = encoder_for(first).spec
    spec = replace(spec, sensors=tuple(Sensor.of(prepare(scene)) for scene in (first, second)))
    assert [fit_cube(spec, scene)[1].source for scene in (first, second, unseen)] == [
        "cube0",
        "cube1",
        "cube0",
    ]


def test_unsorted_files_and_dropped_bands_are_matched_by_file_number():
    """The raw cube, its prepared form and a shuffled selection give the same features."""
    scene = cube()
    values = scene.values.copy()
    values[:, :, 4] = 7  # constant: dropped in training
    order = np.random.default_rng(0).permutation(12)
    raw = Cube(values[:, :, order], scene.wavelengths[order], source="raw")
    encoder = encoder_for(raw)
    assert len(encoder.spec.sensors[0].wavelengths) == 11
    expected = embed(encoder, raw)
    np.testing.assert_array_equal(embed(encoder, prepare(raw)), expected)
    np.testing.assert_array_equal(embed(encoder, raw.take_bands(np.arange(12)[::-1])), expected)


def test_another_sensor_is_prepared_by_itself_and_that_is_said(caplog):
    encoder = encoder_for(cube(12))
    with caplog.at_level(logging.WARNING, "hsssl"):
        features = embed(encoder, cube(17, seed=1))
    assert features.shape == (9, 11, 16)
    assert "another sensor than in training (17 bands; trained on 12 of 12 bands)" in caplog.text


def test_equal_band_counts_do_not_make_the_same_sensor(caplog):
    other = replace(cube(12, seed=1), wavelengths=np.linspace(400, 2400, 12))
    with caplog.at_level(logging.WARNING, "hsssl"):
        _, sensor = fit_cube(encoder_for(cube(12)).spec, other)
    assert sensor.wavelengths == tuple(other.wavelengths)
    assert "another sensor" in caplog.text


def test_bare_band_numbers_are_refused_on_another_count():
    encoder = encoder_for(cube(12, wavelengths=False))
    assert embed(encoder, cube(12, wavelengths=False, seed=1)).shape == (9, 11, 16)
    with pytest.raises(ValueError, match=r"has 17 of 17 bands.*bare band numbers.*--wavelengths"):
        embed(encoder, cube(17, wavelengths=False))


def test_missing_wavelengths_are_refused_where_the_encoder_needs_them():
    with pytest.raises(ValueError, match=r"has no wavelengths.*give --wavelengths"):
        embed(encoder_for(cube(12)), cube(12, wavelengths=False))


@pytest.mark.parametrize(
    ("change", "message"),
    [({"windows": (4,)}, "odd sides"), ({"windows": ()}, "odd sides")],
)
def test_wrong_windows_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        embed(encoder_for(cube()), cube(), **change)


def test_patch_larger_than_the_scene_and_bare_modules_are_refused():
    with pytest.raises(ValueError, match="larger than the scene of 2 x 11"):
        embed(encoder_for(cube(), patch_size=3), cube(rows=2))
    with pytest.raises(ValueError, match=r"has no \.spec"):
        embed(build_encoder("spectral_spatial"), cube())


def test_written_features_read_back(tmp_path):
    encoder = encoder_for(cube(), windows=(1, 3))
    assert embed(encoder, cube(), out=tmp_path / "features.tif") == tmp_path / "features.tif"
    np.testing.assert_array_equal(read(tmp_path / "features.tif").values, embed(encoder, cube()))
    with pytest.raises(FileExistsError, match="overwrite"):
        embed(encoder, cube(), out=tmp_path / "features.tif")


def test_class_map_separates_what_differs(tmp_path):
    rng = np.random.default_rng(0)
    truth = np.repeat([[3] * 6 + [7] * 6], 8, axis=0)
    values = (1000 + 400 * (truth == 7)[..., None] * np.linspace(-1, 1, 10)).astype(np.float32)
    scene = Cube(values + rng.normal(0, 20, (8, 12, 10)).astype(np.float32), np.linspace(420, 980, 10))
    scene.valid[0, 0] = False
    labels = np.zeros_like(truth)
    labels[2:4] = truth[2:4]
    classes = classify(encoder_for(scene), scene, labels)
    assert classes.dtype == np.uint8
    assert classes[0, 0] == 0
    assert (classes[1:] == truth[1:]).all()
    out = classify(encoder_for(scene), scene, labels, out=tmp_path / "map.tif")
    assert (read(out).values[:, :, 0] == classes).all()


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.ones((3, 3), dtype=int), r"scene's shape \(9, 11\), got \(3, 3\)"),
        (np.full((9, 11), 300), r"0 \.\.\. 255"),
        (np.ones((9, 11), dtype=int), "at least two classes"),
    ],
)
def test_wrong_labels_are_refused(labels, message):
    with pytest.raises(ValueError, match=message):
        classify(encoder_for(cube()), cube(), labels)


def test_unknown_classifier_is_refused_before_any_work():
    with pytest.raises(ValueError, match="did you mean svm"):
        classify(encoder_for(cube()), cube(), np.ones((9, 11), dtype=int), classifier="svn")


def two_scenes() -> tuple[Cube, Cube, torch.nn.Module]:
    """Return scenes of one sensor, the second brighter, and an encoder trained on both."""
    first = cube()
    second = replace(cube(seed=1), values=cube(seed=1).values + 3000)
    encoder = encoder_for(first)
    sensors = tuple(Sensor.of(prepare(scene)) for scene in (first, second))
    encoder.spec = replace(encoder.spec, sensors=sensors)
    return first, second, encoder


@pytest.mark.parametrize("source", ["cube0", "./cube1", "cube1"])
def test_a_training_scene_is_known_by_its_numbers_not_by_its_name(source: str) -> None:
    _, second, encoder = two_scenes()
    _, sensor = fit_cube(encoder.spec, replace(second, source=source))
    assert sensor == encoder.spec.sensors[1]


def test_another_scene_of_the_sensor_takes_the_first_statistics_and_says_so(caplog) -> None:
    encoder = two_scenes()[2]
    with caplog.at_level(logging.WARNING, "hsssl"):
        _, sensor = fit_cube(encoder.spec, replace(cube(seed=2), source="third"))
    assert sensor == encoder.spec.sensors[0]
    assert "third: not among the 2 training scenes of its sensor; the mean and std of cube0 are used" in (
        caplog.text
    )


@pytest.mark.parametrize("dtype", [np.int16, np.float32])
def test_a_band_that_a_scene_lacks_is_its_mean_of_training(dtype, caplog) -> None:
    scene = replace(cube(), values=cube().values.astype(dtype))
    encoder = encoder_for(scene)
    lacking, mean = scene.values.copy(), scene.values.copy()
    lacking[:, :, 5] = -9999
    mean[:, :, 5] = (
        np.asarray(encoder.spec.sensors[0].mean[5]).round()
        if dtype == np.int16
        else (encoder.spec.sensors[0].mean[5])
    )
    with caplog.at_level(logging.WARNING, "hsssl"):
        found = embed(encoder, Cube(lacking, wavelengths=scene.wavelengths, nodata=-9999, source=str(dtype)))
    np.testing.assert_array_equal(found, embed(encoder, replace(scene, values=mean)))
    assert "valid pixels lack some bands" in caplog.text
