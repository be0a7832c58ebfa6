"""Features and class maps of scenes in files: those of the scene in memory, a tile at a time."""

import hashlib
import importlib
import weakref

import numpy as np
import pytest
import rasterio
import torch
from numpy.lib.stride_tricks import sliding_window_view

from hsssl import stream
from hsssl.classify import classify
from hsssl.cube import Cube
from hsssl.embed import embed
from hsssl.encoders import build_encoder
from hsssl.info import describe
from hsssl.lazy import LazyValues
from hsssl.maps import CLASS_COLORS
from hsssl.prepare import prepare
from hsssl.readers import read
from hsssl.run import describe_inputs
from hsssl.spec import EncoderSpec, Sensor
from make_fixtures import UTM33

ROWS, COLS, BANDS, SIDE = 37, 43, 8, 16


@pytest.fixture(autouse=True)
def _tiny_tiles(monkeypatch):
    """Make the scene three by three tiles, the last ones smaller."""
    monkeypatch.setattr(stream, "BLOCK", SIDE)
    monkeypatch.setattr(stream, "TILE_BYTES", 1)


@pytest.fixture
def scene() -> Cube:
    """Two classes with a border down the middle, void pixels at borders of tiles and of the image."""
    rng = np.random.default_rng(0)
    values = rng.normal(1000, 50, (ROWS, COLS, BANDS)).astype(np.float32)
    values[:, COLS // 2 :] += 200 * np.linspace(-1, 1, BANDS, dtype=np.float32)
    for row, col in ((0, 0), (15, 16), (16, 15), (31, 20), (36, 42), (20, 32)):
        values[row, col] = -9999
    values[33, 5, 2] = np.nan
    affine = (30.0, 0.0, 366015.0, 0.0, -30.0, 5809965.0)
    wkt = rasterio.crs.CRS.from_string(UTM33).to_wkt()
    return Cube(values, np.linspace(420, 980, BANDS), nodata=-9999.0, crs=wkt, transform=affine)


@pytest.fixture
def encoder(scene):
    torch.manual_seed(0)
    options = {"patch_size": 5, "dim": 6, "hidden": 8, "channels": 16}
    module = build_encoder("spectral_spatial", **options)
    module.spec = EncoderSpec("spectral_spatial", options, 6, 5, (1, 3, 7), (Sensor.of(prepare(scene)),))
    return module.eval()


@pytest.fixture
def labels():
    found = np.zeros((ROWS, COLS), dtype=np.int64)
    found[3::6, 2::5], found[3::6, COLS // 2 + 2 :: 5] = 2, 5
    return found


class InFile:
    """A scene as if it were in a file, and what was read of it."""

    def __init__(self, scene: Cube) -> None:
        self.windows: list[tuple[int, int]] = []
        self.alive = self.most = 0
        values = scene.values

        def read_window(rows, cols, bands):
            self.windows.append((rows.stop - rows.start, cols.stop - cols.start))
            part = values[rows, cols][:, :, bands]
            self.alive += 1
            self.most = max(self.most, self.alive)
            weakref.finalize(part, self.freed)
            return part

        late = LazyValues(read_window, ROWS, COLS, values.dtype, np.arange(BANDS))
        self.cube = Cube(
            late, scene.wavelengths, nodata=scene.nodata, crs=scene.crs, transform=scene.transform
        )
        self.windows.clear()
        self.alive = self.most = 0

    def freed(self) -> None:
        self.alive -= 1


def mirrored(image: np.ndarray, side: int) -> np.ndarray:
    """Return the square around every pixel, (rows, cols, ..., side, side), mirrored at the borders."""
    reach = ((side // 2,) * 2,) * 2 + ((0, 0),) * (image.ndim - 2)
    return sliding_window_view(np.pad(image, reach, mode="reflect"), (side, side), axis=(0, 1))


def by_definition(encoder, scene: Cube) -> np.ndarray:
    """Embed all patches in one batch, and average each window by a sum of its own."""
    sensor, spec = encoder.spec.sensors[0], encoder.spec
    x = np.where(scene.valid[:, :, None], (scene.values - np.array(sensor.mean)) / np.array(sensor.std), 0)
    patches = mirrored(x, spec.patch_size).reshape(-1, BANDS, spec.patch_size, spec.patch_size)
    with torch.no_grad():
        single = encoder(torch.tensor(patches.astype(np.float32)), torch.tensor(sensor.wavelengths).float())
    image = np.where(scene.valid[:, :, None], single.double().numpy().reshape(ROWS, COLS, -1), 0)
    counts = [mirrored(scene.valid.astype(float), side).sum((2, 3))[:, :, None] for side in spec.windows]
    sums = [mirrored(image, side).sum((3, 4)) for side in spec.windows]
    means = [total / np.maximum(count, 1) for total, count in zip(sums, counts, strict=True)]
    return np.where(scene.valid[:, :, None], np.concatenate(means, axis=2), np.nan)


def test_tiles_make_the_features_of_the_whole_scene(scene, encoder):
    assert not scene.valid[33, 5]
    np.testing.assert_allclose(embed(encoder, scene), by_definition(encoder, scene), rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("name", ["features.tif", "features.hdr"])
def test_features_of_a_file_are_those_of_memory_to_the_last_bit(scene, encoder, tmp_path, name):
    expected, file = embed(encoder, scene), InFile(scene)
    assert embed(encoder, file.cube, out=tmp_path / name) == tmp_path / name
    written = read(tmp_path / name)
    np.testing.assert_array_equal(written.values, expected)
    np.testing.assert_array_equal(written.valid, scene.valid)
    assert (written.transform, written.crs, np.isnan(written.nodata)) == (scene.transform, scene.crs, True)
    assert written.band_names[:2] == ("feature 0", "feature 1")
    np.testing.assert_array_equal(embed(encoder, file.cube), expected)


def test_two_windows_of_a_file_are_in_memory_and_none_is_larger_than_a_tile(scene, encoder, tmp_path):
    file = InFile(scene)
    embed(encoder, file.cube, out=tmp_path / "features.tif")
    # The windows reach 3 pixels, a patch 2.
    assert max(max(window) for window in file.windows) == SIDE + 2 * 5
    assert len(file.windows) == 9
    assert file.most <= 2


def test_a_tile_of_one_row_still_holds_a_patch(scene, encoder, monkeypatch):
    cut = scene.window(slice(0, 33), slice(0, 33))
    tiled = embed(encoder, cut, windows=(1,))
    monkeypatch.setattr(stream, "TILE_BYTES", 2**28)
    np.testing.assert_allclose(tiled, embed(encoder, cut, windows=(1,)), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kept", [0, 4 * 18 * SIDE * SIDE, 2**29])
@pytest.mark.parametrize("name", ["map.tif", "map.hdr"])
def test_classes_of_a_file_are_those_of_memory(scene, encoder, labels, tmp_path, monkeypatch, kept, name):
    expected = classify(encoder, scene, labels, classifier="linear")
    assert set(np.unique(expected)) == {0, 2, 5}
    monkeypatch.setattr(importlib.import_module("hsssl.classify"), "_KEPT_BYTES", kept)
    file = InFile(scene)
    out = classify(encoder, file.cube, labels, classifier="linear", out=tmp_path / name)
    np.testing.assert_array_equal(read(out).values[:, :, 0], expected)
    # With all features kept, every tile is read once.
    assert len(file.windows) == {0: 18, 2**29: 9}.get(kept, 17)
    assert max(max(window) for window in file.windows) == SIDE + 2 * 5


def test_class_maps_as_envi_have_names_and_colours(scene, encoder, labels, tmp_path):
    out = tmp_path / "map.hdr"
    classify(encoder, scene, labels, classifier="linear", out=out, class_names=("soil, bare", "corn"))
    with rasterio.open(out.with_suffix(".img")) as raster:
        assert (raster.driver, raster.nodata, raster.crs.to_epsg()) == ("ENVI", 0, 32633)
        assert [raster.colormap(1)[k][:3] for k in range(6)] == [tuple(c) for c in CLASS_COLORS[:6].tolist()]
    text = out.read_text()
    assert "class names = {unlabelled, soil; bare, corn, class 3, class 4, class 5}" in text
    assert "file type = ENVI Classification" in text


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("map.png", ValueError, r"\.png is no ENVI image; end it in \.tif"),
        ("absent/map.tif", FileNotFoundError, "there is no folder"),
        ("folder.tif", IsADirectoryError, "is a folder"),
        ("old.hdr", FileExistsError, r"old\.img: exists; pass --overwrite"),
    ],
)
def test_names_that_cannot_be_are_refused_before_any_work(
    scene, encoder, labels, tmp_path, name, error, message
):
    (tmp_path / "folder.tif").mkdir()
    (tmp_path / "old.img").touch()
    file = InFile(scene)
    with pytest.raises(error, match=message):
        embed(encoder, file.cube, out=tmp_path / name)
    with pytest.raises(error, match=message):
        classify(encoder, file.cube, labels, out=tmp_path / name)
    assert file.windows == []


def test_inputs_are_hashed_and_scanned_by_strips(scene, monkeypatch):
    monkeypatch.setattr(importlib.import_module("hsssl.prepare"), "_TILE_VALUES", 5 * COLS * BANDS)
    file = InFile(scene)
    expected = hashlib.sha256(scene.values.tobytes()).hexdigest()
    assert [entry["values_sha256"] for entry in describe_inputs([scene, file.cube])] == [expected] * 2
    assert {key: describe(file.cube)[key] for key in ("statistics", "band_statistics", "suspicious")} == {
        key: describe(scene)[key] for key in ("statistics", "band_statistics", "suspicious")
    }
    assert set(file.windows) == {(5, COLS), (2, COLS)}
    assert file.most <= 2


class Falls(torch.nn.Module):
    """An encoder that fails at the fourth tile."""

    def __init__(self, encoder) -> None:
        super().__init__()
        self.encoder, self.spec, self.calls = encoder, encoder.spec, 0

    def forward(self, x, wavelengths):
        self.calls += 1
        if self.calls == 4:
            raise RuntimeError("the encoder fell over")
        return self.encoder(x, wavelengths)


@pytest.mark.parametrize("name", ["map.tif", "map.hdr"])
def test_what_fails_halfway_leaves_what_was_there(scene, encoder, labels, tmp_path, name):
    out = tmp_path / name
    for again in (False, True):
        before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
        with pytest.raises(RuntimeError, match="fell over"):
            embed(Falls(encoder), scene, out=out, overwrite=again)
        with pytest.raises(RuntimeError, match="fell over"):
            classify(Falls(encoder), scene, labels, out=out, overwrite=again)
        assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before
        if not again:
            embed(encoder, scene, out=out)
    with pytest.raises(FileExistsError, match="overwrite"):
        classify(encoder, scene, labels, out=out)
