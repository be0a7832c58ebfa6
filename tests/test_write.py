"""Writing a cube and reading it is the identity; so are its place, its mask and its wavelengths."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from hsssl import stream
from hsssl.cube import Cube, valid_pixels
from hsssl.envi_writer import open_envi
from hsssl.lazy import LazyValues
from hsssl.maps import write_raster
from hsssl.readers import read
from hsssl.write import write_cube, write_envi
from make_fixtures import small_values
from strategies import wavelengths

TIFF_DTYPES = ("u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8")
ENVI_DTYPES = tuple(name for name in TIFF_DTYPES if name != "i1")
CODES = (32633, 4326, 3035, 27700, 3857)


def wkt(code: int) -> str:
    from rasterio.crs import CRS

    return CRS.from_epsg(code).to_wkt()


@st.composite
def transforms(draw):
    """North-up grids with decimal corners and sizes."""
    cents = st.integers(-(10**9), 10**9).map(lambda number: number / 100)
    size = st.integers(1, 10**6).map(lambda number: number / 1000)
    # GDAL takes the unit square for no transform at all.
    return (draw(size), 0.0, draw(cents), 0.0, -draw(size), draw(cents))


@st.composite
def full_cubes(draw, dtypes):
    """Cubes with everything a file can hold; the mask is that of nodata or goes beyond it."""
    shape = tuple(draw(st.integers(1, 7)) for _ in range(3))
    dtype = np.dtype(draw(st.sampled_from(dtypes))).newbyteorder(draw(st.sampled_from("<>")))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    values = rng.integers(0, 100, shape).astype(dtype)
    if draw(st.booleans()):
        values[rng.random(shape) < 0.1] = np.nan if dtype.kind == "f" and draw(st.booleans()) else 7
    nodata = draw(st.sampled_from([None, 7.0, 0.0] + ([np.nan, -1e30] if dtype.kind == "f" else [])))
    good = rng.random(shape[2]) < draw(st.sampled_from([0.5, 1.1]))
    valid = valid_pixels(values, nodata, good)
    if draw(st.booleans()):
        valid &= rng.random(shape[:2]) < 0.8
    bands = shape[2]
    centres = draw(wavelengths(bands))
    widths = None if draw(st.booleans()) else rng.integers(1, 9999, bands) / 100
    place = draw(st.booleans())
    scaled = draw(st.sampled_from(["", "one", "each"]))
    return Cube(
        values=values,
        wavelengths=centres if centres is None else centres + rng.integers(0, 10**6, bands) / 1e6,
        fwhm=widths,
        good_bands=good,
        nodata=nodata,
        valid=valid,
        scale=1.0 if not scaled else 1e-4 if scaled == "one" else rng.integers(1, 99, bands) / 7,
        offset=0.0 if scaled != "each" else rng.integers(0, 99, bands) / 7,
        scale_source=scaled and draw(st.sampled_from(["", scaled])),
        crs=wkt(draw(st.sampled_from(CODES))) if place else None,
        transform=draw(transforms()) if place else None,
        band_names=tuple(f"band {n} µ" for n in range(bands)) if draw(st.booleans()) else (),
    )


def assert_same(found: Cube, cube: Cube) -> None:
    from rasterio.crs import CRS

    assert found.values.dtype == cube.values.dtype.newbyteorder("=")
    np.testing.assert_array_equal(found.values, cube.values)
    np.testing.assert_array_equal(found.valid, cube.valid)
    # As a number of the dtype: GDAL keeps the nodata of float32 as such.
    assert (found.nodata is None) == (cube.nodata is None)
    if cube.nodata is not None:
        np.testing.assert_array_equal(*np.array([found.nodata, cube.nodata]).astype(cube.values.dtype))
    for name in ("wavelengths", "fwhm"):
        ours, theirs = getattr(found, name), getattr(cube, name)
        assert (ours is None) == (theirs is None)
        assert ours is None or ours.tolist() == pytest.approx(theirs.tolist(), abs=1e-9, rel=0)
    np.testing.assert_array_equal(found.good_bands, cube.good_bands)
    for name in ("scale", "offset"):
        np.testing.assert_array_equal(
            np.broadcast_to(getattr(found, name), cube.bands),
            np.broadcast_to(getattr(cube, name), cube.bands),
        )
    assert found.band_names == cube.band_names
    assert found.transform == cube.transform
    assert (found.crs is None) == (cube.crs is None)
    assert found.crs is None or CRS.from_wkt(found.crs) == CRS.from_wkt(cube.crs)


@settings(max_examples=40, deadline=None)
@given(cube=full_cubes(TIFF_DTYPES))
def test_geotiff_is_the_identity(tmp_path_factory, cube):
    path = tmp_path_factory.mktemp("tif") / "cube.tif"
    write_cube(path, cube)
    assert_same(read(path), cube)
    assert_same(read(path, lazy=True), cube)
    assert [file.name for file in path.parent.iterdir()] == ["cube.tif"]


@settings(max_examples=40, deadline=None)
@given(
    cube=full_cubes(ENVI_DTYPES),
    interleave=st.sampled_from(["bsq", "bil", "bip"]),
    byte_order=st.sampled_from(["little", "big"]),
)
def test_envi_is_the_identity(tmp_path_factory, cube, interleave, byte_order):
    assume(np.array_equal(cube.valid, valid_pixels(cube.values, cube.nodata, cube.good_bands)))
    path = tmp_path_factory.mktemp("envi") / "cube.hdr"
    write_envi(path, cube, interleave=interleave, byte_order=byte_order)
    assert_same(read(path), cube)
    assert_same(read(path.with_suffix(".img"), lazy=True), cube)


def test_envi_is_read_by_other_tools(tmp_path):
    import rasterio
    import spectral.io.envi as envi

    values = small_values("i2")
    cube = Cube(
        values,
        wavelengths=np.array([450.0, 550, 650, 850.25]),
        nodata=-9999,
        crs=wkt(32633),
        transform=(30.0, 0.0, 366015.0, 0.0, -30.0, 5809965.0),
        band_names=("blue", "green", "red", "nir"),
    )
    write_cube(tmp_path / "cube.hdr", cube)
    outside = envi.open(str(tmp_path / "cube.hdr"))
    np.testing.assert_array_equal(outside.open_memmap(), values)
    assert outside.bands.centers == [450, 550, 650, 850.25]
    assert outside.metadata["band names"] == ["blue", "green", "red", "nir"]
    with rasterio.open(tmp_path / "cube.img") as raster:
        np.testing.assert_array_equal(raster.read(), np.moveaxis(values, 2, 0))
        assert raster.crs.to_epsg() == 32633
        assert tuple(raster.transform)[:6] == cube.transform
        assert raster.nodata == -9999


def test_geotiff_wavelengths_are_where_gdal_has_them(tmp_path):
    import rasterio

    write_cube(
        tmp_path / "cube.tif", Cube(small_values(), np.array([418.24, 550, 650, 850]), np.full(4, 6.5))
    )
    with (
        pytest.warns(rasterio.errors.NotGeoreferencedWarning),
        rasterio.open(tmp_path / "cube.tif") as raster,
    ):
        assert raster.tags(1, ns="IMAGERY") == {"CENTRAL_WAVELENGTH_UM": "0.41824", "FWHM_UM": "0.0065"}


@pytest.mark.parametrize("name", ["cube.tif", "cube.hdr"])
def test_scale_and_widths_are_kept_by_themselves(tmp_path, name):
    cube = Cube(small_values(), fwhm=np.array([5.5, 6, 7, 8]), scale=1e-4, offset=-0.1)
    write_cube(tmp_path / name, cube)
    found = read(tmp_path / name)
    assert (found.scale, found.offset, found.wavelengths) == (1e-4, -0.1, None)
    assert found.fwhm.tolist() == [5.5, 6, 7, 8]
    # wavelengths that a caller gives take the place of all that the file says of its bands
    assert read(tmp_path / name, wavelengths="400:700").fwhm is None


def test_a_large_cube_is_written_by_parts(tmp_path, monkeypatch):
    monkeypatch.setattr(stream, "TILE_BYTES", 1)
    monkeypatch.setattr(stream, "BLOCK", 16)
    values = small_values("f4", rows=41, cols=37, bands=3)
    read_windows = []

    def read_window(rows, cols, bands):
        read_windows.append((rows.stop - rows.start, cols.stop - cols.start))
        return values[rows, cols][:, :, bands]

    cube = Cube(
        LazyValues(read_window, 41, 37, values.dtype, np.arange(3)), valid=np.ones((41, 37), dtype=bool)
    )
    read_windows.clear()
    for name in ("cube.tif", "cube.hdr"):
        write_cube(tmp_path / name, cube)
        np.testing.assert_array_equal(read(tmp_path / name).values, values)
    # 41 rows are 16, 16 and 9; 37 columns 16, 16 and 5; the mask is taken from the values before.
    tiles = [(rows, cols) for rows in (16, 16, 9) for cols in (16, 16, 5)]
    assert [window for window in read_windows if window != (41, 37)] == tiles * 2


@pytest.mark.parametrize("name", ["map.hdr", "map.img", "map"])
def test_what_lies_beside_an_image_goes_with_it(tmp_path, name):
    write_cube(tmp_path / name, Cube(small_values("f4"), nodata=-1.0))
    data = next(file for file in tmp_path.iterdir() if file.suffix != ".hdr")
    # GDAL believes this file before the header
    beside = data.with_name(f"{data.name}.aux.xml")
    beside.write_text(
        '<PAMDataset><PAMRasterBand band="1"><NoDataValue>3</NoDataValue></PAMRasterBand></PAMDataset>'
    )
    # and the reader this one, which another program may have left
    other = data.with_name(f"{data.name}.hdr")
    other.write_text(data.with_suffix(".hdr").read_text().replace("= -1.0", "= 3.0"))
    with pytest.raises(FileExistsError, match="overwrite"):
        write_cube(tmp_path / name, Cube(small_values("f4")))
    write_cube(tmp_path / name, Cube(small_values("f4"), nodata=-1.0), overwrite=True)
    assert {file.name for file in tmp_path.iterdir()} == {data.name, data.with_suffix(".hdr").name}
    assert read(data).nodata == -1


def test_nothing_is_overwritten_and_nothing_left_half_written(tmp_path):
    cube = Cube(small_values())
    for name, others in (("cube.tif", []), ("cube.hdr", ["cube.img"])):
        write_cube(tmp_path / name, cube)
        for file in (name, *others):
            with pytest.raises(FileExistsError, match="overwrite"):
                write_cube(tmp_path / file, cube)
        write_cube(tmp_path / name, Cube(small_values(seed=1)), overwrite=True)
        np.testing.assert_array_equal(read(tmp_path / name).values, small_values(seed=1))
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}

    def stop_halfway():
        with open_envi(
            tmp_path / "cube.hdr", cube, count=4, dtype="uint16", nodata=None, overwrite=True
        ) as image:
            image.write(small_values()[:2], 0)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stop_halfway()
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"values": small_values("i1")}, "ENVI has no int8; convert the values"),
        ({"transform": (30.0, 5.0, 0.0, 5.0, -30.0, 0.0)}, "rows going south"),
        ({"transform": (30.0, 0.0, 0.0, 0.0, 30.0, 0.0)}, "rows going south"),
        ({"valid": np.eye(6, 5, dtype=bool)}, "ENVI has no mask"),
        ({"nodata": 7.0, "valid": np.ones((6, 5), dtype=bool)}, "count as valid hold nodata"),
    ],
)
def test_what_envi_cannot_hold_is_refused(tmp_path, arguments, message):
    values = small_values()
    values[0, 0] = 7
    with pytest.raises(ValueError, match=message) as error:
        write_envi(tmp_path / "cube.hdr", Cube(**({"values": values} | arguments)))
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("dtype", ["float16", "longdouble", "bool", "complex128"])
@pytest.mark.parametrize("name", ["map.tif", "map.hdr"])
def test_numbers_that_a_format_lacks_are_refused(tmp_path, name, dtype):
    array = np.ones((6, 5, 2), dtype)
    message = f"map.*: (GeoTIFF|ENVI) has no {array.dtype.name}; convert the values to one of uint8"
    with pytest.raises(ValueError, match=message):
        write_raster(tmp_path / name, array, Cube(small_values()), nodata=None)
    if array.dtype.kind == "f":
        with pytest.raises(ValueError, match=message):
            write_cube(tmp_path / name, Cube(array))
    assert list(tmp_path.iterdir()) == []


def test_masked_pixels_are_filled_when_asked(tmp_path):
    mask = np.eye(6, 5, dtype=bool)
    for dtype, nodata in (("i2", -1.0), ("f4", None)):
        write_envi(tmp_path / f"{dtype}.hdr", Cube(small_values(dtype), nodata=nodata, valid=mask), fill=True)
        found = read(tmp_path / f"{dtype}.hdr")
        np.testing.assert_array_equal(found.valid, mask)
        np.testing.assert_array_equal(found.values[mask], small_values(dtype)[mask])
    with pytest.raises(ValueError, match="integers need a cube with nodata"):
        write_envi(tmp_path / "c.hdr", Cube(small_values(), valid=mask), fill=True)


def test_a_nodata_value_that_no_number_can_be_is_left_out(tmp_path, caplog):
    write_cube(tmp_path / "cube.tif", Cube(small_values("u1"), nodata=-9999.0))
    assert read(tmp_path / "cube.tif").nodata is None
    assert "left out the nodata value -9999.0, which no uint8 can have" in caplog.text


def test_blocks_that_do_not_fit_are_refused(tmp_path):
    def write(block, *corner):
        with open_envi(
            tmp_path / "c.hdr", Cube(small_values()), count=4, dtype="uint16", nodata=None
        ) as image:
            image.write(block, *corner)

    values = small_values()
    for block, row, col in (
        (values[:, :3], 0, 3),
        (values, 1, 0),
        (values[:1], -1, 0),
        (values[..., :3], 0, 0),
    ):
        with pytest.raises(ValueError, match="a block of an image"):
            write(block, row, col)


def test_commas_in_names_are_replaced_aloud(tmp_path, caplog):
    names = ("a, b", "{c}", "d", "e")
    write_cube(tmp_path / "cube.hdr", Cube(small_values(), band_names=names))
    assert read(tmp_path / "cube.hdr").band_names == ("a; b", "(c)", "d", "e")
    assert "replaced commas and braces" in caplog.text
