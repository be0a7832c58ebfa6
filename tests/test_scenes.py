import sys

import numpy as np
import pytest
import rasterio

from hsssl.published import PUBLISHED
from hsssl.readers import read
from hsssl.scenes import SCENES, load_scene, open_cube, open_labels
from make_fixtures import make_fixtures, small_values, write_envi, write_mat, write_tif

# Pixels of each class of Indian Pines, as its ground truth is published (10,249 in all),
# http://www.ehu.eus/ccwintco/index.php/Hyperspectral_Remote_Sensing_Scenes, 2026-01.
INDIAN_PINES_COUNTS = [46, 1428, 830, 237, 483, 730, 28, 478, 20, 972, 2455, 593, 205, 1265, 386, 93]


def test_indian_pines(indian_pines):
    cube = indian_pines.cube
    assert cube.values.shape == (145, 145, 200)
    assert cube.values.dtype == np.uint16
    assert (cube.wavelengths[0], cube.wavelengths[-1]) == (400.02, 2498.96)
    assert (np.diff(cube.wavelengths) < 0).sum() == 3
    assert np.bincount(indian_pines.labels.ravel())[1:].tolist() == INDIAN_PINES_COUNTS
    assert indian_pines.class_names[0] == "Alfalfa"
    assert len(indian_pines.class_names) == 16


def test_indian_pines_equals_its_mat_file(indian_pines, data_dir):
    folder = data_dir / "indian_pines"
    np.testing.assert_array_equal(
        indian_pines.cube.values, read(folder / "Indian_pines_corrected.mat").values
    )
    np.testing.assert_array_equal(indian_pines.labels, open_labels(folder / "Indian_pines_gt.mat"))


def test_a_scene_opens_by_name_with_other_wavelengths(indian_pines):
    cube = open_cube("indian_pines", wavelengths="400:2500")
    assert (cube.wavelengths[0], cube.wavelengths[-1]) == (400, 2500)
    np.testing.assert_array_equal(cube.values, indian_pines.cube.values)
    np.testing.assert_array_equal(open_labels("indian_pines"), indian_pines.labels)


def test_without_tensorly_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorly", None)
    monkeypatch.setitem(sys.modules, "tensorly.datasets", None)
    with pytest.raises(ValueError, match=r'pip install "hsssl\[demo\]"'):
        load_scene("indian_pines")


def test_an_unknown_name_offers_the_nearest(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"did you mean indian_pines.*\?; there is no file of that name"):
        open_cube("indian_pine")
    with pytest.raises(ValueError, match="unknown scene 'salinass'; did you mean salinas"):
        load_scene("salinass")
    for absent in ("absent.mat", "folder/absent"):
        with pytest.raises(FileNotFoundError, match="no such file"):
            open_cube(absent)
        with pytest.raises(FileNotFoundError, match="no such file"):
            open_labels(absent)
    assert list(SCENES) == ["indian_pines", *PUBLISHED]


def test_open_cube_opens_files_and_takes_options(tmp_path):
    files = make_fixtures(tmp_path)
    np.testing.assert_array_equal(open_cube(files["tif"]).values, small_values())
    two = write_mat(tmp_path / "two.mat", a=small_values(), b=small_values(seed=1))
    cube = open_cube(str(two), variable="b", wavelengths=np.array([400.0, 500, 600, 700]))
    np.testing.assert_array_equal(cube.values, small_values(seed=1))
    assert cube.wavelengths.tolist() == [400, 500, 600, 700]


@pytest.fixture
def label_map():
    return np.random.default_rng(0).integers(0, 4, (6, 5)).astype(np.uint8)


def test_labels_come_from_every_format(tmp_path, label_map):
    np.save(tmp_path / "l.npy", label_map.astype(np.int32))
    paths = [
        tmp_path / "l.npy",
        write_mat(tmp_path / "l.mat", n=np.array([[3.0]]), names=np.ones((1, 9)), gt=label_map.astype(float)),
        write_tif(tmp_path / "l.tif", label_map[:, :, None]),
        write_tif(tmp_path / "l.png", label_map[:, :, None], driver="PNG", georeference=False),
        write_envi(
            tmp_path, label_map[:, :, None], name="classes", header={"file type": "ENVI Classification"}
        ),
        tmp_path / "classes.img",
    ]
    for path in paths:
        labels = open_labels(path)
        assert labels.dtype == np.int64
        np.testing.assert_array_equal(labels, label_map)


def test_nodata_of_a_label_raster_is_unlabelled(tmp_path, label_map):
    signed = np.where(label_map == 0, -9999, label_map.astype(np.float32))
    labels = open_labels(write_tif(tmp_path / "l.tif", signed[:, :, None], nodata=-9999))
    np.testing.assert_array_equal(labels, label_map)


def test_masked_pixels_of_a_label_raster_are_unlabelled(tmp_path, label_map):
    mask = np.arange(5) < 3
    path = write_tif(tmp_path / "l.tif", label_map[:, :, None])
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "r+") as raster:
        raster.write_mask(np.broadcast_to(mask, label_map.shape))
    np.testing.assert_array_equal(open_labels(path), np.where(mask, label_map, 0))


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.array([[0, -1]]), "must be at least 0"),
        (np.array([[0, 0.5]]), "fractions or NaN"),
        (np.array([[0, np.nan]]), "fractions or NaN"),
        (np.array([0, 1]), r"shape \(rows, cols\)"),
        (np.zeros((0, 3)), r"shape \(rows, cols\)"),
        (np.array([["a"]]), "must be integers"),
        (np.array([[None]], dtype=object), r"not a \.npy file of plain numbers"),
    ],
)
def test_what_is_no_label_map_is_refused(tmp_path, array, message):
    path = tmp_path / "l.npy"
    np.save(path, array, allow_pickle=True)
    with pytest.raises(ValueError, match=message) as error:
        open_labels(path)
    assert str(path) in str(error.value)


def test_labels_need_one_clear_map(tmp_path, label_map):
    two = write_mat(tmp_path / "two.mat", a=label_map, b=label_map + 1)
    with pytest.raises(ValueError, match=r"several variables have two dimensions: a 6 x 5 uint8.*--variable"):
        open_labels(two)
    np.testing.assert_array_equal(open_labels(two, variable="b"), label_map + 1)
    with pytest.raises(ValueError, match="this image has 3; write class numbers, not colours"):
        open_labels(
            write_tif(tmp_path / "rgb.png", small_values("u1", bands=3), driver="PNG", georeference=False)
        )
    with pytest.raises(ValueError, match="leave --variable out"):
        open_labels(write_tif(tmp_path / "l.tif", label_map[:, :, None]), variable="a")


def test_real_label_maps(data_dir):
    assert (open_labels(data_dir / "salinas_a" / "SalinasA_gt.mat") > 0).sum() == 5348
    assert (open_labels(data_dir / "indian_pines" / "split_train_695.tif") > 0).sum() == 695
    assert open_labels(data_dir / "abu" / "abu-beach-4.mat").max() == 1
    tiles = (data_dir / "enmap_potsdam" / "labels").glob("*.tif")
    assert sum(int((open_labels(tile) > 0).sum()) for tile in tiles) == 5672
