"""Clusters of scenes whose classes are known: self-expression, graphs, landmarks, masks, memory."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.sparse import csr_array

import hsssl
from hsssl import stream
from hsssl.cluster import CLUSTER_METHODS, Pixels, score_clusters
from hsssl.cluster.elastic_net import fit_elastic_net
from hsssl.cluster.features import AveragedComponents, FeatureMap, Spectra, rows_at
from hsssl.cluster.graph import spectral_clusters
from hsssl.cluster.landmarks import Votes
from hsssl.cluster.ridge import ridge_coefficients, ridge_factor
from hsssl.cluster.segment import find_clusters
from hsssl.cube import Cube
from hsssl.lazy import LazyValues
from hsssl.readers import read

ROOT = Path(__file__).resolve().parents[1]


def striped(rows: int = 24, cols: int = 36, bands: int = 12, seed: int = 0) -> tuple[Cube, np.ndarray]:
    """Three materials in stripes, brighter and darker by half, with noise; and their classes."""
    rng = np.random.default_rng(seed)
    truth = np.repeat(np.repeat([[1, 2, 3]], rows, axis=0), cols // 3, axis=1)
    materials = rng.uniform(500, 3000, (4, bands))
    light = rng.uniform(0.7, 1.3, (rows, cols, 1))
    values = light * materials[truth] + rng.normal(0, 30, (rows, cols, bands))
    return Cube(values.astype(np.float32), wavelengths=np.linspace(450, 900, bands), source="striped"), truth


def all_rows(features: FeatureMap, chosen: np.ndarray) -> np.ndarray:
    """Return the features (n, d) of all chosen pixels."""
    return rows_at(features, np.flatnonzero(chosen), chosen.shape[1])


@pytest.fixture(scope="module")
def subspaces() -> tuple[np.ndarray, np.ndarray]:
    """Points (150, 10) on three planes through the origin, each of the norm 1, and their plane."""
    rng = np.random.default_rng(1)
    planes = [np.linalg.qr(rng.normal(size=(10, 2)))[0] for _ in range(3)]
    points = np.concatenate([rng.normal(size=(50, 2)) @ plane.T for plane in planes])
    return points / np.linalg.norm(points, axis=1, keepdims=True), np.repeat([1, 2, 3], 50)


def test_ridge_is_exact_at_low_rank() -> None:
    """Q Q^T is the dense solution of the normal equations, and its objective is least."""
    rng = np.random.default_rng(0)
    z = rng.normal(size=(40, 6))
    factor = ridge_factor(z, ridge=0.3)
    c = factor @ factor.T
    np.testing.assert_allclose(c, ridge_coefficients(z, ridge=0.3), atol=1e-12)

    penalty = 0.3 * np.linalg.eigvalsh(z.T @ z).mean()

    def objective(coefficients: np.ndarray) -> float:
        return float(np.square(z - coefficients @ z).sum() + penalty * np.square(coefficients).sum())

    for _ in range(5):
        assert objective(c) < objective(c + 1e-3 * rng.normal(size=c.shape))


def test_ridge_refuses_what_expresses_nothing() -> None:
    with pytest.raises(ValueError, match="all features are 0"):
        ridge_factor(np.zeros((3, 2)))
    with pytest.raises(ValueError, match="`ridge` must be finite and above 0, got 0"):
        ridge_factor(np.ones((3, 2)), ridge=0)
    with pytest.raises(ValueError, match="finite matrix"):
        ridge_factor(np.full((3, 2), np.nan))


def test_spectral_clusters_finds_parts_that_touch_or_do_not() -> None:
    """Cliques of 30, 40 and 50: apart, where the eigenvalue 1 is threefold, and joined by single edges."""
    sizes, n = (30, 40, 50), 120
    truth = np.repeat([1, 2, 3], sizes)
    weights = (truth[:, None] == truth).astype(float)
    for bridge in (0.0, 1e-4, 1.0):
        weights[0, 30] = weights[30, 0] = weights[30, 70] = weights[70, 30] = bridge
        order = np.random.default_rng(0).permutation(n)
        for seed in (0, 1):
            found = spectral_clusters(csr_array(weights[order][:, order]), 3, seed=seed)
            assert score_clusters(truth[order], found + 1).acc == 1


def test_subspaces_are_told_apart_by_self_expression(subspaces: tuple[np.ndarray, np.ndarray]) -> None:
    """Planes through the origin, which k-means cannot tell apart: opposite points are of one plane."""
    from sklearn.cluster import KMeans

    points, truth = subspaces
    factor = ridge_factor(points, ridge=0.01)
    found = Votes.of(factor, factor, 3, neighbours=8, signed=False).found
    assert score_clusters(truth, found + 1).acc > 0.95
    assert score_clusters(truth, KMeans(3, n_init=5, random_state=0).fit_predict(points) + 1).acc < 0.75


def test_the_elastic_net_tells_subspaces_apart(subspaces: tuple[np.ndarray, np.ndarray]) -> None:
    points, truth = subspaces
    net = fit_elastic_net(points, steps=150, batch=100)
    assert net.threshold > 0
    query, key = net.encode(points)
    found = Votes.of(query, key, 3, threshold=float(net.threshold), neighbours=8, signed=False).found
    assert score_clusters(truth, found + 1).acc > 0.9
    again = fit_elastic_net(points, steps=150, batch=100)
    assert np.array_equal(again.encode(points)[0], query)


@pytest.mark.parametrize("method", sorted(CLUSTER_METHODS.keys() - {"ae_subspace", "contrastive_clustering"}))
def test_every_method_finds_the_stripes(method: str) -> None:
    cube, truth = striped()
    found = hsssl.cluster(cube, clusters=3, method=method, seed=1)
    assert found.dtype == np.int32
    assert set(np.unique(found)) <= {1, 2, 3}
    score = score_clusters(truth, found)
    # k-means is drawn apart by brightness, and the networks are trained briefly: chance is 1/3
    assert score.acc > {"kmeans": 0.6, "elastic_net": 0.5}.get(method, 0.95)
    assert np.array_equal(found, hsssl.cluster(cube, clusters=3, method=method, seed=1))


@pytest.mark.parametrize("method", ["ae_subspace", "contrastive_clustering"])
def test_learnt_methods_give_a_map(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from hsssl.cluster import methods

    monkeypatch.setattr(methods, "PRETRAINING_STEPS", 12)
    cube, _ = striped(12, 18)
    found = hsssl.cluster(cube, clusters=3, method=method)
    assert found.shape == (12, 18)
    assert set(np.unique(found)) <= {1, 2, 3}
    assert found.min() >= 1


@pytest.mark.parametrize("method", ["self_expressive", "kmeans", "spectral"])
def test_landmarks_carry_the_clusters_to_the_others(method: str) -> None:
    cube, truth = striped()
    found = hsssl.cluster(cube, clusters=3, method=method, landmarks=200)
    assert (found > 0).all()
    assert score_clusters(truth, found).acc > (0.6 if method == "kmeans" else 0.95)


@pytest.mark.parametrize("method", ["self_expressive", "elastic_net", "kmeans"])
@pytest.mark.parametrize("name", ["map.tif", "map.hdr"])
def test_written_tile_by_tile_the_clusters_are_those_of_memory(
    method: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "BLOCK", 16)
    monkeypatch.setattr(stream, "TILE_BYTES", 1)
    cube, _ = striped()
    windows = []

    def read_window(rows: slice, cols: slice, bands: np.ndarray) -> np.ndarray:
        windows.append((rows, cols))
        return cube.values[rows, cols][:, :, bands]

    late = Cube(LazyValues(read_window, 24, 36, cube.values.dtype, np.arange(12)), cube.wavelengths)
    how = {"clusters": 3, "method": method, "landmarks": 200}
    assert hsssl.cluster(late, out=tmp_path / name, **how) == tmp_path / name
    written = read(tmp_path / name)
    assert written.values.dtype == np.uint8
    np.testing.assert_array_equal(written.values[:, :, 0], hsssl.cluster(cube, **how))
    # the last six are the tiles of the map, with what windows of 7 pixels reach beyond
    reach = 0 if method == "kmeans" else 3
    assert windows[-6:][0] == (slice(0, 16 + reach), slice(0, 16 + reach))
    if name == "map.hdr":
        assert "cluster 3" in (tmp_path / name).read_text()
    with pytest.raises(FileExistsError, match="pass --overwrite"):
        hsssl.cluster(late, out=tmp_path / name, **how)


def test_tiles_of_landmarks_alone_are_not_read_again() -> None:
    cube, _ = striped()
    found = find_clusters(cube, 3, method="kmeans")
    assert len(found.fitted.places) == 24 * 36
    assert not any(found._read(tile) is not None for tile in found.fitted.features.tiles())
    np.testing.assert_array_equal(found.image(), hsssl.cluster(cube, clusters=3, method="kmeans"))


def test_pixels_not_measured_are_masked_and_never_spread() -> None:
    cube, truth = striped()
    values = cube.values.copy()
    values[5:8, 3:9] = np.nan
    values[20, 30] = -9999
    broken = Cube(values, wavelengths=cube.wavelengths, nodata=-9999, source="broken")
    found = hsssl.cluster(broken, clusters=3)
    void = np.zeros(truth.shape, dtype=bool)
    void[5:8, 3:9] = void[20, 30] = True
    assert np.array_equal(found == 0, void)
    assert score_clusters(truth, found).acc > 0.95
    # features of the others are those of a scene in which other numbers stood there
    values[void] = 1e6
    other = Cube(values, wavelengths=cube.wavelengths, valid=~void, source="other")
    ours, theirs = (all_rows(AveragedComponents.of(Pixels(c, ~void)), ~void) for c in (broken, other))
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-2)


def test_missing_bands_of_a_valid_pixel_are_the_mean(caplog: pytest.LogCaptureFixture) -> None:
    cube, truth = striped()
    values = cube.values.copy()
    values[2, 2, 5] = np.nan
    partly = Cube(
        values, wavelengths=cube.wavelengths, valid=np.ones(truth.shape, dtype=bool), source="partly"
    )
    pixels = Pixels(partly, partly.valid)
    rows = all_rows(Spectra.of(pixels), partly.valid)
    np.testing.assert_allclose(rows[2 * 36 + 2, 5], np.nanmean(values[:, :, 5]), rtol=1e-5)
    assert np.isfinite(all_rows(AveragedComponents.of(pixels), partly.valid)).all()
    hsssl.cluster(partly, clusters=3)
    assert "1 of the pixels to cluster lack some bands" in caplog.text


def test_a_mask_keeps_to_its_pixels() -> None:
    cube, truth = striped()
    labels = np.where(np.arange(36) % 2, truth, 0)
    found = hsssl.cluster(cube, clusters=3, mask=labels)
    assert np.array_equal(found > 0, labels > 0)
    assert np.array_equal(found, hsssl.cluster(cube, clusters=3, mask=labels > 0))
    # which class a pixel has moves nothing
    assert np.array_equal(found, hsssl.cluster(cube, clusters=3, mask=(labels > 0) * 7))


CUBE, TRUTH = striped(6, 6)


@pytest.mark.parametrize(
    ("cube", "options", "message"),
    [
        (CUBE, {"clusters": 1}, r"clusters must be a whole number in 2 ... 255, got 1"),
        (CUBE, {"clusters": 2.5}, r"got 2.5"),
        (CUBE, {"clusters": 300}, r"got 300"),
        (CUBE, {"clusters": 40}, r"striped: 36 pixels to cluster, more than 40 are needed"),
        (CUBE, {"clusters": 3, "method": "self_expresive"}, r"did you mean self_expressive"),
        (CUBE, {"clusters": None}, r"clusters must be a whole number in 2 ... 255, got None"),
        (CUBE, {"clusters": 3, "landmarks": 50.5}, r"landmarks must be a whole number, got 50.5"),
        (CUBE, {"clusters": 3, "seed": -1}, r"seed must be a whole number, at least 0, got -1"),
        (CUBE, {"clusters": 3, "landmarks": 8}, r"landmarks must be at least 4 a cluster, 12, got 8"),
        (
            CUBE,
            {"clusters": 3, "mask": TRUTH[1:]},
            r"mask must have the scene's shape \(6, 6\), got \(5, 6\)",
        ),
        (CUBE, {"clusters": 3, "mask": TRUTH * 1.0}, r"mask must be bool or integer, got float64"),
        (CUBE, {"clusters": 3, "mask": TRUTH > 9}, r"0 pixels to cluster"),
        (Cube(np.full((4, 4, 3), 7.0), source="flat"), {"clusters": 2}, r"flat: no band remains: 3 constant"),
        (Cube(np.full((4, 4, 3), np.nan), source="void"), {"clusters": 2}, r"void: no valid pixel"),
        (
            Cube(np.repeat([[[1.0], [2.0]]], 8, axis=0), source="two"),
            {"clusters": 3},
            r"two: only 2 different spectra among 16 pixels, 3 clusters asked for",
        ),
    ],
)
def test_bad_input_is_refused_in_words(cube: Cube, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        hsssl.cluster(cube, **options)


def labelled_scene(folder: Path) -> tuple[Cube, np.ndarray]:
    return (
        hsssl.open_cube(folder / "salinas_a" / "SalinasA_corrected.mat"),
        hsssl.open_labels(folder / "salinas_a" / "SalinasA_gt.mat"),
    )


def test_salinas_a(data_dir: Path) -> None:
    """The default finds the six crops of the real scene; from landmarks alone too."""
    cube, labels = labelled_scene(data_dir)
    assert score_clusters(labels, hsssl.cluster(cube, clusters=6, mask=labels)).acc >= 0.93
    assert score_clusters(labels, hsssl.cluster(cube, clusters=6, mask=labels, landmarks=4000)).acc >= 0.93


def test_a_large_scene_needs_little_memory() -> None:
    """200 x 300 x 60 pixels, from 1000 landmarks: far less than their 60,000^2 coefficients (14 GB)."""
    script = (
        "import resource, numpy as np, hsssl; from test_cluster import striped\n"
        "cube, truth = striped(200, 300, 60)\n"
        "hsssl.cluster(striped(8, 9)[0], clusters=2)\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "found = hsssl.cluster(cube, clusters=3, landmarks=1000)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, hsssl.cluster.__name__)\n"
        "assert (found > 0).all()\n"
    )
    if sys.platform != "linux":
        pytest.skip("the peak of memory is in other units here")
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "kernels"), str(ROOT / "tests")])
    }
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[0]) / 1024 < 500  # MiB
