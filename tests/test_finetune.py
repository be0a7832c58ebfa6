"""Fine-tuning: the features it descends on are those of embed, it learns, and it leaves its encoder alone."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest
import torch

import hsssl
from hsssl.cube import Cube
from hsssl.embed import embed
from hsssl.evaluate import evaluate, finetune
from hsssl.evaluate.finetune import FROZEN, pooled_features
from hsssl.sampling import load_resident
from hsssl.spec import fit_cube
from hsssl.train import pretrain


@pytest.fixture(scope="module")
def scene() -> tuple[Cube, np.ndarray]:
    """Three materials in stripes that differ in how far, not in which direction, two bands depart."""
    rng = np.random.default_rng(0)
    truth = np.repeat(np.repeat([[1, 2, 3]], 30, axis=0), 10, axis=1)
    values = rng.normal(1000, 60, (30, 30, 12))
    sign = np.where(np.arange(30) // 5 % 2, 1, -1)[:, None]
    values[:, :, 5:7] += (150 * (truth - 1) * sign)[:, :, None]
    values[3, 4] = np.nan
    return Cube(values, wavelengths=np.linspace(420, 980, 12), source="stripes"), truth


@pytest.fixture(scope="module", params=["spectral_spatial", "residual_conv"])
def encoder(request, scene, tmp_path_factory):
    """An encoder of 3 x 3 patches after two steps: it knows nothing, but its bands and normalisation."""
    run = pretrain(
        [scene[0]],
        "simclr",
        request.param,
        tmp_path_factory.mktemp("run") / "run",
        steps=2,
        patch_size=3,
        windows=(1, 5),
        batch_size=32,
        encoder_options={"dim": 8, "channels": 16},
        progress=False,
    )
    return run.encoder()


def test_pooled_features_are_those_of_embed(scene, encoder):
    cube, _ = scene
    wanted = embed(encoder, cube, progress=False)
    fitted, sensor = fit_cube(encoder.spec, cube)
    resident = load_resident(fitted, sensor)
    # corners, and beside a lost pixel
    centres = torch.tensor([[0, 0], [29, 0], [2, 5], [3, 5], [15, 28], [29, 29]])
    got = pooled_features(encoder.eval(), resident, centres, 3, (1, 5))
    row, col = centres.numpy().T
    np.testing.assert_allclose(got.detach().numpy(), wanted[row, col], rtol=1e-4, atol=1e-5)
    got.sum().backward()
    assert any(p.grad.abs().sum() > 0 for p in encoder.parameters())
    encoder.zero_grad()


def test_learns_beyond_the_frozen_features_and_leaves_the_encoder_alone(scene, encoder):
    cube, truth = scene
    batch_norms = any(isinstance(part, torch.nn.BatchNorm2d) for part in encoder.modules())
    before = copy.deepcopy(encoder.state_dict())
    options = {"split": "random", "per_class": 60, "seeds": 2}
    score = finetune(encoder, cube, truth, epochs=20, lr=1e-2, progress=False, **options)
    assert all(torch.equal(before[key], value) for key, value in encoder.state_dict().items())
    frozen = score.baselines[FROZEN]
    assert [run["seed"] for run in score.runs] == [0, 1]
    if not batch_norms:  # whose statistics 60 steps do not settle
        assert score.oa > frozen.oa + 0.15
    # the frozen row, and the head's start, is what evaluate says of the same splits
    same = evaluate(embed(encoder, cube, progress=False), truth, patch_size=7, **options)
    assert [run["oa"] for run in frozen.runs] == pytest.approx([run["oa"] for run in same.runs], abs=2e-3)
    assert score.audit == same.audit
    assert score.patch_size == 7


def test_fixed_split_is_trained_anew_by_every_seed_and_the_same_by_the_same_seed(scene, encoder):
    cube, truth = scene
    train = np.where(np.arange(30)[:, None] < 12, truth, 0)
    maps = (train, truth - train)
    options = {"split": "fixed", "epochs": 2, "batch_size": 32, "progress": False}
    state = torch.random.get_rng_state()
    first = finetune(encoder, cube, maps, seeds=2, **options)
    assert torch.equal(state, torch.random.get_rng_state())
    again = finetune(encoder, cube, maps, seeds=[1], **options)
    assert len(first.runs) == len(first.baselines[FROZEN].runs) == 2
    assert first.runs[1] == again.runs[0]
    assert first.confusion.sum() == 2 * np.count_nonzero(maps[1])
    assert json.loads(first.to_json())["baselines"][FROZEN]["classifier"] == "linear"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 0}, "epochs must be at least 1, got 0"),
        ({"batch_size": 1}, "batch_size must be at least 2, got 1"),
        ({"lr": 0.0}, "lr must be above 0, got 0.0"),
        ({"weight_decay": -1.0}, "weight_decay must be at least 0, got -1.0"),
        ({"windows": (2,)}, "windows must be odd"),
        ({"split": "blok"}, "did you mean block"),
    ],
)
def test_refuses(scene, encoder, options, message):
    with pytest.raises(ValueError, match=message):
        finetune(encoder, *scene, **options, progress=False)
    with pytest.raises(ValueError, match="load_encoder"):
        hsssl.finetune(torch.nn.Linear(2, 2), *scene)
