"""The Triton kernels against float64: on a GPU where there is one, in Triton's interpreter otherwise."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = (
        "1"  # read when a kernel's module is imported, which is not before its first use
    )
pytest.importorskip("triton", reason="the package triton is not installed")

from hsssl_kernels import info_nce, nt_xent, sinkhorn, sup_con
from hsssl_kernels.launch import PROGRAMS, architecture
from hsssl_kernels.lse import lse, lse_grad
from hsssl_kernels.lse.reference import lse_reference
from hsssl_kernels.sinkhorn.reference import sinkhorn_reference
from losses import LOSS, LOSSES, Loss, assert_as_good_as_torch, draw, value_and_gradients

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
DTYPES = [torch.float32, torch.float16, *([torch.bfloat16] if DEVICE == "cuda" else [])]
DTYPE = pytest.mark.parametrize("dtype", DTYPES)

# NumPy, under the interpreter, warns of numbers that are masked out afterwards: exponentials of rows
# and columns past the end, and of a row's similarity to itself. A GPU computes them silently too.
pytestmark = pytest.mark.filterwarnings(
    "ignore:(overflow|divide by zero|invalid value) encountered:RuntimeWarning"
)


GUARD = 256


class GuardedMemory:
    """A torch.empty whose tensors hold NaN and lie between NaN, which nobody may overwrite."""

    def __init__(self) -> None:
        self.empty, self.buffers = torch.empty, []

    def __call__(self, *shape: int, **options: Any) -> torch.Tensor:
        plain = self.empty(*shape, **options)
        if not plain.is_floating_point():
            return plain
        buffer = self.empty(plain.numel() + 2 * GUARD, dtype=plain.dtype, device=plain.device).fill_(
            float("nan")
        )
        self.buffers.append(buffer)
        return buffer[GUARD:-GUARD].view(plain.shape)

    def untouched(self) -> bool:
        ends = [end for buffer in self.buffers for end in (buffer[:GUARD], buffer[-GUARD:])]
        return all(bool(end.isnan().all()) for end in ends)


@pytest.fixture(autouse=True)
def _guarded_memory(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What a kernel forgets to write, or reads past the end, is NaN; what it writes there is noticed."""
    memory = GuardedMemory()
    monkeypatch.setattr(torch, "empty", memory)
    yield
    assert memory.untouched()


def test_the_guard_notices() -> None:
    memory = GuardedMemory()
    x = memory(3, 2)
    assert x.isnan().all()
    assert memory.untouched()
    x.as_strided((1,), (1,), x.storage_offset() + 6)[0] = 0
    assert not memory.untouched()


def _product(a: np.ndarray, b: np.ndarray, dtype: Any = None) -> np.ndarray:
    """Return a @ b added up column by column, as a GPU does: x x^T is then symmetric to the bit.

    Entries of NumPy's own product differ by where they lie in a block.
    """
    total = np.zeros((a.shape[0], b.shape[1]), dtype=dtype or np.float32)
    for k in range(a.shape[1]):
        total += a[:, k, None].astype(total.dtype) * b[k].astype(total.dtype)
    return total


