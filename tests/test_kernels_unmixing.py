"""Spectral angles and the mixing loss on the CPU, against references in float64 and by hand."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from hsssl_kernels import linear_mixing, spectral_angle, spectral_divergence
from hsssl_kernels.linear_mixing.op import mixing_grad, mixing_rows
from hsssl_kernels.linear_mixing.reference import linear_mixing_reference
from hsssl_kernels.spectral_angle import blocked
from hsssl_kernels.spectral_angle.op import all_angles, all_angles_grad, angle_grad, angle_rows
from hsssl_kernels.spectral_angle.reference import spectral_angle_reference, spectral_divergence_reference


class Case(NamedTuple):
    """An op, its reference and options; ``mixing`` says whether it takes abundances and endmembers."""

    op: Callable[..., Tensor]
    reference: Callable[..., Tensor]
    options: dict[str, Any]
    mixing: bool = False

    def run(self, fused: bool, inputs: list[Tensor], **more: Any) -> Tensor:
        return (self.op if fused else self.reference)(*inputs, **self.options, **more)


CASES = {
    "angle_all": Case(spectral_angle, spectral_angle_reference, {"pairwise": True}),
    "angle_rows": Case(spectral_angle, spectral_angle_reference, {"pairwise": False}),
    "mix_mse": Case(linear_mixing, linear_mixing_reference, {"loss": "mse"}, True),
    "mix_sad": Case(linear_mixing, linear_mixing_reference, {"loss": "sad"}, True),
    "mix_sad_softmax": Case(linear_mixing, linear_mixing_reference, {"loss": "sad", "softmax": True}, True),
    "mix_rows": Case(linear_mixing, linear_mixing_reference, {"loss": "mse", "reduction": "none"}, True),
}
CASE = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


def draw(case: Case, n: int, p: int, columns: int, dtype: torch.dtype) -> list[Tensor]:
    """Return inputs in ``dtype``: x (n, D), y (n or n + 3, D), or abundances, endmembers and pixels."""
    g = torch.Generator().manual_seed(n + p + columns)
    if case.mixing:
        a, e, x = (torch.rand(*size, generator=g) + 0.05 for size in ((n, p), (p, columns), (n, columns)))
        return [a.to(dtype), e.to(dtype), x.to(dtype)]
    m = n + 3 if case.options["pairwise"] else n
    return [torch.randn(rows, columns, generator=g).to(dtype) for rows in (n, m)]


def value_and_gradients(
    case: Case, fused: bool, inputs: list[Tensor], dtype: torch.dtype, **more: Any
) -> list[Tensor]:
    leaves = [x.to(dtype).detach().requires_grad_() for x in inputs]
    value = case.run(fused, leaves, **more)
    weight = torch.linspace(-1, 2, value.numel(), dtype=torch.float64, device=value.device)
    (value.double() * weight.view(value.shape)).sum().backward()
    # pixels of the mixing loss are a constant
    return [value.detach(), *(x.grad for x in leaves if x.grad is not None)]


def assert_as_good_as_torch(case: Case, inputs: list[Tensor], eps: float, **more: Any) -> None:
    dtype = inputs[0].dtype
    exact = value_and_gradients(case, False, inputs, torch.float64)
    plain = value_and_gradients(case, False, inputs, dtype)
    ours = value_and_gradients(case, True, inputs, dtype, **more)
    assert len(ours) == len(exact)
    for got, same, right in zip(ours, plain, exact, strict=True):
        size = right.abs().max().item()
        bound = 2 * (same.double() - right).abs().max().item() + eps * (size + 1)
        assert (got.double() - right).abs().max().item() <= bound


@CASE
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("n", "p", "columns"), [(1, 1, 1), (7, 3, 20), (65, 17, 33)])
def test_as_good_as_plain_torch(case: Case, n: int, p: int, columns: int, dtype: torch.dtype) -> None:
    eps = {torch.float64: 1e-13, torch.float32: 2e-6, torch.bfloat16: 2e-2}[dtype]
    if columns == 1 and not case.mixing:
        eps = 1e-3  # parallel rows: the arccosine of what rounds to 1
    assert_as_good_as_torch(case, draw(case, n, p, columns, dtype), eps)


def test_angles_by_hand() -> None:
    x = torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 0.0]], dtype=torch.float64)
    y = torch.tensor([[0.0, 5.0], [-2.0, -2.0]], dtype=torch.float64)
    quarter = math.pi / 4
    right = torch.tensor([[2, 3], [1, 4], [2, 2]], dtype=torch.float64) * quarter
    torch.testing.assert_close(spectral_angle(x, y), right)
    torch.testing.assert_close(spectral_angle(x[:2], y, pairwise=False), right.diagonal())


def test_small_angles_keep_their_digits() -> None:
    """The arccosine of a float32 cosine gives 0 or 3.5e-4 here."""
    x = torch.tensor([[1.0, 0.0]])
    for angle in (1e-3, 1e-5):
        y = torch.tensor([[math.cos(angle), math.sin(angle)]])
        assert spectral_angle(x, y, pairwise=False).item() == pytest.approx(angle, rel=1e-5)


@given(st.floats(1e-3, 1e3), st.integers(0, 2**31))
@settings(max_examples=20, deadline=None)
def test_the_angle_ignores_scale(scale: float, seed: int) -> None:
    x, y = torch.randn(2, 5, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(spectral_angle(x * scale, y), spectral_angle(x, y))
    torch.testing.assert_close(
        spectral_divergence(x.abs() * scale, y.abs()), spectral_divergence(x.abs(), y.abs())
    )


@pytest.mark.parametrize("pairwise", [True, False])
def test_masked_bands_are_never_used(pairwise: bool) -> None:
    x, y = torch.rand(2, 4, 6, dtype=torch.float64)
    mask = torch.tensor([True, False, True, True, False, True])
    for op in (spectral_angle, spectral_divergence):
        right = op(x[:, mask], y[:, mask], pairwise=pairwise)
        spoilt = x.masked_fill(~mask, float("nan")).requires_grad_()
        got = op(spoilt, y, pairwise=pairwise, mask=mask)
        torch.testing.assert_close(got, right)
        got.sum().backward()
        assert spoilt.grad is not None
        assert (spoilt.grad[:, ~mask] == 0).all()


def test_a_mask_for_each_pair() -> None:
    x, y = torch.rand(2, 3, 5, dtype=torch.float64)
    mask = torch.tensor([[True] * 5, [True, True, False, False, True], [False] * 5])
    got = spectral_angle(x, y, pairwise=False, mask=mask)
    torch.testing.assert_close(got[1], spectral_angle(x[1:2][:, mask[1]], y[1:2][:, mask[1]])[0, 0])
    assert got[2].item() == pytest.approx(math.pi / 2)  # no band, no direction


@pytest.mark.parametrize("pairwise", [True, False])
def test_divergence_by_hand_and_reference(pairwise: bool) -> None:
    x = torch.tensor([[1.0, 3.0], [2.0, 2.0]], dtype=torch.float64)
    y = torch.tensor([[3.0, 1.0], [2.0, 2.0]], dtype=torch.float64)
    got = spectral_divergence(x, y, pairwise=pairwise)
    # p = (1/4, 3/4), q = (3/4, 1/4): 2 (1/2) log 3; against (1/2, 1/2): 1/4 log 3
    right = torch.tensor([[1, 0.25], [0.25, 0]], dtype=torch.float64) * math.log(3)
    torch.testing.assert_close(got, right if pairwise else right.diagonal())
    x, y = torch.randn(2, 6, 9, dtype=torch.float64)
    torch.testing.assert_close(
        spectral_divergence(x, y, pairwise=pairwise), spectral_divergence_reference(x, y, pairwise=pairwise)
    )


def test_mixing_by_hand() -> None:
    a = torch.tensor([[0.5, 0.5], [1.0, 0.0]], dtype=torch.float64)
    e = torch.tensor([[2.0, 0.0], [0.0, 2.0]], dtype=torch.float64)
    x = torch.tensor([[3.0, 1.0], [0.0, 7.0]], dtype=torch.float64)
    rows = linear_mixing(a, e, x, reduction="none")
    torch.testing.assert_close(rows, torch.tensor([2.0, 26.5], dtype=torch.float64))
    angles = linear_mixing(a, e, x, loss="sad", reduction="none")
    right = [math.acos(4 / math.sqrt(20)), math.pi / 2]
    torch.testing.assert_close(angles, torch.tensor(right, dtype=torch.float64))
    assert linear_mixing(a, e, x, reduction="sum").item() == pytest.approx(28.5)


@pytest.mark.parametrize("name", ["mix_mse", "mix_sad", "angle_rows", "angle_all"])
def test_blocks_change_nothing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    case = CASES[name]
    inputs = draw(case, 23, 4, 10, torch.float64)
    whole = value_and_gradients(case, True, inputs, torch.float64)
    monkeypatch.setattr(blocked, "_VALUES", 30)
    parts = value_and_gradients(case, True, inputs, torch.float64)
    for a, b in zip(parts, whole, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("size", [1e-25, 1e25])
def test_rows_of_any_length_have_their_angle(size: float) -> None:
    """Squares of these vanish or overflow in float32; zeros and NaN beside them stay in their rows."""
    x = torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 0.0], [math.nan, 1.0]])
    y = torch.tensor([[1.0, 1.0], [-1.0, -1.0], [1.0, 0.0], [1.0, 0.0]])
    right = torch.tensor([1, 4, 2, math.nan]) * (math.pi / 4)
    everywhere = torch.tensor([[1, 3, 0, 0], [0, 4, 1, 1], [2, 2, 2, 2]]) * (math.pi / 4)
    for lengths in ((1.0, 1.0), (size, 1.0), (size, size)):
        near, far = (x * lengths[0]).requires_grad_(), (y * lengths[1]).requires_grad_()
        got = spectral_angle(near, far, pairwise=False)
        torch.testing.assert_close(got, right, equal_nan=True)
        torch.testing.assert_close(spectral_angle(near[:3], far)[:, :3], everywhere[:, :3], atol=1e-3, rtol=0)
        got[0].backward()
        # turning x by a length of its own changes the angle by one: the gradient is 1 / |x|
        torch.testing.assert_close(near.grad[0] * lengths[0], torch.tensor([0.0, -1.0]))
        torch.testing.assert_close(far.grad[0] * lengths[1], torch.tensor([-0.5, 0.5]))


@pytest.mark.parametrize("loss", ["mse", "sad"])
def test_zeros_and_perfect_fits_have_finite_gradients(loss: str) -> None:
    a = torch.tensor([[1.0, 0.0], [0.0, 0.0], [0.5, 0.5]], dtype=torch.float64, requires_grad=True)
    e = torch.rand(2, 4, dtype=torch.float64).requires_grad_()
    x = torch.stack([e[0].detach(), e[1].detach(), torch.zeros(4, dtype=torch.float64)])
    linear_mixing(a, e, x, loss=loss, reduction="sum").backward()
    assert a.grad is not None
    assert e.grad is not None
    assert bool(a.grad.isfinite().all() and e.grad.isfinite().all())
    if loss == "sad":  # neither the perfect fit nor what has no direction pulls
        assert a.grad.abs().max() < 1e-6


@pytest.mark.parametrize("name", ["angle_all", "angle_rows", "mix_mse", "mix_sad_softmax"])
def test_gradcheck(name: str) -> None:
    case = CASES[name]
    inputs = [x.requires_grad_(k < 2) for k, x in enumerate(draw(case, 3, 2, 5, torch.float64))]
    assert torch.autograd.gradcheck(lambda *x: case.run(True, list(x)), inputs)


def test_opcheck() -> None:
    x, y, ones = torch.randn(4, 3), torch.randn(4, 3), torch.ones(4)
    a, e = torch.rand(4, 2), torch.rand(2, 3)
    for op, inputs in (
        (angle_rows, (x, y, "torch")),
        (angle_grad, (x, y, ones, ones, ones, ones, "torch")),
        (all_angles, (x, y[:2], "torch")),
        (all_angles_grad, (x, y[:2], torch.rand(4, 2), torch.rand(4, 2))),
        (mixing_rows, (a, e, x, "sad", "torch")),
        (mixing_rows, (a, e, x, "mse", "torch")),
        (mixing_grad, (a, e, x, ones, ones, "torch")),
    ):
        torch.library.opcheck(op, inputs)


Z = torch.rand(4, 3)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: spectral_angle(Z, Z[:, :2]), ValueError, r"`y` must have D=3 columns, got \(4, 2\)"),
        (lambda: spectral_angle(Z, Z[:2], pairwise=False), ValueError, r"`y` must have the n=4 rows"),
        (lambda: spectral_angle(Z, Z, mask=torch.ones(3)), ValueError, r"bool tensor of shape \(3,\), got"),
        (
            lambda: spectral_angle(Z, Z, mask=torch.ones(4, 3, dtype=torch.bool)),
            ValueError,
            r"of shape \(3,\), got torch.bool \(4, 3\)",
        ),
        (lambda: spectral_divergence(Z, Z, floor=0.0), ValueError, r"`floor` must be above 0, got 0.0"),
        (
            lambda: linear_mixing(Z, Z, Z),
            ValueError,
            r"`abundances` must have shape \(n, p\) = \(4, 4\), got \(4, 3\)",
        ),
        (lambda: linear_mixing(Z @ Z.T, Z, Z, loss="l1"), ValueError, r'must be "mse" or "sad", got \'l1\''),
        (lambda: linear_mixing((Z @ Z.T).double(), Z, Z), TypeError, r"`abundances` must be torch.float32"),
        (lambda: spectral_angle(Z, Z, pairwise="no"), TypeError, "`pairwise` must be True or False"),
        (lambda: linear_mixing(Z @ Z.T, Z, Z, softmax=1), TypeError, "`softmax` must be True or False"),
        (lambda: linear_mixing(Z @ Z.T, Z, Z, backend="cuda"), ValueError, r"`backend` must be"),
    ],
)  # fmt: skip
def test_wrong_input_is_refused(call: Callable[[], Tensor], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()
