"""The fused losses on the CPU, in blocked torch, against the plain references in float64."""

from __future__ import annotations

import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hsssl_kernels import cosine_regression, info_nce, nt_xent, sinkhorn, sup_con
from hsssl_kernels.lse import blocked
from hsssl_kernels.lse import temperature as swept
from hsssl_kernels.sinkhorn.reference import sinkhorn_reference
from hsssl_kernels.sup_con.reference import sup_con_reference
from losses import LOSS, LOSSES, Loss, assert_as_good_as_torch, draw, value_and_gradients


@LOSS
@pytest.mark.parametrize("temperature", [0.01, 0.02, 0.1, 1.0])
@pytest.mark.parametrize(("n", "columns"), [(2, 1), (7, 3), (70, 100)])
def test_float32_is_as_good_as_plain_torch(loss: Loss, n: int, columns: int, temperature: float) -> None:
    """Where the positive takes nearly all, what is left of its share of 1 is the gradient."""
    for seed in range(8):
        matrices = draw(loss, n, columns, torch.float32, seed)
        assert_as_good_as_torch(loss, matrices, temperature, 1e-6 / temperature)


@LOSS
@pytest.mark.parametrize("temperature", [0.01, 0.1])
def test_the_gradient_of_the_temperature_keeps_all_digits(loss: Loss, temperature: float) -> None:
    """Rows cancel in this one number; it is formed in float64 for float32 input, whatever is left of it."""
    if not loss.takes_temperature:
        pytest.skip("has no temperature")
    for seed in range(8):
        matrices = draw(loss, 70, 100, torch.float32, seed)
        exact = value_and_gradients(loss, False, matrices, temperature, torch.float64)[-1]
        ours = value_and_gradients(loss, True, matrices, temperature, torch.float32)[-1]
        torch.testing.assert_close(ours, exact, rtol=1e-6, atol=1e-10)  # the reference's own rounding


@pytest.mark.parametrize("temperature", [0.01, 0.5])
@pytest.mark.parametrize("name", ["nt_xent", "info_nce", "info_nce_symmetric", "info_nce_queue", "sup_con"])
def test_several_tiles_agree_with_one(name: str, temperature: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocked, "_TILE", 16)
    monkeypatch.setattr(blocked, "_STRIPE", 16 * 37)
    monkeypatch.setattr(swept, "_TILE", 16)
    loss = LOSSES[name]
    for seed in range(4):
        matrices = draw(loss, 37, 5, torch.float32, seed)
        assert_as_good_as_torch(loss, matrices, temperature, 1e-6 / temperature)


