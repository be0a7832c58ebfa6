import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hsssl.lazy import LazyValues
from hsssl.readers import parse_wavelengths, read, read_envi, read_mat, read_raster
from hsssl.readers.wavelengths import to_nanometres
from make_fixtures import make_fixtures, small_values, write_mat, write_mat73, write_tif

CENTRES = [450.0, 550.0, 650.0, 850.0]


def one_line(error: pytest.ExceptionInfo[Exception]) -> str:
    message = str(error.value)
    assert "\n" not in message
    return message


def test_every_format_gives_the_same_cube(tmp_path):
    files = make_fixtures(tmp_path)
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 100_000
    for name in ("mat", "mat73", "envi", "tif"):
        cube = read(files[name])
        np.testing.assert_array_equal(cube.values, small_values())
        assert cube.values.dtype == np.uint16
        np.testing.assert_array_equal(cube.wavelengths, CENTRES)


@pytest.mark.parametrize("name", ["mat", "mat73", "envi", "tif"])
def test_wavelengths_given_replace_those_of_the_file(tmp_path, name):
    path = make_fixtures(tmp_path)[name]
    assert read(path, wavelengths="400:700").wavelengths.tolist() == [400, 500, 600, 700]
    assert read(path, wavelengths=[500, 400, 700, 600]).wavelengths.tolist() == [500, 400, 700, 600]
    with pytest.raises(ValueError, match="3 wavelengths for 4 bands"):
        read(path, wavelengths=[500, 400, 700])


@pytest.mark.parametrize(
    ("values", "unit", "expected"),
    [
        ([0.4174, 2.5], "", [417.4, 2500]),
        ([400, 2500], "Unknown", [400, 2500]),
        ([0.4, 2.5], "Micrometers", [400, 2500]),
        ([0.4, 2.5], "µm", [400, 2500]),
        ([0.4, 2.5], "um", [400, 2500]),
        ([8.0, 12.0], "microns", [8000, 12000]),
        ([400, 2500], "Nanometers", [400, 2500]),
        ([400, 2500], "nm", [400, 2500]),
        ([4000, 7000], "Angstroms", [400, 700]),
    ],
)
def test_units_become_nm(values, unit, expected):
    assert to_nanometres(values, unit=unit).tolist() == expected


@pytest.mark.parametrize(
    ("values", "unit"),
    [
        ([0.4, 2.5], "nm"),
        ([400, 2500], "um"),
        ([0, 500], ""),
        ([-1, 500], ""),
        ([np.nan, 500], ""),
        ([1, 2], "GHz"),
    ],
)
def test_nonsense_is_no_wavelength(values, unit):
    with pytest.raises(ValueError, match="--wavelengths") as error:
        to_nanometres(values, unit=unit, source="scene.hdr")
    assert one_line(error).startswith("scene.hdr")


def test_parse_wavelengths_takes_a_file_or_a_range(tmp_path):
    path = tmp_path / "centres.txt"
    path.write_text("# centres in um\n0.45, 0.55\n0.65;0.85\n")
    assert parse_wavelengths(str(path), 4).tolist() == CENTRES
    assert parse_wavelengths(path, 4).tolist() == CENTRES
    assert parse_wavelengths("1000 : 400", 3).tolist() == [1000, 700, 400]
    path.write_text("0.45 blue")
    with pytest.raises(ValueError, match="'blue' is not a number"):
        parse_wavelengths(path, 2)
    path.write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(ValueError, match="not a text file"):
        parse_wavelengths(path, 2)
    with pytest.raises(FileNotFoundError, match="neither a file nor start:stop"):
        parse_wavelengths("nowhere", 4)
    with pytest.raises(ValueError, match="100 nm to 100 um"):
        parse_wavelengths("0.4:2.5", 4)


@pytest.mark.parametrize("write", [write_mat, write_mat73])
def test_mat_says_what_it_holds_when_the_choice_is_not_clear(tmp_path, write):
    values = small_values()
    flat = write(tmp_path / "flat.mat", V=np.ones((4, 30)), n=np.array([[4.0]]))
    with pytest.raises(ValueError, match=r"V 4 x 30 double, n 1 x 1 double.*--variable") as error:
        read_mat(flat)
    one_line(error)
    two = write(tmp_path / "two.mat", a=values, b=values[:3] * 2)
    with pytest.raises(ValueError, match=r"several.*a 6 x 5 x 4 uint16, b 3 x 5 x 4 uint16.*--variable"):
        read_mat(two)
    np.testing.assert_array_equal(read_mat(two, variable="b").values, values[:3] * 2)
    with pytest.raises(ValueError, match="no variable 'c'; it holds a 6 x 5 x 4"):
        read_mat(two, variable="c")
    with pytest.raises(ValueError, match=r"'V' has shape \(4, 30\)"):
        read_mat(flat, variable="V")


