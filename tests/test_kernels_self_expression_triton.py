"""Self-expression's Triton kernels: on a GPU where there is one, in Triton's interpreter otherwise."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest
import torch

if not torch.cuda.is_available():
    # read when a kernel's module is imported, which is not before its first use
    os.environ["TRITON_INTERPRET"] = "1"
pytest.importorskip("triton", reason="the package triton is not installed")

from hsssl_kernels import self_expression, top_coefficients
from hsssl_kernels.launch import PROGRAMS, architecture
from hsssl_kernels.self_expression.reference import top_coefficients_reference
from test_kernels_self_expression import SHAPE, assert_as_good_as_torch, draw, values_and_gradients
from test_kernels_triton import DEVICE, DTYPE, GuardedMemory


@pytest.fixture(autouse=True)
def _guarded_memory(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What a kernel forgets to write is NaN, and so is what lies around it; writing there is noticed."""
    memory = GuardedMemory()
    monkeypatch.setattr(torch, "empty", memory)
    yield
    assert memory.untouched()


def on_device(shape: tuple[int, int, int, int], dtype: torch.dtype) -> dict[str, Any]:
    return {k: v.to(DEVICE) for k, v in draw(shape, dtype).items()}


@SHAPE
@DTYPE
def test_as_good_as_plain_torch(shape: tuple[int, int, int, int], dtype: torch.dtype) -> None:
    assert_as_good_as_torch(on_device(shape, dtype), dtype, backend="triton")


@DTYPE
def test_larger_shapes(dtype: torch.dtype) -> None:
    assert_as_good_as_torch(on_device((70, 130, 40, 101), dtype), dtype, backend="triton")


@pytest.mark.parametrize("programs", [1, 3, 1000])
def test_splitting_the_columns_changes_nothing(programs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    named = on_device((9, 200, 5, 3), torch.float32)
    monkeypatch.setitem(PROGRAMS, architecture(named["query"]), programs)
    assert_as_good_as_torch(named, torch.float32, backend="triton")


def test_small_gradients_in_half_precision_keep_their_digits() -> None:
    """A mean over many pixels has gradients that float16 could not hold."""
    named = on_device((40, 40, 6, 3), torch.float16)
    leaves = [named[k].requires_grad_() for k in ("query", "key", "x")]
    half = self_expression(*leaves, threshold=0.1, backend="triton").values.sum() * 1e-7
    whole = [leaf.detach().double().requires_grad_() for leaf in leaves]
    right = self_expression(*whole, threshold=0.1).values.sum() * 1e-7
    # the ops' own gradients, before a leaf of float16 rounds them
    from hsssl_kernels.self_expression.op import express_grad

    upstream, own = torch.full((40, 3), 1e-7, device=DEVICE), torch.arange(40, device=DEVICE)
    limit, weight = torch.tensor(0.1, device=DEVICE), torch.zeros(2, 40, device=DEVICE)
    args = (limit, own, upstream, weight, True, "triton")
    found = express_grad(*(leaf.detach() for leaf in leaves), *args)[:3]
    for ours, exact in zip(found, torch.autograd.grad(right, whole), strict=True):
        assert (ours - exact).norm() <= 4e-3 * exact.norm()
    assert half.isfinite()


def test_the_same_bits_every_time() -> None:
    named = on_device((33, 40, 9, 7), torch.float32)
    first, second = (
        values_and_gradients(self_expression, named, torch.float32, backend="triton") for _ in range(2)
    )
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@DTYPE
@pytest.mark.parametrize(("n", "m", "d", "neighbours"), [(1, 1, 1, 1), (7, 9, 3, 5), (18, 70, 33, 20)])
@pytest.mark.parametrize("threshold", [0.0, 0.7])
def test_top_coefficients(
    n: int, m: int, d: int, neighbours: int, threshold: float, dtype: torch.dtype
) -> None:
    named = on_device((n, m, d, 1), dtype)
    query, key = named["query"], named["key"]
    options = {"neighbours": neighbours, "threshold": threshold, "own": named["own"]}
    column, value = top_coefficients(query, key, **options, backend="triton")
    right = top_coefficients_reference(query.float(), key.float(), **options)
    torch.testing.assert_close(value.abs(), right[1].abs(), rtol=1e-5, atol=1e-5)
    kept = column >= 0
    assert torch.equal(kept, value != 0)
    every = (query.float() @ key.float().T).gather(1, column.clamp_min(0))
    shrunk = every.sign() * (every.abs() - threshold)
    torch.testing.assert_close(value[kept], shrunk[kept], rtol=1e-5, atol=1e-5)
    assert (column != named["own"][:, None])[kept].all()
    assert all(len(set(row[row >= 0].tolist())) == int((row >= 0).sum()) for row in column)


def test_of_equal_coefficients_the_first_columns_are_kept() -> None:
    z = torch.ones(1, 1, device=DEVICE)
    column, value = top_coefficients(
        z, z.expand(90, 1), neighbours=4, own=torch.tensor([1], device=DEVICE), backend="triton"
    )
    assert column.tolist() == [[0, 2, 3, 4]]
    assert value.tolist() == [[1, 1, 1, 1]]


def test_more_neighbours_than_a_program_keeps() -> None:
    z = torch.ones(100, 1, device=DEVICE)
    with pytest.raises(ValueError, match="keeps up to 64 neighbours, got 65"):
        top_coefficients(z, z, neighbours=65, backend="triton")
