import json
import re

import numpy as np
import pytest

from hsssl.cube import Cube
from hsssl.info import describe, format_description
from hsssl.readers import read
from make_fixtures import small_values, write_envi


def ordinary(**arguments):
    values = np.random.default_rng(0).integers(100, 900, (5, 4, 8)).astype(np.int16)
    return Cube(values, **{"wavelengths": 400 + 10.0 * np.arange(8), "source": "scene"} | arguments)


def test_an_ordinary_cube_has_nothing_suspicious():
    found = describe(ordinary())
    assert found["suspicious"] == []
    assert (found["rows"], found["cols"], found["bands"], found["dtype"]) == (5, 4, 8, "int16")
    assert found["wavelengths"] == {
        "shortest_nm": 400.0,
        "longest_nm": 470.0,
        "median_step_nm": 10.0,
        "sorted": True,
        "gaps": [],
        "overlaps": [],
        "fwhm_nm": None,
    }
    values = ordinary().values
    assert found["statistics"] == pytest.approx(
        {"minimum": values.min(), "maximum": values.max(), "mean": values.mean(), "std": values.std()}
    )


def test_gaps_and_overlaps_are_found():
    centres = np.array([400.0, 410, 420, 430, 425, 435, 500, 510])
    found = describe(ordinary(wavelengths=centres))
    assert found["wavelengths"]["gaps"] == [[435.0, 500.0]]
    assert found["wavelengths"]["overlaps"] == [[425.0, 430.0]]
    assert not found["wavelengths"]["sorted"]
    assert "1 step(s) back" in found["suspicious"][0]
    assert describe(ordinary(wavelengths=centres[[7, 6, 5, 3, 4, 2, 1, 0]]))["wavelengths"]["overlaps"] == []


def test_bands_that_say_nothing_are_listed_by_their_number_in_the_file():
    cube = ordinary()
    values = cube.values.copy()
    values[:, :, 2] = -9999
    values[:, :, 3] = 5
    values[0, 0, 0] = -9999
    good = np.ones(8, dtype=bool)
    good[7] = False
    found = describe(Cube(values, nodata=-9999, good_bands=good))
    assert (found["void_bands"], found["constant_bands"], found["bad_bands"]) == ([2], [3], [7])
    assert found["invalid_share"] == pytest.approx(1 / 20)
    taken = Cube(values, nodata=-9999, good_bands=good).take_bands(np.array([7, 3]))
    assert describe(taken)["constant_bands"] == [3]


@pytest.mark.parametrize(
    ("change", "arguments", "sentence"),
    [
        (lambda v: v, {"wavelengths": None}, "no wavelengths"),
        (lambda v: np.where(v == v.min(), -9999, v), {}, "nodata that the file does not declare"),
        (lambda v: np.where(v == v.min(), -5, v), {}, "negative values in"),
        (lambda v: np.where(v == v.max(), 4095, v), {}, "the highest value is 4095"),
        (lambda v: v * 40, {"scale": 1e-4, "scale_source": "test"}, "reflectance up to 3"),
        (lambda v: np.where(np.arange(5)[:, None, None] == 0, 0, v), {}, "20 % of the valid pixels are 0"),
        (lambda v: v[:, :, :1], {"wavelengths": None}, "one band only"),
        (lambda v: np.full_like(v, 3), {"nodata": 3.0}, "no valid pixel"),
    ],
)
def test_suspicious_things_are_said(change, arguments, sentence):
    values = change(ordinary().values)
    centres = {"wavelengths": 400 + 10.0 * np.arange(values.shape[2])}
    found = describe(Cube(values, **centres | arguments))
    assert any(sentence in line for line in found["suspicious"]), found["suspicious"]
    assert sentence in format_description(found)


@pytest.mark.parametrize("nodata", [None, -1.0, float("nan")])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32])
def test_every_description_is_json_and_text(dtype, nodata):
    values = np.arange(24).reshape(2, 3, 4).astype(dtype)
    found = describe(
        Cube(values, nodata=nodata, transform=(30, 0, 100, 0, -30, 200), crs='PROJCS["UTM 33",X]')
    )
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    text = format_description(found)
    assert "2 rows x 3 cols x 4 bands" in text
    assert "UTM 33" in text
    assert "30 x 30, upper left corner (100, 200)" in text


def test_enmap_tile(data_dir):
    found = describe(read(data_dir / "enmap_potsdam" / "images" / "enmap_potsdam_tile_128_0.tif"))
    assert found["void_bands"] == found["bad_bands"] == list(range(129, 135))
    # VNIR and SWIR detectors see 902 to 993 nm both.
    assert found["wavelengths"]["overlaps"] == [[902.257, 993.083]]
    assert found["crs"] == "WGS 84 / UTM zone 33N"
    assert "6 (129-134, from 0)" in format_description(found)


def test_sensor_extent_and_plot(tmp_path):
    centres = np.array([492.4, 559.8, 664.6, 832.8])
    values = np.random.default_rng(0).integers(100, 900, (5, 4, 4)).astype(np.int16)
    values[:, :, 3] = -1
    values[:, :, 1] += 5000
    cube = Cube(values, centres, nodata=-1, transform=(30.0, 0.0, 100.0, 0.0, -20.0, 200.0))
    found = describe(cube)
    assert found["sensor_guess"] == "sentinel-2a"
    assert found["extent"] == [100, 100, 220, 200]
    assert found["band_statistics"]["mean"][1] == pytest.approx(values[:, :, 1].mean())
    assert found["band_statistics"]["mean"][3] is None
    text = format_description(found)
    assert "sentinel-2a? (by its wavelengths)" in text
    assert "x 100 to 220, y 100 to 200" in text
    # Low, high, low, and nothing for the void band.
    assert re.search(r"^mean by band   ▁█▁   ", text, re.MULTILINE)
    assert re.search(r"^good bands     3 of 4$", text, re.MULTILINE)


def test_what_the_file_says_is_named(tmp_path):
    header = {"wavelength": "{0.45, 0.55, 0.65, 0.85}", "wavelength units": "Micrometers"}
    header["sensor type"] = "HySpex"
    path = write_envi(tmp_path, small_values(), interleave="bip", byte_order=1, header=header)
    text = format_description(describe(read(path)))
    assert "ENVI, interleave bip, big-endian" in text
    assert "HySpex (the file says so)" in text
    assert "unit as found  Micrometers" in text


def test_scales_by_band_are_given_as_a_range():
    cube = ordinary(scale=np.linspace(0.1, 0.8, 8), offset=0.5, scale_source="test")
    found = describe(cube)
    assert json.loads(json.dumps(found))["scale"] == pytest.approx(np.linspace(0.1, 0.8, 8))
    assert "raw x (0.1 to 0.8 by band) + 0.5 (test)" in format_description(found)
