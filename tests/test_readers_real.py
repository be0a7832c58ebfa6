"""The readers on real files, with all that real files have in them."""

import shutil

import numpy as np
import pytest

from hsssl.readers import read


def test_salinas_a(data_dir):
    cube = read(data_dir / "salinas_a" / "SalinasA_corrected.mat")
    assert cube.values.shape == (83, 86, 204)
    assert cube.values.dtype == np.int16


def test_enmap_tile(data_dir):
    cube = read(data_dir / "enmap_potsdam" / "images" / "enmap_potsdam_tile_128_0.tif")
    assert cube.values.shape == (32, 32, 224)
    assert cube.nodata == -32768
    assert cube.scale == 1e-4
    assert (cube.values[:, :, 129:135] == -32768).all()
    # Void bands do not make every pixel invalid.
    assert cube.valid.all()
    assert cube.wavelengths[0] == 418.24
    assert cube.fwhm[0] == 6.99561
    assert np.flatnonzero(~cube.good_bands).tolist() == list(range(129, 135))
    assert "UTM zone 33N" in cube.crs


def test_corn_kernel_needs_its_byte_order(data_dir, tmp_path):
    folder = data_dir / "envi"
    with pytest.raises(ValueError, match="add the line: byte order = 0"):
        read(folder / "corn-kernel-hyperspectral.hdr")
    shutil.copyfile(folder / "corn-kernel-hyperspectral.raw", tmp_path / "corn.raw")
    shutil.copyfile(folder / "corn-kernel-hyperspectral_fixed.hdr", tmp_path / "corn.hdr")
    cube = read(tmp_path / "corn.hdr")
    assert cube.values.shape == (31, 43, 580)
    assert (cube.wavelengths[0], cube.wavelengths[-1]) == (366.551, 1048.421)


@pytest.mark.parametrize("name", ["cubus_gamsberg_subset", "cubus_gamsberg_subset.hdr"])
def test_gamsberg_data_file_has_no_extension(data_dir, name):
    import spectral.io.envi as envi

    cube = read(data_dir / "envi" / name)
    assert cube.values.shape == (25, 10, 189)
    outside = envi.open(str(data_dir / "envi" / "cubus_gamsberg_subset.hdr")).open_memmap()
    np.testing.assert_array_equal(cube.values, outside)


def test_dlr_hysu_states_micrometres_without_a_unit(data_dir):
    cube = read(data_dir / "dlr_hysu" / "DLR_HySU_HS_full.tif")
    assert cube.values.shape == (86, 123, 135)
    assert (cube.wavelengths[0], cube.wavelengths[-1]) == (417.4, 902.79)
    assert cube.nodata == 15000
    with pytest.raises(ValueError, match=r"open .*DLR_HySU_HS_full\.tif"):
        read(data_dir / "dlr_hysu" / "DLR_HySU_HS_full.hdr")


def test_aviris_crop_brings_its_wavelengths(data_dir):
    cube = read(data_dir / "aviris_crop" / "a_hsi_img_for_VI_demo.mat")
    assert cube.values.shape == (90, 90, 224)
    assert cube.wavelengths[-1] == pytest.approx(2496.219971, abs=1e-6)


def test_abu_crops_have_many_band_counts(data_dir):
    shapes = {path.stem: read(path).values.shape for path in (data_dir / "abu").glob("*.mat")}
    assert shapes["abu-beach-4"] == (100, 100, 102)
    assert shapes["hydice"] == (80, 100, 162)
    assert len({shape[2] for shape in shapes.values()}) == 7


def test_samson_is_a_pixel_list_in_column_major_order(data_dir, caplog):
    from scipy.io import loadmat

    path = data_dir / "samson" / "samson_1.mat"
    cube = read(path)
    assert cube.values.shape == (95, 95, 156)
    assert "read down the columns of its 95 x 95 (nRow, nCol) image" in caplog.text
    np.testing.assert_array_equal(read(path, rows=95, cols=95).values, cube.values)
    listed = loadmat(path)["V"]
    for row, col in ((0, 0), (1, 0), (0, 1), (7, 93)):
        np.testing.assert_array_equal(cube.values[row, col], listed[:, row + 95 * col])
    # The abundances, unfolded the same way, explain the image; transposed, they do not.
    truth = loadmat(data_dir / "samson" / "end3.mat")
    abundances = truth["A"].T.reshape(95, 95, 3, order="F")
    pixels = cube.values.reshape(-1, 156)
    residual = [
        np.linalg.lstsq(a.reshape(-1, 3), pixels, rcond=None)[1].sum()
        for a in (abundances, abundances.transpose(1, 0, 2))
    ]
    assert residual[0] < 0.5 * residual[1]
