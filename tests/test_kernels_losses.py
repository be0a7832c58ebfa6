"""The fused losses on the CPU, in blocked torch, against the plain references in float64."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from hsssl_kernels import cosine_regression, info_nce, nt_xent, sinkhorn, sup_con
from hsssl_kernels.cosine_regression.op import cosine_rows, cosine_rows_grad
from hsssl_kernels.cosine_regression.reference import cosine_regression_reference
from hsssl_kernels.info_nce.reference import info_nce_reference
from hsssl_kernels.lse import (
    blocked,
    expected_similarity,
    lse,
    lse_grad,
    lse_with_grad,
    self_lse_with_grad,
)
from hsssl_kernels.lse import temperature as swept
from hsssl_kernels.nt_xent.reference import nt_xent_reference
from hsssl_kernels.rows import finish_rows, unit_rows
from hsssl_kernels.sinkhorn.reference import sinkhorn_reference
from hsssl_kernels.sup_con.op import class_sums
from hsssl_kernels.sup_con.reference import sup_con_reference


class Loss(NamedTuple):
    """A fused loss, its reference, how many matrices it takes, and its fixed arguments."""

    op: Callable[..., Tensor]
    reference: Callable[..., Tensor]
    matrices: int
    options: dict[str, object]
    takes_labels: bool = False
    takes_temperature: bool = True

    def run(self, fused: bool, matrices: list[Tensor], temperature: object, **more: object) -> Tensor:
        extra: list[Tensor] = []
        named = {**self.options, **more}
        if self.takes_labels:
            extra = [torch.arange(len(matrices[0])) % max(2, len(matrices[0]) // 3)]
        if self.takes_temperature:
            named["temperature"] = temperature
        if self.matrices == 3:
            *matrices, named["negatives"] = matrices
        extra = [e.to(matrices[0].device) for e in extra]
        return (self.op if fused else self.reference)(*matrices, *extra, **named)


LOSSES = {
    "nt_xent": Loss(nt_xent, nt_xent_reference, 2, {}),
    "nt_xent_raw": Loss(nt_xent, nt_xent_reference, 2, {"normalize": False}),
    "info_nce": Loss(info_nce, info_nce_reference, 2, {}),
    "info_nce_rows": Loss(info_nce, info_nce_reference, 2, {"reduction": "none"}),
    "info_nce_sum_raw": Loss(info_nce, info_nce_reference, 2, {"reduction": "sum", "normalize": False}),
    "info_nce_symmetric": Loss(info_nce, info_nce_reference, 2, {"symmetric": True}),
    "info_nce_symmetric_rows": Loss(
        info_nce, info_nce_reference, 2, {"symmetric": True, "reduction": "none"}
    ),
    "info_nce_queue": Loss(info_nce, info_nce_reference, 3, {}),
    "info_nce_queue_rows": Loss(info_nce, info_nce_reference, 3, {"reduction": "none", "normalize": False}),
    "sup_con": Loss(sup_con, sup_con_reference, 1, {}, takes_labels=True),
    "cosine_regression": Loss(cosine_regression, cosine_regression_reference, 2, {}, takes_temperature=False),
}
sinkhorn_op = sys.modules[sinkhorn.__module__]  # the package's name is the function's
# torch's tracer makes an instance of autograd.Function itself, and warns itself that one should not.
COMPILES = pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
LOSS = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES.keys())


def draw(loss: Loss, n: int, columns: int, dtype: torch.dtype, seed: int = 0) -> list[Tensor]:
    """Correlated matrices (n, D), the queue of a third one longer; raw ones have norms around 1."""
    g = torch.Generator().manual_seed(seed)
    common = torch.randn(n, columns, generator=g)
    scale = columns**-0.5 if loss.options.get("normalize") is False else 3.0
    sizes = [n, n, 2 * n + 3][: loss.matrices]
    drawn = [torch.randn(size, columns, generator=g) for size in sizes]
    drawn = [m + common if len(m) == n else m for m in drawn]
    return [(scale * m).to(dtype) for m in drawn]


def value_and_gradients(
    loss: Loss, fused: bool, matrices: list[Tensor], temperature: float, dtype: torch.dtype, **more: object
) -> list[Tensor]:
    """The value, its gradient by every matrix that has one, and by the temperature, all in float64."""
    leaves = [m.detach().to(dtype).requires_grad_() for m in matrices]
    t = torch.tensor(temperature, dtype=torch.float64 if fused else dtype, device=leaves[0].device)
    t.requires_grad_()
    value = loss.run(fused, leaves, t, **more)
    weight = torch.linspace(-1, 2, value.numel(), dtype=value.dtype, device=value.device).view_as(value)
    (value if value.ndim == 0 else (weight * value).sum()).backward()
    gradients = [leaf.grad for leaf in leaves] + ([t.grad] if loss.takes_temperature else [])
    return [x.detach().double().cpu() for x in (value, *gradients) if x is not None]


def assert_as_good_as_torch(
    loss: Loss,
    matrices: list[Tensor],
    temperature: float,
    eps: float,
    **more: object,
) -> None:
    """|fused - fp64| <= 2 |same-dtype torch - fp64| + eps: absolute for the value, relative for gradients.

    A gradient whose norm in float64 is below eps is not looked at.
    """
    dtype = matrices[0].dtype
    exact = value_and_gradients(loss, False, matrices, temperature, torch.float64)
    plain = value_and_gradients(loss, False, matrices, temperature, dtype)
    fused = value_and_gradients(loss, True, matrices, temperature, dtype, **more)
    assert len(exact) == len(plain) == len(fused)
    assert all(x.shape == e.shape for x, e in zip(fused, exact, strict=True))
    rows = len(matrices[0]) if loss.options.get("reduction") == "sum" else 1  # a sum adds up its rows' errors
    assert (fused[0] - exact[0]).abs().max() <= 2 * (plain[0] - exact[0]).abs().max() + rows * eps
    for ours, theirs, right in zip(fused[1:], plain[1:], exact[1:], strict=True):
        norm = right.norm()
        if norm > eps:
            assert (ours - right).norm() / norm <= 2 * (theirs - right).norm() / norm + eps


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


@LOSS
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_as_good_as_plain_torch(loss: Loss, dtype: torch.dtype) -> None:
    assert_as_good_as_torch(loss, draw(loss, 65, 24, dtype), 0.2, torch.finfo(dtype).eps)


@LOSS
@pytest.mark.parametrize("temperature", [0.05, 0.7])
def test_gradients_are_those_of_finite_differences(loss: Loss, temperature: float) -> None:
    matrices = [m.requires_grad_() for m in draw(loss, 5, 3, torch.float64)]
    if loss.op is cosine_regression:
        matrices[1].requires_grad_(False)
    t = torch.tensor(temperature, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda t, *m: loss.run(True, list(m), t), (t, *matrices))


@COMPILES
@LOSS
def test_torch_compile_sees_no_graph_break(loss: Loss) -> None:
    matrices = [m.requires_grad_() for m in draw(loss, 9, 4, torch.float32)]
    t = torch.tensor(0.3, requires_grad=True)
    torch.compiler.reset()
    compiled = torch.compile(
        lambda t, *m: loss.run(True, list(m), t).sum(), fullgraph=True, backend="aot_eager"
    )
    value = compiled(t, *matrices)
    value.backward()
    gradients = [m.grad.clone() for m in matrices if m.grad is not None]
    for m in matrices:
        m.grad = None
    eager = loss.run(True, matrices, t).sum()
    eager.backward()
    torch.testing.assert_close(value, eager)
    assert gradients
    for ours, m in zip(gradients, matrices, strict=False):
        torch.testing.assert_close(ours, m.grad)


@COMPILES
def test_torch_compile_checks_the_temperature_when_it_runs() -> None:
    compiled = torch.compile(lambda z, t: nt_xent(z, z, temperature=t), fullgraph=True, backend="aot_eager")
    with pytest.raises(ValueError, match="`temperature` must be finite and above 0, got -1"):
        compiled(torch.randn(4, 2), torch.tensor(-1.0))


def test_registered_ops_pass_opcheck() -> None:
    x, y, t = torch.randn(6, 3), torch.randn(9, 3), torch.tensor(0.5)
    rows, columns = lse(x, y, t, -1, 0, True, False, "torch")
    ones = torch.ones(9)
    for args in [(x, y, t, -1, 0, True, False, "torch"), (x, x, t, 0, 3, False, False, "torch")]:
        torch.library.opcheck(lse, args)
    for both in (True, False):
        args = (x, y, t, rows, ones[:6], columns, ones, -1, 0, both, False, "torch")
        torch.library.opcheck(lse_grad, args)
    torch.library.opcheck(lse_with_grad, (x, y, t))
    torch.library.opcheck(self_lse_with_grad, (x, t))
    torch.library.opcheck(unit_rows, (x, "torch"))
    torch.library.opcheck(finish_rows, (x, y[:6], ones[:6], x, ones[:6], t, 2, "torch"))
    torch.library.opcheck(class_sums, (x, torch.tensor([3, 0, 0, 3, 3, 1])))
    wide, log = x.double(), rows.double()
    torch.library.opcheck(expected_similarity, (wide, y.double(), t, log, columns.double(), -1))
    torch.library.opcheck(expected_similarity, (wide, wide, t, log, log[:0], 0))


def test_registered_sinkhorn_ops_pass_opcheck() -> None:
    for x in (torch.randn(6, 3), torch.randn(3, 6).T.to(torch.bfloat16)):
        columns = torch.zeros(3)
        for epsilon in (0.01, 1.0):  # in logarithms, and not
            torch.library.opcheck(sinkhorn_op._whole, (x, epsilon, 2))
        torch.library.opcheck(sinkhorn_op._next_columns, (x, columns[:0], 0.5, "torch"))
        torch.library.opcheck(sinkhorn_op._next_columns, (x, columns, 0.5, "torch"))
        torch.library.opcheck(sinkhorn_op._finish, (x, columns, 0.5, "torch"))


def test_registered_ops_pass_opcheck_on_other_strides() -> None:
    x, y, t = torch.randn(3, 6).T, torch.randn(3, 9).T, torch.tensor(0.5)
    ones = torch.ones(9)
    torch.library.opcheck(lse, (x, y, t, -1, 0, True, False, "torch"))
    torch.library.opcheck(lse_grad, (x, y, t, ones[:6], ones[:6], ones, ones, 0, 0, True, False, "torch"))
    torch.library.opcheck(lse_with_grad, (x, y, t))
    torch.library.opcheck(self_lse_with_grad, (x, t))
    torch.library.opcheck(unit_rows, (x, "torch"))
    torch.library.opcheck(finish_rows, (x, y[:6], ones[:6], x, ones[:6], t, 2, "torch"))
    torch.library.opcheck(cosine_rows, (x, x + 1, "torch"))
    torch.library.opcheck(cosine_rows_grad, (x, x + 1, ones[:6], ones[:6], ones[:6], t, "torch"))


@LOSS
def test_autocast_rounds_nothing(loss: Loss) -> None:
    matrices = draw(loss, 12, 6, torch.float32)
    plain = value_and_gradients(loss, True, matrices, 0.2, torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        cast = value_and_gradients(loss, True, matrices, 0.2, torch.float32)
    for a, b in zip(cast, plain, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("exponent", [-20, 0, 20, 30])
def test_cosine_regression_has_a_gradient_at_any_norm(exponent: int) -> None:
    p, t = draw(LOSSES["cosine_regression"], 5, 4, torch.float64)
    found = [
        value_and_gradients(LOSSES["cosine_regression"], fused, [p * 10.0**exponent, t], 0.0, dtype)[1]
        for fused, dtype in ((True, torch.float32), (False, torch.float64))
    ]
    torch.testing.assert_close(found[0] * 10.0**exponent, found[1] * 10.0**exponent, rtol=1e-5, atol=1e-6)


@LOSS
def test_strides_do_not_matter(loss: Loss) -> None:
    plain = draw(loss, 12, 6, torch.float32)
    strided = [torch.stack([m, -m], 2)[:, :, 0] for m in plain]
    turned = [m.T.contiguous().T for m in plain]
    expected = value_and_gradients(loss, True, plain, 0.2, torch.float32)
    for other in (strided, turned):
        for a, b in zip(value_and_gradients(loss, True, other, 0.2, torch.float32), expected, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)


@LOSS
def test_no_grad_gives_the_same_value_and_no_graph(loss: Loss) -> None:
    matrices = [m.requires_grad_() for m in draw(loss, 8, 4, torch.float32)]
    with torch.no_grad():
        bare = loss.run(True, matrices, 0.3)
    assert not bare.requires_grad
    torch.testing.assert_close(bare, loss.run(True, matrices, 0.3).detach(), rtol=0, atol=0)


@LOSS
def test_a_second_derivative_is_refused_and_never_left_out(loss: Loss) -> None:
    leaves = [m.requires_grad_() for m in draw(loss, 6, 3, torch.float64)]
    if loss.takes_temperature:
        leaves.append(torch.tensor(0.5, dtype=torch.float64, requires_grad=True))
    value = loss.run(True, leaves[: loss.matrices], leaves[-1]).sum()
    plain = torch.autograd.grad(value, leaves, retain_graph=True, allow_unused=True)
    found = torch.autograd.grad(value, leaves, create_graph=True, allow_unused=True)
    for gradient, without in zip(found, plain, strict=True):
        if without is not None:  # the target of a regression has none
            torch.testing.assert_close(gradient.detach(), without, rtol=0, atol=0)
            with pytest.raises(RuntimeError, match=f"{loss.op.__name__}: has a first derivative only"):
                (value + gradient.square().sum()).backward(retain_graph=True)


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
@given(sizes=SIZES, exponent=st.integers(-30, 30), name=st.sampled_from([*LOSSES]))
def test_scaling_rows_changes_nothing(sizes: tuple[int, int, int], exponent: int, name: str) -> None:
    n, columns, seed = sizes
    loss = LOSSES[name]
    if loss.options.get("normalize") is False:
        return
    matrices = draw(loss, n, columns, torch.float32, seed)
    scaled = [m * 10.0**exponent for m in matrices]
    a, b = loss.run(True, matrices, 0.2), loss.run(True, scaled, 0.2)
    torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


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


def test_a_frozen_key_and_queue_leave_the_other_gradients_as_they_are() -> None:
    """MoCo: keys come from the momentum encoder."""
    loss = LOSSES["info_nce_queue"]
    q, k, queue = draw(loss, 9, 5, torch.float64)
    t = torch.tensor(0.2, dtype=torch.float64, requires_grad=True)
    exact = torch.autograd.grad(loss.run(False, [q.requires_grad_(), k, queue], t), (q, t))
    ours = torch.autograd.grad(loss.run(True, [q, k, queue], t), (q, t))
    for a, b in zip(ours, exact, strict=True):
        torch.testing.assert_close(a, b)


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
