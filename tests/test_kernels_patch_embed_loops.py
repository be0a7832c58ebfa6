"""What the compiled loops of the patch embedding do beyond the other paths: many tokens, and memory."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from hsssl_kernels import spectral_patch_embed
from hsssl_kernels.dispatch import compiles_loops
from hsssl_kernels.spectral_patch_embed import compiled, output
from test_kernels_patch_embed import assert_as_good_as_torch, draw

pytestmark = pytest.mark.skipif(not compiles_loops(), reason="Numba compiles no loops")

# Five hundred tokens of 33 values: several blocks of 96, none of them full in rows of six.
MANY = (7, 25, 18, 18, 3, 3, 32)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "said", ["no_norm", "per_group no_norm", "visible", "per_group visible", "cube no_norm"]
)
@pytest.mark.parametrize("dim", [32, 17])
def test_many_tokens_are_as_good_as_plain_torch(dtype: torch.dtype, said: str, dim: int) -> None:
    assert_as_good_as_torch(draw(((*MANY[:-1], dim), said), dtype), dtype, 1e-6)


@pytest.mark.parametrize("said", ["no_norm", "visible no_norm"])
def test_tokens_written_past_the_cache_are_the_same(said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    named = draw((MANY, said), torch.float32)
    written = spectral_patch_embed(**named)
    monkeypatch.setattr(compiled, "_PAST_CACHE", 0)
    assert torch.equal(spectral_patch_embed(**named), written)


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


@pytest.mark.parametrize("bands_last", [True, False])
@pytest.mark.parametrize("kept", [1, 5, 100])
def test_samples_that_are_fetched_ahead_end_where_memory_ends(bands_last: bool, kept: int) -> None:
    # a part of a larger tensor: numbers before and after belong to others
    named = draw((MANY, "visible no_norm"), torch.float32)
    x = named["x"] if bands_last else named["x"].permute(0, 3, 1, 2).contiguous()
    named |= {"x": x[2:5], "visible": named["visible"][2:5, :kept], "bands_last": bands_last}
    assert_as_good_as_torch(named, torch.float32, 1e-6)
