import numpy as np
import pytest

from hsssl.published import PUBLISHED, PublishedScene
from hsssl.scenes import load_scene, open_cube, open_labels
from make_fixtures import small_values, write_mat

# Labelled pixels of all classes, as published at the scenes' pages and in the literature that uses them.
SALINAS_A = {1: 391, 10: 1343, 11: 616, 12: 1525, 13: 674, 14: 799}


def test_salinas_a_by_name(data_dir, monkeypatch, caplog):
    monkeypatch.setenv("HSSSL_DATA", str(data_dir))
    scene = load_scene("salinas_a")
    assert scene.cube.values.shape == (83, 86, 204)
    assert scene.cube.source == "salinas_a"
    counts = np.bincount(scene.labels.ravel())
    assert {int(n): int(counts[n]) for n in np.flatnonzero(counts)[1:]} == SALINAS_A
    assert scene.class_names[9] == "Corn_senesced_green_weeds"
    assert scene.class_colors.shape == (14, 3)
    assert caplog.text == ""  # the files are those of the known SHA-256
    np.testing.assert_array_equal(open_labels("salinas_a"), scene.labels)


def test_samson_by_name(data_dir, monkeypatch):
    monkeypatch.setenv("HSSSL_DATA", str(data_dir))
    scene = load_scene("samson")
    assert scene.cube.values.shape == (95, 95, 156)
    assert scene.endmembers.shape == (3, 156)
    assert scene.abundances.shape == (95, 95, 3)
    np.testing.assert_allclose(scene.abundances.sum(axis=2), 1, atol=1e-6)
    # Where water is nearly pure, the pixel's spectrum has the direction of the third endmember's.
    pure = scene.abundances[:, :, 2] > 0.99
    spectra = np.asarray(scene.cube.values)[pure]
    cosine = spectra @ scene.endmembers.T / np.linalg.norm(spectra, axis=1)[:, None]
    cosine /= np.linalg.norm(scene.endmembers, axis=1)
    assert (cosine.argmax(axis=1) == 2).mean() > 0.95
    with pytest.raises(ValueError, match="samson: comes without a map of classes"):
        open_labels("samson")


def test_every_scene_says_where_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setenv("HSSSL_DATA", str(tmp_path))
    for name, scene in PUBLISHED.items():
        with pytest.raises(FileNotFoundError, match=f"{name}: no {scene.cube} in") as error:
            open_cube(name)
        message = str(error.value)
        assert scene.page in message
        assert str(tmp_path) in message
        assert "\n" not in message
    monkeypatch.setenv("HSSSL_DATA", str(tmp_path / "absent"))
    with pytest.raises(FileNotFoundError, match="absent is no folder; set it to a folder for scenes"):
        open_cube("salinas")
    monkeypatch.delenv("HSSSL_DATA")
    with pytest.raises(FileNotFoundError, match="HSSSL_DATA is not set"):
        open_cube("salinas")


def test_records_are_complete():
    for name, scene in PUBLISHED.items():
        assert scene.page.startswith("https://"), name
        assert bool(scene.labels) <= bool(scene.class_names), name
        assert bool(scene.truth) == bool(scene.endmember_names), name
        assert set(scene.sha256) <= set(scene.files), name


@pytest.fixture
def small_scene(tmp_path, monkeypatch):
    """A scene of a few pixels in two folders, with another one's truth file nearby."""
    monkeypatch.setenv("HSSSL_DATA", str(tmp_path))
    record = PublishedScene(
        "https://example.org", "Small.mat", (6, 5, 4), "none", "Small_gt.mat", ("a", "b", "c"), "end2.mat",
        ("x", "y"), {"Small.mat": "0" * 64},
    )  # fmt: skip
    monkeypatch.setitem(PUBLISHED, "small", record)
    from hsssl import scenes

    monkeypatch.setitem(scenes.SCENES, "small", lambda: scenes.published_scene("small"))
    home = tmp_path / "a" / "small"
    (home / "GroundTruth").mkdir(parents=True)
    (tmp_path / "a" / "other").mkdir()
    write_mat(home / "SMALL.mat", cube=small_values())
    write_mat(home / "Small_gt.mat", gt=np.arange(30).reshape(6, 5) % 4)
    shares = np.linspace(0, 1, 30)
    write_mat(home / "GroundTruth" / "end2.mat", M=np.ones((4, 2)), A=np.stack([shares, 1 - shares]))
    write_mat(tmp_path / "a" / "other" / "end2.mat", M=np.zeros((9, 2)), A=np.zeros((2, 9)))
    return home


def test_files_are_found_in_folders_and_whatever_their_capitals(small_scene, caplog):
    scene = load_scene("small")
    np.testing.assert_array_equal(scene.cube.values, small_values())
    assert "its SHA-256 is not that of the Small.mat known here" in caplog.text
    # Down the columns: the second pixel of the list is row 1 of column 0.
    assert scene.abundances[1, 0, 0] == pytest.approx(1 / 29)
    assert scene.abundances[0, 1, 0] == pytest.approx(6 / 29)


@pytest.mark.parametrize(
    ("file", "arrays", "message"),
    [
        ("SMALL.mat", {"cube": small_values()[:5]}, r"has shape \(6, 5, 4\), this file \(5, 5, 4\)"),
        ("Small_gt.mat", {"gt": np.full((6, 5), 4)}, "up to 4 are not those of small"),
        ("Small_gt.mat", {"gt": np.ones((5, 6))}, "are not those of small"),
        ("GroundTruth/end2.mat", {"M": np.ones((3, 2)), "A": np.ones((2, 30))}, r"want M \(4, p\)"),
    ],
)
def test_files_of_another_scene_are_refused(small_scene, file, arrays, message):
    write_mat(small_scene / file, **arrays)
    with pytest.raises(ValueError, match=message) as error:
        load_scene("small")
    assert "\n" not in str(error.value)
