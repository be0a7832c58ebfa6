"""What the compiled loops of the patch embedding do beyond the other paths: many tokens, and memory."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
import torch

from hsssl_kernels import parallel, spectral_patch_embed
from hsssl_kernels.dispatch import compiles_loops
from hsssl_kernels.spectral_patch_embed import compiled, output
from hsssl_kernels.spectral_patch_embed.registered import embed, weight_grad
from test_kernels_patch_embed import assert_as_good_as_torch, draw, tokens_and_gradients

pytestmark = pytest.mark.skipif(not compiles_loops(), reason="Numba compiles no loops")

# Five hundred tokens of 33 values: several blocks of 72, none of them full in rows of six.
MANY = (7, 25, 18, 18, 3, 3, 32)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "said", ["no_norm", "per_group no_norm", "visible", "per_group visible", "cube no_norm"]
)
@pytest.mark.parametrize("dim", [32, 17])
def test_many_tokens_are_as_good_as_plain_torch(dtype: torch.dtype, said: str, dim: int) -> None:
    assert_as_good_as_torch(draw(((*MANY[:-1], dim), said), dtype), dtype, 1e-6)


@pytest.mark.parametrize("said", ["no_norm", "visible no_norm", "per_group no_norm"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_tokens_in_pieces_have_the_same_bits_with_any_number_of_threads(
    said: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that have another dtype or width than the loops write."""
    monkeypatch.setattr(compiled, "_PART", 1)
    monkeypatch.setattr(compiled, "_ROWS", 32 * 100)
    found, before = [], torch.get_num_threads()
    named = draw(((*MANY[:-1], 17), said), dtype)
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            found.append(tokens_and_gradients(True, named, dtype))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))
    assert_as_good_as_torch(named, dtype, max(1e-6, torch.finfo(dtype).eps))


