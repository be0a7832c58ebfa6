"""Products of missions and the array formats, from fixtures that follow their specifications."""

import tracemalloc

import numpy as np
import pytest

from hsssl.lazy import LazyValues
from hsssl.prepare import prepare
from hsssl.readers import read, read_band_files
from hsssl.scenes import open_cube
from make_fixtures import (
    small_values,
    write_emit,
    write_enmap,
    write_neon,
    write_prisma,
    write_safe,
    write_single,
    write_zarr,
)

CENTRES = np.array([450.0, 550.0, 650.0, 850.0])


def one_line(error: pytest.ExceptionInfo[Exception]) -> str:
    message = str(error.value)
    assert "\n" not in message
    return message


def same_lazily(path, cube, **options):
    """Check that the cube left in its file has the same numbers, by windows and bands."""
    late = read(path, lazy=True, **options)
    assert isinstance(late.values, LazyValues)
    assert late.values.dtype == cube.values.dtype
    np.testing.assert_array_equal(late.values[1:3, 1:], cube.values[1:3, 1:])
    np.testing.assert_array_equal(late.values[:, :, [-1, 0]], cube.values[:, :, [-1, 0]])
    np.testing.assert_array_equal(late.valid, cube.valid)


def test_neon(tmp_path):
    values = small_values("i2")
    values[1, 2] = -9999
    path = write_neon(tmp_path / "tile.h5", values, CENTRES)
    cube = read(path)
    np.testing.assert_array_equal(cube.values, values)
    assert cube.wavelengths.tolist() == CENTRES.tolist()
    assert cube.fwhm.tolist() == [5.5] * 4
    assert cube.good_bands.tolist() == [True, True, False, True]
    assert (cube.nodata, cube.scale, cube.scale_source) == (-9999, 1e-4, "NEON Scale_Factor")
    assert np.flatnonzero(~cube.valid).tolist() == [7]
    assert "UTM zone 11N" in cube.crs
    assert cube.transform == (1, 0, 257000, 0, -1, 4112000)
    same_lazily(path, cube)


def test_prisma(tmp_path, caplog):
    vnir, swir = small_values("u2", bands=4), small_values("u2", bands=3, seed=1)
    vnir[0, 0], swir[0, 0] = 0, 0
    vnir[2, 2, 1] = 0
    # Falling wavelengths, bands that were not sent at 0, and both detectors at 940 to 1000 nm.
    listed = ([1000.0, 940.0, 500.0, 0.0], [2000.0, 1000.5, 0.0])
    path = write_prisma(tmp_path / "PRS_L2D.he5", vnir, swir, listed)
    cube = read(path)
    assert "left out 2 bands that were not sent" in caplog.text
    np.testing.assert_array_equal(cube.values, np.concatenate([vnir[:, :, :3], swir[:, :, :2]], axis=2))
    assert cube.wavelengths.tolist() == [1000, 940, 500, 2000, 1000.5]
    assert cube.fwhm.tolist() == [12] * 5
    assert cube.source_index.tolist() == [0, 1, 2, 4, 5]
    assert cube.source_bands == 7
    # DN 0 in one band is dark, in all bands it is outside the swath.
    assert np.flatnonzero(~cube.valid).tolist() == [0]
    np.testing.assert_allclose(cube.scale * 65535, [0.65535] * 3 + [0.65535] * 2, rtol=1e-6)
    np.testing.assert_allclose(cube.offset, [0, 0, 0, 0.1, 0.1], rtol=1e-6)
    assert cube.transform == (30, 0, 300000, 0, -30, 5000000)
    assert "UTM zone 33N" in cube.crs
    assert cube.band_names == ("VNIR 0", "VNIR 1", "VNIR 2", "SWIR 0", "SWIR 1")
    same_lazily(path, cube)
    assert prepare(cube).wavelengths.tolist() == [500, 940, 1000, 1000.5, 2000]


def test_emit(tmp_path, caplog):
    values = small_values("f4")
    values[3, 3] = -9999
    path = write_emit(tmp_path / "EMIT.nc", values, CENTRES, np.array([1, 1, 0, 1]))
    cube = read(path)
    np.testing.assert_array_equal(cube.values, values)
    assert cube.good_bands.tolist() == [True, True, False, True]
    assert cube.fwhm.tolist() == [8.5] * 4
    assert (cube.nodata, cube.crs, cube.transform) == (-9999, None, None)
    assert (~cube.valid).sum() == 1
    assert "not orthorectified" in caplog.text
    same_lazily(path, cube)


