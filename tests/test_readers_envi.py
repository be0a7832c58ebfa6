import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hsssl.readers import envi_header, read, read_envi
from make_fixtures import ENVI_CODES, small_values, write_envi
from strategies import arrays

CENTRES = [450.0, 550.0, 650.0, 850.0]


def one_line(error: pytest.ExceptionInfo[Exception]) -> str:
    message = str(error.value)
    assert "\n" not in message
    return message


@settings(max_examples=60, deadline=None)
@given(
    values=arrays(dtypes=tuple(ENVI_CODES)),
    interleave=st.sampled_from(["bsq", "bil", "bip"]),
    byte_order=st.sampled_from([0, 1]),
    offset=st.sampled_from([0, 7]),
)
def test_envi_read_after_write_is_the_identity(tmp_path_factory, values, interleave, byte_order, offset):
    folder = tmp_path_factory.mktemp("envi")
    path = write_envi(folder, values, interleave=interleave, byte_order=byte_order, offset=offset)
    cube = read_envi(path)
    np.testing.assert_array_equal(cube.values, values)
    assert cube.values.dtype.newbyteorder("=") == values.dtype


@settings(max_examples=60)
@given(
    values=arrays(dtypes=("i2", "f8"), largest=5),
    interleave=st.sampled_from(["bsq", "bil", "bip"]),
    byte_order=st.sampled_from([0, 1]),
    at_once=st.sampled_from([1, 60, 2**24]),
    data=st.data(),
)
def test_envi_windows_are_those_of_the_whole(tmp_path_factory, values, interleave, byte_order, at_once, data):
    folder = tmp_path_factory.mktemp("envi")
    path = write_envi(folder, values, interleave=interleave, byte_order=byte_order, offset=5)
    stop = [data.draw(st.integers(1, size)) for size in values.shape]
    rows, cols = (slice(data.draw(st.integers(0, end - 1)), end) for end in stop[:2])
    bands = np.array(data.draw(st.lists(st.integers(0, values.shape[2] - 1), min_size=1)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(envi_header, "_READ_BYTES", at_once)
        cube = read_envi(path, lazy=True).take_bands(bands)
        np.testing.assert_array_equal(cube.window(rows, cols).values, values[rows, cols][:, :, bands])


def test_a_window_costs_the_memory_of_the_window(tmp_path):
    """Neither the file nor whole lines of it are read for a few columns."""
    values = small_values("f4", rows=200, cols=400, bands=40)
    for interleave in ("bsq", "bil", "bip"):
        cube = read_envi(write_envi(tmp_path, values, interleave=interleave), lazy=True)
        cube.window(slice(0, 1))
        tracemalloc.start()
        part = cube.window(slice(50, 150), slice(100, 110))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        np.testing.assert_array_equal(part.values, values[50:150, 100:110])
        assert peak < 4 * part.values.nbytes + 2**18


def test_a_file_cut_short_after_opening_is_an_error(tmp_path):
    for interleave in ("bsq", "bil", "bip"):
        path = write_envi(tmp_path, small_values(), interleave=interleave)
        cube = read_envi(path, lazy=True)
        with path.with_suffix(".img").open("r+b") as stream:
            stream.truncate(100)
        with pytest.raises(OSError, match=r"scene\.img: ends before the last of its numbers") as error:
            cube.window(slice(3, 6), slice(1, 3))
        assert "\n" not in str(error.value)


def test_envi_agrees_with_what_spectral_writes(tmp_path):
    import spectral.io.envi as envi

    values = small_values("i2")
    path = tmp_path / "spy.hdr"
    envi.save_image(str(path), values, interleave="bil", byteorder=1, metadata={"wavelength": CENTRES})
    cube = read(path)
    np.testing.assert_array_equal(cube.values, values)
    assert cube.wavelengths.tolist() == CENTRES


@pytest.mark.parametrize("suffix", ["", ".dat", ".RAW", ".bsq", ".strange"])
@pytest.mark.parametrize("long_name", [False, True])
def test_envi_finds_header_and_data_from_either(tmp_path, suffix, long_name):
    header = write_envi(tmp_path, small_values(), suffix=suffix)
    data = tmp_path / f"scene{suffix}"
    (tmp_path / "scene.png").write_bytes(b"a quick look")
    if long_name:
        header = header.rename(tmp_path / f"{data.name}.hdr")
    for path in (header, data):
        np.testing.assert_array_equal(read(path).values, small_values())


def test_envi_metadata_is_read_and_values_stay_raw(tmp_path):
    values = small_values("i2")
    values[0, 0] = -9999
    header = {
        "Wavelength": "{0.45, 0.55,\n 0.65, 0.85}",
        "wavelength units": "Micrometers",
        "fwhm": "{0.01, 0.01, 0.02, 0.02}",
        "bbl": "{1, 0, 1, 1}",
        "data ignore value": "-9999",
        "reflectance scale factor": "10000",
        "band names": "{blue µ, green, red, nir}",
        "map info": "{UTM, 1, 1, 366015, 5809965, 30, 30, 33, North, WGS-84, units=Meters}",
    }
    cube = read(write_envi(tmp_path, values, header=header))
    np.testing.assert_array_equal(cube.values, values)
    assert cube.wavelengths.tolist() == CENTRES
    assert cube.fwhm.tolist() == [10, 10, 20, 20]
    assert cube.good_bands.tolist() == [True, False, True, True]
    assert cube.nodata == -9999
    assert not cube.valid[0, 0]
    assert cube.valid.sum() == 29
    assert cube.scale == 1e-4
    assert cube.scale_source == "ENVI reflectance scale factor"
    assert cube.band_names == ("blue µ", "green", "red", "nir")
    assert 'PARAMETER["central_meridian",15]' in cube.crs
    assert cube.transform == (30, 0, 366015, 0, -30, 5809965)


def test_envi_header_in_latin_1_is_read(tmp_path):
    path = write_envi(
        tmp_path, small_values(), header={"wavelength units": "µm", "wavelength": "{.45, .55, .65, .85}"}
    )
    path.write_bytes(path.read_text(encoding="utf-8").encode("latin-1"))
    assert read(path).wavelengths.tolist() == CENTRES


def test_envi_index_is_no_wavelength(tmp_path):
    header = {"wavelength units": "Index", "wavelength": "{1, 2, 3, 4}"}
    assert read(write_envi(tmp_path, small_values(), header=header)).wavelengths is None


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ({"data type": "6"}, "complex"),
        ({"data type": "two"}, "want the line: data type"),
        ({"samples": "0"}, "want the line: samples"),
        ({"samples": "-5"}, "want the line: samples"),
        ({"interleave": "bzq"}, "interleave 'bzq'"),
        ({"lines": "99999999999999999999"}, "bytes, but"),
        ({"lines": "7"}, "240 bytes, but .* describes 280"),
        ({"wavelength": "{1, 2}"}, "2 wavelengths for 4 bands"),
        ({"wavelength": "{1, 2, x, 4}"}, "'x' is not a number"),
        ({"wavelength": "{1, 2"}, "brace that is not closed"),
        ({"wavelength": "{450, 550, 650, 850}", "wavelength units": "parsec"}, "unknown wavelength unit"),
        ({"bbl": "{1, 0}"}, "bbl has 2 entries for 4 bands"),
        ({"file type": "ENVI Spectral Library"}, "a library has bands = 1"),
        ({"file type": "TIFF"}, "open the .tif"),
        ({"file compression": "1"}, "compressed"),
    ],
)
def test_envi_headers_that_contradict_are_refused_in_one_line(tmp_path, header, message):
    path = write_envi(tmp_path, small_values(), header=header)
    with pytest.raises(ValueError, match=message) as error:
        read(path)
    assert str(tmp_path) in one_line(error)


def test_envi_without_byte_order_says_what_to_add(tmp_path):
    path = write_envi(tmp_path, small_values(), byte_order=None)
    with pytest.raises(ValueError, match="add the line: byte order = 0"):
        read(path)


def test_envi_with_bytes_to_spare_is_said(tmp_path, caplog):
    path = write_envi(tmp_path, small_values(), header={"lines": "5"})
    np.testing.assert_array_equal(read(path).values.shape, (5, 5, 4))
    assert "40 bytes more than its header describes" in caplog.text


def test_envi_data_or_header_missing(tmp_path):
    header = write_envi(tmp_path, small_values())
    (tmp_path / "scene.img").unlink()
    with pytest.raises(FileNotFoundError, match="no data file scene"):
        read(header)
    (tmp_path / "lonely.img").write_bytes(b"12")
    with pytest.raises(FileNotFoundError, match=r"no ENVI header lonely\.img\.hdr"):
        read_envi(tmp_path / "lonely.img")
    for suffix in (".one", ".two"):
        (tmp_path / f"scene{suffix}").write_bytes(b"12")
    with pytest.raises(ValueError, match=r"several files could be its data: scene\.one, scene\.two"):
        read(header)
