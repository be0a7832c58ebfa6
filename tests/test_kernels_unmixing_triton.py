"""The unmixing ops' Triton kernels: on a GPU where there is one, in Triton's interpreter otherwise."""

from __future__ import annotations

import os
from typing import Any

import pytest
import torch

if not torch.cuda.is_available():
    # read when a kernel's module is imported, which is not before its first use
    os.environ["TRITON_INTERPRET"] = "1"
pytest.importorskip("triton", reason="the package triton is not installed")

from hsssl_kernels import linear_mixing, spectral_angle
from hsssl_kernels.launch import PROGRAMS, architecture
from test_kernels_triton import DEVICE, DTYPE, GuardedMemory
from test_kernels_unmixing import CASE, CASES, Case, assert_as_good_as_torch, draw, value_and_gradients


@pytest.fixture(autouse=True)
def _guarded_memory(monkeypatch: pytest.MonkeyPatch) -> Any:
    """What a kernel forgets to write is NaN, and so is what lies around it; writing there is noticed."""
    from hsssl_kernels.linear_mixing import kernel  # noqa: F401  # compiled before memory is guarded

    guarded = GuardedMemory()
    monkeypatch.setattr(torch, "empty", guarded)
    yield
    assert guarded.untouched()


def on_device(case: Case, n: int, p: int, columns: int, dtype: torch.dtype) -> list[torch.Tensor]:
    return [x.to(DEVICE) for x in draw(case, n, p, columns, dtype)]


@CASE
@DTYPE
@pytest.mark.parametrize(("n", "p", "columns"), [(1, 1, 2), (35, 17, 70)])
def test_as_good_as_plain_torch(case: Case, dtype: torch.dtype, n: int, p: int, columns: int) -> None:
    eps = 4e-6 if dtype == torch.float32 else 2e-3 if dtype == torch.float16 else 2e-2
    assert_as_good_as_torch(case, on_device(case, n, p, columns, dtype), eps, backend="triton")


@pytest.mark.parametrize("programs", [1, 1000])
def test_splitting_rows_over_programs_changes_nothing(programs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = on_device(CASES["mix_sad"], 100, 3, 20, torch.float32)
    monkeypatch.setitem(PROGRAMS, architecture(inputs[0]), programs)
    assert_as_good_as_torch(CASES["mix_sad"], inputs, 4e-6, backend="triton")


@pytest.mark.parametrize("case", [CASES["angle_all"], CASES["mix_sad"]], ids=["angle_all", "mix_sad"])
def test_the_same_bits_every_time(case: Case) -> None:
    inputs = on_device(case, 40, 5, 33, torch.float32)
    first, second = (value_and_gradients(case, True, inputs, torch.float32, backend="triton") for _ in "ab")
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("case", [CASES["angle_rows"], CASES["mix_mse"]], ids=["angle_rows", "mix_mse"])
def test_strides_do_not_matter(case: Case) -> None:
    inputs = on_device(case, 20, 4, 12, torch.float32)
    turned = [x.T.contiguous().T for x in inputs]
    expected, got = (
        value_and_gradients(case, True, x, torch.float32, backend="triton") for x in (inputs, turned)
    )
    assert all(torch.equal(a, b) for a, b in zip(expected, got, strict=True))


def test_every_angle_is_right_to_seven_digits() -> None:
    right = torch.linspace(0, torch.pi, 301, dtype=torch.float64)
    y = torch.stack([right.cos(), right.sin()], 1).float().to(DEVICE)
    x = torch.tensor([[1.0, 0.0]], device=DEVICE).expand(301, 2)
    got = spectral_angle(x, y, pairwise=False, backend="triton").cpu().double()
    assert (got - right).abs().max() < 1e-6
    small = spectral_angle(
        x[:1], torch.tensor([[1.0, 1e-5]], device=DEVICE), pairwise=False, backend="triton"
    )
    assert small.item() == pytest.approx(1e-5, rel=1e-4)


def test_zero_rows_have_a_right_angle_and_no_gradient() -> None:
    a = torch.tensor([[1.0, 0.0], [0.0, 0.0]], device=DEVICE, requires_grad=True)
    e, x = torch.rand(2, 5, device=DEVICE), torch.zeros(2, 5, device=DEVICE)
    loss = linear_mixing(a, e, x, loss="sad", reduction="none", backend="triton")
    assert loss.tolist() == pytest.approx([torch.pi / 2] * 2)
    loss.sum().backward()
    assert a.grad is not None
    assert (a.grad == 0).all()


def test_too_many_endmembers_for_the_kernels() -> None:
    a, e, x = torch.rand(2, 33), torch.rand(33, 4), torch.rand(2, 4)
    with pytest.raises(ValueError, match=r"up to 32 endmembers"):
        linear_mixing(a.to(DEVICE), e.to(DEVICE), x.to(DEVICE), backend="triton")
