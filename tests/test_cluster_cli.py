"""The command `cluster`: its files, its scores, and what it refuses."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from hsssl.cli import main
from hsssl.readers import read
from test_cli import files, refused
from test_cluster import striped


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    """A folder with cube.mat, three materials in stripes, and labels.npy, every second column unlabelled."""
    cube, truth = striped()
    savemat(tmp_path / "cube.mat", {"cube": cube.values})
    np.save(tmp_path / "labels.npy", np.where(np.arange(36) % 2, truth, 0))
    return tmp_path


def words(scene: Path, *more: str, clusters: str = "3", labelled: bool = True) -> list[str]:
    given = ["cluster", str(scene / "cube.mat"), "--clusters", clusters, "--out", str(scene / "map.tif")]
    given += ["--wavelengths", "450:900"]
    return [*given, *(["--labels", str(scene / "labels.npy")] if labelled else []), *more]


def test_a_map_with_scores(scene: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words(scene)) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0].endswith("map.tif: 24 x 36 pixels, 3 clusters")
    assert [line.split()[0] for line in said[1:]] == ["self_expressive", "kmeans"]
    assert said[1].split()[1] == "ACC"
    assert "(432 px)" in said[1]
    # matched to the classes, the map is the truth, where there are no labels too
    assert (read(scene / "map.tif").values[:, :, 0] == striped()[1]).mean() > 0.95
    assert (scene / "map.png").read_bytes()[1:4] == b"PNG"
    page = (scene / "map.html").read_text()
    assert "Clusters by self_expressive" in page
    assert "kmeans" in page
    assert refused(capsys, words(scene)).endswith("pass --overwrite (overwrite=True) or another name\n")
    assert main(words(scene, "--overwrite", "--labelled-only", "--method", "kmeans")) == 0
    assert np.array_equal(read(scene / "map.tif").values[:, :, 0] > 0, np.load(scene / "labels.npy") > 0)


@pytest.mark.parametrize("labelled", [True, False])
def test_a_map_as_envi_classification(scene: Path, labelled: bool) -> None:
    given = words(scene, labelled=labelled)
    given[given.index(str(scene / "map.tif"))] = str(scene / "map.img")
    assert main([*given, "--progress"]) == 0
    text = (scene / "map.hdr").read_text()
    assert "file type = ENVI Classification" in text
    assert f"class names = {{unlabelled, {'class' if labelled else 'cluster'} 1" in text
    assert set(np.unique(read(scene / "map.hdr").values)) == {1, 2, 3}
    assert "3 clusters" in (scene / "map.html").read_text()
    assert (scene / "map.png").read_bytes()[1:4] == b"PNG"


def test_without_labels_there_are_no_scores(scene: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words(scene, labelled=False)) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1
    assert "Scores" not in (scene / "map.html").read_text()


def test_wrong_input_leaves_nothing(
    scene: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    np.save(scene / "other.npy", np.ones((3, 3), dtype=int))
    before = files(scene)
    assert "2 ... 255, got 1" in refused(capsys, words(scene, clusters="1"))
    np.save(scene / "many.npy", np.full((24, 36), 300))
    with monkeypatch.context() as patch:
        # refused before the work, not after it
        patch.setattr(sys.modules["hsssl.cluster.segment"], "find_clusters", None)
        many = [*words(scene, labelled=False), "--labels", str(scene / "many.npy")]
        assert "class ids must lie in 0 ... 255, got 300 ... 300; renumber" in refused(capsys, many)
    (scene / "many.npy").unlink()
    assert "did you mean kmeans" in refused(capsys, words(scene, "--method", "kmean"))
    assert "shape (3, 3)" in refused(
        capsys, [*words(scene, labelled=False), "--labels", str(scene / "other.npy")]
    )
    assert "give --labels" in refused(capsys, words(scene, "--labelled-only", labelled=False))
    wrong = words(scene, labelled=False)
    wrong[wrong.index(str(scene / "map.tif"))] = str(scene / "map.png")
    assert "end it in .tif" in refused(capsys, wrong)
    wrong[wrong.index(str(scene / "map.png"))] = str(scene / "map.html")
    assert "the page about the map has that name" in refused(capsys, wrong)
    assert files(scene) == before
