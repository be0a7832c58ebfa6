import numpy as np
import pytest

from hsssl.readers import read
from make_fixtures import small_values, write_tif

CENTRES = [450.0, 550.0, 650.0, 850.0]


def one_line(error: pytest.ExceptionInfo[Exception]) -> str:
    message = str(error.value)
    assert "\n" not in message
    return message


def test_raster_metadata_is_read_and_values_stay_raw(tmp_path):
    values = small_values("f4")
    values[2, 3] = -32768
    tags = [
        {
            "wavelength": str(nm / 1000),
            "wavelength_units": "Micrometers",
            "fwhm": "0.01",
            "bbl": str(int(nm != 650)),
        }
        for nm in CENTRES
    ]
    names = ["a", "b", "c", "d"]
    path = write_tif(tmp_path / "c.tif", values, nodata=-32768, tags=tags, scale=1e-4, descriptions=names)
    cube = read(path)
    np.testing.assert_array_equal(cube.values, values)
    assert cube.wavelengths.tolist() == CENTRES
    assert cube.fwhm.tolist() == [10] * 4
    assert cube.good_bands.tolist() == [True, True, False, True]
    assert cube.nodata == -32768
    assert np.flatnonzero(~cube.valid).tolist() == [13]
    assert (cube.scale, cube.offset, cube.scale_source) == (1e-4, 0, "GDAL band scale and offset")
    assert cube.transform == (30, 0, 366015, 0, -30, 5809965)
    assert "UTM zone 33N" in cube.crs
    assert cube.band_names == ("a", "b", "c", "d")


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["B2 490 nm", "B3 (560nm)", "B4: 665.5 nanometers", "B8 842 nm"], [490, 560, 665.5, 842]),
        (["0.49 um", "0.56 µm", "0.665 micrometers", "0.842 um"], [490, 560, 665, 842]),
        (["B2", "B3", "B4", "B8"], None),
    ],
)
def test_raster_wavelengths_from_descriptions(tmp_path, names, expected):
    found = read(write_tif(tmp_path / "c.tif", small_values(), descriptions=names)).wavelengths
    assert (None if found is None else found.tolist()) == expected


def test_raster_wavelengths_of_some_bands_are_ignored_aloud(tmp_path, caplog):
    path = write_tif(tmp_path / "c.tif", small_values(), descriptions=["490 nm", "b", "c", "d"])
    assert read(path).wavelengths is None
    assert "ignored wavelengths of 1 of 4 bands" in caplog.text


def test_a_cloud_optimised_geotiff_is_read_by_windows(tmp_path):
    from rasterio.shutil import copy

    values = small_values("i2", rows=600, cols=520, bands=3)
    plain = write_tif(tmp_path / "c.tif", values, descriptions=["490 nm", "560 nm", "665 nm"], nodata=7)
    copy(plain, tmp_path / "cog.tif", driver="COG", blocksize=128, compress="deflate")
    cube = read(tmp_path / "cog.tif", lazy=True)
    np.testing.assert_array_equal(cube.values[100:300, 500:], values[100:300, 500:])
    np.testing.assert_array_equal(cube.valid, (values != 7).all(axis=2))
    assert cube.wavelengths.tolist() == [490, 560, 665]
    assert cube.transform == (30, 0, 366015, 0, -30, 5809965)


def test_raster_without_georeference_has_none(tmp_path):
    cube = read(write_tif(tmp_path / "c.tif", small_values(), georeference=False))
    assert cube.crs is None
    assert cube.transform is None


def test_raster_that_is_cut_short_or_no_raster_is_refused_in_one_line(tmp_path):
    path = write_tif(tmp_path / "c.tif", small_values(rows=40, cols=40, bands=9))
    whole = path.read_bytes()
    for data in (whole[: len(whole) // 2], whole[:6], b"no image", b""):
        path.write_bytes(data)
        with pytest.raises(ValueError, match=r"c\.tif: GDAL cannot read it") as error:
            read(path)
        one_line(error)


def test_raster_of_an_absurd_size_is_refused_before_reading(tmp_path):
    path = tmp_path / "huge.vrt"
    band = '<VRTRasterBand dataType="Float64" band="1"></VRTRasterBand>'
    path.write_text(f'<VRTDataset rasterXSize="2000000000" rasterYSize="2000000000">{band}</VRTDataset>')
    with pytest.raises(ValueError, match="GiB of values, and the file has") as error:
        read(path)
    one_line(error)


def test_raster_of_complex_numbers_is_refused(tmp_path):
    with pytest.raises(ValueError, match="complex64, want integers or real"):
        read(write_tif(tmp_path / "c.tif", small_values("c8")))