@pytest.fixture(params=["compiled"] if DEVICE == "cuda" else ["rounded", "fused"])
def _fusing(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the interpreter round every operation, or fuse products with what is added, as GPUs may."""
    if request.param != "fused":
        return
    from triton.runtime.interpreter import InterpreterBuilder as Builder

    multiply = Builder.create_fmul

    def keep_product(self: Any, a: Any, b: Any) -> Any:
        found = multiply(self, a, b)
        found.product = a.data.astype(np.float64) * b.data  # exact: twice the digits
        return found

    def fuse(plain: Any, operation: np.ufunc) -> Any:
        def fused(self: Any, a: Any, b: Any) -> Any:
            found = plain(self, a, b)
            if hasattr(a, "product"):
                found.data = operation(a.product, b.data).astype(found.data.dtype)
            elif hasattr(b, "product"):
                found.data = operation(a.data, b.product).astype(found.data.dtype)
            return found

        return fused

    monkeypatch.setattr(Builder, "create_fmul", keep_product)
    monkeypatch.setattr(Builder, "create_fadd", fuse(Builder.create_fadd, np.add))
    monkeypatch.setattr(Builder, "create_fsub", fuse(Builder.create_fsub, np.subtract))


FUSING = pytest.mark.usefixtures("_fusing")


def _eps(dtype: torch.dtype, temperature: float) -> float:
    return 1e-6 / temperature if dtype == torch.float32 else torch.finfo(dtype).eps / 8 / temperature


@LOSS
@DTYPE
@pytest.mark.parametrize("temperature", [0.01, 0.07])
@pytest.mark.parametrize(
    ("n", "columns", "seed"), [(2, 1, 0), *((33, 20, s) for s in range(3)), (70, 100, 2)]
)
def test_kernels_are_as_good_as_plain_torch(
    loss: Loss, dtype: torch.dtype, n: int, columns: int, seed: int, temperature: float
) -> None:
    """Seed 2 of the last size is the hardest of the first three, which all hold; the interpreter is slow."""
    matrices = [m.to(DEVICE) for m in draw(loss, n, columns, dtype, seed)]
    assert_as_good_as_torch(loss, matrices, temperature, _eps(dtype, temperature), backend="triton")


@pytest.mark.parametrize("name", ["nt_xent", "info_nce_symmetric", "sup_con", "cosine_regression"])
@pytest.mark.parametrize(("n", "columns"), [(129, 64), (40, 300)])
def test_larger_shapes(name: str, n: int, columns: int) -> None:
    loss = LOSSES[name]
    matrices = [m.to(DEVICE) for m in draw(loss, n, columns, torch.float32)]
    assert_as_good_as_torch(loss, matrices, 0.1, 1e-5, backend="triton")


@pytest.mark.parametrize("programs", [1, 3, 1000])
def test_splitting_a_queue_over_programs_changes_nothing(
    programs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    loss = LOSSES["info_nce_queue_rows"]
    matrices = [m.to(DEVICE) for m in draw(loss, 5, 8, torch.float32)]
    matrices[2] = matrices[2].repeat(20, 1)
    monkeypatch.setitem(PROGRAMS, architecture(matrices[0]), programs)
    for temperature in (0.01, 0.1):
        assert_as_good_as_torch(loss, matrices, temperature, 1e-6 / temperature, backend="triton")


@LOSS
def test_the_same_bits_every_time(loss: Loss) -> None:
    matrices = [m.to(DEVICE) for m in draw(loss, 40, 9, torch.float32)]
    first, second = (
        value_and_gradients(loss, True, matrices, 0.2, torch.float32, backend="triton") for _ in range(2)
    )
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@LOSS
def test_strides_do_not_matter(loss: Loss) -> None:
    """Torch adds up 33 columns, unlike a few, in an order that depends on strides."""
    plain = [m.to(DEVICE) for m in draw(loss, 12, 33, torch.float32)]
    turned = [m.T.contiguous().T for m in plain]
    expected = value_and_gradients(loss, True, plain, 0.2, torch.float32, backend="triton")
    got = value_and_gradients(loss, True, turned, 0.2, torch.float32, backend="triton")
    assert all(torch.equal(a, b) for a, b in zip(got, expected, strict=True))


def test_uneven_upstream_gradients_keep_their_signs_and_zeros() -> None:
    q, k = (m.to(DEVICE).requires_grad_() for m in draw(LOSSES["info_nce"], 6, 4, torch.float32))
    rows = info_nce(q, k, reduction="none", backend="triton")
    (gradient,) = torch.autograd.grad(rows[2] - 3 * rows[4], q)
    expected = info_nce(q, k, reduction="none", backend="torch")
    (right,) = torch.autograd.grad(expected[2] - 3 * expected[4], q)
    torch.testing.assert_close(gradient, right)
    (zero,) = torch.autograd.grad((0 * info_nce(q, k, reduction="none", backend="triton")).sum(), q)
    assert (zero == 0).all()


@DTYPE
@pytest.mark.parametrize("epsilon", [0.01, 0.05, 0.5])
@pytest.mark.parametrize(("b", "k"), [(1, 1), (5, 7), (33, 100)])
def test_sinkhorn(dtype: torch.dtype, b: int, k: int, epsilon: float) -> None:
    scores = torch.rand(b, k, generator=torch.Generator().manual_seed(b)).mul(2).sub(1).to(DEVICE, dtype)
    exact = sinkhorn_reference(scores.double(), epsilon=epsilon)
    plain = sinkhorn_reference(scores.float(), epsilon=epsilon)
    ours = sinkhorn(scores, epsilon=epsilon, backend="triton")
    assert ours.dtype == torch.float32
    assert (ours - exact).abs().max() <= 2 * (plain - exact).abs().max() + 1e-7 / epsilon


@DTYPE
@pytest.mark.parametrize(("unit", "temperature"), [(True, 0.1), (True, 0.01), (False, 0.1)])
@pytest.mark.parametrize("offset", [0, 7, 40])
def test_a_rank_leaves_out_its_own_rows_among_all(
    offset: int, unit: bool, temperature: float, dtype: torch.dtype
) -> None:
    """Rows offset to offset + 33 of all are this rank's, as with `gather_distributed`."""
    g = torch.Generator().manual_seed(offset)
    everyone = torch.nn.functional.normalize(torch.randn(80, 20, generator=g)).to(DEVICE, dtype)
    if not unit:
        everyone = everyone * torch.linspace(0.5, 2, 80, device=DEVICE, dtype=dtype)[:, None]
    mine, t = everyone[offset : offset + 33], torch.tensor(temperature)
    wide = everyone.double()
    exact = lse_reference(wide[offset : offset + 33], wide, temperature, offset)[0]
    log = lse(mine, everyone, t, offset, 0, False, unit, "triton", [])[0]
    floor = _eps(dtype, temperature)
    assert (log - exact).abs().max() <= floor
    all_log = lse_reference(wide, wide, temperature, 0)[0]
    ones = torch.ones(80, dtype=torch.float64, device=DEVICE)
    sides = (exact, ones[:33], all_log, ones)
    got = lse_grad(mine, everyone, t, *sides, offset, 0, False, unit, "triton", [])[0].double()
    s = wide[offset : offset + 33] @ wide.T / temperature
    weight = (s - exact[:, None]).exp() + (s - all_log).exp()
    weight[torch.arange(33), torch.arange(33) + offset] = 0
    right = weight @ wide
    assert (got - right).norm() / right.norm() <= max(floor, torch.finfo(dtype).eps)


@FUSING
@pytest.mark.parametrize("temperature", [0.01, 0.05])
@pytest.mark.parametrize("name", ["nt_xent", "info_nce", "sup_con_pairs"])
def test_aligned_views_leave_the_gradient_its_digits(
    name: str, temperature: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on the CPU: where a positive takes all but a millionth, that is all there is to the gradient."""
    monkeypatch.setattr(np, "matmul", _product)
    for seed in range(3):
        g = torch.Generator().manual_seed(seed)
        common = torch.randn(16, 8, generator=g)
        views = [(common + 0.3 * torch.randn(16, 8, generator=g)).to(DEVICE) for _ in range(2)]
        views = [torch.cat(views)] if name == "sup_con_pairs" else views
        assert_as_good_as_torch(LOSSES[name], views, temperature, 1e-6 / temperature, backend="triton")


@FUSING
def test_classes_far_apart_leave_no_nan_past_the_last_column() -> None:
    """Two rows against each other: all similarities are far below 0, which columns past the end have."""
    z = torch.tensor([[30.0, 0.0], [-30.0, 0.0]], device=DEVICE, requires_grad=True)
    labels = torch.zeros(2, dtype=torch.int64, device=DEVICE)
    (ours,) = torch.autograd.grad(sup_con(z, labels, temperature=0.05, normalize=False, backend="triton"), z)
    assert ours.abs().max() < 1e-6  # the only other row is the positive: nothing to gain


@pytest.mark.parametrize("backend", ["triton", "torch"])
@pytest.mark.parametrize("unit", [True, False])
@pytest.mark.parametrize("rank", [0, 1, 3])
def test_a_rank_leaves_out_its_rows_and_their_partners(rank: int, unit: bool, backend: str) -> None:
    """Four ranks bring two views of 9 samples; a rank's rows meet all but themselves and their partners."""
    g = torch.Generator().manual_seed(rank)
    everyone = torch.nn.functional.normalize(torch.randn(72, 20, generator=g, dtype=torch.float64)).to(DEVICE)
    if not unit:
        everyone = everyone * torch.linspace(0.5, 2, 72, dtype=torch.float64, device=DEVICE)[:, None]
    rows, t = slice(18 * rank, 18 * rank + 18), torch.tensor(0.1)
    right = lse_reference(everyone[rows], everyone, 0.1, 18 * rank, 9)[0]
    narrow = everyone.float()
    got = lse(narrow[rows], narrow, t, 18 * rank, 9, False, unit, backend, [])[0]
    torch.testing.assert_close(got, right, rtol=1e-5, atol=1e-5)
    all_log = lse_reference(everyone, everyone, 0.1, 0, 9)[0]
    ones = torch.ones(72, dtype=torch.float64, device=DEVICE)
    sides = (right, ones[:18], all_log, ones)
    total = lse_grad(narrow[rows], narrow, t, *sides, 18 * rank, 9, False, unit, backend, [])[0].double()
    s = everyone[rows] @ everyone.T / 0.1
    weight = (s - right[:, None]).exp() + (s - all_log).exp()
    for i in range(18):
        weight[i, [18 * rank + i, 18 * rank + (i + 9) % 18]] = 0
    assert (total - weight @ everyone).norm() <= 1e-5 * total.norm()


@pytest.mark.skipif(DEVICE == "cuda", reason="bfloat16 is right on a GPU")
def test_the_interpreter_is_not_trusted_with_bfloat16() -> None:
    z = torch.randn(4, 2, dtype=torch.bfloat16)
    with pytest.raises(TypeError, match="interpreter computes bfloat16 on raw bits"):
        nt_xent(z, z, backend="triton")
