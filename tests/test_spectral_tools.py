import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hsssl.cube import Cube
from hsssl.readers import read
from hsssl.resample import resample
from hsssl.sensors import SENSORS, guess_sensor, sensor_bands
from hsssl.snr import estimate_snr
from hsssl.spectral_tools import continuum_removal, drop_windows, resolve_overlap, sort_bands


def spectra(centres, values=None, **arguments):
    """A cube of one row with the spectra given, or with zeros."""
    numbers = np.zeros((1, len(centres))) if values is None else np.atleast_2d(values)
    return Cube(numbers[None], np.array(centres, dtype=float), source="scene", **arguments)


def test_sorting_is_said(caplog):
    cube = sort_bands(spectra([600, 500, 550, 500], [[0, 1, 2, 3]]))
    assert cube.values.ravel().tolist() == [1, 3, 2, 0]
    assert cube.source_index.tolist() == [1, 3, 2, 0]
    assert "scene: sorted its 4 bands" in caplog.text
    assert sort_bands(cube) is cube


@pytest.mark.parametrize(
    ("keep", "left"),
    [
        ("middle", [480, 490, 500, 506, 516]),
        ("shorter", [480, 490, 500, 510, 516]),
        ("longer", [480, 490, 496, 506, 516]),
    ],
)
@pytest.mark.parametrize("falling", [False, True])
def test_one_detector_is_kept_in_the_overlap(keep, left, falling, caplog):
    first, second = [480, 490, 500, 510], [496, 506, 516]
    # As EnMAP has them, and as PRISMA does: falling in each detector.
    listed = [*first[::-1], *second[::-1]] if falling else [*first, *second]
    cube = resolve_overlap(spectra(listed), keep=keep)
    assert cube.wavelengths.tolist() == left
    assert [listed[i] for i in cube.source_index] == left
    assert "dropped 2 bands of overlapping detectors" in caplog.text


def test_detectors_that_do_not_overlap_stay():
    assert resolve_overlap(spectra([400, 500, 600, 700])).bands == 4
    assert resolve_overlap(spectra([700, 600, 500, 400])).wavelengths.tolist() == [400, 500, 600, 700]
    with pytest.raises(ValueError, match="keep is middle"):
        resolve_overlap(spectra([400, 500]), keep="both")


def test_the_overlap_of_a_real_tile(data_dir):
    cube = read(data_dir / "enmap_potsdam" / "images" / "enmap_potsdam_tile_128_0.tif")
    resolved = resolve_overlap(cube)
    assert (np.diff(resolved.wavelengths) > 0).all()
    cut = (902.257 + 993.083) / 2
    shorter = resolved.source_index < 91
    assert resolved.wavelengths[shorter].max() <= cut < resolved.wavelengths[~shorter].min()
    # The gap at the seam is no wider than two steps of the coarser detector.
    assert np.diff(resolved.wavelengths[resolved.wavelengths < 1300]).max() < 25


def test_windows_are_dropped_and_named(caplog):
    cube = drop_windows(spectra([1000, 1350, 1430, 1431, 1900, 2450, 2600]))
    assert cube.wavelengths.tolist() == [1000, 1431]
    assert "dropped 5 bands in windows (1-2, 4-6, from 0)" in caplog.text
    assert drop_windows(cube, [(990, 1010)]).wavelengths.tolist() == [1431]
    with pytest.raises(ValueError, match="none is left"):
        drop_windows(cube, [(0, 5000)])


def test_resampling_is_the_integral_with_the_response():
    from scipy.integrate import quad

    fine = np.arange(400, 1000, 2.0)
    smooth = lambda nm: 0.3 + 0.2 * np.sin(nm / 60)  # noqa: E731
    cube = spectra(fine, smooth(fine) * 1e4, scale=1e-4, scale_source="test")
    out = resample(cube, "sentinel-2a:B2,B3,B4,B8")
    for place, (centre, width) in enumerate(zip(out.wavelengths, out.fwhm, strict=True)):
        response = lambda nm, c=centre, w=width: np.exp(-4 * np.log(2) * ((nm - c) / w) ** 2)  # noqa: E731
        above, below = (
            quad(lambda nm, f=factor, r=response: f(nm) * r(nm), 400, 998, limit=200)[0]
            for factor in (smooth, lambda nm: 1.0)
        )
        assert out.values[0, 0, place] == pytest.approx(above / below, rel=2e-3)
    assert (out.scale, out.values.dtype) == (1, np.float32)