@pytest.mark.parametrize("nodata", [None, -32768])
def test_enmap(tmp_path, nodata):
    values = small_values("i2")
    values[0, 1] = -32768
    folder = write_enmap(tmp_path, values, CENTRES.tolist(), nodata=nodata)
    cube = read(folder)
    np.testing.assert_array_equal(cube.values, values)
    assert cube.wavelengths.tolist() == CENTRES.tolist()
    assert cube.fwhm.tolist() == [7, 8, 9, 10]
    assert (cube.nodata, cube.scale, cube.offset) == (-32768, 1e-4, 0)
    assert np.flatnonzero(~cube.valid).tolist() == [1]
    assert cube.transform == (30, 0, 366015, 0, -30, 5809965)
    same_lazily(folder, cube)
    metadata = next(folder.glob("*-METADATA.XML"))
    np.testing.assert_array_equal(read(metadata).values, values)
    text = metadata.read_text(encoding="utf-8")
    for damage, message in (
        (text.replace("<GainOfBand>1.0e-04", "<GainOfBand>0"), "must give"),
        (text[:-30], "not EnMAP metadata, or damaged ones"),
        (text.replace('number="4"', ""), "not EnMAP metadata"),
    ):
        metadata.write_text(damage, encoding="utf-8")
        with pytest.raises(ValueError, match=message) as error:
            read(folder)
        one_line(error)
    metadata.write_text(text, encoding="utf-8")
    next(folder.glob("*.TIF")).unlink()
    with pytest.raises(FileNotFoundError, match=r"SPECTRAL_IMAGE\.TIF beside it"):
        read(folder)


def test_sentinel_safe(tmp_path, caplog):
    sizes = {"B01": 60, "B04": 10, "B8A": 20, "B11": 20}
    pixels = {60: 2, 20: 6, 10: 12}
    bands = {
        name: small_values(rows=pixels[size], cols=pixels[size], bands=1, seed=size)[:, :, 0]
        for name, size in sizes.items()
    }
    folder = write_safe(tmp_path, bands, sizes)
    # The 20 m copy of a band that is there at 10 m.
    coarse = (
        folder / next(folder.glob("GRANULE/*")) / "IMG_DATA" / "R20m" / "T33UVU_20240101T000000_B04_20m.jp2"
    )
    write_single(coarse, bands["B8A"], 20, driver="JP2OpenJPEG")
    cube = read(folder)
    assert cube.values.shape == (12, 12, 4)
    assert cube.band_names == ("B1", "B4", "B8A", "B11")
    assert cube.wavelengths.tolist() == [442.2, 664.9, 864.0, 1610.4]  # of Sentinel-2B
    for place, name in enumerate(sizes):
        factor = sizes[name] // 10
        np.testing.assert_array_equal(
            cube.values[:, :, place], np.kron(bands[name], np.ones((factor, factor), dtype=np.uint16))
        )
    assert cube.transform == (10, 0, 300000, 0, -10, 5000000)
    assert "repeated the pixels of 3 coarser bands on the 10 grid" in caplog.text
    same_lazily(folder, cube)


def test_a_list_of_files_in_its_order(tmp_path):
    fine = small_values(rows=6, cols=4, bands=2)
    files = [
        write_single(tmp_path / "LC08_L2SP_193023_20220724_20220802_02_T1_SR_B5.TIF", fine[:, :, 0], 30),
        write_single(tmp_path / "LC08_L2SP_193023_20220724_20220802_02_T1_SR_B2.TIF", fine[:, :, 1], 30),
    ]
    cube = read(files)
    np.testing.assert_array_equal(cube.values, fine)
    assert cube.wavelengths.tolist() == [865, 480]
    assert cube.band_names == ("B5", "B2")
    assert open_cube(files, wavelengths=[500, 600]).wavelengths.tolist() == [500, 600]
    with pytest.raises(ValueError, match="2 files, and sensor 'emit' has 285 bands"):
        read(files, sensor="emit")
    with pytest.raises(FileNotFoundError, match="no such file"):
        read([*files, tmp_path / "absent.tif"])
    with pytest.raises(ValueError, match="no single-band rasters"):
        read_band_files([])


