import os

import numpy as np
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.errors import NotGeoreferencedWarning

from hsssl.cube import Cube
from hsssl.geotiff_writer import make_cog, open_raster
from hsssl.maps import CLASS_COLORS, write_class_map, write_features, write_raster
from hsssl.readers import read
from make_fixtures import small_values, write_tif
from strategies import arrays


@pytest.fixture
def cube(tmp_path):
    values = small_values("f4", rows=300, cols=270, bands=2)
    values[0, 0] = -1
    return read(write_tif(tmp_path / "cube.tif", values, nodata=-1))


def test_a_class_map_has_palette_names_and_place(tmp_path, cube):
    classes = np.random.default_rng(0).integers(0, 30, (300, 270))
    path = tmp_path / "map.tif"
    write_class_map(path, classes, cube, class_names=("Corn", "Woods & <trees>"))
    with rasterio.open(path) as raster:
        np.testing.assert_array_equal(raster.read(1), classes)
        assert (raster.dtypes, raster.nodata) == (("uint8",), 0)
        assert raster.crs.to_epsg() == 32633
        assert tuple(raster.transform)[:6] == cube.transform
        palette = raster.colormap(1)
        assert [palette[k][:3] for k in range(25)] == [tuple(colour) for colour in CLASS_COLORS.tolist()]
        # A palette in use for twice as many classes starts again at the first colour, never at 'none'.
        assert palette[25] == palette[1]
        assert raster.tags(1)["CLASS_NAMES"].split("\n") == ["Corn", "Woods & <trees>"]
        assert raster.profile["tiled"]
        assert raster.profile["compress"] == "deflate"
    assert "<Category>unlabelled</Category><Category>Corn</Category><Category>Woods &amp;" in (
        tmp_path / "map.tif.aux.xml"
    ).read_text(encoding="utf-8")
    assert {file.name for file in tmp_path.iterdir()} == {"cube.tif", "map.tif", "map.tif.aux.xml"}


def test_class_colours_are_distinct_and_fixed():
    assert CLASS_COLORS.shape == (25, 3)
    assert CLASS_COLORS.dtype == np.uint8
    assert CLASS_COLORS[0].tolist() == [0, 0, 0]
    distance = np.abs(CLASS_COLORS[:, None].astype(int) - CLASS_COLORS[None]).sum(axis=2)
    assert distance[~np.eye(25, dtype=bool)].min() > 60
    with pytest.raises(ValueError, match="read-only"):
        CLASS_COLORS[0] = 1


def test_features_are_float32_with_nan_where_not_measured(tmp_path, cube):
    features = np.random.default_rng(0).normal(size=(300, 270, 3))
    path = tmp_path / "features.tif"
    write_features(path, features, cube)
    with rasterio.open(path) as raster:
        back = np.moveaxis(raster.read(), 0, 2)
        assert raster.dtypes == ("float32",) * 3
        assert np.isnan(raster.nodata)
        assert raster.descriptions == ("feature 0", "feature 1", "feature 2")
        assert raster.tags(ns="IMAGE_STRUCTURE")["PREDICTOR"] == "3"
    assert np.isnan(back[0, 0]).all()
    np.testing.assert_array_equal(back[cube.valid], features[cube.valid].astype(np.float32))


@settings(max_examples=40, deadline=None)
@given(values=arrays(dtypes=("u1", "i2", "u2", "i4", "u4", "f4", "f8")), flat=st.booleans())
def test_read_after_write_is_the_identity(tmp_path_factory, values, flat):
    path = tmp_path_factory.mktemp("maps") / "map.tif"
    like = Cube(values)
    written = values[:, :, 0] if flat else values
    write_raster(path, written, like, nodata=None)
    back = read(path)
    np.testing.assert_array_equal(back.values[:, :, 0] if flat else back.values, written)
    assert back.values.dtype == values.dtype
    assert back.crs is None


def test_descriptions_and_nodata_are_written(tmp_path, cube):
    path = tmp_path / "abundances.tif"
    array = np.random.default_rng(0).random((300, 270, 2)).astype(np.float32)
    write_raster(path, array, cube, nodata=np.nan, descriptions=["soil", "tree"])
    assert read(path).band_names == ("soil", "tree")
    with pytest.raises(ValueError, match="1 descriptions for 2 bands"):
        write_raster(path, array, cube, nodata=None, descriptions=["soil"], overwrite=True)