@settings(max_examples=40, deadline=None)
@given(level=st.floats(0.1, 10), seed=st.integers(0, 99))
def test_resampling_keeps_a_flat_spectrum(level, seed):
    rng = np.random.default_rng(seed)
    centres = rng.permutation(400 + 5.0 * np.arange(120) + rng.uniform(0, 4, 120))
    out = resample(spectra(centres, np.full(120, level)), np.array([500.0, 700.0]), [20.0, 90.0])
    np.testing.assert_allclose(out.values, level, rtol=1e-6)


def test_resampling_leaves_bad_void_and_invalid_out():
    values = np.full((2, 2, 30), 5.0)
    values[:, :, 10], values[:, :, 11] = 1000.0, np.nan
    values[0, 0] = np.nan
    good = np.arange(30) != 10
    cube = Cube(values, 500 + 2.0 * np.arange(30), good_bands=good)
    out = resample(cube, np.array([521.0]), [30.0])
    np.testing.assert_allclose(out.values[out.valid], 5, rtol=1e-6)
    assert np.flatnonzero(~out.valid).tolist() == [0]
    assert np.isnan(out.values[0, 0]).all()


def test_resampling_does_not_invent():
    cube = spectra([*range(400, 700, 10), *range(900, 1000, 10)])
    for centre in (350, 800, 1005, 698):
        with pytest.raises(ValueError, match=f"both sides of 1 target bands: {centre} .FWHM 40. nm; leave"):
            resample(cube, np.array([500.0, centre]), [40.0, 40.0])
    with pytest.raises(ValueError, match="needs a positive FWHM"):
        resample(cube, np.array([500.0]))
    with pytest.raises(ValueError, match="wavelengths are needed"):
        resample(Cube(np.zeros((1, 1, 3))), "sentinel-2a")


def test_continuum_removal_agrees_with_spectral(data_dir):
    import spectral

    from hsssl.readers import open_library

    library = open_library(data_dir / "envi" / "library_berlin.sli")
    ours = continuum_removal(library.spectra[:20], library.wavelengths)
    theirs = spectral.remove_continuum(np.array(library.spectra[:20]), library.wavelengths)
    np.testing.assert_allclose(ours, theirs, rtol=1e-9)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), bands=st.integers(1, 12))
def test_the_continuum_is_the_upper_hull(seed, bands):
    rng = np.random.default_rng(seed)
    axis = np.cumsum(rng.uniform(0.5, 2, bands))
    values = rng.integers(1, 6, (3, bands)).astype(float)  # many points in line
    removed = continuum_removal(values, axis)
    assert (removed <= 1 + 1e-12).all()
    hull = values / removed
    # The least concave curve above a spectrum: at each band, the highest chord over it.
    for spectrum in range(3):
        for band in range(bands):
            chords = [
                np.interp(axis[band], axis[[i, j]], values[spectrum, [i, j]])
                for i in range(band + 1)
                for j in range(band, bands)
            ]
            assert hull[spectrum, band] == pytest.approx(max(chords))


def test_continuum_removal_says_what_does_not_fit():
    for axis in (np.array([2.0, 1.0]), np.array([1.0, 2.0, 3.0])):
        with pytest.raises(ValueError, match="want ascending wavelengths"):
            continuum_removal(np.ones((4, 2)), axis)
    assert np.isnan(continuum_removal(np.array([[1.0, np.nan], [0.0, 0.0]]), np.array([1.0, 2.0]))).all()


def test_noise_is_found_under_a_smooth_scene():
    rng = np.random.default_rng(0)
    rows, cols, bands = 60, 60, 25
    ramp = np.linspace(0, 1, rows)[:, None, None] + np.linspace(0, 2, cols)[None, :, None]
    clean = 100 + 30 * ramp + 10 * np.sin(np.arange(bands) / 8) * (1 + ramp)
    noise = np.linspace(0.5, 3, bands)
    values = clean + rng.normal(size=clean.shape) * noise
    values[0, 0] = np.nan
    snr, found = estimate_snr(Cube(values, scale=0.01, scale_source="test"))
    # Regression on noisy neighbours leaves at least the noise itself, and here little more.
    ratio = found / (0.01 * noise)
    assert 0.93 < np.median(ratio) < 1.15
    assert ((ratio > 0.85) & (ratio < 1.3)).all()
    signal = 0.01 * clean.reshape(-1, bands)[1:].mean(axis=0)
    np.testing.assert_allclose(snr * found, signal, rtol=1e-2)


