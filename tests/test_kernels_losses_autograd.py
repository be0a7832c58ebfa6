"""The fused losses among torch's own parts: autograd, torch.compile, autocast, strides, opcheck."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from itertools import product

import pytest
import torch
from torch import Tensor

from hsssl_kernels import cosine_regression, info_nce, nt_xent, sinkhorn, sup_con
from hsssl_kernels.cosine_regression.op import cosine_rows, cosine_rows_grad
from hsssl_kernels.lse import (
    expected_similarity,
    lse,
    lse_grad,
    lse_with_grad,
    pair_lse_with_grad,
    queue_lse_with_grad,
    self_lse_with_grad,
)
from hsssl_kernels.rows import finish_rows, unit_rows
from hsssl_kernels.sup_con.op import class_sums
from losses import COMPILES, LOSS, LOSSES, Loss, draw, value_and_gradients

sinkhorn_op = sys.modules[sinkhorn.__module__]  # the package's name is the function's


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
    torch.compiler.reset()
    compiled = torch.compile(
        lambda t, *m: loss.run(True, list(m), t).sum(), fullgraph=True, backend="aot_eager", dynamic=True
    )
    for n in (9, 14):
        assert_same_gradients(compiled, loss, n)


def assert_same_gradients(compiled: Callable[..., Tensor], loss: Loss, n: int) -> None:
    leaves = [torch.tensor(0.3, requires_grad=True)]
    leaves += [m.requires_grad_() for m in draw(loss, n, 4, torch.float32)]
    value, eager = compiled(*leaves), loss.run(True, leaves[1:], leaves[0]).sum()
    torch.testing.assert_close(value, eager)
    found = torch.autograd.grad(value, leaves, allow_unused=True)
    right = torch.autograd.grad(eager, leaves, allow_unused=True)
    assert [g is None for g in found] == [g is None for g in right]
    assert sum(g is not None for g in right) >= 1
    for ours, theirs in zip(found, right, strict=True):
        if theirs is not None:
            torch.testing.assert_close(ours, theirs)


@COMPILES
@pytest.mark.filterwarnings(
    "ignore:.torch.jit.script_method. is deprecated:DeprecationWarning"
)  # Inductor's own
@pytest.mark.skipif(shutil.which("g++") is None, reason="Inductor compiles C++ on a CPU")
def test_inductor_runs_a_loss() -> None:
    torch.compiler.reset()
    compiled = torch.compile(lambda t, *m: LOSSES["nt_xent"].run(True, list(m), t).sum(), fullgraph=True)
    assert_same_gradients(compiled, LOSSES["nt_xent"], 9)


@COMPILES
def test_torch_compile_checks_the_temperature_when_it_runs() -> None:
    compiled = torch.compile(lambda z, t: nt_xent(z, z, temperature=t), fullgraph=True, backend="aot_eager")
    with pytest.raises(ValueError, match="`temperature` must be finite and above 0, got -1"):
        compiled(torch.randn(4, 2), torch.tensor(-1.0))


def test_registered_ops_pass_opcheck() -> None:
    x, y, t = torch.randn(6, 3), torch.randn(9, 3), torch.tensor(0.5)
    rows, columns = lse(x, y, t, -1, 0, True, False, "torch", [])
    ones = torch.ones(9)
    for args in [(x, y, t, -1, 0, True, False, "torch", []), (x, x, t, 0, 3, False, False, "torch", [])]:
        torch.library.opcheck(lse, args)
    for both in (True, False):
        args = (x, y, t, rows, ones[:6], columns, ones, -1, 0, both, False, "torch", [])
        torch.library.opcheck(lse_grad, args)
    classes = torch.arange(6) % 2
    own = (rows, ones[:6], rows, ones[:6], 0, 0, False, False, "torch", [classes, classes, rows, rows])
    torch.library.opcheck(lse_grad, (x, x, t, *own))
    torch.library.opcheck(lse, (x, x, t, 0, 0, False, False, "torch", [classes, classes]))
    torch.library.opcheck(lse_with_grad, (x, y, t))
    torch.library.opcheck(self_lse_with_grad, (x, t))
    torch.library.opcheck(pair_lse_with_grad, (x, y[:6], t))
    torch.library.opcheck(queue_lse_with_grad, (x, y, t))
    torch.library.opcheck(unit_rows, (x, "torch"))
    torch.library.opcheck(finish_rows, (x, y[:6], ones[:6], x, ones[:6], t, 2, "torch"))
    torch.library.opcheck(class_sums, (x, torch.tensor([3, 0, 0, 3, 3, 1])))
    wide = x.double()
    torch.library.opcheck(expected_similarity, (wide, y.double(), t, -1, True))
    torch.library.opcheck(expected_similarity, (wide, wide, t, 0, False))


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
    torch.library.opcheck(lse, (x, y, t, -1, 0, True, False, "torch", []))
    torch.library.opcheck(lse_grad, (x, y, t, ones[:6], ones[:6], ones, ones, 0, 0, True, False, "torch", []))
    torch.library.opcheck(lse_with_grad, (x, y, t))
    torch.library.opcheck(self_lse_with_grad, (x, t))
    torch.library.opcheck(pair_lse_with_grad, (x, y[:6], t))
    torch.library.opcheck(queue_lse_with_grad, (x, y, t))
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


@LOSS
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_frozen_inputs_leave_the_other_gradients_as_they_are(loss: Loss, dtype: torch.dtype) -> None:
    """Any input may be frozen: MoCo's keys and queue are; with all of them only the temperature learns."""
    inputs = loss.matrices + loss.takes_temperature
    for wanted in product([False, True], repeat=inputs):
        leaves = draw(loss, 9, 5, dtype) + [torch.tensor(0.2, dtype=dtype)] * loss.takes_temperature
        if loss.op is cosine_regression:
            wanted = (wanted[0], False)  # a regression's target has no gradient
        if not any(wanted):
            continue
        for leaf, learns in zip(leaves, wanted, strict=True):
            leaf.requires_grad_(learns)
        learning = [leaf for leaf in leaves if leaf.requires_grad]
        exact, ours = (
            torch.autograd.grad(loss.run(fused, leaves[: loss.matrices], leaves[-1]).sum(), learning)
            for fused in (False, True)
        )
        for a, b in zip(ours, exact, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4 if dtype == torch.float32 else 1e-9, atol=1e-6)


def test_expanded_rows_are_as_good_as_copies() -> None:
    row, labels = torch.randn(1, 3, requires_grad=True), torch.tensor([0, 1, 0, 1])
    other = torch.randn(4, 3)
    for call in (
        lambda z: nt_xent(z, other),
        lambda z: info_nce(other, z, negatives=z),
        lambda z: sup_con(z, labels) + cosine_regression(z, other),
    ):
        expanded, copied = (
            torch.autograd.grad(call(z), row)[0] for z in (row.expand(4, 3), row.repeat(4, 1))
        )
        torch.testing.assert_close(expanded, copied)
