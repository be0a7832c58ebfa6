import numpy as np
import pytest

from hsssl.cube import Cube, not_measured, valid_pixels, void_bands


def test_defaults_are_filled_in():
    cube = Cube(np.arange(24, dtype=np.int16).reshape(2, 3, 4))
    assert (cube.rows, cube.cols, cube.bands, cube.source_bands) == (2, 3, 4, 4)
    assert cube.good_bands.all()
    assert cube.valid.shape == (2, 3)
    assert cube.valid.all()
    np.testing.assert_array_equal(cube.source_index, np.arange(4))


def test_take_bands_takes_everything_along():
    cube = Cube(
        np.arange(24).reshape(2, 3, 4),
        wavelengths=np.array([400.0, 500, 600, 700]),
        fwhm=np.array([1.0, 2, 3, 4]),
        good_bands=np.array([True, False, True, True]),
        band_names=("a", "b", "c", "d"),
    )
    taken = cube.take_bands(np.array([3, 1])).take_bands(np.array([1]))
    np.testing.assert_array_equal(taken.values, cube.values[:, :, [1]])
    assert taken.wavelengths.tolist() == [500.0]
    assert taken.fwhm.tolist() == [2.0]
    assert taken.good_bands.tolist() == [False]
    assert taken.band_names == ("b",)
    assert taken.source_index.tolist() == [1]
    assert taken.source_bands == 4


def test_a_pixel_is_invalid_where_any_band_that_is_not_void_is_nodata():
    values = np.ones((2, 2, 3), dtype=np.int16)
    values[:, :, 2] = -9999
    values[0, 1, 0] = -9999
    cube = Cube(values, nodata=-9999)
    assert cube.valid.tolist() == [[True, False], [True, True]]
    assert void_bands(values, -9999).tolist() == [False, False, True]


def test_a_pixel_is_not_lost_for_a_bad_band():
    values = np.ones((2, 2, 3), dtype=np.float32)
    values[0, 0, 2] = np.nan
    assert not Cube(values).valid[0, 0]
    assert Cube(values, good_bands=np.array([True, True, False])).valid.all()
    assert not Cube(values, good_bands=np.zeros(3, dtype=bool)).valid[0, 0]


def test_a_cube_of_nothing_but_nodata_has_no_valid_pixel():
    assert not valid_pixels(np.full((2, 2, 2), np.nan), None).any()
    assert not valid_pixels(np.zeros((2, 2, 2), dtype=np.uint8), 0.0).any()


@pytest.mark.parametrize("nodata", [-9999.0, -1.7976931348623157e308, np.nan, None])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32, np.float64])
def test_any_nodata_goes_with_any_dtype(dtype, nodata):
    assert not not_measured(np.ones((2, 2), dtype=dtype), nodata).any()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"values": np.ones((2, 2))}, "3 dimensions"),
        ({"values": np.ones((2, 2, 0))}, "at least one"),
        ({"values": np.ones((2, 2, 2), dtype=complex)}, "integer or real"),
        ({"values": np.ones((2, 2, 2)), "wavelengths": np.ones(3)}, r"wavelengths must have shape \(2,\)"),
        ({"values": np.ones((2, 2, 2)), "wavelengths": np.array([400.0, 0.0])}, "positive"),
        ({"values": np.ones((2, 2, 2)), "band_names": ("a",)}, "1 band names"),
        ({"values": np.ones((2, 2, 2)), "valid": np.ones((1, 2), dtype=bool)}, "valid must have shape"),
    ],
)
def test_what_does_not_fit_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Cube(**arguments)