def test_noise_needs_a_block_and_bands():
    with pytest.raises(ValueError, match="3 bands and more"):
        estimate_snr(Cube(np.ones((9, 9, 2))))
    with pytest.raises(ValueError, match="no block of 6 x 6 valid pixels"):
        estimate_snr(Cube(np.full((9, 9, 4), np.nan)))
    with pytest.raises(ValueError, match="no block of 6 x 6 valid pixels"):
        estimate_snr(Cube(np.ones((5, 9, 4))))


def test_a_void_band_has_no_snr(data_dir):
    cube = read(data_dir / "enmap_potsdam" / "images" / "enmap_potsdam_tile_128_0.tif")
    snr, _ = estimate_snr(cube)
    assert np.flatnonzero(np.isnan(snr)).tolist() == list(range(129, 135))
    assert 20 < np.nanmedian(snr) < 1000


def test_rows_without_a_valid_block_are_passed_over():
    values = np.random.default_rng(0).normal(100, 1, (24, 24, 5))
    below = estimate_snr(Cube(values[12:]))
    values[:12, ::4] = np.nan
    ours = estimate_snr(Cube(values, valid=np.repeat([False, True], 12)[:, None] & np.ones((24, 24), bool)))
    np.testing.assert_allclose(ours, below, rtol=1e-12)


def test_a_bad_band_with_gaps_has_no_snr():
    values = np.random.default_rng(0).normal(100, 1, (24, 24, 5))
    values[3:5, 3:5, 1] = np.nan
    cube = Cube(values, good_bands=np.arange(5) != 1, valid=np.ones((24, 24), dtype=bool))
    assert np.isnan(estimate_snr(cube)[0]).tolist() == [False, True, False, False, False]


@pytest.mark.parametrize(("fill", "nodata"), [(np.nan, None), (-9999.0, -9999.0)])
def test_void_bands_are_nobodys_neighbours(fill, nodata):
    rng = np.random.default_rng(0)
    values = rng.normal(100, 1, (24, 24, 8))
    measured = np.array([True, True, True, False, True, True, False, True])
    alone = estimate_snr(Cube(values[:, :, measured], scale=0.1, offset=np.arange(6.0)))
    values[:, :, ~measured] = fill
    offset = np.full(8, 7.0)
    offset[measured] = np.arange(6.0)
    found = estimate_snr(Cube(values, nodata=nodata, scale=0.1, offset=offset))
    for ours, without in zip(found, alone, strict=True):
        np.testing.assert_array_equal(ours[measured], without)
        assert np.isnan(ours[~measured]).all()
    values[:, :, 2:] = fill
    with pytest.raises(ValueError, match="3 bands and more, got 2 of 8 measured"):
        estimate_snr(Cube(values, nodata=nodata))


def test_sensors_are_sound():
    for name, sensor in SENSORS.items():
        assert len(sensor.names) == sensor.wavelengths.size, name
        assert (sensor.wavelengths > 300).all(), name
        assert sensor.fwhm is None or (sensor.fwhm > 0).all(), name
        assert len(sensor.source) > 20, name
    # USGS: OLI band 5 from 0.85 to 0.88 um.
    assert SENSORS["landsat-8"].band("B5") == (865, 30)
    assert SENSORS["sentinel-2b"].band("B12") == (2185.7, None)  # widths only where a table was found
    assert [len(SENSORS[name].names) for name in ("enmap", "prisma", "emit", "aviris")] == [
        224,
        239,
        285,
        224,
    ]
    centres, widths = sensor_bands("sentinel-2a:B8,B2")
    assert centres.tolist() == [832.8, 492.4]
    assert widths.tolist() == [106, 66]
    with pytest.raises(ValueError, match="did you mean sentinel-2a"):
        sensor_bands("sentinel2a")
    with pytest.raises(ValueError, match="unknown band 'B99'"):
        sensor_bands("landsat-8:B99")


def test_sensors_are_guessed_from_real_wavelengths(data_dir, indian_pines):
    tile = read(data_dir / "enmap_potsdam" / "images" / "enmap_potsdam_tile_128_0.tif")
    crop = read(data_dir / "aviris_crop" / "a_hsi_img_for_VI_demo.mat")
    neon = read(data_dir / "neon" / "neonhs_ex.h5")
    assert guess_sensor(tile.wavelengths) == "enmap"
    assert guess_sensor(crop.wavelengths) == guess_sensor(indian_pines.cube.wavelengths) == "aviris"
    assert guess_sensor(neon.wavelengths) is None
    assert guess_sensor(np.array([865.0, 480.0])) == "landsat-8"
