"""The patch embedding on the CPU, by compiled loops and in torch, against the plain reference in float64."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from hsssl_kernels import spectral_patch_embed
from hsssl_kernels.spectral_patch_embed import blocked, compiled
from hsssl_kernels.spectral_patch_embed.grouping import group_visible
from hsssl_kernels.spectral_patch_embed.reference import cut_windows, spectral_patch_embed_reference
from hsssl_kernels.spectral_patch_embed.registered import embed, weight_grad
from losses import COMPILES

LEARNED = ("weight", "bias", "position", "wavelengths_embedding", "norm_weight", "norm_bias")
# name: sizes (B, C, H, W, patch, group, D), then what is left out or added
CASES: dict[str, tuple[tuple[int, ...], str]] = {
    "all": ((3, 10, 6, 9, 3, 5, 8), ""),
    "one_pixel": ((1, 1, 1, 1, 1, 1, 7), "no_norm"),
    "short_group": ((2, 11, 4, 4, 2, 4, 7), "no_position"),
    "weight_a_group": ((3, 11, 4, 6, 2, 4, 5), "per_group"),
    "visible": ((4, 11, 4, 6, 2, 4, 6), "visible"),
    "visible_weight_a_group": ((4, 11, 4, 6, 2, 4, 6), "visible per_group no_position"),
    "visible_bias_alone": ((3, 7, 3, 3, 3, 3, 4), "visible no_position no_wavelengths no_norm"),
    "bias_alone": ((2, 8, 5, 5, 1, 4, 6), "no_norm no_position no_wavelengths"),
    "bias_a_group": ((2, 11, 4, 6, 2, 4, 6), "biases no_norm no_position no_wavelengths"),
    "visible_bias_a_group": ((2, 11, 4, 6, 2, 4, 6), "visible biases no_norm no_position no_wavelengths"),
    "nothing_added": ((2, 8, 4, 4, 2, 4, 6), "no_norm no_position no_wavelengths no_bias"),
    "cube": ((5, 11, 6, 6, 3, 4, 6), "cube"),
    "cube_even_window_visible": ((5, 11, 4, 4, 2, 4, 6), "cube visible per_group"),
    "no_normalisation": ((2, 9, 4, 4, 2, 4, 6), "plain"),
}
CASE = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())


def draw(case: tuple[tuple[int, ...], str], dtype: torch.dtype, seed: int = 0) -> dict[str, Any]:
    """Arguments by name, raw numbers around 5,000; ``norm`` in two parts and eps fixed."""
    (b, c, h, w, patch, group, dim), said = case
    g = torch.Generator().manual_seed(seed)
    groups, space, values = -(-c // group), h // patch * (w // patch), patch**2 * group

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=g, dtype=torch.float64).to(dtype)

    named: dict[str, Any] = {"patch": patch, "group": group}
    size = (h + 3, w + 2, c) if "cube" in said else (b, h, w, c)
    named["x"] = torch.randint(4_000, 6_000, size, generator=g).to(torch.int16)
    if "cube" in said:
        named |= {
            "window": h,
            "centres": torch.stack([torch.randint(0, n, (b,), generator=g) for n in size[:2]], 1),
        }
    else:
        named["bands_last"] = True
    if "plain" in said:
        named["x"] = normal(*size)
    else:
        named["mean"] = 5e3 + 100 * torch.randn(c, generator=g)
        named["scale"] = 2e-3 * (1 + torch.rand(c, generator=g))
    named["weight"] = normal(groups, dim, values) if "per_group" in said else normal(dim, values)
    if "no_bias" not in said:
        named["bias"] = normal(groups, dim) if "per_group" in said or "biases" in said else normal(dim)
    if "no_position" not in said:
        named["position"] = normal(space, dim)
    if "no_wavelengths" not in said:
        named["wavelengths_embedding"] = normal(groups, dim)
    if "no_norm" not in said:
        named |= {"norm_weight": 1 + 0.2 * normal(dim), "norm_bias": normal(dim)}
    if "visible" in said:
        order = torch.rand(b, groups * space, generator=g).argsort(1)
        named["visible"] = order[:, : max(1, groups * space // 3)]
    return named


def call(fused: bool, named: dict[str, Any], **more: Any) -> Tensor:
    named = dict(named)
    if "norm_weight" in named:
        named["norm"] = (named.pop("norm_weight"), named.pop("norm_bias"), 1e-5)
    return (spectral_patch_embed if fused else spectral_patch_embed_reference)(**named, **more)


def tokens_and_gradients(fused: bool, named: dict[str, Any], dtype: torch.dtype, **more: Any) -> list[Tensor]:
    """The tokens and their gradients by all that is learned, in float64."""
    leaves = {k: named[k].detach().to(dtype).requires_grad_() for k in LEARNED if k in named}
    if named["x"].is_floating_point() and "centres" not in named:
        leaves["x"] = named["x"].detach().to(dtype).requires_grad_()
    tokens = call(fused, named | leaves, **more)
    weight = torch.linspace(-1, 2, tokens.numel(), dtype=dtype, device=tokens.device).view_as(tokens)
    (weight * tokens).sum().backward()
    return [x.detach().double().cpu() for x in (tokens, *(leaf.grad for leaf in leaves.values()))]


def assert_as_good_as_torch(named: dict[str, Any], dtype: torch.dtype, eps: float, **more: Any) -> None:
    """|fused - fp64| <= 2 |same-dtype torch - fp64| + eps, relative, by norm."""
    exact = tokens_and_gradients(False, named, torch.float64)
    plain = tokens_and_gradients(False, named, dtype)
    fused = tokens_and_gradients(True, named, dtype, **more)
    assert len(exact) == len(fused)
    for ours, theirs, right in zip(fused, plain, exact, strict=True):
        assert ours.shape == right.shape
        norm = right.norm() + 1e-3
        assert (ours - right).norm() / norm <= 2 * (theirs - right).norm() / norm + eps


@CASE
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("loops", [True, False])
def test_as_good_as_plain_torch(
    case: tuple[tuple[int, ...], str], dtype: torch.dtype, loops: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiled, "compiles_loops", lambda: loops)
    assert_as_good_as_torch(draw(case, dtype), dtype, max(1e-6, torch.finfo(dtype).eps))


@CASE
@pytest.mark.parametrize("loops", [True, False])
def test_several_blocks_agree_with_one(
    case: tuple[tuple[int, ...], str], loops: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiled, "compiles_loops", lambda: loops)
    monkeypatch.setattr(blocked, "_VALUES", 40)
    monkeypatch.setattr(compiled, "_ROWS", 20)
    monkeypatch.setattr(compiled, "_TOKENS", 6)
    assert_as_good_as_torch(draw(case, torch.float32), torch.float32, 1e-6)


@CASE
@pytest.mark.parametrize("loops", [True, False])
def test_threads_change_nothing(
    case: tuple[tuple[int, ...], str], loops: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiled, "compiles_loops", lambda: loops)
    monkeypatch.setattr(blocked, "_PART", 1)
    monkeypatch.setattr(compiled, "_PART", 1)
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        assert_as_good_as_torch(draw(case, torch.float32), torch.float32, 1e-6)
        first, second = (tokens_and_gradients(True, draw(case, torch.float32), torch.float32) for _ in "ab")
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("share", [1, 4, 20])
@pytest.mark.parametrize("name", ["visible", "cube"])
@pytest.mark.parametrize("loops", [True, False])
def test_few_and_many_visible_tokens(
    name: str, share: int, loops: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiled, "compiles_loops", lambda: loops)
    named = draw(((3, 21, 12, 12, 3, 4, 5), CASES[name][1]), torch.float32)
    order = torch.rand(3, 96, generator=torch.Generator().manual_seed(1)).argsort(1)
    assert_as_good_as_torch(named | {"visible": order[:, : 96 // share]}, torch.float32, 1e-6)


@CASE
def test_gradients_are_those_of_finite_differences(case: tuple[tuple[int, ...], str]) -> None:
    named = draw(case, torch.float64)
    names = [k for k in LEARNED if k in named]
    leaves = [named[k].requires_grad_() for k in names]
    if named["x"].is_floating_point():
        names, leaves = [*names, "x"], [*leaves, named["x"].requires_grad_()]
    assert torch.autograd.gradcheck(
        lambda *v: call(True, named | dict(zip(names, v, strict=True))), leaves, fast_mode=True
    )


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.int32, torch.float16, torch.float64])
def test_raw_numbers_of_any_dtype(dtype: torch.dtype) -> None:
    named = draw(CASES["visible"], torch.float32)
    small = (named["x"] % 200).to(dtype)
    right = call(False, named | {"x": small.double()})
    torch.testing.assert_close(call(True, named | {"x": small}), right)


def test_raw_numbers_are_normalised_before_they_are_rounded() -> None:
    x = torch.tensor([10_000, 10_001, 10_002], dtype=torch.int16).view(3, 1, 1, 1)
    weight = torch.ones(1, 1, dtype=torch.bfloat16)
    tokens = spectral_patch_embed(x, weight, patch=1, group=1, mean=torch.tensor([1e4]), scale=torch.ones(1))
    assert tokens.flatten().tolist() == [0, 1, 2]


def test_tokens_are_those_of_a_conv3d() -> None:
    x, conv = torch.randn(2, 12, 6, 9), torch.nn.Conv3d(1, 5, (4, 3, 3), stride=(4, 3, 3))
    weight = conv.weight.permute(0, 1, 3, 4, 2).reshape(5, -1)
    ours = spectral_patch_embed(x, weight, conv.bias, patch=3, group=4)
    torch.testing.assert_close(ours, conv(x.unsqueeze(1)).flatten(2).transpose(1, 2), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("window", [1, 4, 5])
def test_windows_are_mirrored_as_numpy_pads(window: int) -> None:
    np = pytest.importorskip("numpy")
    cube, before = torch.arange(5 * 6 * 2).view(5, 6, 2), (window - 1) // 2
    after = window - 1 - before
    padded = np.pad(cube.numpy(), [(before, after), (before, after), (0, 0)], mode="reflect")
    centres = torch.cartesian_prod(torch.arange(5), torch.arange(6))
    for cut, (row, col) in zip(cut_windows(cube, centres, window), centres.tolist(), strict=True):
        assert (cut.numpy() == padded[row : row + window, col : col + window]).all()


@pytest.mark.parametrize("name", ["all", "short_group", "visible", "visible_weight_a_group", "plain_rows"])
@pytest.mark.parametrize("kept", [1.0, 0.2])
def test_bands_may_come_first(name: str, kept: float) -> None:
    rows = ((3, 7, 8, 12, 4, 3, 5), "visible no_position")  # tokens of four pixels in a row
    named = draw(CASES.get(name, rows), torch.float32)
    if "visible" in named:
        tokens = named["visible"].shape[1]
        named["visible"] = named["visible"][:, : max(1, round(kept * tokens))]
    by_place = named["x"].permute(0, 3, 1, 2).contiguous()
    for x in (by_place, by_place.float()):
        first = named | {"x": x, "bands_last": False}
        assert_as_good_as_torch(first, torch.float32, 1e-6)
        torch.testing.assert_close(call(True, first), call(True, named))


def test_strides_do_not_matter() -> None:
    named = draw(CASES["no_normalisation"], torch.float32)
    right = call(True, named)
    x = named["x"]
    torch.testing.assert_close(
        call(True, named | {"x": x.permute(3, 0, 2, 1).contiguous().permute(1, 3, 2, 0)}), right
    )
    named.pop("bands_last")
    torch.testing.assert_close(call(True, named | {"x": x.permute(0, 3, 1, 2)}), right)
    torch.testing.assert_close(call(True, named | {"x": x.permute(0, 3, 1, 2).contiguous()}), right)


def test_empty_batches_give_empty_tokens_and_no_gradient() -> None:
    weight = torch.randn(3, 8, requires_grad=True)
    bias = torch.zeros(3, requires_grad=True)
    x = torch.zeros(0, 4, 2, 2, requires_grad=True)
    tokens = spectral_patch_embed(x, weight, bias, patch=2, group=2)
    tokens.sum().backward()
    assert x.grad is not None
    assert x.grad.shape == x.shape
    assert tokens.shape == (0, 2, 3)
    assert weight.grad is not None
    assert (weight.grad == 0).all()


def test_autocast_decides_the_dtype() -> None:
    named = draw(CASES["all"], torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        tokens = call(True, named)
    assert tokens.dtype == torch.bfloat16
    torch.testing.assert_close(tokens.float(), call(True, named), rtol=0.05, atol=0.05)


def test_no_graph_is_kept_without_gradients() -> None:
    named = draw(CASES["visible"], torch.float32)
    named["weight"].requires_grad_()
    with torch.no_grad():
        bare = call(True, named)
    assert not bare.requires_grad
    torch.testing.assert_close(bare, call(True, named).detach(), rtol=0, atol=0)


@COMPILES
@pytest.mark.parametrize("name", ["all", "visible_weight_a_group", "cube", "no_normalisation"])
def test_torch_compile_sees_no_graph_break(name: str) -> None:
    named = draw(CASES[name], torch.float32)
    leaves = {k: named[k].requires_grad_() for k in LEARNED if k in named}
    torch.compiler.reset()
    compiled = torch.compile(lambda n: call(True, n).square().sum(), fullgraph=True, backend="aot_eager")
    value = compiled(named)
    gradients = torch.autograd.grad(value, list(leaves.values()))
    eager = call(True, named).square().sum()
    torch.testing.assert_close(value, eager)
    for ours, right in zip(gradients, torch.autograd.grad(eager, list(leaves.values())), strict=True):
        torch.testing.assert_close(ours, right)


@COMPILES
def test_torch_compile_checks_tokens_and_centres_when_it_runs() -> None:
    compiled = torch.compile(lambda n: call(True, n), fullgraph=True, backend="aot_eager")
    named = draw(CASES["visible"], torch.float32)
    with pytest.raises(ValueError, match=r"`visible` must lie in 0 ... 17"):
        compiled(named | {"visible": named["visible"] + 18})
    named = draw(CASES["cube"], torch.float32)
    with pytest.raises(ValueError, match="a centre lies outside the scene of 9 x 8 pixels"):
        compiled(named | {"centres": named["centres"] + 10})


@pytest.mark.parametrize("name", ["all", "visible_weight_a_group", "cube"])
def test_registered_ops_pass_opcheck(name: str) -> None:
    named = draw(CASES[name], torch.float32)
    weight = named["weight"] if named["weight"].ndim == 3 else named["weight"].unsqueeze(0)
    order = starts = None
    if "visible" in named:
        order, starts = group_visible(named["visible"], 3, 6)
        torch.library.opcheck(group_visible, (named["visible"], 3, 6))
    known = [named.get(k) for k in ("x", "centres", "mean", "scale", "visible")]
    work = (*known, order, starts, named["patch"], named["group"], named.get("window", 0))
    affine = (named["norm_weight"], named["norm_bias"])
    for keep in (True, False):
        torch.library.opcheck(embed, (*work, weight, None, *affine, 1e-5, keep, "torch"))
    tokens = embed(*work, weight, None, None, None, 0.0, False, "torch")[0]
    torch.library.opcheck(weight_grad, (*work, tokens, len(weight) > 1, 3, "torch"))


SIZES = st.tuples(
    st.integers(1, 3),
    st.integers(1, 9),
    st.integers(1, 3),
    st.integers(1, 3),
    st.integers(1, 3),
    st.integers(1, 4),
)


def drawn(sizes: tuple[int, ...], said: str, seed: int) -> dict[str, Any]:
    b, c, high, wide, patch, group = sizes
    return draw(((b, c, high * patch, wide * patch, patch, group, 4), said), torch.float64, seed)


@settings(max_examples=25, deadline=None)
@given(sizes=SIZES, per_group=st.booleans(), seed=st.integers(0, 2**20))
def test_visible_tokens_are_those_of_the_whole(sizes: tuple[int, ...], per_group: bool, seed: int) -> None:
    named = drawn(sizes, "per_group" if per_group else "", seed)
    whole = call(True, named)
    order = torch.rand(whole.shape[:2], generator=torch.Generator().manual_seed(seed)).argsort(1)
    for visible in (order, order[:, :1], order.repeat(1, 2)):
        expected = whole.gather(1, visible.unsqueeze(2).expand(-1, -1, 4))
        torch.testing.assert_close(call(True, named | {"visible": visible}), expected)


@settings(max_examples=25, deadline=None)
@given(sizes=SIZES, seed=st.integers(0, 2**20))
def test_integers_are_as_good_as_floats_and_scaling_folds_in(sizes: tuple[int, ...], seed: int) -> None:
    named = drawn(sizes, "", seed)
    right = call(True, named)
    x = named["x"].double()
    torch.testing.assert_close(call(True, named | {"x": x}), right, rtol=0, atol=0)
    folded = named | {"x": 4 * x, "mean": 4 * named["mean"], "scale": named["scale"] / 4}
    torch.testing.assert_close(call(True, folded), right, rtol=0, atol=0)
    normal = (x - named.pop("mean").double()) * named.pop("scale").double()
    torch.testing.assert_close(call(True, named | {"x": normal}), right)


@settings(max_examples=25, deadline=None)
@given(sizes=SIZES, seed=st.integers(0, 2**20))
def test_a_cube_gives_the_tokens_of_its_windows(sizes: tuple[int, ...], seed: int) -> None:
    b, c, high, _, patch, group = sizes
    named = drawn((b, c, high, high, patch, group), "cube", seed)
    right = call(True, named)
    windows = cut_windows(named["x"], named.pop("centres"), named.pop("window"))
    torch.testing.assert_close(call(True, named | {"x": windows, "bands_last": True}), right)


@settings(max_examples=15, deadline=None)
@given(sizes=SIZES, seed=st.integers(0, 2**20))
def test_permuting_the_batch_permutes_the_tokens(sizes: tuple[int, ...], seed: int) -> None:
    named = drawn(sizes, "visible", seed)
    order = torch.randperm(len(named["x"]), generator=torch.Generator().manual_seed(seed))
    moved = named | {"x": named["x"][order], "visible": named["visible"][order]}
    torch.testing.assert_close(call(True, moved), call(True, named)[order])


def test_tokens_looked_up_in_half_precision_with_bands_first() -> None:
    """A list of places came out in an order of dimensions that could not be flattened."""
    g = torch.Generator().manual_seed(0)
    x, weight = torch.rand(1, 32, 3, 12, generator=g).half(), torch.rand(4, 1, 72, generator=g)
    visible = torch.randperm(16, generator=g)[:7].view(1, 7)
    call = {"patch": 3, "group": 8, "mean": torch.rand(32, generator=g), "backend": "torch"}
    some = spectral_patch_embed(x, weight, visible=visible, **call)
    every = spectral_patch_embed(x, weight, **call)
    torch.testing.assert_close(some, every[:, visible[0]])
