import logging
import sys

import numpy as np
import pytest
from hypothesis import given, settings

from hsssl.cube import Cube
from hsssl.prepare import band_axis, band_statistics, number_ranges, prepare, scan_bands
from hsssl.readers import read
from strategies import cubes


def refused(cube):
    """Whether no valid pixel or no band that varies remains, seen the slow and obvious way."""
    pixels = cube.values[cube.valid]
    if not len(pixels):
        return True
    varies = [
        cube.good_bands[band] and np.ptp(pixels[:, band]) > 0 and not (pixels[:, band] == cube.nodata).any()
        for band in range(cube.bands)
    ]
    return not any(varies)


@settings(max_examples=200, deadline=None)
@given(cube=cubes())
def test_prepare_keeps_values_and_says_where_each_band_came_from(cube):
    before = cube.values.copy()
    if refused(cube):
        with pytest.raises(ValueError, match=r"no band remains|no valid pixel"):
            prepare(cube)
        return
    prepared = prepare(cube)
    np.testing.assert_array_equal(cube.values, before)
    np.testing.assert_array_equal(prepared.values, cube.values[:, :, prepared.source_index])
    assert prepared.values.dtype == cube.values.dtype
    assert prepared.source_bands == cube.bands
    assert len(set(prepared.source_index.tolist())) == prepared.bands
    np.testing.assert_array_equal(prepared.valid, cube.valid)
    axis = band_axis(prepared)
    assert (np.diff(axis) >= 0).all()
    mean, std = band_statistics(prepared)
    assert np.isfinite(mean).all()
    assert (std > 0).all()


@settings(max_examples=100, deadline=None)
@given(cube=cubes())
def test_prepare_twice_changes_nothing_more(cube):
    if not refused(cube):
        once = prepare(cube)
        assert prepare(once) is once


def test_each_thing_is_said_once_in_one_line(caplog):
    values = np.random.default_rng(0).integers(1, 90, (4, 4, 8)).astype(np.int16)
    values[:, :, [1, 2]] = -9999
    values[:, :, 5] = 7
    values[0, 0] = -9999
    good = np.ones(8, dtype=bool)
    good[[2, 3]] = False
    centres = np.array([400.0, 410, 420, 430, 440, 450, 435, 460])
    prepared = prepare(Cube(values, wavelengths=centres, good_bands=good, nodata=-9999, source="scene"))
    assert prepared.source_index.tolist() == [0, 6, 4, 7]
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * 5
    assert caplog.messages == [
        "scene: dropped 2 void bands (1-2, from 0): no pixel measured",
        "scene: dropped 1 bad bands (3, from 0): marked bad in the file",
        "scene: dropped 1 constant bands (5, from 0): one value over all valid pixels",
        "scene: sorted its 4 bands by wavelength; the file's order differs",
        "scene: masked 1 pixels (6.2 %): nodata or not finite",
    ]


def test_a_clean_cube_passes_without_a_word(caplog):
    cube = Cube(np.arange(24).reshape(2, 3, 4), wavelengths=np.array([400.0, 500, 600, 700]))
    assert prepare(cube) is cube
    assert not caplog.records


def test_equal_wavelengths_keep_the_order_of_the_file():
    centres = np.array([500.0, 400, 500, 400])
    cube = Cube(np.arange(24).reshape(2, 3, 4), wavelengths=centres)
    assert prepare(cube).source_index.tolist() == [1, 3, 0, 2]


def test_water_windows_go_when_asked(caplog):
    centres = np.array([1340.0, 1350, 1430, 1440, 1800, 1960, 1970, 2449, 2450, 2500])
    cube = Cube(np.arange(40).reshape(2, 2, 10), wavelengths=centres)
    assert prepare(cube) is cube
    assert prepare(cube, drop_water=True).source_index.tolist() == [0, 3, 6, 7]
    assert "dropped 6 water bands (1-2, 4-5, 8-9, from 0)" in caplog.text
    with pytest.raises(ValueError, match="needs wavelengths"):
        prepare(Cube(np.arange(8).reshape(2, 2, 2)), drop_water=True)


