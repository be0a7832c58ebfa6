"""Visible tokens in order of their groups: a block of them shares bands, normalisation and weights."""

from __future__ import annotations

import torch
from torch import Tensor

from hsssl_kernels.dispatch import register
from hsssl_kernels.spectral_patch_embed.work import Work

__all__ = ["bounds", "check_range", "group_visible", "inside"]


def bounds(x: Tensor) -> tuple[int, int]:
    """Return the lowest and highest of whole numbers, 0 and -1 of none; on a GPU this waits for them."""
    if not x.numel():
        return 0, -1
    lowest, highest = x.aminmax()
    if x.is_cuda:
        lowest, highest = torch.stack([lowest, highest]).tolist()  # waits once
    return int(lowest), int(highest)


def check_range(visible: Tensor, groups: int, space: int) -> None:
    """Refuse numbers of tokens that there are not; on a GPU this waits for their values."""
    lowest, highest = bounds(visible)
    if lowest < 0 or highest >= groups * space:
        raise ValueError(
            f"spectral_patch_embed: `visible` must lie in 0 ... {groups * space - 1} for {groups} groups "
            f"of {space} tokens, got {lowest} ... {highest}"
        )


def inside(work: Work, visible: Tensor) -> Tensor:
    """Return numbers of tokens to index by: on a GPU those outside, whose tokens are NaN, are moved in."""
    return visible.clamp(0, work.groups * work.space - 1) if visible.is_cuda else visible


def _group_visible(visible: Tensor, groups: int, space: int) -> tuple[Tensor, Tensor]:
    check_range(visible, groups, space)
    # narrow keys sort ten times as fast
    group = (visible.flatten() // space).to(torch.int16 if groups < 2**15 else torch.int64)
    group, order = torch.sort(group, stable=True)
    return order, torch.searchsorted(group, torch.arange(groups + 1, dtype=group.dtype, device=group.device))


def _group_visible_fake(visible: Tensor, groups: int, space: int) -> tuple[Tensor, Tensor]:
    return visible.new_empty(visible.numel()), visible.new_empty(groups + 1)


# group_visible(visible (B, V), G, S) -> order (B V,), starts (G + 1,); see `Work`.
group_visible = register(
    "group_visible_tokens(Tensor visible, int groups, int space) -> (Tensor, Tensor)",
    _group_visible,
    _group_visible_fake,
)