@pytest.mark.parametrize("write", [write_mat, write_mat73])
@pytest.mark.parametrize("bands_first", [True, False])
@pytest.mark.parametrize("stated", [True, False])
def test_mat_pixel_lists_go_down_the_columns(tmp_path, write, bands_first, stated):
    values = small_values("f8")
    # What MATLAB's reshape(V', nRow, nCol, []) makes of it: down the columns, so Fortran order.
    listed = values.reshape(30, 4, order="F")
    sizes = {"nRow": np.array([[6.0]]), "nCol": np.array([[5.0]])} if stated else {}
    path = write(tmp_path / "list.mat", V=listed.T if bands_first else listed, **sizes)
    cube = read(path) if stated else read(path, rows=6, cols=5)
    np.testing.assert_array_equal(cube.values, values)


def test_mat_pixel_lists_of_another_size_are_refused(tmp_path):
    path = write_mat(tmp_path / "list.mat", V=np.ones((4, 30)), M=np.ones((4, 3)))
    for size, message in (
        ({"rows": 6}, "needs rows and cols"),
        ({"rows": 0, "cols": 5}, "both positive"),
        ({"rows": 6, "cols": 6}, "no variable has two dimensions, one of 36 pixels"),
        ({"rows": 6, "cols": 6, "variable": "V"}, "want a list of 6 x 6 = 36 pixels"),
    ):
        with pytest.raises(ValueError, match=message) as error:
            read(path, **size)
        one_line(error)


def test_mat_73_stays_in_its_file(tmp_path):
    values = small_values()
    path = write_mat73(tmp_path / "cube.mat", cube=values)
    cube = read(path, lazy=True)
    assert isinstance(cube.values, LazyValues)
    np.testing.assert_array_equal(cube.values[1:4, 2, [3, 0, 0]], values[1:4, 2][:, [3, 0, 0]])


@pytest.mark.parametrize(
    ("name", "vector", "expected"),
    [
        ("wavelength", CENTRES, CENTRES),
        ("wl_um", [0.45, 0.55, 0.65, 0.85], CENTRES),
        ("Lambda", [0.45, 0.55, 0.65, 0.85], CENTRES),
        ("weights", CENTRES, None),
        ("wavelength", CENTRES[:3], None),
    ],
)
def test_mat_wavelengths_are_taken_when_clearly_named(tmp_path, name, vector, expected):
    path = write_mat(tmp_path / "cube.mat", cube=small_values(), **{name: np.array(vector)[:, None]})
    found = read_mat(path).wavelengths
    assert (None if found is None else found.tolist()) == expected


def test_mat_cells_are_never_loaded_as_cubes(tmp_path):
    cells = np.empty((2, 2, 2), dtype=object)
    cells[:] = "text"
    path = write_mat(tmp_path / "cells.mat", cells=cells)
    with pytest.raises(ValueError, match="cells 2 x 2 x 2 cell"):
        read_mat(path)
    with pytest.raises(ValueError, match="want integers or real numbers"):
        read_mat(path, variable="cells")


@settings(max_examples=60, deadline=None)
@given(
    data=st.binary(max_size=300),
    head=st.sampled_from([b"", b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM"]),
)
def test_mat_of_any_bytes_is_refused_in_one_line(tmp_path_factory, data, head):
    path = tmp_path_factory.mktemp("mat") / "bytes.mat"
    path.write_bytes(head + data)
    with pytest.raises(ValueError, match=r"bytes\.mat") as error:
        read(path)
    one_line(error)


def test_mat_with_a_damaged_tag_is_refused_and_does_not_crash(tmp_path):
    path = write_mat(tmp_path / "cube.mat", cube=small_values())
    whole = bytearray(path.read_bytes())
    # The element that holds the numbers says that its type is 4 (uint16); scipy alone crashes on this one.
    assert whole[184] == 4
    whole[185] = 107
    path.write_bytes(whole)
    with pytest.raises(ValueError, match="damaged one: element of type 27396") as error:
        read_mat(path)
    one_line(error)


def test_read_says_what_it_cannot_open(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such file"):
        read(tmp_path / "absent.tif")
    with pytest.raises(ValueError, match="is a folder"):
        read(tmp_path)
    with pytest.raises(ValueError, match="read_raster takes no variable; leave it out"):
        read(write_tif(tmp_path / "c.tif", small_values()), variable="cube")
    for reader in (read_mat, read_envi, read_raster):
        with pytest.raises(FileNotFoundError, match="no such file"):
            reader(tmp_path / "absent.mat")


def test_a_tiff_with_an_envi_header_beside_it_is_read_as_tiff(tmp_path):
    path = write_tif(tmp_path / "scene.tif", small_values())
    (tmp_path / "scene.hdr").write_text("ENVI\nfile type = TIFF\ninterleave = tif\n")
    np.testing.assert_array_equal(read(path).values, small_values())
    with pytest.raises(ValueError, match=r"open .*scene\.tif"):
        read(tmp_path / "scene.hdr")
