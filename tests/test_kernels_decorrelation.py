"""Barlow Twins and VICReg against their plain forms, over rows and over columns."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from hsssl_kernels import barlow_twins, vicreg
from hsssl_kernels.decorrelation.energy import cross_energy, own_energy
from hsssl_kernels.decorrelation.reference import barlow_twins_reference, vicreg_reference

LOSSES = {"barlow_twins": (barlow_twins, barlow_twins_reference), "vicreg": (vicreg, vicreg_reference)}
LOSS = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES.keys())
# more columns than rows, about as many, fewer: the two ways of summing and where they change
SHAPES = pytest.mark.parametrize(("n", "columns"), [(2, 9), (16, 64), (24, 32), (25, 32), (40, 7), (5, 1)])


def draw(n: int, columns: int, dtype: torch.dtype) -> list[Tensor]:
    g = torch.Generator().manual_seed(n * columns)
    common = torch.randn(n, columns, generator=g)
    return [(common + 0.5 * torch.randn(n, columns, generator=g) + 3).to(dtype) for _ in range(2)]


def value_and_gradients(loss: Callable[..., Tensor], views: list[Tensor]) -> list[Tensor]:
    leaves = [v.detach().requires_grad_() for v in views]
    value = loss(*leaves)
    value.backward()
    return [x.detach().double() for x in (value, *(leaf.grad for leaf in leaves)) if x is not None]


@LOSS
@SHAPES
def test_float64_is_the_plain_form(loss, n: int, columns: int) -> None:
    views = draw(n, columns, torch.float64)
    for ours, right in zip(*(value_and_gradients(f, views) for f in loss), strict=True):
        torch.testing.assert_close(ours, right, rtol=1e-9, atol=1e-9)


@LOSS
@SHAPES
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_other_dtypes_are_as_good_as_the_plain_form(loss, n: int, columns: int, dtype: torch.dtype) -> None:
    views = draw(n, columns, dtype)
    exact = value_and_gradients(loss[1], [v.double() for v in views])
    plain = value_and_gradients(loss[1], views)
    for ours, theirs, right in zip(value_and_gradients(loss[0], views), plain, exact, strict=True):
        scale = right.norm() + 1
        assert (ours - right).norm() <= 2 * (theirs - right).norm() + 4 * torch.finfo(dtype).eps * scale


@LOSS
@pytest.mark.parametrize(("n", "columns"), [(4, 7), (7, 4)])
def test_gradients_are_those_of_finite_differences(loss, n: int, columns: int) -> None:
    views = [v.requires_grad_() for v in draw(n, columns, torch.float64)]
    assert torch.autograd.gradcheck(loss[0], views)


def test_energies_are_sums_of_squares() -> None:
    for n, columns in [(3, 8), (8, 3)]:
        a, b = draw(n, columns, torch.float64)
        torch.testing.assert_close(cross_energy(a, b), (a.T @ b).square().sum())
        torch.testing.assert_close(own_energy(a), (a.T @ a).square().sum())


@LOSS
def test_the_value_keeps_its_digits_over_many_columns(loss) -> None:
    """A million squares added up in float32 would lose a thousandth of what is off the diagonal."""
    op, reference = loss
    z1, z2 = torch.randn(
        2, 1000, 2048, generator=torch.Generator().manual_seed(0), dtype=torch.float64
    ).float()
    torch.testing.assert_close(op(z1, z2).double(), reference(z1.double(), z2.double()), rtol=1e-6, atol=0)


@LOSS
def test_no_square_of_the_columns_is_made_where_rows_are_few(loss) -> None:
    views = [v.requires_grad_() for v in draw(8, 2048, torch.float32)]
    with torch.profiler.profile(profile_memory=True) as profile:
        loss[0](*views).backward()
    assert 0 < max(abs(e.self_cpu_memory_usage) for e in profile.events()) < 2048**2


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
@LOSS
def test_torch_compile_sees_no_graph_break(loss) -> None:
    views = draw(6, 4, torch.float32)
    torch.compiler.reset()
    compiled = torch.compile(loss[0], fullgraph=True, backend="aot_eager")
    for ours, eager in zip(
        value_and_gradients(compiled, views), value_and_gradients(loss[0], views), strict=True
    ):
        torch.testing.assert_close(ours, eager)


@LOSS
def test_autocast_does_not_round_the_products(loss) -> None:
    views = draw(16, 8, torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        value = loss[0](*views)
    torch.testing.assert_close(value, loss[0](*views), rtol=0, atol=0)


@LOSS
def test_bad_input(loss) -> None:
    op, name = loss[0], loss[0].__name__
    z = torch.randn(4, 3)
    with pytest.raises(ValueError, match=rf"{name}: `z2` must have D=3 columns, got \(4, 2\)"):
        op(z, z[:, :2])
    with pytest.raises(ValueError, match=f"{name}: one pair has no spread over the batch, got B=1"):
        op(z[:1], z[:1])
    with pytest.raises(ValueError, match=f"{name}: `eps` must be finite and not negative, got -1"):
        op(z, z, eps=-1.0)
    with pytest.raises(ValueError, match=f"{name}: `eps` must be above 0, got 0"):
        op(z, z, eps=0.0)
    with pytest.raises(ValueError, match=f"{name}: `eps` must be finite and not negative, got nan"):
        op(z, z, eps=float("nan"))
    with pytest.raises(TypeError, match=f"{name}: `z1` must be floating point, got torch.int64"):
        op(z.long(), z.long())
