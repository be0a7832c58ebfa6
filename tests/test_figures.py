"""Pictures decode, have the size they should, and show what went in."""

import io
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from hsssl.charts import confusion_matrix, score_bars, training_curves
from hsssl.comparison import compare
from hsssl.cube import Cube
from hsssl.figures import class_maps, class_name, false_colour, feature_colour, has_infrared, has_natural
from hsssl.maps import CLASS_COLORS

HOSTILE = ("<script>alert(1)</script>", "$\\frac{", "_hidden", "two\nlines", "草地", "x" * 200)


def pixels(png: bytes) -> NDArray[Any]:
    """Decode a PNG as (rows, cols, 3)."""
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


def small_cube(wavelengths: list[float] | None, rows: int = 20, cols: int = 30) -> Cube:
    bands = len(wavelengths) if wavelengths else 6
    values = np.random.default_rng(0).integers(0, 1000, (rows, cols, bands)).astype(np.float32)
    values[:3, :4] = np.nan
    return Cube(values, wavelengths=None if wavelengths is None else np.array(wavelengths))


def rows(methods: tuple[str, ...], seeds: int, split: str = "block") -> list[dict[str, Any]]:
    rng = np.random.default_rng(1)
    keys = ("oa", "aa", "kappa")
    return [
        dict.fromkeys(keys, rng.random())
        | {"method": m, "classifier": c, "split": split, "guard": 4, "seed": s}
        for m in methods for c in ("linear", "svm") for s in range(seeds)
    ]  # fmt: skip


def test_false_colour_takes_the_nearest_bands_and_stretches_valid_pixels() -> None:
    cube = small_cube([860.0, 470.0, 1600.0, 655.0, 548.0])
    shown = pixels(false_colour(cube))
    assert shown.shape == (400, 600, 3)
    np.testing.assert_array_equal(shown, shown[::20, ::20].repeat(20, 0).repeat(20, 1))
    small = shown[::20, ::20]
    assert (small[:3, :4] == 128).all()
    for channel, band in enumerate((3, 4, 1)):
        band_values = cube.values[:, :, band][cube.valid]
        low, high = np.percentile(band_values, (2, 98))
        want = np.round(255 * ((band_values - low) / (high - low)).clip(0, 1))
        np.testing.assert_allclose(small[:, :, channel][cube.valid], want, atol=1)
    assert (pixels(false_colour(cube, infrared=True))[::20, ::20, 1] == small[:, :, 0]).all()


@pytest.mark.parametrize("wavelengths", [None, [1000.0, 1200.0, 1300.0, 1500.0, 1600.0, 2000.0]])
def test_false_colour_without_visible_bands_shows_thirds(wavelengths: list[float] | None) -> None:
    cube = small_cube(wavelengths)
    assert not has_natural(cube)
    assert not has_infrared(cube)
    by_hand = Cube(cube.values[:, :, [5, 3, 1]], wavelengths=np.array([660.0, 550.0, 470.0]))
    assert false_colour(cube) == false_colour(by_hand)


def test_large_scenes_are_thinned_and_one_value_is_grey() -> None:
    cube = Cube(np.ones((2500, 10, 3), np.uint8))
    shown = pixels(false_colour(cube))
    assert shown.shape == (834, 4, 3)
    assert (shown == 128).all()


@pytest.mark.parametrize("dim", [1, 2, 5])
def test_feature_colour_shows_components_whatever_the_sign(dim: int) -> None:
    features = np.random.default_rng(2).normal(size=(12, 12, dim)).astype(np.float32)
    features[0, 0] = np.nan
    png = feature_colour(features)
    shown = pixels(png)[::50, ::50]
    assert pixels(png).shape == (600, 600, 3)
    assert (shown[0, 0] == 128).all()
    # Unused components are one grey; those in use span the range.
    spans = np.ptp(shown[1:].reshape(-1, 3), axis=0)
    assert (spans[: min(dim, 3)] == 255).all()
    assert (spans[dim:] == 0).all()


def test_feature_colour_of_nothing_valid_is_grey() -> None:
    assert (pixels(feature_colour(np.full((4, 4, 3), np.nan))) == 128).all()


def test_class_maps_are_pixel_exact_in_one_palette() -> None:
    truth = np.random.default_rng(3).integers(0, 7, (15, 10))
    predicted = truth.copy()
    predicted[4:9] = 30
    shown = pixels(class_maps(predicted, truth, class_names=HOSTILE))
    assert shown.shape[1] >= 2 * 400 + 3 * 16
    maps = shown[16 + 26 :][:600]
    for left, classes in ((16, predicted), (16 + 400 + 16, truth)):
        want = CLASS_COLORS[np.where(classes == 30, 6, classes)]
        np.testing.assert_array_equal(maps[20::40, left + 20 : left + 400 : 40], want)
    legend = shown[16 + 26 + 600 :]
    for number in np.unique(truth):
        assert (legend == CLASS_COLORS[number]).all(axis=2).sum() >= 16 * 16


def test_class_map_alone_is_narrower() -> None:
    classes = np.ones((8, 8), np.uint8)
    assert pixels(class_maps(classes)).shape[1] < pixels(class_maps(classes, classes)).shape[1]


@pytest.mark.parametrize("classes", [1, 6, 26])
def test_confusion_matrix(classes: int) -> None:
    counts = np.eye(classes, dtype=np.int64) * 90 + 1
    counts[0] = 0
    shown = pixels(confusion_matrix(counts, HOSTILE))
    assert len(np.unique(shown.reshape(-1, 3), axis=0)) > 5
    assert shown.shape[0] > (40 if classes <= 24 else 8) * classes


def test_training_curves_have_a_panel_for_what_was_logged() -> None:
    metrics: list[dict[str, Any]] = [
        {"step": step, "loss": 1 / (step + 1), "feature_std": 0.5, "effective_rank": None}
        for step in range(5)
    ]
    shown = pixels(training_curves(metrics))
    assert shown.shape == (400, 960, 3)
    assert len(np.unique(shown.reshape(-1, 3), axis=0)) > 5
    assert pixels(training_curves([{"step": 1, "loss": float("nan")}])).shape == (400, 480, 3)
    with pytest.raises(ValueError, match="no logged step"):
        training_curves([{"step": 1, "lr": 0.1}])


@pytest.mark.parametrize(("protocols", "seeds"), [(1, 1), (3, 3)])
def test_score_bars(protocols: int, seeds: int) -> None:
    found = [
        row
        for number in range(protocols)
        for row in rows(("encoder", *HOSTILE[1:5]), seeds, f"split{number}")
    ]
    shown = pixels(score_bars(compare(found)))
    assert shown.shape[1] == 710 * min(2, protocols)
    assert len(np.unique(shown.reshape(-1, 3), axis=0)) > 20


def test_pictures_are_the_same_each_time() -> None:
    counts = np.arange(9).reshape(3, 3)
    assert confusion_matrix(counts) == confusion_matrix(counts)


def test_class_name_is_one_short_line() -> None:
    assert class_name(4, HOSTILE) == "two lines"
    assert class_name(7, HOSTILE) == "class 7"
    assert len(class_name(6, HOSTILE)) == 30