@pytest.mark.parametrize(
    ("size", "shape", "corner"), [(45, (4, 3), 0), (60, (2, 2), 0), (60, (3, 2), 15), (30, (6, 5), 0)]
)
def test_grids_that_do_not_fit_are_refused(tmp_path, size, shape, corner):
    import rasterio

    write_single(tmp_path / "a.tif", small_values(rows=6, cols=4)[:, :, 0], 30)
    path = write_single(tmp_path / "b.tif", np.ones(shape, dtype=np.uint8), size)
    with rasterio.open(path, "r+") as raster:
        raster.transform = rasterio.Affine(size, 0, 300000 + corner, 0, -size, 5000000)
    if (size, shape) == (30, (6, 5)):  # of the same pixels, a wider file is cut
        assert read(tmp_path).values.shape == (6, 4, 2)
        return
    with pytest.raises(ValueError, match=r"b\.tif .* does not lie in the grid of a\.tif") as error:
        read(tmp_path)
    one_line(error)


ZARR_DIMS = [("band", "y", "x"), ("y", "x", "band"), ("rows", "band", "cols")]


def zarr_store(folder, values, dims, version=2):
    order = [{"y": 0, "rows": 0, "x": 1, "cols": 1, "band": 2}[dim] for dim in dims]
    return write_zarr(folder, np.ascontiguousarray(values.transpose(order)), dims, version=version)


@pytest.mark.parametrize("dims", ZARR_DIMS)
def test_zarr(tmp_path, dims):
    values = small_values("i2")
    values[5, 4] = -1
    store = zarr_store(tmp_path / "scene.zarr", values, dims)
    cube = read(store)
    np.testing.assert_array_equal(cube.values, values)
    assert cube.wavelengths.tolist() == [450, 550, 650, 750]
    assert cube.nodata == -1
    assert np.flatnonzero(~cube.valid).tolist() == [29]
    same_lazily(store, cube)
    with pytest.raises(ValueError, match="no array 'other'; it holds cube"):
        read(store, variable="other")


@pytest.mark.parametrize("dims", ZARR_DIMS)
def test_zarr_3_is_read_by_a_gdal_that_can(tmp_path, dims):
    import rasterio

    values = small_values("i2")
    store = zarr_store(tmp_path / "scene.zarr", values, dims, version=3)
    if tuple(map(int, rasterio.__gdal_version__.split(".")[:2])) >= (3, 11):
        np.testing.assert_array_equal(read(store).values, values)
        return
    with pytest.raises(ValueError, match="write the store with zarr_format=2") as error:
        read(store)
    one_line(error)


def test_zarr_that_is_damaged_is_refused(tmp_path):
    store = write_zarr(tmp_path / "scene.zarr", small_values("i2"), ("y", "x", "band"))
    (store / "cube" / ".zarray").write_text('{"shape": "many"}')
    with pytest.raises(ValueError, match="no shape in it"):
        read(store)
    (store / "cube" / ".zarray").write_text("{")
    with pytest.raises(ValueError, match="not readable as JSON") as error:
        read(store)
    one_line(error)


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("leading", [False, True])
def test_npy(tmp_path, order, leading):
    values = small_values(">i2")
    path = tmp_path / "cube.npy"
    np.save(path, np.asarray(values[None] if leading else values, order=order))
    cube = read(path, wavelengths=CENTRES)
    np.testing.assert_array_equal(cube.values, values)
    assert cube.wavelengths.tolist() == CENTRES.tolist()
    same_lazily(path, cube)


def test_npz(tmp_path):
    values = small_values("f4")
    path = tmp_path / "cube.npz"
    np.savez_compressed(
        path, image=values[None], mask=np.ones((1, 6, 5)), wl_um=CENTRES / 1000, notes=np.array("x")
    )
    cube = read(path)
    np.testing.assert_array_equal(cube.values, values)
    assert cube.wavelengths.tolist() == CENTRES.tolist()
    np.savez(path, a=values, b=values + 1)
    with pytest.raises(
        ValueError, match=r"several arrays.*a 6 x 5 x 4, b 6 x 5 x 4; choose with --variable"
    ) as error:
        read(path)
    one_line(error)
    np.testing.assert_array_equal(read(path, variable="b").values, values + 1)
    with pytest.raises(ValueError, match="no array 'c'"):
        read(path, variable="c")
    with pytest.raises(ValueError, match=r"save the cube as \.npy"):
        read(path, variable="a", lazy=True)


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["u1", ">i2", "f4"])
def test_an_array_of_npz_is_ones_own(tmp_path, monkeypatch, order, dtype):
    values = np.asarray(small_values(dtype), order=order)
    np.savez_compressed(tmp_path / "cube.npz", cube=values)
    monkeypatch.setattr("hsssl.readers.numpy_files._READ_BYTES", 7)
    cube = read(tmp_path / "cube.npz")
    np.testing.assert_array_equal(cube.values, values)
    assert cube.values.flags.writeable


