"""Quick-looks: small pictures of maps of any size, beside the map, of what was written to it."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from hsssl import figures, stream
from hsssl.classify import classify
from hsssl.cluster import cluster
from hsssl.embed import embed
from hsssl.figures import feature_colour
from hsssl.maps import CLASS_COLORS
from hsssl.quicklook import Thinned, class_quicklook, feature_quicklook, quicklook_path
from hsssl.readers import read
from hsssl.stream import cut_tiles
from test_streamed_maps import COLS, ROWS, encoder, labels, scene  # noqa: F401  # fixtures

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")


def pixels(path):
    return np.asarray(Image.open(io.BytesIO(path.read_bytes())).convert("RGB"))


@pytest.fixture(autouse=True)
def _tiny_tiles(monkeypatch):
    monkeypatch.setattr(stream, "BLOCK", 16)
    monkeypatch.setattr(stream, "TILE_BYTES", 1)


@settings(max_examples=60, deadline=None)
@given(rows=st.integers(1, 200), cols=st.integers(1, 200), side=st.integers(5, 60), seed=st.integers(0, 9))
def test_every_nth_pixel_is_kept_whatever_the_order_of_the_tiles(rows, cols, side, seed):
    image = np.arange(rows * cols * 2, dtype=np.float32).reshape(rows, cols, 2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(figures, "_SIDE", side)
        thinned = Thinned.of(rows, cols, 2)
        tiles = cut_tiles(rows, cols, pixel_bytes=1)
        for number in np.random.default_rng(seed).permutation(len(tiles)):
            tile = tiles[number]
            thinned.put(tile, image[tile.rows, tile.cols])
    np.testing.assert_array_equal(thinned.image, image[:: thinned.step, :: thinned.step])
    assert max(thinned.image.shape[:2]) <= 2 * side


def test_features_are_shown_by_their_components(scene, encoder, tmp_path):  # noqa: F811
    out = tmp_path / "features.tif"
    embed(encoder, scene, out=out, quicklook=True)
    shown = pixels(tmp_path / "features.png")
    assert shown.shape == (ROWS * (600 // COLS), COLS * (600 // COLS), 3)
    small = shown[:: 600 // COLS, :: 600 // COLS]
    assert (small[~scene.valid] == 128).all()
    # 18 features in 12 mixtures: the two halves of the scene, which differ most, in other colours
    left, right = small[:, : COLS // 2 - 3].reshape(-1, 3), small[:, COLS // 2 + 3 :].reshape(-1, 3)
    apart = np.abs(np.median(left, axis=0) - np.median(right, axis=0)).max()
    assert apart > 100


def test_few_features_are_shown_as_they_are(tmp_path):
    image = np.random.default_rng(0).normal(size=(20, 30, 12)).astype(np.float32)
    with feature_quicklook(tmp_path / "f.tif", 20, 30, 12) as watch:
        write = watch(lambda tile, block: None)
        for tile in cut_tiles(20, 30, pixel_bytes=1):
            write(tile, image[tile.rows, tile.cols])
    assert (tmp_path / "f.png").read_bytes() == feature_colour(image)


def test_mixtures_keep_the_leading_components(tmp_path):
    """Of 300 features of rank three and little noise, the colours are those of all 300."""
    rng = np.random.default_rng(1)
    image = rng.normal(size=(40, 40, 3)) * [9, 5, 3] @ rng.normal(size=(3, 300)) + rng.normal(
        size=(40, 40, 300)
    )
    with feature_quicklook(tmp_path / "f.tif", 40, 40, 300) as watch:
        write = watch(lambda tile, block: None)
        for tile in cut_tiles(40, 40, pixel_bytes=1):
            write(tile, image[tile.rows, tile.cols].astype(np.float32))
    (tmp_path / "whole.png").write_bytes(feature_colour(image))
    ours, whole = (pixels(tmp_path / name).reshape(-1, 3).astype(float) for name in ("f.png", "whole.png"))
    match = np.abs(np.corrcoef(ours.T, whole.T)[:3, 3:])
    # components may come in another order and sign, and turn where they are nearly as large as each other
    assert match.max(axis=1).min() > 0.8


def test_classes_and_clusters_have_their_palette(scene, encoder, labels, tmp_path):  # noqa: F811
    out = classify(
        encoder,
        scene,
        labels,
        classifier="linear",
        out=tmp_path / "map.hdr",
        quicklook=True,
        class_names=("a", "b"),
    )
    classes = read(out).values[:, :, 0]
    shown = {tuple(colour) for colour in pixels(tmp_path / "map.png").reshape(-1, 3).tolist()}
    assert {tuple(CLASS_COLORS[number]) for number in np.unique(classes)} <= shown
    out = cluster(scene, clusters=2, method="kmeans", out=tmp_path / "clusters.tif", quicklook=True)
    found = read(out).values[:, :, 0]
    np.testing.assert_array_equal(found, cluster(scene, clusters=2, method="kmeans"))
    shown = {tuple(colour) for colour in pixels(tmp_path / "clusters.png").reshape(-1, 3).tolist()}
    assert {tuple(CLASS_COLORS[number]) for number in np.unique(found)} <= shown


def test_a_quicklook_is_refused_before_any_work(scene, encoder, labels, tmp_path):  # noqa: F811
    (tmp_path / "map.png").touch()
    for work in (
        lambda **more: embed(encoder, scene, quicklook=True, **more),
        lambda **more: classify(encoder, scene, labels, quicklook=True, **more),
        lambda **more: cluster(scene, clusters=2, quicklook=True, **more),
    ):
        with pytest.raises(FileExistsError, match=r"map\.png: exists; pass --overwrite"):
            work(out=tmp_path / "map.tif")
        with pytest.raises(ValueError, match="beside the file of a map; give out"):
            work()
    assert [file.name for file in tmp_path.iterdir()] == ["map.png"]
    embed(encoder, scene, quicklook=True, out=tmp_path / "map.tif", overwrite=True)
    assert pixels(tmp_path / "map.png").size


def test_what_fails_leaves_no_picture_and_none_is_drawn_unasked(tmp_path):
    with pytest.raises(RuntimeError), class_quicklook(tmp_path / "map.tif", 4, 4):
        raise RuntimeError("the map fell over")
    with class_quicklook(None, 4, 4) as watch:
        assert watch(print) is print
    assert not list(tmp_path.iterdir())
    assert quicklook_path("a/map.img").as_posix() == "a/map.png"
