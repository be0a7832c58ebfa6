"""The patch embedding's Triton kernels: on a GPU where there is one, in Triton's interpreter otherwise."""

from __future__ import annotations

import os
from typing import Any

import pytest
import torch

if not torch.cuda.is_available():
    # read when a kernel's module is imported, which is not before its first use
    os.environ["TRITON_INTERPRET"] = "1"
pytest.importorskip("triton", reason="the package triton is not installed")

from hsssl_kernels import spectral_patch_embed
from hsssl_kernels.launch import PROGRAMS, TABLE, architecture, tile_for
from hsssl_kernels.tile import Tile
from test_kernels_patch_embed import CASE, CASES, assert_as_good_as_torch, call, draw, tokens_and_gradients
from test_kernels_triton import DEVICE, DTYPE, GuardedMemory

# NumPy, under the interpreter, warns of numbers that are masked out afterwards; a GPU is silent.
pytestmark = pytest.mark.filterwarnings("ignore:(overflow|invalid value) encountered:RuntimeWarning")


@pytest.fixture(autouse=True)
def _guarded_memory(monkeypatch: pytest.MonkeyPatch) -> Any:
    """What a kernel forgets to write is NaN, and so is what lies around it; writing there is noticed."""
    from hsssl_kernels.spectral_patch_embed import kernel  # noqa: F401  # compiled before memory is guarded

    guarded = GuardedMemory()
    monkeypatch.setattr(torch, "empty", guarded)
    yield
    assert guarded.untouched()


def on_device(name: str, dtype: torch.dtype, **sizes: tuple[int, ...]) -> dict[str, Any]:
    case = CASES[name] if not sizes else (sizes["size"], CASES[name][1])
    named = draw(case, dtype)
    return {k: v.to(DEVICE) if isinstance(v, torch.Tensor) else v for k, v in named.items()}


@CASE
@DTYPE
def test_as_good_as_plain_torch(case: tuple[tuple[int, ...], str], dtype: torch.dtype) -> None:
    named = draw(case, dtype)
    named = {k: v.to(DEVICE) if isinstance(v, torch.Tensor) else v for k, v in named.items()}
    assert_as_good_as_torch(named, dtype, max(1e-6, torch.finfo(dtype).eps), backend="triton")


@DTYPE
@pytest.mark.parametrize("name", ["all", "visible_weight_a_group", "cube"])
def test_larger_shapes(name: str, dtype: torch.dtype) -> None:
    named = on_device(name, dtype, size=(7, 23, 9, 9, 3, 10, 70))
    assert_as_good_as_torch(named, dtype, max(1e-6, torch.finfo(dtype).eps), backend="triton")


def test_tokens_wider_than_a_program_are_normalised_too(monkeypatch: pytest.MonkeyPatch) -> None:
    named = on_device("all", torch.float32)
    arch = architecture(named["x"])
    monkeypatch.setitem(TABLE, ("patch_embed", arch, 4), [(1024, Tile(16, 16, 32, 0, 4, 1))])
    named = on_device("all", torch.float32, size=(2, 10, 6, 6, 3, 5, 37))
    assert_as_good_as_torch(named, torch.float32, 1e-6, backend="triton")


