import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hsssl import lazy
from hsssl.cube import Cube, valid_pixels
from hsssl.lazy import LazyValues, load_or_defer, refuse_empty_claim
from strategies import arrays, cubes


def deferred(values: np.ndarray, log: list | None = None) -> LazyValues:
    """Return ``values`` as if they were in a file; ``log`` collects the windows that are read."""

    def read_window(rows, cols, bands):
        assert 0 <= rows.start < rows.stop <= values.shape[0]
        assert 0 <= cols.start < cols.stop <= values.shape[1]
        assert rows.step is None
        assert cols.step is None
        if log is not None:
            log.append((rows, cols, bands.tolist()))
        return values[rows, cols][:, :, bands]

    return load_or_defer(read_window, values.shape, values.dtype, lazy=True, source="file")


@st.composite
def indices(draw, shape):
    """Index of the kinds that a file can answer."""
    keys = [draw(st.one_of(st.slices(size), st.integers(-size, size - 1))) for size in shape]
    if draw(st.booleans()):
        keys[2] = np.array(draw(st.lists(st.integers(0, shape[2] - 1), min_size=1)), dtype=np.int64)
    return tuple(keys[: draw(st.integers(1, 3))])


@settings(max_examples=200, deadline=None)
@given(data=st.data(), values=arrays())
def test_indexing_is_that_of_the_array(data, values):
    key = data.draw(indices(values.shape))
    # An array of band numbers beside an integer moves axes in numpy; the file's answer keeps their order.
    expected = values[:, :, key[2]][key[:2]] if len(key) == 3 else values[key]
    found = deferred(values)[key]
    assert found.dtype == values.dtype
    np.testing.assert_array_equal(found, expected)


@settings(max_examples=60, deadline=None)
@given(cube=cubes(), data=st.data())
def test_a_deferred_cube_has_the_same_mask_bands_and_windows(cube, data):
    late = Cube(deferred(cube.values), cube.wavelengths, good_bands=cube.good_bands, nodata=cube.nodata)
    np.testing.assert_array_equal(late.valid, cube.valid)
    assert (late.values.nbytes, late.values.size) == (cube.values.nbytes, cube.values.size)
    assert (late.values.min(), late.values.max()) == (cube.values.min(), cube.values.max()) or np.isnan(
        cube.values.min()
    )
    np.testing.assert_array_equal(late.values[cube.valid], cube.values[cube.valid])
    bands = np.array(data.draw(st.lists(st.integers(0, cube.bands - 1), min_size=1)), dtype=np.int64)
    taken = late.take_bands(bands).take_bands(np.arange(len(bands))[::-1])
    assert isinstance(taken.values, LazyValues)
    np.testing.assert_array_equal(np.asarray(taken.values), cube.values[:, :, bands[::-1]])
    rows = slice(data.draw(st.integers(0, cube.rows - 1)), None)
    part = late.window(rows, slice(0, 2))
    assert isinstance(part.values, np.ndarray)
    np.testing.assert_array_equal(part.values, cube.values[rows, :2])
    np.testing.assert_array_equal(part.valid, cube.valid[rows, :2])


def test_only_what_is_asked_for_is_read():
    log = []
    late = deferred(np.zeros((50, 40, 30), dtype=np.int16), log)
    cube = Cube(late).take_bands(np.arange(5, 20))
    cube.window(slice(10, 12), slice(3, 9))
    assert log == [(slice(10, 12), slice(3, 9), list(range(5, 20)))]
    late[40:40]
    late[:, :, 3]
    assert log[1:] == [(slice(0, 50), slice(0, 40), [3])]


def test_a_mask_is_read_by_tiles(monkeypatch):
    monkeypatch.setattr(lazy, "_TILE_BYTES", 5 * 4 * 3 * 2)
    log = []
    values = np.arange(12 * 4 * 3, dtype=np.int16).reshape(12, 4, 3)
    mask = np.random.default_rng(0).random((12, 4)) > 0.5
    np.testing.assert_array_equal(deferred(values, log)[mask], values[mask])
    assert [rows for rows, _, _ in log] == [slice(0, 5), slice(5, 10), slice(10, 12)]


def test_the_mask_of_a_large_image_is_taken_by_tiles(monkeypatch):
    from hsssl import cube as module

    values = np.random.default_rng(0).integers(0, 3, (40, 30, 6)).astype(np.float32)
    values[:, :, 2] = np.nan
    values[3, 4, 5] = np.inf
    whole = valid_pixels(values, 0.0)
    assert 0 < whole.sum() < whole.size
    assert not whole[3, 4]
    measured = np.isfinite(values) & (values != 0)
    np.testing.assert_array_equal(whole, measured[:, :, [0, 1, 3, 4, 5]].all(axis=2))
    monkeypatch.setattr(module, "_TILE_VALUES", 7 * 30 * 6)
    np.testing.assert_array_equal(valid_pixels(deferred(values), 0.0), whole)


def test_a_window_moves_the_transform_along():
    affine = (30.0, 5.0, 1000.0, 3.0, -30.0, 2000.0)
    cube = Cube(np.zeros((6, 7, 1), dtype=np.uint8), transform=affine)
    part = cube.window(slice(2, 4), slice(-3, None))
    assert part.values.shape == (2, 3, 1)
    # Column 4, row 2: x = 30 * 4 + 5 * 2 + 1000, y = 3 * 4 - 30 * 2 + 2000.
    assert part.transform == (30, 5, 1130, 3, -30, 1952)


@pytest.mark.parametrize("rows", [slice(3, 3), slice(0, 4, 2), slice(9, 12), slice(None, None, -1)])
def test_a_window_of_nothing_or_with_a_step_is_refused(rows):
    with pytest.raises(ValueError, match="at least one pixel without a step"):
        Cube(np.zeros((6, 7, 1))).window(rows)


def test_small_values_are_read_and_large_ones_stay(monkeypatch):
    values = np.zeros((4, 4, 4))
    reading = {"read_window": lambda r, c, b: values[r, c][:, :, b], "shape": (4, 4, 4)}
    common = reading | {"dtype": values.dtype, "source": "file"}
    assert isinstance(load_or_defer(**common), np.ndarray)
    monkeypatch.setattr(lazy, "RESIDENT_BYTES", values.nbytes - 1)
    assert isinstance(load_or_defer(**common), LazyValues)
    assert isinstance(load_or_defer(lazy=False, **common), np.ndarray)


def test_sizes_that_no_file_holds_are_refused():
    refuse_empty_claim(lazy.RESIDENT_BYTES, 1, source="file")
    refuse_empty_claim(2**40, 2**31, source="file")
    with pytest.raises(ValueError, match=r"claims 1.02e\+03 GiB of values, and the file has 1000 bytes"):
        refuse_empty_claim(2**40, 1000, source="file")
    with pytest.raises(ValueError, match="pixels, at most"):
        load_or_defer(None, (2**20, 2**20, 1), np.dtype("u1"), source="file")


@pytest.mark.parametrize(
    ("key", "error"),
    [
        (([0, 1], slice(None)), TypeError),
        ((6,), IndexError),
        ((0, 0, 9), IndexError),
        ((0, 0, 0, 0), IndexError),
    ],
)
def test_other_indices_say_what_to_do(key, error):
    late = deferred(np.zeros((6, 5, 4)))
    with pytest.raises(error):
        late[key]