def test_an_array_of_npz_is_in_memory_once(tmp_path):
    np.savez_compressed(tmp_path / "cube.npz", cube=np.zeros((400, 500, 40), np.int16))
    tracemalloc.start()
    cube = read(tmp_path / "cube.npz")
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 1.3 * cube.values.nbytes


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.ones((2, 3)), r"shape \(2, 3\), a cube is"),
        (np.ones((2, 0, 3)), "a cube is"),
        (np.array([None]), "plain numbers"),
        (np.ones((2, 2, 2), dtype=complex), "want integers or real numbers"),
    ],
)
def test_npy_that_is_no_cube_is_refused(tmp_path, array, message):
    path = tmp_path / "cube.npy"
    np.save(path, array, allow_pickle=True)
    with pytest.raises(ValueError, match=message) as error:
        read(path)
    assert str(path) in one_line(error)


def test_npy_that_claims_more_than_it_has_is_refused(tmp_path):
    path = tmp_path / "cube.npy"
    np.save(path, small_values())
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b"(6, 5, 4)", b"(9, 5, 4)"))
    with pytest.raises(ValueError, match="240 bytes of numbers, its header describes 360"):
        read(path)


def test_hdf5_of_no_known_product(tmp_path):
    import h5py

    values = small_values("i2")
    values[1, 1] = -7
    path = tmp_path / "scene.h5"
    with h5py.File(path, "w") as file:
        data = file.create_dataset("scene/image", data=values.transpose(2, 0, 1))
        data.attrs["_FillValue"], data.attrs["scale_factor"] = np.int16(-7), 0.5
        file["scene/wavelength"] = CENTRES
        file["other"] = np.ones((4, 4))
    cube = read(path, axes="brc")
    np.testing.assert_array_equal(cube.values, values)
    assert cube.wavelengths.tolist() == CENTRES.tolist()
    assert (cube.nodata, cube.scale) == (-7, 0.5)
    assert (~cube.valid).sum() == 1
    same_lazily(path, cube, axes="brc")
    with pytest.raises(ValueError, match="axes must name r, c and b"):
        read(path, axes="xyz")
    with h5py.File(path, "a") as file:
        file["second"] = values
    with pytest.raises(ValueError, match=r"several arrays have three dimensions.*scene/image 4 x 6 x 5"):
        read(path)
    np.testing.assert_array_equal(read(path, variable="second").values, values)


def test_dates_are_chosen_or_kept_as_bands(tmp_path, data_dir):
    path = data_dir / "sentinel2_series" / "2018_3A_Theia_Bouconne.tif"
    whole = read(path)
    # 7 dates of the ten bands at 10 and 20 m, in the order in which the series lists them.
    bands = "sentinel-2a:B2,B3,B4,B8,B5,B6,B7,B8A,B11,B12"
    second = read(path, dates=7, date=1, wavelengths=bands)
    np.testing.assert_array_equal(second.values, whole.values[:, :, 10:20])
    assert second.source_index.tolist() == list(range(10, 20))
    assert second.wavelengths[:4].tolist() == [492.4, 559.8, 664.6, 832.8]
    folded = read(path, dates=7, wavelengths=bands)
    assert folded.wavelengths.tolist() == second.wavelengths.tolist() * 7
    assert folded.band_names[13] == "date 1 band 3"
    by_band = read(path, dates=10, date=3, order="band")
    assert by_band.source_index.tolist() == [3, 13, 23, 33, 43, 53, 63]
    for wrong, message in (
        ({"dates": 8}, "70 bands are not those of 8 dates"),
        ({"dates": 7, "date": 7}, "date 7"),
    ):
        with pytest.raises(ValueError, match=message) as error:
            read(path, **wrong)
        one_line(error)
    with pytest.raises(ValueError, match="give dates too"):
        read(path, date=1)