@pytest.mark.parametrize("programs", [1, 1000])
@pytest.mark.parametrize("name", ["all", "visible"])
def test_splitting_tokens_over_programs_changes_nothing(
    name: str, programs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = on_device(name, torch.float32, size=(31, 11, 4, 4, 2, 4, 6))
    monkeypatch.setitem(PROGRAMS, architecture(named["x"]), programs)
    assert_as_good_as_torch(named, torch.float32, 1e-6, backend="triton")


def test_the_same_bits_every_time() -> None:
    named = on_device("visible", torch.float32)
    first, second = (tokens_and_gradients(True, named, torch.float32, backend="triton") for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_strides_do_not_matter() -> None:
    named = on_device("all", torch.float32)
    right = call(True, named, backend="triton")
    x = named["x"].permute(0, 3, 1, 2)
    for other in (x, x.contiguous(), x.transpose(2, 3).contiguous().transpose(2, 3)):
        got = call(True, named | {"x": other, "bands_last": False}, backend="triton")
        # of patches whose bands come first, values are added up band by band
        torch.testing.assert_close(got, right, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["all", "visible", "weight_a_group", "short_group"])
def test_samples_whose_bands_come_first_have_the_same_gradients(name: str) -> None:
    named = on_device(name, torch.float32)
    turned = named | {"x": named["x"].permute(0, 3, 1, 2).contiguous(), "bands_last": False}
    expected = tokens_and_gradients(True, named, torch.float32, backend="triton")
    got = tokens_and_gradients(True, turned, torch.float32, backend="triton")
    for ours, right in zip(got, expected, strict=True):
        torch.testing.assert_close(ours, right, rtol=1e-5, atol=1e-4)


def test_a_token_that_there_is_not_is_nan_where_no_one_looks() -> None:
    """A GPU's numbers are not looked at, which would wait for it; here the kernel is given them directly."""
    from hsssl_kernels.spectral_patch_embed.launchers import launch_embed
    from hsssl_kernels.spectral_patch_embed.work import Work

    named = on_device("visible", torch.float32)
    visible = named["visible"].clone()
    visible[0, 0], visible[1, 1] = -1, 2**40
    parts = (named["x"], None, named["mean"], named["scale"], visible, None, None)
    work = Work(*parts, named["patch"], named["group"], 0)
    tokens, _, _ = launch_embed(work, named["weight"].unsqueeze(0), None, None, False)
    gone = torch.zeros(visible.shape, dtype=torch.bool, device=DEVICE)
    gone[0, 0] = gone[1, 1] = True
    assert tokens[gone].isnan().all()
    assert tokens[~gone].isfinite().all()


@pytest.mark.parametrize(
    "name", ["patch_embed", "patch_embed_some", "patch_embed_more", "patch_embed_bwd", "patch_embed_bwd_some"]
)
def test_what_is_tuned_runs_with_the_tile_that_is_tuned(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from hsssl_kernels.spectral_patch_embed import launchers
    from hsssl_kernels.spectral_patch_embed.tuning import patch_embed_calls

    assert name in {kernel for kernel, _, _ in TABLE}
    asked = []
    monkeypatch.setattr(launchers, "tile_for", lambda n, *of: asked.append(n) or tile_for(n, *of))
    call = patch_embed_calls(name, 16, 24, torch.float32, DEVICE)
    torch.testing.assert_close(call("triton"), call("torch"), rtol=1e-4, atol=1e-3)
    assert asked == [name]


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.int32, torch.float16, torch.float64])
def test_raw_numbers_of_any_dtype(dtype: torch.dtype) -> None:
    named = on_device("visible", torch.float32)
    small = (named["x"] % 200).to(dtype)
    right = call(False, named | {"x": small.double()})
    torch.testing.assert_close(call(True, named | {"x": small}, backend="triton"), right)


def test_rows_that_are_not_there_do_not_overflow_float16() -> None:
    named = on_device("bias_alone", torch.float16)
    named |= {"mean": torch.full_like(named["mean"], 5e3), "scale": torch.full_like(named["scale"], 30.0)}
    named["x"] = 5_000 + named["x"] % 7
    gradients = tokens_and_gradients(True, named, torch.float16, backend="triton")
    assert all(bool(g.isfinite().all()) for g in gradients)


def test_empty_batches_give_empty_tokens_and_no_gradient() -> None:
    named = on_device("all", torch.float32)
    named |= {"x": named["x"][:0], "weight": named["weight"].requires_grad_()}
    tokens = call(True, named, backend="triton")
    tokens.sum().backward()
    assert tokens.shape == (0, 12, 8)
    assert (named["weight"].grad == 0).all()


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("far", [True, False])
def test_a_table_says_where_a_tokens_values_lie(first: bool, far: bool) -> None:
    from hsssl_kernels.spectral_patch_embed.spots import spot_table

    x = torch.arange(4 * 6 * 10).view(4, 6, 10)
    x = x.permute(1, 2, 0) if first else x
    table = spot_table(2, 3, first, x.stride(), 16, far, x.device)
    assert table.shape == (4, 16)
    assert table.dtype == (torch.int64 if far else torch.int32)
    assert (table[:, 12:] == 0).all()
    rows, cols, bands, away = table[:, :12].long()
    assert torch.equal(x[rows, cols, bands], x.as_strided((x.numel(),), (1,))[away])
    assert len(away.unique()) == 12
    expected = (bands * 4 + rows * 2 + cols) if first else (rows * 2 + cols) * 3 + bands
    assert torch.equal(expected, torch.arange(12))  # values side by side in memory follow each other


FAR = {  # shape, strides and how it is cut: rows, bands of a cube, and bands of samples far apart
    "rows": ((1, 3, 1, 2), (1, 1_200_000_000, 1, 1), {"bands_last": True}),
    "cube": ((2, 2, 3), (2, 1, 1_200_000_000), {"centres": torch.tensor([[0, 1]]), "window": 1}),
    "bands": ((1, 3, 2, 1), (1, 1_200_000_000, 1, 1), {}),
}


@pytest.mark.skipif(DEVICE == "cuda", reason="takes memory that the CPU promises and never fills")
@pytest.mark.parametrize("name", FAR)
def test_values_far_apart_are_found(name: str) -> None:
    shape, strides, how = FAR[name]
    far = torch.empty(2**31 + 2**29, dtype=torch.uint8).as_strided(shape, strides)
    for i, part in enumerate(far.unbind(strides.index(max(strides)))):
        part.fill_(i + 1)
    group = 2 if name == "rows" else 1
    weight = torch.rand(5, group, requires_grad=True)
    call = {"weight": weight, "patch": 1, "group": group, **how}
    pair = []
    for x in (far, far.contiguous()):
        tokens = spectral_patch_embed(x, backend="triton", **call)
        pair.append((tokens, *torch.autograd.grad(tokens.square().sum(), weight)))
    for ours, right in zip(*pair, strict=True):
        torch.testing.assert_close(ours, right)
