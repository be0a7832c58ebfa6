"""No kernel reads or writes outside its tensors, on shapes that fill no tile."""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import Any

import pytest
import torch

if torch.cuda.is_available():
    pytest.skip("on a GPU kernels are compiled, and addresses are not seen", allow_module_level=True)
os.environ["TRITON_INTERPRET"] = (
    "1"  # read when a kernel's module is imported, which is not before its first use
)
pytest.importorskip("triton", reason="the package triton is not installed")

import hsssl_kernels
import test_kernels_patch_embed as embedding
import test_kernels_self_expression as expression
import test_kernels_unmixing as unmixing
from hsssl_kernels import self_expression, sinkhorn, spectral_views, top_coefficients
from hsssl_kernels.launch import PROGRAMS
from hsssl_kernels.spectral_views.lines import padded
from kernel_bounds import watch_bounds
from losses import LOSSES, draw, value_and_gradients
from view_inputs import FULL, NONE, inputs

# NumPy warns of numbers that are masked out afterwards; a GPU computes them silently too.
pytestmark = pytest.mark.filterwarnings(
    "ignore:(overflow|divide by zero|invalid value) encountered:RuntimeWarning"
)


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Names of the kernels that ran under watch."""
    return watch_bounds(monkeypatch)


def run_losses(dtype: torch.dtype) -> None:
    for n, columns in ((2, 1), (35, 70)):
        for name in ("nt_xent", "info_nce_symmetric", "info_nce_queue", "cosine_regression"):
            temperature = 0.01 if columns == 1 else 0.1  # with a running maximum, and with a fixed shift
            matrices = draw(LOSSES[name], n, columns, dtype)
            value_and_gradients(LOSSES[name], True, matrices, temperature, dtype, backend="triton")
        sinkhorn(torch.randn(n, columns), backend="triton")


def run_embeddings(dtype: torch.dtype) -> None:
    for case in embedding.CASES.values():
        named = embedding.draw(case, dtype)
        embedding.tokens_and_gradients(True, named, dtype, backend="triton")


def run_views(dtype: torch.dtype) -> None:
    for patch_size, spec in ((5, FULL), (1, FULL), (5, NONE)):
        for raw in (torch.int16, torch.float32):
            data = inputs(raw=raw)
            # of three bands a part would be read past the last pixel, if there were no check
            for cube in (data["cube"], padded(data["cube"], torch.device("cpu")), data["cube"][:, :, 10:]):
                few = {name: data[name][-cube.shape[2] :] for name in ("mean", "scale")}
                given = data | {"cube": cube} | few
                spectral_views(patch_size=patch_size, spec=spec, dtype=dtype, backend="triton", **given)


def run_unmixing(dtype: torch.dtype) -> None:
    for case in unmixing.CASES.values():
        for n, p, columns in ((1, 1, 2), (35, 17, 70)):
            inputs = unmixing.draw(case, n, p, columns, dtype)
            unmixing.value_and_gradients(case, True, inputs, dtype, backend="triton")


def run_expression(dtype: torch.dtype) -> None:
    for shape in ((1, 1, 1, 1), (35, 70, 40, 37)):
        named = expression.draw(shape, dtype)
        expression.values_and_gradients(self_expression, named, dtype, backend="triton")
        pair = {name: named[name] for name in ("query", "key", "own")}
        top_coefficients(**pair, neighbours=1, backend="triton")


def kernels() -> dict[str, Any]:
    """All kernels that the package launches, by name."""
    found = {}
    root = Path(hsssl_kernels.__file__).parent
    for path in root.rglob("*kernel.py"):
        name = ".".join(path.relative_to(root).with_suffix("").parts)
        module = importlib.import_module(f"hsssl_kernels.{name}")
        found |= {name: f for name, f in vars(module).items() if name.endswith("_kernel")}
    return found


def test_every_kernel_stays_inside_its_tensors(seen: set[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for programs, dtype in ((1, torch.float32), (4, torch.float16)):
        monkeypatch.setitem(PROGRAMS, "interpreter", programs)
        run_losses(dtype)
        run_embeddings(dtype)
        run_views(dtype)
        run_unmixing(dtype)
        run_expression(dtype)
    assert seen == set(kernels())


@pytest.mark.parametrize(("wrong", "size"), [("n", 6), ("m", 8), ("D", 4), ("rows", 4), ("none", 0)])
def test_a_bound_that_is_off_by_one_is_caught(wrong: str, size: int, seen: set[str]) -> None:
    """One row, column or dimension too many, or results one shorter than the rows."""
    x, y = torch.randn(5, 3), torch.randn(7, 3)
    results = torch.empty(2, 1, size if wrong == "rows" else 5).unbind()
    sizes = {"n": 5, "m": 7, "D": 3, "self_offset": 0, "half": 0, "span": 16}
    sizes |= {wrong: size} if wrong in sizes else {}
    named = {"x_ptr": x, "y_ptr": y, "top_ptr": results[0], "total_ptr": results[1], "scale": 1.0, **sizes}
    named |= {"near_ptr": x, "x_label_ptr": x, "y_label_ptr": x, "LABELS": False}
    named |= {
        "BLOCK_M": 8,
        "BLOCK_N": 16,
        "BLOCK_D": 16,
        "UNIT": False,
        "EXCLUDE_SELF": False,
        "PAIRS": False,
    }
    launch = kernels()["_lse_fwd_kernel"][(1, 1)]
    if wrong == "none":
        launch(**named)
    else:
        with pytest.raises(Exception, match=r"_lse_fwd_kernel: .* addresses lie in no tensor of the launch"):
            launch(**named)
    assert seen == {"_lse_fwd_kernel"}
