"""What the compiled loops read: raw values, where each token's lie, and which are wanted in which order."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from hsssl_kernels.spectral_patch_embed.arguments import Source
from hsssl_kernels.spectral_patch_embed.gather import bands_first
from hsssl_kernels.spectral_patch_embed.grouping import group_visible
from hsssl_kernels.spectral_patch_embed.spots import spots_of_values
from hsssl_kernels.spectral_patch_embed.work import Work

__all__ = ["order_by_group", "source_of", "values_of_weight"]

# Tokens of a group in a row where each group has a weight.
_IN_A_ROW = 256


def order_by_group(work: Work, grouped: bool) -> Tensor | None:
    """Return slots in an order in which tokens of a group follow each other, where each has a weight."""
    if not grouped:
        return None
    if work.visible is not None:
        return group_visible(work.visible, work.groups, work.space)[0] if work.order is None else work.order
    slots = torch.arange(work.batch * work.kept).view(-1, work.groups, work.space)
    some = torch.split(slots, -(-_IN_A_ROW // work.space))  # samples whose values stay in the cache
    return torch.cat([x.transpose(0, 1).reshape(-1) for x in some])


def source_of(work: Work, wide: torch.dtype, order: Tensor | None) -> Source:
    """Return what the loops read."""
    x = work.x.detach()
    reach = 1 + sum((n - 1) * step for n, step in zip(x.shape, x.stride(), strict=True))
    raw = torch.as_strided(x, (reach if x.numel() else 0,), (1,))
    corners, strides, size = None, x.stride(), x.shape[1:3]
    if work.centres is not None:
        corners = work.centres - (work.window - 1) // 2
        strides, size = (0, *x.stride()), x.shape[:2]  # a cube is one sample
    often = 8 * work.kept >= work.groups * work.space and order is None
    return Source(
        raw=raw.numpy(),
        length=len(raw),
        line=max(1, 64 // x.itemsize),
        ahead=-(-strides[0] // work.kept) if often and work.kept else 0,
        strides=strides,
        size=tuple(size),
        corners=_list(corners),
        window=0 if work.centres is None else work.window,
        places=_places_of_tokens(work.groups, work.space, work.wide, work.patch, work.group),
        spots=spots_of_values(work.patch, work.group, bands_first(work)),
        values=work.values,
        bands=work.bands,
        normalised=work.mean is not None or work.scale is not None,
        mean=_by_value(work, work.mean, 0.0, wide),
        scale=_by_value(work, work.scale, 1.0, wide),
        some=work.visible is not None,
        visible=_list(work.visible),
        ordered=order is not None,
        order=_list(order),
        kept=work.kept,
        tokens=work.groups * work.space,
    )


def values_of_weight(work: Work) -> Any:
    """Return which of the gathered values each of a weight's K numbers belongs to (K,)."""
    return _values_of_weight(work.patch, work.group, bands_first(work))


def _by_value(work: Work, by_band: Tensor | None, otherwise: float, wide: torch.dtype) -> Any:
    """Return the number of every value of every group (G K,), or none where there is no normalisation.

    A band that is not there has the last one's.
    """
    if work.mean is None and work.scale is None:
        return _none(wide)
    by_band = torch.full((work.bands,), otherwise) if by_band is None else by_band.detach()
    band = _bands_of_values(work.bands, work.patch, work.group, bands_first(work))
    return by_band.to(wide).numpy().take(band)


def _list(x: Tensor | None) -> Any:
    return _none(torch.int64) if x is None else x.flatten().contiguous().numpy()


@lru_cache(maxsize=8)
def _none(dtype: torch.dtype) -> Any:
    return torch.empty(0, dtype=dtype).numpy()


@lru_cache(maxsize=8)
def _bands_of_values(bands: int, patch: int, group: int, first: bool) -> Any:
    """Return the band of every value of every group (G K,)."""
    spots = torch.from_numpy(spots_of_values(patch, group, first)).view(-1, 3)
    band = torch.arange(0, bands, group).unsqueeze(1) + spots[:, 2]
    return band.clamp(max=bands - 1).view(-1).numpy()


@lru_cache(maxsize=8)  # every call asks for the same, and a dozen short operations take 1 ms
def _places_of_tokens(groups: int, space: int, wide: int, patch: int, group: int) -> Any:
    """Return row, column, group and first band of every token (G S 4,)."""
    place, which = torch.arange(space).repeat(groups), torch.arange(groups).repeat_interleave(space)
    return (
        torch.stack([place // wide * patch, place % wide * patch, which, which * group], 1).view(-1).numpy()
    )


@lru_cache(maxsize=8)
def _values_of_weight(patch: int, group: int, first: bool) -> Any:
    values = torch.arange(patch**2 * group)
    return (values.view(group, -1).mT.flatten() if first else values).numpy()