def test_keep_takes_exactly_the_bands_of_the_file():
    values = np.random.default_rng(0).integers(1, 90, (3, 3, 6)).astype(np.int16)
    values[:, :, 1] = 5
    values[:, :, 4] = -1
    cube = Cube(values, wavelengths=np.array([600.0, 500, 400, 700, 800, 900]), nodata=-1)
    # Band 1 is constant here and was not where the encoder was trained: it stays.
    assert prepare(cube, keep=[0, 1, 3]).source_index.tolist() == [1, 0, 3]
    # Numbers are those of the file, also after bands are gone.
    assert prepare(cube.take_bands(np.array([5, 3, 1])), keep=[1, 3]).source_index.tolist() == [1, 3]
    with pytest.raises(ValueError, match=r"not in the cube \(6, 8-9\); it has 6 bands"):
        prepare(cube, keep=[0, 6, 8, 9])
    with pytest.raises(ValueError, match=r"are void \(4, from 0\)"):
        prepare(cube, keep=[0, 4])
    with pytest.raises(ValueError, match="not in the cube"):
        prepare(cube, keep=[])


def test_nothing_left_is_an_error():
    with pytest.raises(ValueError, match="no valid pixel"):
        prepare(Cube(np.full((2, 2, 3), -1), nodata=-1))
    with pytest.raises(ValueError, match="no valid pixel"):
        band_statistics(Cube(np.full((2, 2, 3), np.nan)))
    with pytest.raises(ValueError, match="no band remains: 3 constant"):
        prepare(Cube(np.ones((2, 2, 3))))


def test_foreign_byte_order_becomes_the_machines():
    values = np.arange(24).reshape(2, 3, 4).astype(np.dtype(np.int16).newbyteorder())
    prepared = prepare(Cube(values))
    assert prepared.values.dtype == np.int16
    assert prepared.values.dtype.isnative
    np.testing.assert_array_equal(prepared.values, values)


def test_band_axis_stands_in_where_there_are_no_wavelengths(caplog):
    prepared = prepare(Cube(np.arange(24).reshape(2, 3, 4), good_bands=np.array([True, False, True, True])))
    assert band_axis(prepared).tolist() == [400, 420, 430]
    assert "no wavelengths; band n counts as 400 + 10 n nm" in caplog.text


def test_statistics_are_those_of_valid_pixels_and_exact_at_large_offsets(monkeypatch):
    monkeypatch.setattr(sys.modules["hsssl.prepare"], "_TILE_VALUES", 64)
    values = np.random.default_rng(0).normal(1e9, 1, (50, 7, 3))
    values[::3, 2] = np.nan
    cube = Cube(values)
    mean, std = band_statistics(cube)
    measured = values[cube.valid]
    assert mean.dtype == std.dtype == np.float32
    np.testing.assert_allclose(mean, measured.mean(axis=0), rtol=1e-7)
    np.testing.assert_allclose(std, measured.std(axis=0), rtol=1e-6)
    scan = scan_bands(cube)
    np.testing.assert_array_equal(scan.minimum, measured.min(axis=0))
    np.testing.assert_array_equal(scan.maximum, measured.max(axis=0))


def test_statistics_of_a_void_band_are_nan():
    values = np.ones((2, 2, 2), dtype=np.int16)
    values[:, :, 1] = -1
    mean, std = band_statistics(Cube(values, nodata=-1))
    assert mean[0] == 1
    assert std[0] == 0
    assert np.isnan(mean[1])
    assert np.isnan(std[1])


def test_number_ranges():
    assert number_ranges([3, 5, 6, 7, 12]) == "3, 5-7, 12"
    assert number_ranges([]) == ""


def test_enmap_void_bands_go_and_detectors_are_merged(data_dir, caplog):
    cube = read(data_dir / "enmap_potsdam" / "images" / "enmap_potsdam_tile_128_0.tif")
    prepared = prepare(cube)
    assert prepared.bands == 218
    assert "dropped 6 void bands (129-134, from 0)" in caplog.text
    assert not np.isin(np.arange(129, 135), prepared.source_index).any()
    assert (np.diff(prepared.wavelengths) >= 0).all()


def test_aviris_constant_bands_go(data_dir, caplog):
    prepared = prepare(read(data_dir / "aviris_crop" / "a_hsi_img_for_VI_demo.mat"))
    assert prepared.bands == 181
    assert "dropped 43 constant bands (0-1, 96-115, 153-170, 221-223, from 0)" in caplog.text
    assert (band_statistics(prepared)[1] > 0).all()


def test_indian_pines_is_sorted_and_whole(indian_pines):
    prepared = prepare(indian_pines.cube)
    assert prepared.bands == 200
    assert (np.diff(prepared.wavelengths) >= 0).all()
    back = np.argsort(prepared.source_index)
    np.testing.assert_array_equal(prepared.values[:, :, back], indian_pines.cube.values)
