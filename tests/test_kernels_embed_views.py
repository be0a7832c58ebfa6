"""Views straight into tokens, against views and then tokens."""

from __future__ import annotations

import os
from typing import Any

import pytest
import torch
from torch import Tensor

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"

from hsssl_kernels import ViewSpec, embed_views, parallel, spectral_patch_embed, spectral_views
from hsssl_kernels.dispatch import compiles_loops
from hsssl_kernels.embed_views import blocks, compiled, source
from hsssl_kernels.embed_views.op import _embed_op, _grad_op
from hsssl_kernels.embed_views.reference import embed_views_reference
from hsssl_kernels.spectral_views import paths
from losses import COMPILES

CASES = ("plain", "per_group", "visible", "visible per_group", "norm", "frozen_weight")
CASE = pytest.mark.parametrize("said", CASES)
SEEDS = {"seed": 3, "step": 5}
BATCH, SIDE, PATCH, GROUP, DIM, BANDS = 7, 6, 3, 4, 5, 11
GROUPS, SPACE, VALUES = 3, 4, 36


def draw(said: str, dtype: torch.dtype = torch.float32, dim: int = DIM) -> dict[str, Any]:
    g = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=g, dtype=torch.float64).to(dtype).requires_grad_()

    named: dict[str, Any] = {
        "cube": torch.randint(4_000, 6_000, (9, 8, BANDS), generator=g).to(torch.int16),
        "centres": torch.stack([torch.randint(0, n, (BATCH,), generator=g) for n in (9, 8)], 1),
        "weight": normal(GROUPS, dim, VALUES) if "per_group" in said else normal(dim, VALUES),
        "bias": normal(dim),
        "mean": 5e3 + 100 * torch.randn(BANDS, generator=g),
        "scale": 2e-3 * (1 + torch.rand(BANDS, generator=g)),
        "spec": ViewSpec(),
        "sample_ids": torch.randint(0, 2**40, (BATCH,), generator=g),
        "valid": torch.rand(9, 8, generator=g) < 0.9,
        **SEEDS,
        "patch_size": SIDE,
        "patch": PATCH,
        "group": GROUP,
    }
    if "visible" in said:
        named["visible"] = torch.rand(2, BATCH, GROUPS * SPACE, generator=g).argsort(2)[:, :, :5]
    if "norm" in said:
        named |= {"position": normal(SPACE, dim), "wavelengths_embedding": normal(GROUPS, dim)}
        named["norm"] = (normal(dim), normal(dim), 1e-5)
    if "frozen" in said:
        named["weight"] = named["weight"].detach()
    return named


def composed(named: dict[str, Any], **more: Any) -> tuple[Tensor, Tensor]:
    keys = ("cube", "centres", "patch_size", "mean", "scale", "spec", "seed", "step", "sample_ids", "valid")
    rest = {k: v for k, v in named.items() if k not in keys}
    visible = rest.pop("visible", (None, None))
    views = spectral_views(**{k: named[k] for k in keys}, **more)
    a, b = (spectral_patch_embed(x, visible=v, **rest, **more) for x, v in zip(views, visible, strict=True))
    return a, b


def gradients(tokens: tuple[Tensor, Tensor], named: dict[str, Any]) -> list[Tensor]:
    both = torch.stack(tokens)
    leaves = [v for k in named for v in (named[k] if k == "norm" else (named[k],)) if isinstance(v, Tensor)]
    leaves = [v for v in leaves if v.requires_grad]
    by_token = torch.linspace(-1, 2, both.numel(), dtype=both.dtype, device=both.device).view_as(both)
    return [both.detach(), *torch.autograd.grad((both * by_token).sum(), leaves)]


def assert_same(ours: list[Tensor], right: list[Tensor]) -> None:
    for a, b in zip(ours, right, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5 * b.abs().max().item())