def test_an_existing_map_stays_without_overwrite(tmp_path, cube):
    path = tmp_path / "map.tif"
    classes = np.ones((300, 270), dtype=np.uint8)
    write_class_map(path, classes, cube, class_names=("Corn",))
    before = path.read_bytes()
    for write in (
        lambda: write_class_map(path, classes, cube),
        lambda: write_features(path, classes.astype(float), cube),
        lambda: write_raster(path, classes, cube, nodata=None),
    ):
        with pytest.raises(FileExistsError, match=r"map\.tif: exists; pass --overwrite"):
            write()
    assert path.read_bytes() == before
    write_class_map(path, classes * 2, cube, overwrite=True)
    assert open_first(path)[0, 0] == 2
    # The names beside the old map do not describe the new one.
    assert not (tmp_path / "map.tif.aux.xml").exists()


def test_a_cog_holds_the_same_and_has_overviews(tmp_path):
    like = Cube(np.zeros((600, 700, 1), dtype=np.uint8), transform=(30, 0, 366015, 0, -30, 5809965))
    classes = np.random.default_rng(0).integers(0, 4, (600, 700)).astype(np.uint8)
    features = np.where(classes[:, :, None] > 0, classes[:, :, None] * [1.5, -2.0], np.nan)
    write_class_map(tmp_path / "map.tif", classes, like, class_names=("Corn", "Woods", "Water"))
    write_raster(
        tmp_path / "features.tif", features.astype(np.float32), like, nodata=np.nan, descriptions=["a", "b"]
    )
    before = {file.name for file in tmp_path.iterdir()}
    make_cog(tmp_path / "map.tif", resampling="nearest")
    make_cog(tmp_path / "features.tif")
    assert {file.name for file in tmp_path.iterdir()} == before
    with rasterio.open(tmp_path / "map.tif") as raster:
        np.testing.assert_array_equal(raster.read(1), classes)
        assert raster.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert raster.overviews(1) == [2, 4]
        assert set(np.unique(raster.read(1, out_shape=(300, 350)))) <= {0, 1, 2, 3}
        assert raster.colormap(1)[2][:3] == tuple(CLASS_COLORS[2].tolist())
        assert raster.tags(1)["CLASS_NAMES"] == "Corn\nWoods\nWater"
        assert tuple(raster.transform)[:6] == like.transform
    written = read(tmp_path / "features.tif")
    np.testing.assert_array_equal(written.values, features.astype(np.float32))
    assert written.band_names == ("a", "b")
    np.testing.assert_array_equal(written.valid, classes > 0)


def test_a_cog_without_a_place_warns_no_one(tmp_path):
    write_raster(tmp_path / "f.tif", np.ones((3, 4), dtype=np.float32), Cube(np.ones((3, 4, 1))), nodata=None)
    make_cog(tmp_path / "f.tif")
    assert [file.name for file in tmp_path.iterdir()] == ["f.tif"]


def open_first(path):
    with rasterio.open(path) as raster:
        return raster.read(1)


def test_a_write_that_fails_leaves_nothing_behind(tmp_path, cube):
    path = tmp_path / "map.tif"

    def fail() -> None:
        with open_raster(path, cube, count=1, dtype="float32", nodata=None) as raster:
            raster.write(np.ones((300, 270), dtype=np.float32), 1)
            raise RuntimeError("the encoder fell over")

    with pytest.raises(RuntimeError, match="fell over"):
        fail()
    assert [file.name for file in tmp_path.iterdir()] == ["cube.tif"]


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (np.zeros((3, 3), dtype=int), r"want an array \(300, 270\)"),
        (np.zeros((300, 270)), "integers 0 to 255"),
        (np.full((300, 270), 256), "from 256 to 256"),
        (np.full((300, 270), -1), "from -1 to -1"),
        (np.zeros((300, 270, 2), dtype=int), "integers 0 to 255"),
    ],
)
def test_what_is_no_class_map_is_refused(tmp_path, cube, classes, message):
    with pytest.raises(ValueError, match=message):
        write_class_map(tmp_path / "map.tif", classes, cube)
    assert not os.path.lexists(tmp_path / "map.tif")


def test_a_map_without_georeference_warns_no_one(tmp_path):
    path = tmp_path / "map.tif"
    write_class_map(path, np.ones((2, 3), dtype=np.uint8), Cube(np.ones((2, 3, 1))))
    with pytest.warns(NotGeoreferencedWarning), rasterio.open(path) as raster:
        assert raster.crs is None
