"""The spine on real scenes: one encoder, trained on Indian Pines, on the cubes of other sensors."""

import logging
from pathlib import Path

import numpy as np
import pytest

import hsssl
from hsssl.demo import demo


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    out = tmp_path_factory.mktemp("real") / "run"
    hsssl.pretrain(["indian_pines"], "simclr", out=out, steps=10, batch_size=256, progress=False)
    return hsssl.load_encoder(out)


def test_indian_pines_as_mat_has_no_wavelengths_and_is_refused_without(indian_pines, data_dir, encoder):
    path = data_dir / "indian_pines" / "Indian_pines_corrected.mat"
    with pytest.raises(ValueError, match="give --wavelengths"):
        hsssl.embed(encoder, hsssl.open_cube(path))
    same = hsssl.open_cube(path, wavelengths=indian_pines.cube.wavelengths)
    expected = hsssl.embed(encoder, indian_pines.cube)
    np.testing.assert_allclose(hsssl.embed(encoder, same), expected, rtol=1e-4, atol=1e-5)


def test_salinas_with_204_bands(indian_pines, data_dir, encoder, caplog):
    cube = hsssl.open_cube(data_dir / "salinas_a" / "SalinasA_corrected.mat", wavelengths="400:2500")
    labels = hsssl.open_labels(data_dir / "salinas_a" / "SalinasA_gt.mat")
    with caplog.at_level(logging.WARNING, "hsssl"):
        features = hsssl.embed(encoder, cube)
    assert "another sensor than in training (204 bands" in caplog.text
    assert features.shape == (83, 86, 640)
    score = hsssl.evaluate(features, labels, split="random", per_class=10, patch_size=15, seeds=2)
    assert score.oa > 0.9


def test_enmap_tile_with_void_bands_trains_and_embeds(data_dir, tmp_path):
    tiles = sorted(Path(data_dir / "enmap_potsdam" / "images").glob("*.tif"))[:2]
    run = hsssl.pretrain(tiles, out=tmp_path / "run", steps=4, patch_size=5, batch_size=64, progress=False)
    encoder = hsssl.load_encoder(run.path)
    assert len(encoder.spec.sensors[0].source_index) == 218
    cube = hsssl.open_cube(tiles[0])
    features = hsssl.open_cube(hsssl.embed(encoder, cube, out=tmp_path / "features.tif"))
    assert np.isfinite(features.values[cube.valid]).all()
    assert features.transform == cube.transform


def test_demo_ends_in_a_report(indian_pines, tmp_path, capsys):
    report = demo(str(tmp_path / "demo"), steps=10, seeds=2)
    assert report.is_file()
    assert "Indian Pines" in report.read_text()
    names = {file.name for file in (tmp_path / "demo").iterdir()}
    assert {"report.html", "scores.json", "map.tif", "metrics.jsonl", "encoder.safetensors"} <= names
    with pytest.raises(ValueError, match="is not empty"):
        demo(str(tmp_path / "demo"), steps=10, seeds=2)
