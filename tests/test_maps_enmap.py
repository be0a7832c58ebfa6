"""Maps of georeferenced tiles lie where their tiles lie, by GDAL's coordinates."""

import numpy as np
import pytest
import rasterio
from rasterio.merge import merge

from hsssl.maps import write_class_map, write_features
from hsssl.readers import read
from hsssl.scenes import open_labels
from hsssl.write import write_cube

# rasterio's own merge multiplies transforms in the way that affine 3.1 will drop one day.
pytestmark = pytest.mark.filterwarnings("ignore:Use `@` matmul:PendingDeprecationWarning")


def tile(data_dir, name, kind="images"):
    return data_dir / "enmap_potsdam" / kind / f"enmap_potsdam_tile_{name}.tif"


@pytest.mark.parametrize("name", ["128_0", "192_160", "64_32"])
def test_a_map_lies_pixel_for_pixel_on_the_labels(data_dir, tmp_path, name):
    cube, labels = read(tile(data_dir, name)), open_labels(tile(data_dir, name, "labels"))
    path = tmp_path / "map.tif"
    write_class_map(path, labels, cube)
    rows, cols = np.nonzero(labels)
    with rasterio.open(path) as ours, rasterio.open(tile(data_dir, name, "labels")) as theirs:
        assert (ours.crs, ours.transform, ours.bounds) == (theirs.crs, theirs.transform, theirs.bounds)
        # By coordinates, and not by rows and columns: where the label raster says a class is, the map has it.
        ground = [theirs.xy(row, col) for row, col in zip(rows, cols, strict=True)]
        found = [value[0] for value in ours.sample(ground)]
        assert found == labels[rows, cols].tolist()
        assert len(found) > 100


@pytest.mark.parametrize("pair", [("128_0", "128_32"), ("96_0", "128_0"), ("96_96", "96_128")])
def test_adjacent_tiles_mosaic_without_a_seam(data_dir, tmp_path, pair):
    cubes = [read(tile(data_dir, name)) for name in pair]
    features = [cube.values[:, :, :2].astype(np.float32) for cube in cubes]
    for number, (cube, feature) in enumerate(zip(cubes, features, strict=True)):
        write_features(tmp_path / f"{number}.tif", feature, cube)
        write_cube(tmp_path / f"cube{number}.tif", cube)
    across = cubes[0].transform[5] == cubes[1].transform[5]
    # Neighbours share an edge to the millimetre.
    step = [cubes[1].transform[at] - cubes[0].transform[at] for at in (2, 5)]
    assert step == pytest.approx([32 * 30, 0] if across else [0, -32 * 30], abs=1e-3)
    for names, whole in (
        (["0.tif", "1.tif"], np.concatenate(features, axis=int(across))),
        (["cube0.tif", "cube1.tif"], np.concatenate([cube.values for cube in cubes], axis=int(across))),
    ):
        mosaic, transform = merge([tmp_path / name for name in names])
        np.testing.assert_array_equal(np.moveaxis(mosaic, 0, 2), whole)
        assert tuple(transform)[:6] == pytest.approx(cubes[0].transform)


def test_windows_of_a_tile_lie_where_they_are_cut(data_dir, tmp_path):
    cube = read(tile(data_dir, "128_0"))
    write_cube(tmp_path / "part.tif", cube.window(slice(5, 20), slice(7, 30)))
    with rasterio.open(tmp_path / "part.tif") as part, rasterio.open(tile(data_dir, "128_0")) as whole:
        ground = [part.xy(row, col) for row, col in ((0, 0), (14, 22), (3, 9))]
        np.testing.assert_array_equal(list(part.sample(ground)), list(whole.sample(ground)))