@pytest.mark.parametrize("temperature", [0.01, 0.02, 0.1])
@pytest.mark.parametrize(("noise", "n", "columns"), [(0.3, 16, 8), (0.5, 20, 16)])
@pytest.mark.parametrize(
    "name", ["nt_xent", "info_nce", "info_nce_symmetric_rows", "info_nce_queue", "sup_con_pairs"]
)
def test_aligned_views_leave_the_gradient_its_digits(
    name: str, noise: float, n: int, columns: int, temperature: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a positive takes all but a millionth, that is all there is to the gradient."""
    monkeypatch.setattr(blocked, "_STRIPE", 0)  # in tiles, as larger batches are
    for seed in range(6):
        g = torch.Generator().manual_seed(seed)
        common = torch.randn(n, columns, generator=g)
        views = [common + noise * torch.randn(n, columns, generator=g) for _ in range(2)]
        if name == "sup_con_pairs":
            views = [torch.cat(views)]
        if name == "info_nce_queue":
            views.append(torch.randn(50, columns, generator=g))
        assert_as_good_as_torch(LOSSES[name], views, temperature, 1e-6 / temperature)


@pytest.mark.parametrize("norm", [20.0, 70.0])
@pytest.mark.parametrize("temperature", [0.01, 0.1])
@pytest.mark.parametrize("name", ["nt_xent_raw", "info_nce_sum_raw", "info_nce_queue_rows", "sup_con_raw"])
def test_long_raw_rows_are_as_good_as_plain_torch(
    name: str, temperature: float, norm: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows far from norm 1, in tiles: S_ij and S_ji must have the same bits. Values are in the thousands."""
    monkeypatch.setattr(blocked, "_STRIPE", 16 * 37)
    loss = LOSSES[name]
    for seed in range(4):
        matrices = [norm * m for m in draw(loss, 37, 24, torch.float32, seed)]
        exact = value_and_gradients(loss, False, matrices, temperature, torch.float64)
        plain = value_and_gradients(loss, False, matrices, temperature, torch.float32)
        ours = value_and_gradients(loss, True, matrices, temperature, torch.float32)
        for got, theirs, right in zip(ours, plain, exact, strict=True):
            assert (got - right).norm() <= 2 * (theirs - right).norm() + 1e-6 / temperature * right.norm()


def test_the_gradient_of_the_temperature_is_finite_for_huge_rows() -> None:
    for name in ("nt_xent_raw", "info_nce_queue_rows", "sup_con_raw"):
        matrices = [1e5 * m for m in draw(LOSSES[name], 9, 4, torch.float32)]
        ours, exact = (
            value_and_gradients(LOSSES[name], fused, matrices, 0.1, dtype)[-1]
            for fused, dtype in ((True, torch.float32), (False, torch.float64))
        )
        torch.testing.assert_close(ours, exact, rtol=1e-6, atol=0)


@LOSS
def test_wide_rows_are_as_good_as_plain_torch(loss: Loss) -> None:
    assert_as_good_as_torch(loss, draw(loss, 33, 1024, torch.float32), 0.1, 1e-5)


@LOSS
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_as_good_as_plain_torch(loss: Loss, dtype: torch.dtype) -> None:
    assert_as_good_as_torch(loss, draw(loss, 65, 24, dtype), 0.2, torch.finfo(dtype).eps)


@pytest.mark.parametrize("exponent", [-20, 0, 20, 30])
def test_cosine_regression_has_a_gradient_at_any_norm(exponent: int) -> None:
    p, t = draw(LOSSES["cosine_regression"], 5, 4, torch.float64)
    found = [
        value_and_gradients(LOSSES["cosine_regression"], fused, [p * 10.0**exponent, t], 0.0, dtype)[1]
        for fused, dtype in ((True, torch.float32), (False, torch.float64))
    ]
    torch.testing.assert_close(found[0] * 10.0**exponent, found[1] * 10.0**exponent, rtol=1e-5, atol=1e-6)


def test_zero_rows_have_no_direction_and_no_gradient() -> None:
    z = torch.randn(4, 3)
    z[1] = 0
    z.requires_grad_()
    (nt_xent(z, torch.randn(4, 3), temperature=0.1) + cosine_regression(z, torch.randn(4, 3))).backward()
    assert z.grad is not None
    assert torch.isfinite(z.grad).all()
    assert (z.grad[1] == 0).all()
    assert (z.grad[0] != 0).any()


def test_nan_comes_through() -> None:
    z = torch.randn(4, 3)
    z[2, 1] = float("nan")
    assert nt_xent(z, torch.randn(4, 3)).isnan()
    assert info_nce(z, torch.randn(4, 3)).isnan()
    assert cosine_regression(z, torch.randn(4, 3)).isnan()


def test_sup_con_with_labels_of_pairs_is_nt_xent() -> None:
    z1, z2 = draw(LOSSES["nt_xent"], 9, 5, torch.float64)
    pairs = torch.arange(9).repeat(2)
    ours = sup_con(torch.cat([z1, z2]), pairs, temperature=0.2)
    torch.testing.assert_close(ours, nt_xent(z1, z2, temperature=0.2))


def test_sup_con_of_one_label_pulls_at_all_rows() -> None:
    z = draw(LOSSES["sup_con"], 6, 4, torch.float64)[0].requires_grad_()
    labels = torch.full((6,), -3)
    ours, exact = sup_con(z, labels, temperature=0.3), sup_con_reference(z, labels, temperature=0.3)
    torch.testing.assert_close(ours, exact)
    torch.testing.assert_close(*(torch.autograd.grad(value, z)[0] for value in (ours, exact)))


def test_sup_con_without_a_positive_is_zero() -> None:
    z = torch.randn(5, 3, requires_grad=True)
    value = sup_con(z, torch.arange(5))
    value.backward()
    assert value.item() == 0
    assert z.grad is not None
    assert (z.grad == 0).all()


def test_published_limits() -> None:
    """Uniform embeddings give log(n - 1); perfect agreement gives 0 and opposition 4 (Grill et al. 2020)."""
    same = torch.ones(8, 4)
    assert nt_xent(same, same).item() == pytest.approx(torch.tensor(15.0).log().item(), abs=1e-6)
    assert info_nce(same, same).item() == pytest.approx(torch.tensor(8.0).log().item(), abs=1e-6)
    assert cosine_regression(same, 3 * same).item() == pytest.approx(0, abs=1e-6)
    assert cosine_regression(same, -same).item() == pytest.approx(4, abs=1e-6)


NORMALISED = [name for name, loss in LOSSES.items() if loss.options.get("normalize") is not False]
SIZES = st.tuples(st.integers(2, 24), st.integers(1, 9), st.integers(0, 2**20))


@settings(max_examples=25, deadline=None)
@given(sizes=SIZES, name=st.sampled_from(["nt_xent", "info_nce", "info_nce_symmetric"]))
def test_permuting_the_batch_permutes_the_gradients(sizes: tuple[int, int, int], name: str) -> None:
    n, columns, seed = sizes
    loss = LOSSES[name]
    matrices = draw(loss, n, columns, torch.float64, seed)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    value, *gradients = value_and_gradients(loss, True, matrices, 0.3, torch.float64)
    moved, *moved_gradients = value_and_gradients(
        loss, True, [m[order] for m in matrices], 0.3, torch.float64
    )
    torch.testing.assert_close(value, moved)
    for a, b in zip(gradients[:2], moved_gradients[:2], strict=True):
        torch.testing.assert_close(a[order], b, atol=1e-12, rtol=1e-9)


@settings(max_examples=25, deadline=None)
@given(sizes=SIZES, exponent=st.integers(-18, 18), name=st.sampled_from(NORMALISED))
def test_scaling_rows_changes_nothing(sizes: tuple[int, int, int], exponent: int, name: str) -> None:
    """The value stays, and gradients shrink as rows grow."""
    n, columns, seed = sizes
    matrices = draw(LOSSES[name], n, columns, torch.float32, seed)
    factor = 2.0 ** (3 * exponent)
    value, *gradients = value_and_gradients(LOSSES[name], True, matrices, 0.2, torch.float32)
    scaled = [m * factor for m in matrices]
    again, *others = value_and_gradients(LOSSES[name], True, scaled, 0.2, torch.float32)
    torch.testing.assert_close(again, value, rtol=1e-5, atol=1e-5)
    for a, b, m in zip(
        others, gradients, matrices, strict=False
    ):  # the temperature's, the last, has no matrix
        assert a.shape == m.shape
        torch.testing.assert_close(a * factor, b, rtol=1e-3, atol=1e-5)


@settings(max_examples=25, deadline=None)
@given(sizes=SIZES, m=st.integers(1, 40))
def test_a_queue_is_as_good_as_concatenated_negatives(sizes: tuple[int, int, int], m: int) -> None:
    """A query whose batch is its own key and the queue, as m pairs of which only the keys matter."""
    _, columns, seed = sizes
    g = torch.Generator().manual_seed(seed)
    q, k = torch.randn(2, 1, columns, generator=g, dtype=torch.float64).requires_grad_()
    queue = torch.randn(m, columns, generator=g, dtype=torch.float64, requires_grad=True)
    others = torch.randn(m, columns, generator=g, dtype=torch.float64)
    whole = info_nce(torch.cat([q, others]), torch.cat([k, queue]), reduction="none")[0]
    ours = info_nce(q, k, negatives=queue)
    torch.testing.assert_close(ours, whole)
    for a, b in zip(*(torch.autograd.grad(v, (q, k, queue)) for v in (ours, whole)), strict=True):
        torch.testing.assert_close(a, b, atol=1e-12, rtol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("epsilon", [0.005, 0.02, 0.05, 0.5])
def test_sinkhorn(epsilon: float, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """Below an epsilon of 1/30, scores from -1 to 1 take the branch in logarithms."""
    monkeypatch.setattr(sys.modules["hsssl_kernels.sinkhorn.blocked"], "_ROWS", 16)  # several parts
    for seed, (b, k) in enumerate([(1, 1), (3, 40), (50, 7)]):
        scores = torch.rand(b, k, generator=torch.Generator().manual_seed(seed)).mul(2).sub(1).to(dtype)
        if scores.numel() > 1:
            scores.view(-1)[:2] = torch.tensor([-1.0, 1.0])
        exact = sinkhorn_reference(scores.double(), epsilon=epsilon)
        plain = sinkhorn_reference(scores.to(torch.promote_types(dtype, torch.float32)), epsilon=epsilon)
        error = (sinkhorn(scores, epsilon=epsilon) - exact).abs().max()
        assert error <= 2 * (plain - exact).abs().max() + 1e-7 / epsilon


def test_memory_stays_far_below_the_matrix(monkeypatch: pytest.MonkeyPatch) -> None:
    """No tensor of n x n values is made: the largest allocation is bounded by tiles and rows."""
    monkeypatch.setattr(blocked, "_TILE", 512)
    n, columns = 4096, 16
    z1, z2 = (torch.randn(n, columns, requires_grad=True) for _ in range(2))
    with torch.profiler.profile(profile_memory=True) as profile:
        nt_xent(z1, z2).backward()
    largest = max(abs(e.self_cpu_memory_usage) for e in profile.events())
    assert 0 < largest < (2 * n) ** 2 * 4 / 16
