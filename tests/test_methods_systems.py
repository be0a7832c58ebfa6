"""The published hyperspectral systems: losses against independent statements, state."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from hsssl.encoders import build_encoder
from hsssl.encoders.band_groups import halves
from hsssl.methods import build_method
from hsssl.methods.aae import gradient_penalty, reverse_gradient
from hsssl.methods.ae_subspace import expression_error, label_loss, self_expression, spectral_clusters
from hsssl.methods.contrastive_clustering import balance
from hsssl.methods.kmeans import kmeans
from hsssl.methods.pcl import concentration, proto_nce
from hsssl.methods.reconstruction import reconstruction, targets
from hsssl.views import Views

WAVELENGTHS = torch.linspace(400, 2500, 24)
SYSTEMS = ["aae", "ae_subspace", "cmc", "contrastive_clustering", "conv_deconv", "pcl", "vae"]
# enough memory for a few steps of 32 samples
FEW = {
    "ae_subspace": {"memory": 64, "clusters": 4},
    "pcl": {"memory": 64, "clusters": [8, 16], "negatives": 64, "e_steps": 3},
}


def batch(n: int = 8, side: int = 1) -> Views:
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(n, 24, side, side, generator=generator)
    return Views(a, a + 0.1 * torch.randn(a.shape, generator=generator), WAVELENGTHS)


def small(name: str = "spectral_spatial", **options) -> nn.Module:
    torch.manual_seed(0)
    return build_encoder(name, dim=16, channels=16, **options)


def losses_of(method: nn.Module, count: int, views: Views, autocast: bool = False) -> list[float]:
    optimizer = torch.optim.AdamW([p for p in method.parameters() if p.requires_grad], lr=1e-3)
    losses = []
    for step in range(count):
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            loss = method(views)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        method.after_step((step + 1) / count)
        losses.append(loss.item())
    return losses


def test_whitened_error_is_the_mean_squared_score_difference():
    views = batch(200)
    decoded = 0.5 * views.b
    x = views.a.flatten(1).double().numpy()
    values, vectors = np.linalg.eigh(np.cov(x.T, bias=True))
    scores = ((decoded - views.a).flatten(1).double().numpy() @ vectors[:, -5:]) / np.sqrt(values[-5:])
    assert reconstruction(decoded, views.a, 5).item() == pytest.approx((scores**2).mean(), rel=1e-4)
    assert reconstruction(decoded, views.a, 0).item() == pytest.approx(F.mse_loss(decoded, views.a).item())
    # all components: the scene's mean in place of every pixel is no skill
    assert reconstruction(views.a.mean(0).expand(views.a.shape), views.a, 24).item() == pytest.approx(
        1, rel=1e-3
    )
    own, neighbour = targets(views, False), targets(views, True)
    assert all(seen is wanted for seen, wanted in own)
    assert all(seen is not wanted for seen, wanted in neighbour)


@pytest.mark.parametrize("side", [1, 4, 9])
def test_conv_deconv_unpools_to_the_places_of_the_maxima(side):
    encoder = small("residual_conv", patch_size=side)
    method = build_method("conv_deconv", encoder, components=0, neighbour=False)
    views = batch(4, side)
    rebuilt = [method.decode(x, WAVELENGTHS) for x in views.pair]
    assert rebuilt[0].shape == views.a.shape
    expected = sum((r - x).square().mean() for r, x in zip(rebuilt, views.pair, strict=True)) / 2
    assert method(views).item() == pytest.approx(expected.item(), rel=1e-4)
    maps, pools = encoder.eval().encode(views.a, WAVELENGTHS)
    assert len(pools) == {1: 0, 4: 2, 9: 2}[side]
    torch.testing.assert_close(encoder(views.a, WAVELENGTHS), maps.mean((2, 3)))
    for (indices, size), pooled in zip(reversed(pools), [maps], strict=False):
        laid = F.max_unpool2d(pooled, indices, 2, output_size=size).flatten(2)
        torch.testing.assert_close(laid.gather(2, indices.flatten(2)), pooled.flatten(2))
        assert (laid != 0).sum() <= pooled.numel()


def test_vae_is_error_plus_divergence():
    method = build_method("vae", small(), latent=3, components=0, neighbour=False, kl_weight=2.0)
    views = batch()
    torch.manual_seed(5)
    loss = method(views)
    torch.manual_seed(5)
    expected = 0.0
    for x in views.pair:
        feature = method.encoder(x, WAVELENGTHS)
        posterior = torch.distributions.Normal(method.mean(feature), (method.log_variance(feature) / 2).exp())
        prior = torch.distributions.Normal(torch.zeros(8, 3), torch.ones(8, 3))
        code = posterior.mean + posterior.stddev * torch.randn(8, 3)
        error = (method.decoder(code, WAVELENGTHS, 1, 1) - x).square().mean()
        expected += (error + 2.0 * torch.distributions.kl_divergence(posterior, prior).mean()) / 2
    assert loss.item() == pytest.approx(expected.item(), rel=1e-4)


def test_aae_trains_encoder_and_critic_against_each_other():
    method = build_method("aae", small(), latent=3, components=0, penalty=0.0, adversarial=0.5)
    assert isinstance(method.critic[0], nn.Linear)
    x = torch.randn(4, 3, requires_grad=True)
    weight = torch.tensor([3.0, 0.0, 4.0])
    reverse_gradient(x @ weight, 0.5).sum().backward()
    torch.testing.assert_close(x.grad, (-0.5 * weight).expand(4, 3))
    line = nn.Linear(3, 1)
    line.weight.data.copy_(weight)
    assert gradient_penalty(line, x).item() == pytest.approx((5 - 1) ** 2)  # |w| = 5
    views = batch()
    torch.manual_seed(5)
    loss = method(views)
    torch.manual_seed(5)
    expected = 0.0
    for seen, wanted in ((views.a, views.b), (views.b, views.a)):
        z = method.latent(method.encoder(seen, WAVELENGTHS))
        normal = torch.randn(8, 3)
        torch.rand(8, 1)  # where between both the penalty is taken
        error = (method.decoder(z, WAVELENGTHS, 1, 1) - wanted).square().mean()
        expected += (error + method.critic(z).mean() - method.critic(normal).mean()) / 2
    assert loss.item() == pytest.approx(expected.item(), rel=1e-4)


@pytest.mark.parametrize("encoder", ["band_groups", "spectral_spatial"])
def test_cmc_is_info_nce_between_halves_of_the_bands(encoder):
    method = build_method("cmc", small(encoder), temperature=0.5)
    views = batch()
    method.after_step(0.0)
    loss = method(views)
    order = list(halves(WAVELENGTHS))
    assert [len(i) for i in order] == [12, 12]
    assert WAVELENGTHS[order[0]].max() < WAVELENGTHS[order[1]].min()
    parts = method.encoder.streams if method.second is None else (method.encoder, method.second)
    if method.second is not None:
        order.reverse()
    z = {}
    for v, x in enumerate(views.pair):
        for g, (part, bands) in enumerate(zip(parts, order, strict=True)):
            z[v, g] = F.normalize(method.projectors[g](part(x[:, bands], WAVELENGTHS[bands])), dim=1)
    expected = 0.0
    for one, other in ((z[0, 0], z[1, 1]), (z[1, 0], z[0, 1])):
        cosines = one @ other.T / 0.5
        expected += (
            F.cross_entropy(cosines, torch.arange(8)) + F.cross_entropy(cosines.T, torch.arange(8))
        ) / 2
    assert loss.item() == pytest.approx(expected.item(), rel=1e-4)


def test_contrastive_clustering_contrasts_rows_and_columns():
    method = build_method("contrastive_clustering", small(), clusters=4)
    views = batch()
    features = [method.encoder(x, WAVELENGTHS) for x in views.pair]

    def contrast(x, y, t):
        z = F.normalize(torch.cat([x, y]), dim=1)
        similar = (z @ z.T / t).fill_diagonal_(-math.inf)
        return F.cross_entropy(similar, torch.arange(len(z)).roll(len(x)))

    p = [torch.softmax(method.cluster_head(f), 1) for f in features]
    expected = contrast(*(method.instance_head(f) for f in features), 0.5) + contrast(p[0].T, p[1].T, 1.0)
    for q in p:
        expected += (q.mean(0) * q.mean(0).log()).sum()
    assert method(views).item() == pytest.approx(expected.item(), rel=1e-4)
    assert balance(torch.eye(4)).item() == pytest.approx(-math.log(4))
    assert method.eval().assign(views.a, WAVELENGTHS).shape == (8,)


def test_self_expression_is_ridge_regression_on_the_others():
    torch.manual_seed(0)
    z = torch.randn(12, 4)
    c = self_expression(z, 0.1).double()
    unit = (z / z.square().sum(1).mean().sqrt()).double()
    penalty = 0.1 * (unit.T @ unit).diagonal().mean()
    for i in range(12):  # a row at a time: minimise |z_i - c Z_others|^2 + l |c|^2
        others = unit[[j for j in range(12) if j != i]]
        row = torch.linalg.solve(others @ others.T + penalty * torch.eye(11), others @ unit[i])
        torch.testing.assert_close(
            torch.cat([row[:i], row.new_zeros(1), row[i:]]), c[i], atol=1e-5, rtol=1e-4
        )
    error = (unit - c @ unit).square().sum() / unit.square().sum()
    assert expression_error(z, 0.1).item() == pytest.approx(error.item(), rel=1e-4)


def test_spectral_clusters_find_subspaces_and_labels_come_from_the_other_view():
    torch.manual_seed(0)
    truth = torch.arange(90) % 3
    planes = torch.linalg.qr(torch.randn(3, 9, 2))[0]
    z = torch.einsum("ndk,nk->nd", planes[truth], torch.randn(90, 2))
    labels, sure = spectral_clusters(self_expression(z, 0.01), 3)
    purity = sum(int(truth[labels == k].bincount().max()) for k in labels.unique()) / 90
    assert purity > 0.95
    assert 45 <= sure.sum() < 90
    prototypes = torch.eye(3)
    other = torch.tensor([[1.0, 0.0, 0.0], [0.6, 0.55, 0.0], [0.0, 0.0, 2.0], [0.5, 0.5, 0.4]])
    mine = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 1.0, 0.0], [0.0, 1.0, 0.0]])
    # the least sure row does not count; the median is the lower one of two
    right, wrong = (-math.log(math.exp(v) / (math.exp(10) + 2)) for v in (10, 0))
    assert label_loss(mine, other, prototypes).item() == pytest.approx((right + 2 * wrong) / 3, rel=1e-4)


def test_ae_subspace_starts_as_autoencoder_with_expression():
    method = build_method("ae_subspace", small(), components=0, expression=0.3, **FEW["ae_subspace"])
    views = batch(16)
    a, b = (method.encoder(x, WAVELENGTHS) for x in views.pair)
    expected = 0.15 * (expression_error(a, 0.1) + expression_error(b, 0.1))
    for z, wanted in ((a, views.b), (b, views.a)):
        expected = expected + (method.decoder(z, WAVELENGTHS, 1, 1) - wanted).square().mean() / 2
    assert method(views).item() == pytest.approx(expected.item(), rel=1e-4)
    assert not method.prototypes.any()
    method.after_step(0.2)
    assert int(method.found) == 1
    torch.testing.assert_close(method.prototypes.norm(dim=1), torch.ones(4))


def test_ae_subspace_clusters_no_row_that_was_never_pushed():
    method = build_method("ae_subspace", small(), **FEW["ae_subspace"])  # memory of 64 rows, 4 clusters
    method.memory.rows.fill_(float("nan"))
    method(batch(12))
    method.after_step(0.5)
    assert int(method.found) == 0  # too few rows as yet
    method(batch(12))
    method.after_step(0.5)
    assert int(method.found) == 4
    assert torch.isfinite(method.prototypes).all()


def test_kmeans_and_concentration_on_known_groups():
    x = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 2.0], [10.0, 4.0], [5.0, 50.0]])
    centroids, labels = kmeans(x, 2)
    assert labels.tolist() == [0, 0, 0, 0, 1] or labels.tolist() == [0, 1, 0, 1, 1]
    torch.testing.assert_close(centroids[0], x[labels == 0].mean(0))
    with pytest.raises(ValueError, match=r"clusters must be in 1 \.\.\. 5 rows, got 6"):
        kmeans(x, 6)
    rows = torch.tensor([[0.0], [2.0], [10.0], [16.0], [99.0]])
    phi = concentration(rows, torch.tensor([[1.0], [13.0], [99.0]]), torch.tensor([0, 0, 1, 1, 2]), 0.5)
    raw = np.array([1 / math.log(12), 3 / math.log(12), 3 / math.log(12)])  # one row alone: the largest
    raw = raw.clip(*np.percentile(raw, [10, 90]))
    np.testing.assert_allclose(phi.numpy(), 0.5 * raw / raw.mean(), rtol=1e-5)


def test_proto_nce_tells_the_keys_prototype():
    torch.manual_seed(0)
    q, k, c = torch.randn(5, 3), F.normalize(torch.randn(5, 3), dim=1), F.normalize(torch.randn(4, 3), dim=1)
    phi, total = torch.tensor([0.2, 0.4, 0.3, 0.1]), 0.0
    for i in range(5):
        weights = [math.exp(F.cosine_similarity(q[i], c[j], dim=0).item() / phi[j].item()) for j in range(4)]
        total -= math.log(weights[int((c @ k[i]).argmax())] / sum(weights)) / 5
    assert proto_nce(q, k, c, phi).item() == pytest.approx(total, rel=1e-4)


def test_pcl_goes_through_its_stages():
    encoder = small()
    method = build_method("pcl", encoder, **FEW["pcl"])
    views = batch(32)
    start = {name: value.clone() for name, value in encoder.state_dict().items()}

    def same():
        return all(torch.equal(value, start[name]) for name, value in encoder.state_dict().items())

    optimizer = torch.optim.SGD([p for p in method.parameters() if p.requires_grad], lr=0.01)
    stages, untouched = [], []
    for step in range(16):
        stages.append(int(method.stage))
        method(views).backward()
        optimizer.step()
        optimizer.zero_grad()
        method.after_step((step + 1) / 16)
        untouched.append(same())
    assert stages == [0] * 4 + [1] * 4 + [2] * 8
    assert untouched == [True] * 4 + [False] * 12
    assert int(method.e_steps_done) == 3
    assert int(method.memory.pushed) == 8 * 32
    torch.manual_seed(1)
    expected = 0.0
    with torch.no_grad():
        q = F.normalize(method.projector(encoder(views.a, WAVELENGTHS)), dim=1)
        k = F.normalize(method.teacher_projector(method.vae.encoder(views.b, WAVELENGTHS)), dim=1)
        similar = torch.cat([(q * k).sum(1, keepdim=True), q @ method.queue.rows.T], 1) / 0.1
        expected = F.cross_entropy(similar, torch.zeros(32, dtype=torch.long))
        for p in method.prototypes:
            expected += proto_nce(q, k, p.centroids, p.spread) / 2
        assert method(views).item() == pytest.approx(expected.item(), rel=1e-3)
    with pytest.raises(ValueError, match="memory / 4 = 16"):
        build_method("pcl", encoder, memory=64, clusters=(17,))


@pytest.mark.parametrize("name", SYSTEMS)
def test_patches_of_9_pixels_train(name):
    method = build_method(name, small(patch_size=9), **FEW.get(name, {}))
    assert np.isfinite(losses_of(method, 4, batch(16, 9))).all()
