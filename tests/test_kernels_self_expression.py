"""Self-expression in blocked torch against the plain form that stores all coefficients."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from hsssl_kernels import self_expression, top_coefficients
from hsssl_kernels.self_expression import blocked
from hsssl_kernels.self_expression.op import express, express_grad
from hsssl_kernels.self_expression.reference import (
    coefficients_reference,
    self_expression_reference,
    top_coefficients_reference,
)
from hsssl_kernels.self_expression.top import top

# (n, m, D, F): square, few queries of many keys, one row, wider than it is long
SHAPES = [(1, 1, 1, 1), (7, 7, 3, 5), (5, 40, 9, 2), (40, 5, 70, 33)]
SHAPE = pytest.mark.parametrize("shape", SHAPES, ids=str)


def draw(shape: tuple[int, int, int, int], dtype: torch.dtype, seed: int = 0) -> dict[str, Any]:
    """Arguments of the op: some queries are keys, some are none."""
    n, m, d, width = shape
    g = torch.Generator().manual_seed(seed)
    own = torch.randint(-1, m, (n,), generator=g)
    query, key = (torch.randn(k, d, generator=g).div(d**0.25).to(dtype) for k in (n, m))
    x = torch.randn(m, width, generator=g).to(dtype)
    return {"query": query, "key": key, "x": x, "own": own}


def values_and_gradients(
    run: Any, named: dict[str, Any], dtype: torch.dtype, threshold: float = 0.3, **more: object
) -> list[Tensor]:
    """All outputs, and the gradients of a sum that weighs every one of them differently, in float64."""
    leaves = {k: named[k].detach().to(dtype).requires_grad_() for k in ("query", "key", "x")}
    device = named["own"].device
    t, scale = (torch.tensor(v, dtype=dtype, device=device, requires_grad=True) for v in (threshold, 2.0))
    out = run(**leaves, own=named["own"], threshold=t, scale=scale, **more)
    weights = [
        torch.linspace(-1, 2, o.numel(), device=device, dtype=o.dtype).view(o.shape) / len(o) for o in out
    ]
    torch.autograd.backward(sum((w * o).sum() for w, o in zip(weights, out, strict=True)))
    found = [*out, *(leaf.grad for leaf in leaves.values()), t.grad, scale.grad]
    return [f.detach().double().cpu() for f in found if f is not None]


def assert_as_good_as_torch(named: dict[str, Any], dtype: torch.dtype, **more: object) -> None:
    """|fused - fp64| <= 2 |same-dtype torch - fp64| + eps, by norm, for outputs and every gradient."""
    # all three see the same rounded threshold
    exact = values_and_gradients(self_expression_reference, named, torch.float64)
    plain = values_and_gradients(self_expression_reference, named, dtype)
    fused = values_and_gradients(self_expression, named, dtype, **more)
    assert len(exact) == len(plain) == len(fused) == 8
    for ours, theirs, right in zip(fused, plain, exact, strict=True):
        assert ours.shape == right.shape
        floor = 4 * torch.finfo(dtype).eps * (right.norm() + 1)
        assert (ours - right).norm() <= 2 * (theirs - right).norm() + floor


@SHAPE
@pytest.mark.parametrize("tiles", [(1024, 2048), (3, 4)])
def test_float64_is_the_plain_form(
    shape: tuple[int, int, int, int], tiles: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocked, "_ROWS", tiles[0])
    monkeypatch.setattr(blocked, "_COLUMNS", tiles[1])
    named = draw(shape, torch.float64)
    pairs = (
        values_and_gradients(f, named, torch.float64) for f in (self_expression, self_expression_reference)
    )
    for ours, right in zip(*pairs, strict=True):
        torch.testing.assert_close(ours, right, rtol=1e-10, atol=1e-12)


@SHAPE
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_other_dtypes_are_as_good_as_the_plain_form(
    shape: tuple[int, int, int, int], dtype: torch.dtype
) -> None:
    assert_as_good_as_torch(draw(shape, dtype), dtype, backend="torch")


@pytest.mark.parametrize("shape", SHAPES[:3], ids=str)
def test_gradients_are_those_of_finite_differences(shape: tuple[int, int, int, int]) -> None:
    named = draw(shape, torch.float64)
    inputs = [named[k].requires_grad_() for k in ("query", "key", "x")]
    # no |s| lies within a finite difference of the threshold, where the slope jumps
    s = (inputs[0] @ inputs[1].T).detach().abs().flatten().sort().values
    steps = torch.cat([s.new_zeros(1), s]).diff()
    at = steps.argmax()
    limit = (s[at] - steps[at] / 2).requires_grad_()

    def run(query: Tensor, key: Tensor, x: Tensor, threshold: Tensor) -> Any:
        return tuple(self_expression(query, key, x, threshold=threshold, own=named["own"]))

    assert torch.autograd.gradcheck(run, (*inputs, limit))


def test_a_hand_calculation() -> None:
    """S = [[4, 2, -6], [2, 1, -3], [-6, -3, 9]]: less 1, without the diagonal, halved."""
    z = torch.tensor([[2.0], [1.0], [-3.0]])
    x = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    found = self_expression(z, z, x, threshold=1.0, scale=2.0)
    torch.testing.assert_close(found.values, torch.tensor([[-2.5, -2.0], [-0.5, -1.0], [-2.5, -1.0]]))
    torch.testing.assert_close(found.l1, torch.tensor([3.0, 1.5, 3.5]))
    torch.testing.assert_close(found.l2, torch.tensor([6.5, 1.25, 7.25]))
    column, value = top_coefficients(z, z, neighbours=2, threshold=1.0, scale=2.0)
    assert column.tolist() == [[2, 1], [2, 0], [0, 1]]
    torch.testing.assert_close(value, torch.tensor([[-2.5, 0.5], [-1.0, 0.5], [-2.5, -1.0]]))


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 30), st.integers(0, 2**32 - 1), st.floats(0, 1))
def test_permuting_rows_permutes_and_the_diagonal_is_zero(n: int, seed: int, threshold: float) -> None:
    g = torch.Generator().manual_seed(seed)
    q, k, x = (torch.randn(n, 4, generator=g, dtype=torch.float64) for _ in range(3))
    order = torch.randperm(n, generator=g)
    plain = self_expression(q, k, x, threshold=threshold)
    turned = self_expression(q[order], k[order], x[order], threshold=threshold)
    for a, b in zip(plain, turned, strict=True):
        torch.testing.assert_close(a[order], b)
    # each row as its own indicator: C x is C
    c = self_expression(q, k, torch.eye(n, dtype=q.dtype), threshold=threshold).values
    assert (c.diagonal() == 0).all()
    torch.testing.assert_close(c.abs().sum(1), plain.l1)


@pytest.mark.parametrize("tiles", [(256, 16384), (4, 9)])
@pytest.mark.parametrize(("shape", "neighbours"), [((1, 1, 1, 1), 1), ((7, 7, 3, 1), 7), ((30, 50, 5, 1), 8)])
@pytest.mark.parametrize("threshold", [0.0, 1.0])
def test_top_coefficients(
    shape: tuple[int, int, int, int],
    neighbours: int,
    threshold: float,
    tiles: tuple[int, int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(blocked, "_TOP_ROWS", tiles[0])
    monkeypatch.setattr(blocked, "_TOP_COLUMNS", tiles[1])
    named = draw(shape, torch.float64)
    column, value = top_coefficients(
        named["query"], named["key"], neighbours=neighbours, threshold=threshold, own=named["own"]
    )
    right_column, right_value = top_coefficients_reference(
        named["query"], named["key"], neighbours, threshold=threshold, own=named["own"]
    )
    assert torch.equal(column, right_column)
    torch.testing.assert_close(value, right_value)


def test_registered_ops_pass_opcheck() -> None:
    named = draw((5, 40, 9, 2), torch.float32)
    query, key, x, own = named.values()
    limit = torch.tensor(0.2, dtype=torch.float64)
    gradient, weight = torch.randn(5, 2), torch.randn(2, 5)
    for k in (key, key.T.contiguous().T):
        torch.library.opcheck(express, (query, k, x, limit, own, "torch"))
        torch.library.opcheck(top, (query, k, limit, own, 3, "torch"))
        for by_x in (True, False):
            args = (query, k, x, limit, own, gradient, weight, by_x, "torch")
            torch.library.opcheck(express_grad, args)


# torch's tracer makes an instance of autograd.Function itself, and warns itself that one should not.
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
def test_it_compiles_whole() -> None:
    named = draw((7, 7, 3, 5), torch.float64)
    args = [named[k].requires_grad_() for k in ("query", "key", "x")]

    def loss(*a: Tensor) -> Tensor:
        found = self_expression(*a, threshold=0.1)
        return found.values.square().sum() + found.l1.sum()

    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    ours = torch.autograd.grad(compiled(*args), args)
    for a, b in zip(ours, torch.autograd.grad(loss(*args), args), strict=True):
        torch.testing.assert_close(a, b)


def test_memory_is_linear_in_rows() -> None:
    """Neither pass makes a tensor of n x m values."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class Largest(TorchDispatchMode):
        values = 0

        def __torch_dispatch__(self, f: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            found = f(*args, **(kwargs or {}))
            for t in found if isinstance(found, (tuple, list)) else [found]:
                if isinstance(t, Tensor):
                    self.values = max(self.values, t.numel())
            return found

    n = 4000
    z = torch.randn(n, 2, requires_grad=True)
    with Largest() as seen:
        self_expression(z, z, z).l1.sum().backward()
        top_coefficients(z.detach(), z.detach(), neighbours=3)
    assert 0 < seen.values <= blocked._ROWS * blocked._COLUMNS < n * n / 4


Z = torch.randn(4, 3)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: self_expression(Z, Z[:, :2], Z), ValueError, r"`key` must have D=3 columns, got \(4, 2\)"),
        (lambda: self_expression(Z, Z, Z[:3]), ValueError, r"`x` must have the m=4 rows"),
        (
            lambda: self_expression(Z, Z, Z.double()),
            ValueError,
            r"`x` must have .*got \(4, 3\), torch.float64",
        ),
        (lambda: self_expression(Z[:2], Z, Z), ValueError, r"2 queries of 4 keys; pass `own`"),
        (
            lambda: self_expression(Z, Z, Z, own=[0, 1, 2, 3]),
            ValueError,
            r"`own` must be an int64 .*got list",
        ),
        (lambda: self_expression(Z, Z, Z, scale=0), ValueError, "`scale` must be finite and above 0, got 0"),
        (lambda: self_expression(Z, Z, Z, scale=torch.ones(3)), ValueError, r"`scale` must be a number or"),
        (lambda: top_coefficients(Z, Z, neighbours=1, scale=True), TypeError, "`scale` must be a number or"),
        (
            lambda: self_expression(Z, Z, Z, own=torch.tensor([0, 1, 2, 4])),
            ValueError,
            r"`own` must name rows of `key`, 0 ... 3, got 4",
        ),
        (lambda: self_expression(Z, Z, Z, own=torch.zeros(4)), ValueError, r"`own` must be .*float32 \(4,\)"),
        (
            lambda: self_expression(Z, Z, Z, threshold=-1.0),
            ValueError,
            r"`threshold` must be finite .* got -1.0",
        ),
        (lambda: self_expression(Z, Z, Z, threshold=float("nan")), ValueError, r"`threshold` .* got nan"),
        (
            lambda: self_expression(Z, Z, Z, threshold="low"),
            TypeError,
            r"`threshold` must be a number .*got str",
        ),
        (lambda: self_expression(Z, Z, Z, threshold=torch.ones(2)), ValueError, r"tensor of one element"),
        (lambda: self_expression(Z[:0], Z, Z), ValueError, r"`query` must have at least one row"),
        (lambda: self_expression(Z.long(), Z, Z), TypeError, r"`query` must be floating point"),
        (lambda: top_coefficients(Z, Z, neighbours=5), ValueError, r"`neighbours` .* in 1 ... m=4, got 5"),
        (lambda: top_coefficients(Z, Z, neighbours=0), ValueError, r"got 0; try 50"),
        (lambda: top_coefficients(Z, Z, neighbours=1, backend="gpu"), ValueError, r"`backend` must be"),
    ],
)
def test_bad_input_is_refused_in_words(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


def test_the_diagonal_counts_where_no_query_is_a_key() -> None:
    none = torch.full((4,), -1)
    right = coefficients_reference(Z, Z, 0.0, 1.0, none).abs().sum(1)
    torch.testing.assert_close(self_expression(Z, Z, Z, own=none).l1, right)
