"""Methods: losses against independent statements, teachers, collapse."""

import logging
import math

import pytest
import torch
import torch.nn.functional as F

from hsssl.collapse import CollapseMonitor, FeatureHealth, feature_health
from hsssl.encoders import build_encoder
from hsssl.methods import METHODS, build_method
from hsssl.methods.teacher import Teacher, cosine_momentum
from hsssl.views import Views

WAVELENGTHS = torch.linspace(400, 2500, 24)


def batch(n: int = 8) -> Views:
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(n, 24, 1, 1, generator=generator)
    return Views(a, a + 0.1 * torch.randn(a.shape, generator=generator), WAVELENGTHS)


@pytest.fixture
def encoder():
    torch.manual_seed(0)
    return build_encoder("spectral_spatial", dim=16, hidden=32, channels=16)


# Their targets move away as they learn: a queue fills with the batch's own keys, a teacher grows sure; and
# pcl goes from one loss to another.
MOVING = {"dino", "moco", "pcl"}


@pytest.mark.parametrize("name", METHODS)
def test_a_plain_loop_lowers_the_loss(name, encoder):
    method = build_method(name, encoder)
    optimizer = torch.optim.AdamW([p for p in method.parameters() if p.requires_grad], lr=1e-3)
    losses = []
    for step in range(30):
        loss = method(batch())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        method.after_step((step + 1) / 30)
        losses.append(loss.item())
    if name not in MOVING:  # where targets move, the loss may rise while the encoder learns
        assert losses[-1] < (0.7 if name in {"byol", "simclr"} else 0.96) * losses[0]
    assert all(p.grad is not None for p in encoder.parameters())


def test_simclr_is_nt_xent_of_the_projections(encoder):
    method = build_method("simclr", encoder, temperature=0.3)
    views = batch()
    z = torch.cat([method.projector(encoder(x, WAVELENGTHS)) for x in views.pair]).double()
    n, total = len(z) // 2, 0.0
    for i in range(2 * n):  # the definition, a row at a time
        similar = [
            math.exp(F.cosine_similarity(z[i], z[j], dim=0).item() / 0.3) for j in range(2 * n) if j != i
        ]
        positive = math.exp(F.cosine_similarity(z[i], z[(i + n) % (2 * n)], dim=0).item() / 0.3)
        total -= math.log(positive / sum(similar)) / (2 * n)
    assert method(views).item() == pytest.approx(total, rel=1e-4)


def test_byol_is_the_distance_of_unit_vectors_in_both_orders(encoder):
    method = build_method("byol", encoder)
    views = batch()
    q = [F.normalize(method.predictor(method.projector(encoder(x, WAVELENGTHS))), dim=1) for x in views.pair]
    t = [
        F.normalize(method.teacher_projector(method.teacher_encoder(x, WAVELENGTHS)), dim=1)
        for x in views.pair
    ]
    expected = (q[0] - t[1]).square().sum(1).mean() + (q[1] - t[0]).square().sum(1).mean()
    torch.testing.assert_close(method(views), expected, rtol=1e-4, atol=1e-5)


def test_byol_sends_no_gradient_to_the_teacher_and_shares_no_tensor_with_it(encoder):
    method = build_method("byol", encoder)
    method(batch()).backward()
    teachers = [*method.teacher_encoder.parameters(), *method.teacher_projector.parameters()]
    assert all(p.grad is None and not p.requires_grad for p in teachers)
    ours = {p.data_ptr() for p in [*encoder.parameters(), *method.projector.parameters()]}
    assert ours.isdisjoint(p.data_ptr() for p in teachers)


def test_teacher_follows_by_its_momentum():
    student = torch.nn.Linear(3, 2)
    teacher = Teacher(student)
    before = teacher.module.weight.clone()
    with torch.no_grad():
        student.weight.add_(1.0)
    teacher.update(student, 0.75)
    torch.testing.assert_close(teacher.module.weight, before + 0.25)
    assert cosine_momentum(0.9, 0.0) == pytest.approx(0.9)
    assert cosine_momentum(0.9, 0.5) == pytest.approx(0.95)
    assert cosine_momentum(0.9, 1.0) == pytest.approx(1.0)


def test_unknown_method_offers_the_nearest(encoder):
    with pytest.raises(ValueError, match="did you mean simclr"):
        build_method("simlcr", encoder)
    with pytest.raises(ValueError, match="temprature"):
        build_method("simclr", encoder, temprature=1)


def test_health_of_known_features():
    torch.manual_seed(0)
    spread = feature_health(torch.randn(4096, 16))
    assert spread.std == pytest.approx(1.0, abs=0.02)
    assert spread.effective_rank == pytest.approx(16, abs=0.1)
    line = feature_health(torch.randn(4096, 1) * torch.ones(1, 16))
    assert line.effective_rank == pytest.approx(1.0, abs=0.01)
    same = feature_health(torch.ones(64, 16))
    assert same.std == pytest.approx(0.0, abs=1e-5)
    assert same.effective_rank == 1.0


def test_monitor_warns_once_when_features_fall(caplog):
    monitor = CollapseMonitor()
    with caplog.at_level(logging.WARNING, "hsssl"):
        monitor.check(0, FeatureHealth(0.8, 30))
        monitor.check(10, FeatureHealth(0.5, 25))
        assert not caplog.records
        monitor.check(20, FeatureHealth(0.05, 20))
        monitor.check(30, FeatureHealth(0.01, 1))
    assert [record.message for record in caplog.records] == [caplog.records[0].message]
    assert "step 20: the features are collapsing" in caplog.records[0].message


def test_monitor_remembers_the_start_across_a_resume(caplog):
    monitor = CollapseMonitor([{"feature_std": 0.8, "effective_rank": 30.0}])
    with caplog.at_level(logging.WARNING, "hsssl"):
        monitor.check(500, FeatureHealth(0.9, 3.0))
    assert "effective rank 3.0, at the start 30.0" in caplog.text
