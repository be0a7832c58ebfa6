"""The general frameworks: losses against independent statements, queue, prototypes, what is hidden."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from hsssl.encoders import PlainEncoder, build_encoder
from hsssl.methods import build_method
from hsssl.methods.prototypes import Prototypes
from hsssl.methods.queue import Queue
from hsssl.views import Views

WAVELENGTHS = torch.linspace(400, 2500, 24)


def batch(n: int = 6) -> Views:
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(n, 24, 1, 1, generator=generator)
    return Views(a, a + 0.3 * torch.randn(a.shape, generator=generator), WAVELENGTHS)


@pytest.fixture
def make():
    def method(name, **options):
        torch.manual_seed(0)
        return build_method(
            name, build_encoder("spectral_spatial", dim=16, hidden=32, channels=16), **options
        )

    return method


def close(actual: torch.Tensor, expected: torch.Tensor | float, rel: float = 1e-4) -> None:
    if isinstance(expected, torch.Tensor):
        expected = expected.item()
    assert actual.item() == pytest.approx(expected, rel=rel)


def entropy_between(target: torch.Tensor, score: torch.Tensor) -> float:
    """Return the mean cross-entropy, a number at a time."""
    rows = []
    for q, s in zip(target.tolist(), score.tolist(), strict=True):
        total = sum(math.exp(x) for x in s)
        rows.append(-sum(p * math.log(math.exp(x) / total) for p, x in zip(q, s, strict=True)))
    return sum(rows) / len(rows)


def test_moco_v2_finds_the_key_beside_the_queue(make):
    method, views = make("moco", queue_size=5, temperature=0.4), batch()
    q = F.normalize(method.projector(method.encoder(views.a, WAVELENGTHS)), dim=1)
    k = F.normalize(method.teacher_projector(method.teacher_encoder(views.b, WAVELENGTHS)), dim=1)
    logits = torch.cat([(q * k).sum(1, keepdim=True), q @ method.queue.rows.T], 1) / 0.4
    close(method(views), F.cross_entropy(logits, torch.zeros(6, dtype=torch.int64)))
    before = method.queue.rows.clone()
    method.after_step(0.1)
    torch.testing.assert_close(method.queue.rows, k[1:])
    assert not torch.equal(before, method.queue.rows)


def test_moco_v3_finds_the_keys_in_the_batch_both_ways(make):
    method, views = make("moco", queue_size=0, temperature=0.3), batch()
    q = [F.normalize(method.predictor(method.projector(method.encoder(x, WAVELENGTHS)))) for x in views.pair]
    k = [F.normalize(method.teacher_projector(method.teacher_encoder(x, WAVELENGTHS))) for x in views.pair]
    both = [F.cross_entropy(q[i] @ k[1 - i].T / 0.3, torch.arange(6)) for i in (0, 1)]
    close(method(views), 2 * 0.3 * sum(both))


def test_simsiam_is_the_papers_loss_but_for_a_constant_and_stops_the_gradient(make):
    method, views = make("simsiam"), batch()
    z = [method.projector(method.encoder(x, WAVELENGTHS)) for x in views.pair]
    p = [method.predictor(one) for one in z]
    paper = sum(-F.cosine_similarity(p[i], z[1 - i].detach()).mean() / 2 for i in (0, 1))
    loss = method(views)
    close(loss, 2 + 2 * paper)
    ours, theirs = (
        torch.autograd.grad(x, list(method.encoder.parameters()), retain_graph=True)
        for x in (loss, 2 * paper)
    )
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("queue", [0, 4])
def test_swav_swaps_balanced_assignments(make, queue):
    method, views = make("swav", prototypes=3, temperature=0.2, epsilon=0.1, queue_size=queue), batch()
    directions = F.normalize(method.prototypes.weight, dim=1)
    z = [F.normalize(method.projector(method.encoder(x, WAVELENGTHS)), dim=1) for x in views.pair]
    scores = [one @ directions.T for one in z]
    codes = []
    for i, score in enumerate(scores):
        past = method.queues[i].rows @ directions.T if queue else score[:0]
        share = torch.exp(torch.cat([score, past]) / 0.1)
        for _ in range(3):
            share = share / share.sum(0)
            share = share / share.sum(1, keepdim=True)
        codes.append(share[:6])
    expected = (entropy_between(codes[1], scores[0] / 0.2) + entropy_between(codes[0], scores[1] / 0.2)) / 2
    close(method(views), expected)


def test_dino_follows_the_centred_and_sharpened_teacher(make):
    method, views = make("dino", prototypes=5, centre_momentum=0.75), batch()
    method.centre.copy_(torch.tensor([0.1, -0.2, 0.0, 0.05, 0.0]))
    student = [method.head(method.encoder(x, WAVELENGTHS)) for x in views.pair]
    teacher = [method.teacher_head(method.teacher_encoder(x, WAVELENGTHS)) for x in views.pair]
    assert all(t.abs().max() <= 1 + 1e-5 for t in teacher)  # cosines
    target = [F.softmax((t - method.centre) / 0.04, 1) for t in teacher]
    expected = sum(entropy_between(target[1 - i], student[i] / 0.1) for i in (0, 1)) / 2
    close(method(views), expected)
    centre = method.centre.clone()
    method.after_step(0.0)
    torch.testing.assert_close(method.centre, 0.75 * centre + 0.25 * torch.cat(teacher).mean(0))


def test_barlow_twins_is_the_distance_of_the_correlations_from_the_identity(make):
    method, views = make("barlow_twins", projection_dim=8, redundancy=0.1), batch()
    a, b = (method.projector(method.encoder(x, WAVELENGTHS)).detach().numpy() for x in views.pair)
    c = np.corrcoef(a.T, b.T)[:8, 8:]
    on = np.eye(8, dtype=bool)
    # the op adds 1e-5 to the variances
    close(method(views), ((1 - c[on]) ** 2).sum() + 0.1 * (c[~on] ** 2).sum(), rel=1e-3)


def test_vicreg_is_its_three_terms(make):
    method, views = make("vicreg", projection_dim=8, invariance=3.0, variance=5.0, covariance=7.0), batch()
    a, b = (method.projector(method.encoder(x, WAVELENGTHS)).detach().double().numpy() for x in views.pair)
    expected = 3.0 * ((a - b) ** 2).mean()
    for z in (a, b):
        hinge = np.maximum(0, 1 - np.sqrt(z.var(0, ddof=1) + 1e-4)).mean()
        c = np.cov(z.T)
        expected += 5.0 / 2 * hinge + 7.0 / 8 * ((c**2).sum() - (np.diag(c) ** 2).sum())
    close(method(views), expected)


def test_denoising_ae_restores_clean_values_of_the_neighbour(make, monkeypatch):
    method, views = make("denoising_ae", components=0), batch()
    noisy = [torch.randn(6, 24, 1, 1) for _ in "ab"]
    monkeypatch.setattr(method, "corrupt", lambda x: torch.cat(noisy))
    restored = [method.decoder(method.encoder(x, WAVELENGTHS), WAVELENGTHS, 1, 1) for x in noisy]
    close(
        method(views), ((restored[0] - views.b) ** 2).mean() / 2 + ((restored[1] - views.a) ** 2).mean() / 2
    )
    method.neighbour = False
    close(
        method(views), ((restored[0] - views.a) ** 2).mean() / 2 + ((restored[1] - views.b) ** 2).mean() / 2
    )


def test_denoising_ae_adds_noise_and_drops_whole_bands(make):
    corrupted = make("denoising_ae", noise=0.5, drop=0.25).corrupt(torch.ones(400, 24, 3, 3))
    dropped = corrupted == 0
    assert torch.equal(dropped.all((2, 3)), dropped.any(3).any(2))
    assert dropped.float().mean().item() == pytest.approx(0.25, abs=0.02)
    assert corrupted[~dropped].mean().item() == pytest.approx(1, abs=0.01)
    assert corrupted[~dropped].std().item() == pytest.approx(0.5, abs=0.01)


def test_mae_hides_band_groups_at_pixels_from_a_module_of_fixed_bands(monkeypatch):
    torch.manual_seed(0)
    own = PlainEncoder(nn.Sequential(nn.Conv2d(24, 16, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()), 24, 2)
    method = build_method("mae", own, group=4, components=0, neighbour=False)
    assert method.mask == 0.3
    views = Views(*torch.randn(2, 2, 24, 2, 1), WAVELENGTHS)
    hidden = torch.rand(4, 12) < 0.5  # 6 groups x 2 pixels
    monkeypatch.setattr(method, "_hide", lambda *_: hidden)
    errors = []
    for sample, x in enumerate(torch.cat(views.pair)):
        gone = torch.stack([hidden[sample].view(6, 2)[band // 4] for band in range(24)]).unsqueeze(2)
        seen = method.encoder(torch.where(gone, 0.0, x)[None], WAVELENGTHS)
        restored = method.decoder(seen, WAVELENGTHS, 2, 1)[0]
        errors += ((restored - x)[gone] ** 2).tolist()
    close(method(views), sum(errors) / len(errors))


def test_mae_leaves_hidden_bands_out_of_an_encoder_that_takes_wavelengths(make, monkeypatch):
    method = make("mae", group=4, components=0)
    views = Views(*torch.randn(2, 10, 24, 2, 1), WAVELENGTHS)
    hidden = method._hide(8, 6, torch.device("cpu"))
    assert hidden.sum(1).tolist() == [3] * 8  # half of 6 groups
    monkeypatch.setattr(method, "_hide", lambda *_: hidden)
    pairs = list(zip(torch.cat(views.pair), torch.cat(views.pair[::-1]), strict=True))
    errors, sample = [], 0
    for part, size in enumerate([3] * 4 + [2] * 4):  # 20 samples, 8 sets of bands
        gone = torch.tensor([bool(hidden[part, band // 4]) for band in range(24)])
        for x, wanted in pairs[sample : sample + size]:
            seen = method.encoder(x[None, ~gone], WAVELENGTHS[~gone])
            restored = method.decoder(seen, WAVELENGTHS, 2, 1)[0]
            errors += ((restored - wanted)[gone] ** 2).flatten().tolist()
        sample += size
    assert sample == 20
    close(method(views), sum(errors) / len(errors))


def test_mae_hides_as_many_parts_of_every_sample(make):
    hidden = make("mae", mask=0.75)._hide(50, 10, torch.device("cpu"))
    assert hidden.sum(1).tolist() == [8] * 50
    assert len({tuple(row) for row in hidden.tolist()}) > 20
    assert make("mae", mask=0.99)._hide(3, 4, torch.device("cpu")).sum(1).tolist() == [3, 3, 3]
    with pytest.raises(ValueError, match="nothing to restore it from"):
        make("mae")(Views(torch.ones(2, 1, 1, 1), torch.ones(2, 1, 1, 1), WAVELENGTHS[:1]))


@pytest.mark.parametrize("neighbour", [False, True])
@pytest.mark.parametrize("name", ["spectral_transformer", "spectral_spatial_vit"])
def test_mae_shows_a_transformer_the_visible_tokens_only(monkeypatch, name, neighbour):
    torch.manual_seed(0)
    encoder = build_encoder(name, patch_size=3, dim=16, depth=1, group=5)  # 24 bands: the last group is short
    method = build_method("mae", encoder, mask=0.6, decoder_dim=8, neighbour=neighbour)
    views = Views(*torch.randn(2, 2, 24, 3, 3), WAVELENGTHS)
    hidden = method._hide(4, 5, torch.device("cpu"))
    monkeypatch.setattr(method, "_hide", lambda *_: hidden)
    errors = []
    pairs = (*views.pair, *(reversed(views.pair) if neighbour else views.pair))
    for sample in range(4):
        x, wanted = (pairs[sample // 2 + 2 * i][sample % 2] for i in (0, 1))
        gone = hidden[sample].nonzero()[:, 0].tolist()
        seen = [token for token in range(5) if token not in gone]
        values, position = encoder.tokenize(x[None], WAVELENGTHS)
        tokens = encoder.attend(encoder.project(values[:, seen]) + position[seen])
        decoder, rows = method.decoder, []
        for token in range(5):
            row = decoder.narrow(tokens[0, seen.index(token)]) if token in seen else decoder.hidden
            rows.append(row + decoder.place(position[token]))
        restored = decoder.out(decoder.norm(decoder.blocks(torch.stack(rows)[None])))[0]
        for token in gone:
            bands = wanted[5 * token : 5 * token + 5]  # (5 or 4, 3, 3)
            errors += (restored[token][: bands.numel()] - bands.flatten()).square().tolist()
    close(method(views), sum(errors) / len(errors))


def test_queue_keeps_the_last_rows_in_a_ring():
    queue = Queue(5, 2)
    rows = torch.arange(32.0).view(16, 2)
    queue.push(rows[:3])
    torch.testing.assert_close(queue.rows[:3], rows[:3])
    queue.push(rows[3:7])
    assert {tuple(row) for row in queue.rows.tolist()} == {tuple(row) for row in rows[2:7].tolist()}
    queue.push(rows)
    assert {tuple(row) for row in queue.rows.tolist()} == {tuple(row) for row in rows[11:].tolist()}


def test_prototypes_stand_still_until_thawed():
    prototypes, z = Prototypes(4, 3), torch.randn(5, 4)
    prototypes(z).square().sum().backward()
    assert not prototypes.weight.grad.any()
    prototypes.thaw()
    prototypes(z).square().sum().backward()
    assert prototypes.weight.grad.any()


@pytest.mark.parametrize("name", ["swav", "dino"])
def test_prototypes_thaw_after_their_share_of_the_run(make, name):
    method = make(name, freeze=0.5)
    prototypes = method.prototypes if name == "swav" else method.head[-1]
    for progress, moving in ((0.4, False), (0.5, True)):
        method(batch())
        method.after_step(progress)
        assert bool(prototypes.moving) is moving