@pytest.mark.parametrize("said", ["no_norm", "visible no_norm"])
def test_tokens_written_past_the_cache_are_the_same(said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    named = draw((MANY, said), torch.float32)
    written = spectral_patch_embed(**named)
    assert not compiled.goes_past_cache(written)
    monkeypatch.setattr(compiled, "_PAST_CACHE", 0)
    past = spectral_patch_embed(**named)
    assert compiled.goes_past_cache(past)
    assert torch.equal(past, written)


def test_tokens_elsewhere_in_memory_are_not_written_past_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[Any] = []

    def askew(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
        whole = torch.empty(shape[0] * shape[1] + 1, dtype=dtype, device=device)
        said.append(whole.data_ptr())
        return whole[1:].view(shape)

    named = draw((MANY, "no_norm"), torch.float32)
    right = spectral_patch_embed(**named)
    monkeypatch.setattr(output, "empty_again", askew)
    monkeypatch.setattr(compiled, "_PAST_CACHE", 0)
    assert torch.equal(spectral_patch_embed(**named), right)
    assert len(said) == 1


def test_what_is_not_a_number_stays_in_its_tokens_and_in_its_group() -> None:
    named = draw((MANY, "plain per_group no_norm no_position no_wavelengths"), torch.float32)
    named["x"][3, 4, 5, 20] = torch.nan  # sample 3, group 6, second row and column of tokens
    weight = named["weight"].requires_grad_()
    tokens = spectral_patch_embed(**named)
    bad = torch.zeros(7, 9, 36, dtype=torch.bool)
    bad[3, 6, 6 + 1] = True
    assert torch.equal(tokens.isnan().all(2).view_as(bad), bad)
    assert torch.equal(tokens.isnan().any(2).view_as(bad), bad)
    tokens.sum().backward()
    assert weight.grad is not None
    assert weight.grad[6].isnan().any()
    assert not weight.grad[[0, 1, 2, 3, 4, 5, 7, 8]].isnan().any()


def test_an_infinite_value_gives_an_infinite_gradient() -> None:
    x = torch.tensor([1.0, torch.inf]).view(1, 1, 1, 2)
    weight = torch.ones(1, 2, requires_grad=True)
    spectral_patch_embed(x, weight, patch=1, group=2, bands_last=True).sum().backward()
    assert weight.grad is not None
    assert weight.grad.tolist() == [[1.0, torch.inf]]


def test_tokens_that_changed_outside_are_refused_and_not_read() -> None:
    visible = torch.zeros(4, 3, dtype=torch.int64)
    weight = torch.randn(5, 16, requires_grad=True)
    tokens = spectral_patch_embed(
        torch.randn(4, 4, 4, 8), weight, visible=visible, patch=2, group=4, bands_last=True
    )
    visible.numpy()[:] = 10**9  # which torch does not notice
    with pytest.raises(ValueError, match=r"`visible` must lie in 0 \.\.\. 7"):
        tokens.sum().backward()


@pytest.mark.parametrize("order", [-1, 12])
def test_an_order_that_lists_no_slots_is_refused(order: int) -> None:
    x, weight = torch.randn(4, 4, 4, 8), torch.randn(2, 5, 16)
    visible = torch.zeros(4, 3, dtype=torch.int64)
    wrong, starts = torch.full((12,), order), torch.tensor([0, 12, 12])
    work = (x, None, None, None, visible, wrong, starts, 2, 4, 0)
    with pytest.raises(ValueError, match="`order` must list the 12 slots"):
        embed(*work, weight, None, None, None, 0.0, False, "torch")
    with pytest.raises(ValueError, match="`order` must list the 12 slots"):
        weight_grad(*work, torch.randn(4, 3, 5), True, 0, "torch")


@pytest.mark.parametrize("openmp", [True, False])
@pytest.mark.parametrize("said", ["no_norm", "visible no_norm", "per_group no_norm", "plain no_norm"])
def test_results_have_the_same_bits_with_any_number_of_threads_and_shares_of_columns(
    said: str, openmp: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiled, "_PART", 1)
    if not openmp:
        monkeypatch.setattr(parallel, "_start_of_team", lambda process: 0)
    named, before, found = draw((MANY, said), torch.float32), torch.get_num_threads(), []
    weight = named["weight"].requires_grad_()
    try:
        for threads, shares in ((1, 1), (2, 1), (3, 1), (1, 2), (3, 2)):
            torch.set_num_threads(threads)
            monkeypatch.setattr(compiled, "_shares", lambda *_, shares=shares: shares)
            weight.grad = None
            tokens = spectral_patch_embed(**named)
            tokens.square().sum().backward()
            found.append((tokens.detach(), weight.grad))
    finally:
        torch.set_num_threads(before)
    for tokens, by_weight in found:
        assert torch.equal(tokens, found[0][0])
        assert torch.equal(by_weight, found[0][1])


def test_few_large_tokens_share_columns_and_are_as_good_as_plain_torch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shares, turns_of = [], compiled._turns
    monkeypatch.setattr(compiled, "_PRODUCTS", 1)
    monkeypatch.setattr(compiled, "_COLUMNS", 16)
    monkeypatch.setattr(compiled, "_turns", lambda *given: shares.append(given[1:]) or turns_of(*given))
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        assert_as_good_as_torch(
            draw(((2, 8, 16, 16, 8, 8, 80), "no_norm"), torch.float32), torch.float32, 1e-6
        )
    finally:
        torch.set_num_threads(before)
    assert shares == [(), (5,)]  # all tokens of each forward, then five times 16 columns


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("openmp", [True, False])
def test_threads_that_find_no_memory_raise(
    openmp: bool, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiled, "_PART", 1)
    monkeypatch.setattr(compiled, "tokens_held", lambda sums: 6 * 2**40)  # a million gigabytes
    if not openmp:
        monkeypatch.setattr(parallel, "_start_of_team", lambda process: 0)
    named, before = draw((MANY, "no_norm"), torch.float32), torch.get_num_threads()
    named["weight"].requires_grad_()
    torch.set_num_threads(threads)
    try:
        tokens = spectral_patch_embed(**named)
        with pytest.raises(MemoryError, match="a thread found no memory; take a smaller batch"):
            tokens.sum().backward()
    finally:
        torch.set_num_threads(before)


def test_no_samples_give_gradients_of_zero() -> None:
    weight, bias = torch.randn(32, 16, requires_grad=True), torch.randn(32, requires_grad=True)
    tokens = spectral_patch_embed(torch.randn(0, 4, 4, 8), weight, bias, patch=2, group=4, bands_last=True)
    assert tokens.shape == (0, 8, 32)
    tokens.sum().backward()
    for x in (weight, bias):
        assert x.grad is not None
        assert torch.equal(x.grad, torch.zeros_like(x))


def test_what_numba_keeps_changes_with_what_goes_into_it() -> None:
    from hsssl_kernels import lanes
    from hsssl_kernels.embed_views import loops as both
    from hsssl_kernels.spectral_patch_embed import loops as tokens
    from hsssl_kernels.spectral_patch_embed import source_loops
    from hsssl_kernels.spectral_views import loops as views

    def digest(*modules: Any) -> str:
        return hashlib.sha256(b"".join(Path(m.__file__).read_bytes() for m in modules)).hexdigest()[:16]

    assert digest(lanes) == views.BUILT_ON
    assert digest(lanes, source_loops) == tokens.BUILT_ON
    assert digest(lanes, views, source_loops, tokens) == both.BUILT_ON


@pytest.mark.parametrize("bands_last", [True, False])
@pytest.mark.parametrize("kept", [1, 5, 100])
def test_samples_of_a_larger_tensor_are_read_where_they_lie(bands_last: bool, kept: int) -> None:
    named = draw((MANY, "visible no_norm"), torch.float32)
    x = named["x"] if bands_last else named["x"].permute(0, 3, 1, 2).contiguous()
    named |= {"x": x[2:5], "visible": named["visible"][2:5, :kept], "bands_last": bands_last}
    assert_as_good_as_torch(named, torch.float32, 1e-6)
