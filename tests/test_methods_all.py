"""What every method holds to: it learns on a real scene, resumes to the bit, takes bf16 and any module."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import hsssl.train
from hsssl.checkpoint import load_checkpoint
from hsssl.collapse import feature_health
from hsssl.commands import methods
from hsssl.cube import Cube
from hsssl.encoders import build_encoder
from hsssl.evaluate.classifiers import fit_linear
from hsssl.methods import METHODS, build_method
from hsssl.prepare import prepare
from hsssl.sampling import draw_views, load_resident
from hsssl.spec import Sensor
from hsssl.splits import random_split
from hsssl.train import pretrain
from hsssl.views import DEFAULT_VIEWS
from test_train import SMALL, synthetic

# Settings that are methods of their own, and memories that a few small batches fill; tuples, as people write.
VARIANTS = {name: (name, {}) for name in METHODS} | {
    "ae_subspace": ("ae_subspace", {"memory": 64, "clusters": 4}),
    "moco v3": ("moco", {"queue_size": 0}),
    "pcl": ("pcl", {"memory": 64, "clusters": (8, 16), "negatives": 64, "e_steps": 3}),
    "swav with a queue": ("swav", {"queue_size": 64}),
}
variants = pytest.mark.parametrize("variant", VARIANTS)


class Stopped(Exception):
    """What ends a run in the middle, as a kill would."""


@variants
def test_stopped_and_resumed_run_is_bit_identical(tmp_path, monkeypatch, variant):
    name, options = VARIANTS[variant]
    settings = {"steps": 12, "checkpoint_every": 4, "method_options": options, "log_every": 1} | SMALL
    whole = pretrain([synthetic()], name, out=tmp_path / "whole", **settings)

    def stops(*given, step, **named):
        if step == 10:  # pcl contrasts, ae_subspace has clustered
            raise Stopped
        return draw_views(*given, step=step, **named)

    with monkeypatch.context() as patch:
        patch.setattr(hsssl.train, "draw_views", stops)
        with pytest.raises(Stopped):
            pretrain([synthetic()], name, out=tmp_path / "broken", **settings)
    resumed = pretrain([synthetic()], name, out=tmp_path / "broken", resume=True, **settings)
    ours, theirs = (load_checkpoint(run.checkpoint_file)["model"] for run in (resumed, whole))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    assert [row["loss"] for row in resumed.metrics] == [row["loss"] for row in whole.metrics]


@variants
def test_bf16_stays_finite_and_near(tmp_path, variant):
    name, options = VARIANTS[variant]
    settings = {"steps": 4, "method_options": options, "log_every": 1} | SMALL
    runs = [
        pretrain([synthetic()], name, out=tmp_path / precision, precision=precision, **settings)
        for precision in ("no", "bf16")
    ]
    full, mixed = ([row["loss"] for row in run.metrics] for run in runs)
    assert np.isfinite(mixed).all()
    assert mixed != full
    assert mixed[0] == pytest.approx(full[0], rel=0.05)


@variants
def test_own_module_of_patches(tmp_path, variant):
    name, options = VARIANTS[variant]
    own = nn.Sequential(nn.Conv2d(12, 10, 1), nn.ReLU(), nn.Flatten(), nn.Linear(90, 8))
    start = own[3].weight.detach().clone()
    few = {"batch_size": 16, "progress": False, "method_options": options}
    run = pretrain([synthetic()], name, own, tmp_path / "run", steps=8, patch_size=3, **few)
    assert np.isfinite([row["loss"] for row in run.metrics]).all()
    assert not torch.equal(own[3].weight, start)


@pytest.mark.parametrize("name", METHODS)
def test_says_what_it_is_assumes_and_is_for(name, capsys):
    methods()
    rows = [line for line in capsys.readouterr().out.splitlines() if line.split()[0] == name]
    assert len(rows) == 1
    assert METHODS[name].reference in rows[0]
    said = " ".join(inspect.getdoc(METHODS[name]).split("Parameters")[0].split())
    assert "It assumes" in said
    assert "Use it" in said
    assert "References" in inspect.getdoc(METHODS[name])


@pytest.fixture(scope="module")
def crop(indian_pines):
    """40 x 40 pixels of Indian Pines that hold 7 of its classes, and their labels."""
    rows, cols = slice(40, 80), slice(5, 45)
    cube = prepare(indian_pines.cube)
    part = Cube(np.ascontiguousarray(cube.values[rows, cols]), cube.wavelengths)
    labels = indian_pines.labels[rows, cols]
    kinds, sizes = np.unique(labels, return_counts=True)
    return load_resident(part, Sensor.of(part)), np.where(np.isin(labels, kinds[sizes > 60]), labels, 0)


def probe(encoder, scene, labels):
    """Return the overall accuracy of a linear classifier on single pixels, 10 a class, mean of 5 draws."""
    patches = ((scene.values.float() - scene.mean) * scene.scale).flatten(0, 1)[:, :, None, None]
    with torch.no_grad():
        features = encoder.eval()(patches, scene.wavelengths).numpy()
    encoder.train()
    flat = labels.ravel()
    scores = []
    for seed in range(5):
        split = random_split(labels, 10, seed)
        predict = fit_linear(features[split.train], flat[split.train])
        scores.append((predict(features[split.test]) == flat[split.test]).mean())
    return float(np.mean(scores))


# Steps, by how much the linear probe must improve, and where it is not 2e-3 the learning rate.
LEARNS: dict[str, tuple[Any, ...]] = {
    "aae": (100, 0.03),
    "ae_subspace": (100, 0.03),
    "barlow_twins": (100, 0.03),
    "byol": (100, 0.03),
    "cmc": (100, 0.03),
    "contrastive_clustering": (100, 0.03),
    "conv_deconv": (100, 0.03),
    "denoising_ae": (100, 0.03),
    "dino": (100, 0.03, 5e-4),  # the paper's rate: at four times that its targets run ahead
    "mae": (100, 0.03),
    "moco": (100, 0.03),
    "pcl": (100, 0.03),
    "simclr": (100, 0.03),
    "simsiam": (100, 0.03),
    "swav": (100, 0.03),
    "vae": (100, 0.03),
    "vicreg": (100, 0.03),
    "cmc, band_groups": (100, 0.03),
    "conv_deconv, residual_conv": (100, 0.03),
}


def test_every_method_is_asked_to_learn():
    assert METHODS.keys() <= LEARNS.keys()


@pytest.mark.parametrize("name", LEARNS)
def test_learns_and_does_not_collapse_on_a_real_crop(crop, name):
    scene, labels = crop
    steps, gain, lr = (*LEARNS[name], 2e-3)[:3]
    name, _, kind = name.partition(", ")
    torch.manual_seed(0)
    encoder = build_encoder(kind or "spectral_spatial", dim=64)
    before = probe(encoder, scene, labels)
    options = {"memory": 1024, "clusters": (100, 200)} if name == "pcl" else {}
    method = build_method(name, encoder, **options)
    optimizer = torch.optim.AdamW([p for p in method.parameters() if p.requires_grad], lr=lr)
    start = None
    for step in range(steps):
        torch.manual_seed(step)
        views = draw_views([scene], 256, patch_size=1, spec=DEFAULT_VIEWS, seed=0, step=step)
        start = start or feature_health(encoder(views.a, views.wavelengths))
        method(views).backward()
        optimizer.step()
        optimizer.zero_grad()
        method.after_step((step + 1) / steps)
    health = feature_health(encoder(views.a, views.wavelengths))
    assert health.std > 0.1 * start.std
    assert health.effective_rank > 4
    assert probe(encoder, scene, labels) > before + gain