@pytest.fixture(params=[True, False], ids=["loops", "torch"])
def loops(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether compiled loops make views and tokens, or plain torch."""
    for module in (compiled, paths):
        monkeypatch.setattr(module, "compiles_loops", lambda: request.param)
    return bool(request.param)


@CASE
@pytest.mark.parametrize("dim", [DIM, 32])
@pytest.mark.parametrize(("values", "wide"), [(1, 2**22), (2**21, 2**22), (2 * 2 * BANDS * SIDE**2, 1)])
@pytest.mark.usefixtures("loops")
def test_it_is_views_and_then_tokens(
    said: str, values: int, wide: int, dim: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocks, "_VALUES", values)  # 1: a sample is a block
    for name, value in (("_VALUES", values), ("_WIDE", wide), ("_PART", 1), ("_PARTS", 2)):
        monkeypatch.setattr(compiled, name, value)  # two turns, the last of which is shorter
    named = draw(said, dim=dim)
    assert_same(gradients(embed_views(**named), named), gradients(composed(named), named))


@CASE
@pytest.mark.usefixtures("loops")
def test_threads_change_nothing(said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (source, compiled):
        monkeypatch.setattr(module, "_PART", 1)
    named, before = draw(said), torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        first, second = (gradients(embed_views(**named), named) for _ in "ab")
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert_same(first, gradients(composed(named), named))


@pytest.mark.parametrize("said", ["plain", "visible per_group", "norm"])
def test_without_noise_it_is_the_reference_in_float64(said: str) -> None:
    named = draw(said, torch.float64)
    named["spec"] = ViewSpec(noise=0.0)
    for ours, right in zip(embed_views(**named), embed_views_reference(**named), strict=True):
        torch.testing.assert_close(ours, right, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("said", ["per_group", "norm"])
def test_gradients_are_those_of_finite_differences(said: str) -> None:
    named = draw(said, torch.float64)

    def run(weight: Tensor, bias: Tensor) -> Tensor:
        return torch.stack(embed_views(**named | {"weight": weight, "bias": bias}))

    assert torch.autograd.gradcheck(run, (named["weight"], named["bias"]), fast_mode=True)


@pytest.mark.parametrize("said", ["plain", "visible", "visible per_group", "norm"])
def test_triton_is_views_and_then_tokens(said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("triton", reason="the package triton is not installed")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    monkeypatch.setattr(blocks, "_VALUES" if device == "cpu" else "_LARGE", 3_000)  # three blocks
    named = {k: v.to(device) if isinstance(v, Tensor) else v for k, v in draw(said).items()}
    named |= {k: v.detach().requires_grad_() for k, v in named.items() if k in ("weight", "bias", "position")}
    if "norm" in named:
        named["norm"] = (*(v.detach().to(device).requires_grad_() for v in named["norm"][:2]), 1e-5)
    right = gradients(composed(named, backend="triton"), named)
    assert_same(gradients(embed_views(**named, backend="triton"), named), right)


def test_a_sample_has_its_tokens_wherever_it_stands() -> None:
    named = draw("plain")
    whole = embed_views(**named)[1]
    order = torch.tensor([4, 0, 6])
    part = named | {"centres": named["centres"][order], "sample_ids": named["sample_ids"][order]}
    torch.testing.assert_close(embed_views(**part)[1], whole[order])


def test_no_batch_of_views_is_held(loops: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []

    def counted(make: Any) -> Any:
        def making(*given: Any, **named: Any) -> Any:
            views = make(*given, **named)
            sizes.append(sum(v.numel() for v in views))
            return views

        return making

    def run(loop: Any, job: Any, samples: slice, *others: Any) -> None:
        starts = range(samples.start, samples.stop, job.size)
        sizes.extend(min(job.size, samples.stop - i) * 2 * BANDS * SIDE**2 for i in starts)
        whole(loop, job, samples, *others)

    whole, choose = compiled._run, blocks.views_by
    monkeypatch.setattr(compiled, "_run", run)
    monkeypatch.setattr(blocks, "views_by", lambda *given: counted(choose(*given)))
    for module in (compiled, blocks):
        monkeypatch.setattr(module, "_VALUES", 2 * 2 * BANDS * SIDE**2)
    named = draw("plain")
    tokens = embed_views(**named)
    kept = tokens[0].grad_fn.saved_tensors
    assert max(t.numel() for t in kept if t is not None) <= named["cube"].numel()
    torch.stack(tokens).sum().backward()
    assert len(sizes) == 2 * 4  # 7 samples by twos, forward and backward
    assert max(sizes) == 2 * 2 * BANDS * SIDE**2


@pytest.mark.skipif(not compiles_loops(), reason="Numba compiles no loops")
@pytest.mark.parametrize("openmp", [True, False])
@pytest.mark.parametrize("dim", [DIM, 32])
@pytest.mark.parametrize("said", ["plain", "visible", "per_group", "visible per_group"])
def test_loops_give_the_same_bits_with_any_number_of_threads_and_of_samples_at_once(
    said: str, dim: int, openmp: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiled, "_PART", 1)
    if not openmp:
        monkeypatch.setattr(parallel, "_start_of_team", lambda process: 0)
    named, before, found = draw(said, dim=dim), torch.get_num_threads(), []
    try:
        for threads, wide in ((1, 2**22), (3, 2**22), (2, 1)):
            torch.set_num_threads(threads)
            monkeypatch.setattr(compiled, "_WIDE", wide)
            monkeypatch.setattr(compiled, "_VALUES", 2 * BANDS * SIDE**2)
            found.append(gradients(embed_views(**named), named))
    finally:
        torch.set_num_threads(before)
    for each in found:
        assert all(torch.equal(a, b) for a, b in zip(each, found[0], strict=True))


def test_tokens_that_changed_outside_are_refused_and_not_read() -> None:
    named = draw("visible")
    tokens = embed_views(**named)
    named["visible"].numpy()[:] = 10**9  # which torch does not notice
    with pytest.raises(ValueError, match=r"`visible` must lie in 0 \.\.\. 11"):
        torch.stack(tokens).sum().backward()


def arguments(named: dict[str, Any]) -> tuple[Any, ...]:
    keys = ("cube", "centres", "mean", "scale", "sample_ids", "valid")
    sizes = (named["spec"].strengths(), named["seed"], named["step"], PATCH, GROUP)
    return (*(named[k] for k in keys), named.get("visible"), SIDE, *sizes)


@pytest.mark.parametrize("said", ["plain", "visible per_group"])
def test_registered_ops_pass_opcheck(said: str) -> None:
    named = draw(said)
    weight = named["weight"].detach().view(-1, DIM, VALUES)
    torch.library.opcheck(_embed_op, (*arguments(named), weight, None, "torch"))
    tokens = _embed_op(*arguments(named), weight, None, "torch")
    torch.library.opcheck(_grad_op, (*arguments(named), *tokens, len(weight) > 1, 3, "torch"))


@COMPILES
def test_torch_compile_sees_no_graph_break() -> None:
    named = draw("norm")
    compiled = torch.compile(lambda n: embed_views(**n), fullgraph=True, backend="aot_eager")
    assert_same(gradients(compiled(named), named), gradients(embed_views(**named), named))


def test_empty_batches_give_empty_tokens() -> None:
    named = draw("plain")
    empty = named | {"centres": named["centres"][:0], "sample_ids": named["sample_ids"][:0]}
    tokens = embed_views(**empty)
    assert tokens[0].shape == (0, GROUPS * SPACE, DIM)
    assert all((g == 0).all() for g in gradients(tokens, named)[1:])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"centres": torch.full((BATCH, 2), 20)}, r"every centre must lie inside the scene of 9 x 8"),
        ({"patch_size": 9}, r"`patch_size` must lie in 1 ... 8"),
        ({"patch": 4}, r"`patch` must divide the 6 x 6 pixels"),
        ({"mean": torch.ones(3)}, r"`mean` must be \(11,\) floating point"),
        ({"weight": torch.ones(5, 35)}, r"`weight` must be \(D, K\)=\(5, 36\)"),
        ({"visible": torch.zeros(BATCH, 4).long()}, r"embed_views: `visible` must be int64 \(2, 7, V\)"),
        ({"visible": torch.full((2, BATCH, 4), 12)}, r"`visible` must lie in 0 ... 11"),
    ],
)
def test_wrong_input_is_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        embed_views(**draw("plain") | change)
