import numpy as np
import pytest

from hsssl.readers import open_library, read
from make_fixtures import small_values, write_envi

SPECTRA = small_values("f4", rows=3, cols=4, bands=1)
HEADER = {
    "file type": "ENVI Spectral Library",
    "spectra names": "{clay, green grass,\n water}",
    "wavelength": "{0.45, 0.55, 0.65, 0.85}",
    "wavelength units": "Micrometers",
    "reflectance scale factor": "100",
}


@pytest.mark.parametrize("suffix", [".sli", ".lib", ""])
@pytest.mark.parametrize("by_data", [True, False])
def test_a_library_has_names_and_wavelengths(tmp_path, suffix, by_data):
    header = write_envi(tmp_path, SPECTRA, suffix=suffix, header=HEADER, byte_order=1)
    path = tmp_path / f"scene{suffix}" if by_data else header
    library = open_library(path)
    np.testing.assert_array_equal(library.spectra, SPECTRA[:, :, 0])
    assert library.names == ("clay", "green grass", "water")
    assert library.wavelengths.tolist() == [450, 550, 650, 850]
    assert library.scale == 0.01
    cube = read(path)
    np.testing.assert_array_equal(cube.values, SPECTRA.transpose(0, 2, 1))
    np.testing.assert_array_equal(read(path, lazy=True).values[1:, :, [2, 0]], cube.values[1:, :, [2, 0]])


def test_a_library_without_names_counts(tmp_path):
    header = HEADER | {"spectra names": "{one}"}
    assert open_library(write_envi(tmp_path, SPECTRA, header=header)).names[2] == "spectrum 2"


def test_an_image_is_no_library(tmp_path):
    with pytest.raises(ValueError, match="not a spectral library but ENVI Standard"):
        open_library(write_envi(tmp_path, small_values()))


def test_real_libraries_agree_with_spectral(data_dir):
    import spectral.io.envi as envi

    for name, shape in (("envi/library_berlin", (75, 177)), ("envi/gamsberg_field_library", (27, 2151))):
        library = open_library(data_dir / f"{name}.hdr")
        assert library.spectra.shape == shape
        suffix = ".sli" if "berlin" in name else ""
        outside = envi.open(str(data_dir / f"{name}.hdr"), str(data_dir / f"{name}{suffix}"))
        np.testing.assert_allclose(library.spectra, outside.spectra, rtol=1e-6)
        assert [name.strip() for name in outside.names] == list(library.names)
    earth = open_library(data_dir / "speclib" / "spectra.sli")
    assert earth.spectra.shape == (7261, 180)
    assert (earth.wavelengths[0], earth.wavelengths[-1]) == (400, 2450)
    assert open_library(data_dir / "dlr_hysu" / "DLR_HySU_HS_library.lib").names[1] == "Red Metal Sheets"
