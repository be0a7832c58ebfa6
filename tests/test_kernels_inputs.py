"""What the fused ops refuse, and what importing them costs."""

from __future__ import annotations

import os
import subprocess
import sys
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
import torch

import hsssl_kernels
from hsssl_kernels import barlow_twins, cosine_regression, info_nce, nt_xent, sinkhorn, sup_con, vicreg
from hsssl_kernels import dispatch as choice

Z = torch.randn(4, 3)
LABELS = torch.tensor([0, 0, 1, 1])
PUBLIC = {
    "SelfExpression",
    "ViewSpec",
    "WavelengthWeights",
    "barlow_twins",
    "cosine_regression",
    "embed_views",
    "group_weights",
    "info_nce",
    "linear_mixing",
    "nt_xent",
    "resident_cube",
    "self_expression",
    "sinkhorn",
    "spectral_angle",
    "spectral_divergence",
    "spectral_patch_embed",
    "spectral_views",
    "sup_con",
    "top_coefficients",
    "vicreg",
}


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: nt_xent(Z, Z[:, :2]),
            ValueError,
            r"nt_xent: `z2` must have D=3 columns, got \(4, 2\); project it first",
        ),
        (
            lambda: nt_xent(Z, Z[:3]),
            ValueError,
            r"nt_xent: `z2` must have the n=4 rows of `z1`, got \(3, 3\)",
        ),
        (lambda: nt_xent(Z[0], Z[0]), ValueError, r"nt_xent: `z1` must have shape \(n, D\), got \(3,\)"),
        (
            lambda: nt_xent(Z, Z.double()),
            TypeError,
            r"nt_xent: `z2` must be torch.float32 as `z1` is, got torch.float64",
        ),
        (
            lambda: nt_xent(Z.long(), Z.long()),
            TypeError,
            r"nt_xent: `z1` must be floating point, got torch.int64",
        ),
        (
            lambda: nt_xent(Z, Z.to("meta")),
            ValueError,
            r"nt_xent: `z2` must be on cpu as `z1` is, got meta; move",
        ),
        (lambda: nt_xent(Z.numpy(), Z), TypeError, r"nt_xent: `z1` must be a tensor, got ndarray"),
        (
            lambda: nt_xent(Z[:0], Z[:0]),
            ValueError,
            r"nt_xent: `z1` must have at least one row and one column",
        ),
        (
            lambda: nt_xent(Z[:1], Z[:1]),
            ValueError,
            r"nt_xent: one pair has nothing to contrast with, got B=1",
        ),
        (
            lambda: nt_xent(Z, Z, temperature=0.0),
            ValueError,
            r"nt_xent: `temperature` must be finite and above 0, got 0.0",
        ),
        (lambda: nt_xent(Z, Z, temperature=-0.1), ValueError, r"got -0.1; try 0.1"),
        (lambda: nt_xent(Z, Z, temperature=float("nan")), ValueError, r"got nan"),
        (lambda: nt_xent(Z, Z, temperature=float("inf")), ValueError, r"got inf"),
        (lambda: nt_xent(Z, Z, temperature=1e-300), ValueError, r"at least 1e-30, got 1e-300; try 0.1"),
        (
            lambda: nt_xent(Z, Z, temperature=10**400),
            ValueError,
            r"must fit a float, got an integer of 1329 bits",
        ),
        (lambda: nt_xent(Z, Z, temperature=torch.tensor(0.0)), ValueError, r"got 0.0"),
        (
            lambda: nt_xent(Z, Z, temperature=torch.ones(2)),
            ValueError,
            r"a floating-point tensor of one element",
        ),
        (
            lambda: nt_xent(Z, Z, temperature=torch.tensor(1)),
            ValueError,
            r"a floating-point tensor of one element",
        ),
        (
            lambda: nt_xent(Z, Z, temperature="warm"),
            TypeError,
            r"nt_xent: `temperature` must be a number .* got str",
        ),
        (
            lambda: nt_xent(Z, Z, backend="cuda"),
            ValueError,
            r'`backend` must be "auto", "triton" or "torch", got \'cuda\'',
        ),
        (
            lambda: nt_xent(Z.double(), Z.double(), backend="triton"),
            (TypeError, ValueError),
            r'`backend="triton"`',
        ),
        (
            lambda: info_nce(Z[:1], Z[:1]),
            ValueError,
            r"info_nce: one pair has nothing to contrast with, got n=1",
        ),
        (
            lambda: info_nce(Z, Z, negatives=Z[:, :2]),
            ValueError,
            r"`negatives` must have D=3 columns, got \(4, 2\)",
        ),
        (lambda: info_nce(Z, Z, negatives=Z[:0]), ValueError, r"`negatives` must have at least one row"),
        (
            lambda: info_nce(Z, Z, negatives=Z, symmetric=True),
            ValueError,
            r"`symmetric` and `negatives` exclude",
        ),
        (
            lambda: info_nce(Z, Z, negatives=Z, gather_distributed=True),
            ValueError,
            r"does nothing for a queue",
        ),
        (
            lambda: info_nce(Z, Z, reduction="avg"),
            ValueError,
            r'`reduction` must be "mean", "sum" or "none", got \'avg\'',
        ),
        (
            lambda: info_nce(Z, Z, reduction="sum", gather_distributed=True),
            ValueError,
            r'needs reduction="mean"',
        ),
        (
            lambda: nt_xent(Z, Z, temperature=torch.ones((), device="meta")),
            ValueError,
            r"one without a value",
        ),
        (
            lambda: nt_xent(Z, Z, temperature=torch.ones(1).to_sparse()),
            ValueError,
            r"one of layout torch.sparse_coo; pass a float",
        ),
        (lambda: nt_xent(Z, Z, normalize="no"), TypeError, r"nt_xent: `normalize` must be True or False"),
        (
            lambda: info_nce(Z, Z, normalize=1),
            TypeError,
            r"info_nce: `normalize` must be True or False, got 1",
        ),
        (lambda: info_nce(Z, Z, symmetric="yes"), TypeError, r"`symmetric` must be True or False, got 'yes'"),
        (
            lambda: sup_con(Z, LABELS, normalize=None),
            TypeError,
            r"`normalize` must be True or False, got None",
        ),
        (
            lambda: nt_xent(Z, Z, gather_distributed="yes"),
            TypeError,
            r"nt_xent: `gather_distributed` must be",
        ),
        (lambda: info_nce(Z, Z, gather_distributed=2), TypeError, r"info_nce: `gather_distributed` must be"),
        (lambda: sup_con(Z, LABELS, gather_distributed=0), TypeError, r"sup_con: `gather_distributed` must"),
        (lambda: sinkhorn(Z, gather_distributed="no"), TypeError, r"sinkhorn: `gather_distributed` must be"),
        (
            lambda: sup_con(Z, LABELS.to_sparse()),
            TypeError,
            r"`labels` must be a dense tensor, got torch.sparse",
        ),
        (lambda: sup_con(Z, LABELS[:3]), ValueError, r"sup_con: `labels` must have shape \(4,\), got \(3,\)"),
        (
            lambda: sup_con(Z, LABELS.float()),
            TypeError,
            r"`labels` must be an integer tensor, got torch.float32",
        ),
        (lambda: sup_con(Z, [0, 0, 1, 1]), TypeError, r"`labels` must be an integer tensor, got list"),
        (lambda: sup_con(Z[:1], LABELS[:1]), ValueError, r"sup_con: one row has nothing to contrast with"),
        (lambda: cosine_regression(Z, Z[:2]), ValueError, r"`target` must have the n=4 rows of `prediction`"),
        (
            lambda: sinkhorn(Z, epsilon=0.0),
            ValueError,
            r"sinkhorn: `epsilon` must be finite and above 0, got 0.0",
        ),
        (
            lambda: sinkhorn(Z, iterations=0),
            ValueError,
            r"sinkhorn: `iterations` must be at least 1, got 0",
        ),
        (lambda: sinkhorn(Z[:0]), ValueError, r"sinkhorn: `scores` must have at least one row"),
        (lambda: sinkhorn(None), TypeError, r"sinkhorn: `scores` must be a tensor, got NoneType"),
        (lambda: sinkhorn(Z, epsilon=None), TypeError, r"`epsilon` must be a number, got NoneType; pass"),
        (lambda: sinkhorn(Z, epsilon="x"), TypeError, r"`epsilon` must be a number, got str"),
        (lambda: sinkhorn(Z, epsilon=float("nan")), ValueError, r"`epsilon` must be finite .*, got nan"),
        (
            lambda: sinkhorn(Z, iterations=float("nan")),
            TypeError,
            r"`iterations` must be a whole number, got nan of type float; pass an int",
        ),
        (lambda: sinkhorn(Z, iterations=None), TypeError, r"`iterations` must be a whole number, got None"),
        (lambda: sinkhorn(Z, iterations=True), TypeError, r"`iterations` must be a whole number, got True"),
        (lambda: vicreg(Z, Z, variance=None), TypeError, r"vicreg: `variance` must be a number, got None"),
        (lambda: vicreg(Z, Z, covariance=-1), ValueError, r"`covariance` must be finite and not negative"),
        (lambda: barlow_twins(Z, Z, redundancy="x"), TypeError, r"`redundancy` must be a number, got str"),
        (lambda: info_nce(Z, Z, temperature=None), TypeError, r"`temperature` must be .*, got NoneType"),
        (lambda: info_nce(Z, Z, temperature=True), TypeError, r"`temperature` must be .*, got bool"),
        (lambda: info_nce(Z, Z, negatives=3), TypeError, r"`negatives` must be a tensor, got int"),
        (lambda: info_nce(Z, Z, reduction=None), ValueError, r"`reduction` must be .*, got None"),
        (lambda: sup_con(Z, LABELS.bool()), TypeError, r"`labels` must be an integer tensor, got torch.bool"),
        (
            lambda: sup_con(Z, LABELS[None]),
            ValueError,
            r"`labels` must have shape \(4,\), got \(1, 4\); one a row",
        ),
        (lambda: nt_xent(Z, Z, backend=None), ValueError, r"`backend` must be .*, got None"),
        (lambda: nt_xent(Z, Z.to_sparse()), TypeError, r"`z2` must be a dense tensor, got .*sparse"),
    ],
)
def test_bad_input_is_refused_in_words(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


def test_one_query_against_a_queue_is_fine() -> None:
    assert info_nce(Z[:1], Z[1:2], negatives=Z).isfinite()


def test_a_tensor_of_one_element_is_a_temperature() -> None:
    t = torch.full((1, 1), 0.3, dtype=torch.bfloat16, requires_grad=True)
    value = nt_xent(Z, -Z, temperature=t)
    torch.testing.assert_close(value, nt_xent(Z, -Z, temperature=t.item()))
    value.backward()
    assert t.grad is not None
    assert t.grad.shape == (1, 1)


def test_triton_is_refused_without_a_gpu_and_without_the_interpreter() -> None:
    script = (
        "import torch; from hsssl_kernels import nt_xent; z = torch.randn(4, 2)\n"
        "try: nt_xent(z, z, backend='triton')\n"
        "except ValueError as error: print(error)\n"
    )
    said = _python(script)
    assert 'nt_xent: `backend="triton"` needs tensors on a CUDA or ROCm device, got cpu; move them' in said


class Properties(NamedTuple):
    """What torch says of a GPU."""

    major: int
    minor: int


@pytest.mark.parametrize(
    ("device", "capability", "hip", "expected"),
    [
        ("cuda", (9, 0), None, "triton"),
        ("cuda", (8, 0), None, "triton"),
        ("cuda", (7, 5), None, "torch"),
        ("cuda", (9, 4), "6.4", "triton"),
        ("mps", None, None, "torch"),
        ("cpu", None, None, "torch"),
    ],
)
def test_auto_takes_triton_only_where_it_compiles(
    device: str,
    capability: tuple[int, int] | None,
    hip: str | None,
    expected: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def properties(of: torch.device) -> Properties:
        assert of.type == "cuda"  # torch would raise for another
        assert capability is not None
        return Properties(*capability)

    monkeypatch.setattr(torch.cuda, "get_device_properties", properties)
    monkeypatch.setattr(torch.version, "hip", hip)
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    x = SimpleNamespace(
        device=torch.device(device), dtype=torch.float32, shape=(4, 3), is_cuda=device == "cuda"
    )
    assert choice.choose_backend("nt_xent", "auto", x) == expected
    x.dtype = torch.float64
    assert choice.choose_backend("nt_xent", "auto", x) == "torch"
    if capability == (7, 5):
        with pytest.raises(ValueError, match=r"needs a GPU of compute capability 8.0 or newer, got 7.5; use"):
            choice.choose_backend("nt_xent", "triton", x)


def test_import_is_light() -> None:
    said = _python(
        "import torch, sys; old = set(sys.modules)\nimport hsssl_kernels\nprint(*set(sys.modules) - old)"
    )
    new = {name.partition(".")[0] for name in said.split()}
    assert "hsssl_kernels" in new
    assert not new & {"triton", "hsssl", "scipy", "matplotlib"}


def test_kernels_import_nothing_but_torch_triton_and_for_loops_numba() -> None:
    script = (
        "import sys, pathlib, ast, hsssl_kernels as h\n"
        "loops = ('loops.py', '/lanes.py', 'kernels/dispatch.py')\n"
        "for f in pathlib.Path(h.__file__).parent.rglob('*.py'):\n"
        "    if f.as_posix().endswith(loops): continue\n"
        "    for node in ast.walk(ast.parse(f.read_text())):\n"
        "        names = [a.name for a in node.names] if isinstance(node, ast.Import) else "
        "[node.module] if isinstance(node, ast.ImportFrom) else []\n"
        "        print(*[n.partition('.')[0] for n in names])\n"
    )
    allowed = {"torch", "triton", "hsssl_kernels", "__future__"} | set(sys.stdlib_module_names)
    assert set(_python(script).split()) <= allowed


def test_views_need_no_numba() -> None:
    script = (
        "import sys, torch, hsssl_kernels as h; sys.modules['numba'] = None\n"
        "x = torch.rand(5, 5, 4); c = torch.tensor([[2, 2]]); one = torch.ones(4)\n"
        "spec = h.ViewSpec()\n"
        "a, b = h.spectral_views(x, c, patch_size=3, mean=one, scale=one, spec=spec, seed=0, step=0)\n"
        "print(a.isfinite().all().item(), *a.shape)"
    )
    assert _python(script).split() == ["True", "1", "4", "3", "3"]


def test_public_names() -> None:
    assert set(hsssl_kernels.__all__) == PUBLIC
    assert all(callable(getattr(hsssl_kernels, name)) for name in hsssl_kernels.__all__)


def _python(script: str) -> str:
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout
