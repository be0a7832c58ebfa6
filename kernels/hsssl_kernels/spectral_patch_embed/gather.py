"""Normalised values of tokens side by side, in plain torch: of whole samples, or of single tokens.

A token's K values are pixel by pixel and in a pixel band by band; where x has bands first, band by band and
in a band pixel by pixel, as a band's ``patch`` pixels in a row then lie side by side. `in_memory_order` puts
weights in that order.
Both kinds are gathered by functions that keep their memory from call to call: fresh memory costs more than
what is written to it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from hsssl_kernels.spectral_patch_embed.work import Work

__all__ = [
    "bands_first",
    "by_value",
    "in_memory_order",
    "in_weight_order",
    "run_of_tokens",
    "sample_gatherer",
    "token_gatherer",
]

# Tokens (m, K) from numbers of samples and of their tokens, (m,) each.
TokenGatherer: TypeAlias = Callable[[Tensor, Tensor], Tensor]

# Fewer values side by side are copied one by one sooner.
_RUN = 4


def in_memory_order(work: Work, weight: Tensor) -> Tensor:
    """Return weights (G, D, K) in the order that gathered values have."""
    if not bands_first(work):
        return weight
    return weight.view(*weight.shape[:2], -1, work.group).transpose(2, 3).flatten(2)


def in_weight_order(work: Work, by_weight: Tensor) -> Tensor:
    """Return (G, K, D) in the order of values that weights have, from that of gathered values."""
    if not bands_first(work):
        return by_weight
    groups, _, dim = by_weight.shape
    return by_weight.view(groups, work.group, -1, dim).transpose(1, 2).flatten(1, 2)


def run_of_tokens(work: Work) -> int:
    """Return how many of a token's values `token_gatherer` takes at once."""
    if bands_first(work):
        return work.patch
    return 1 if work.bands % work.group else work.group


def bands_first(work: Work) -> bool:
    """Return whether samples lie in memory as (B, C, H, W)."""
    return work.centres is None and work.x.permute(0, 3, 1, 2).is_contiguous()


def sample_gatherer(work: Work, most: int, wide: torch.dtype) -> Callable[[int, int], Tensor]:
    """Return ``gather(first, last)``: all tokens (n, G, S, K) of up to ``most`` samples.

    Where bands come first, a row of a token's pixels is taken at once, or, where it is short, pixel by pixel;
    where they come last, a group's bands at a pixel. What a call returns is overwritten by the next.
    """
    patch, group, groups, high, across = work.patch, work.group, work.groups, work.high, work.wide
    device = work.x.device
    first_bands = bands_first(work)
    as_it_is = work.centres is None and (first_bands or work.x.is_contiguous()) and work.x.dtype == wide
    as_it_is = as_it_is and work.mean is None and work.scale is None and work.bands % group == 0
    image = (groups * group, high * patch, across * patch)
    image = image if first_bands else (*image[1:], image[0])
    memory = torch.zeros(0 if as_it_is else most, *image, dtype=wide, device=device)
    side = (-1, 1, 1) if first_bands else (-1,)
    mean, scale = (None if v is None else v.to(wide).view(side) for v in (work.mean, work.scale))
    tokens = torch.empty(most, groups, work.space, work.values, dtype=wide, device=device)
    if not first_bands:
        rows, run, order = 1, group, _order((high, patch, across, patch, groups), (4, 0, 2, 1, 3), device)
    elif patch < _RUN:
        rows, run, order = groups, 1, _order((group, high, patch, across, patch), (1, 3, 0, 2, 4), device)
    else:
        rows, run, order = groups, patch, _order((group, high, patch, across), (1, 3, 0, 2), device)

    def gather(first: int, last: int) -> Tensor:
        n = last - first
        x = _samples(work, first, last)  # (n, H, W, C)
        x = x.permute(0, 3, 1, 2) if first_bands else x
        if not as_it_is:
            inside = memory[:n].narrow(1 if first_bands else 3, 0, work.bands)
            inside.copy_(x)
            if mean is not None:
                inside -= mean
            if scale is not None:
                inside *= scale
            x = memory[:n]
        shape = (n * rows, len(order)) if run == 1 else (n * rows, len(order), run)
        torch.index_select(x.reshape(shape), 1, order, out=tokens[:n].view(shape))
        return tokens[:n]

    return gather


def token_gatherer(work: Work, most: int, wide: torch.dtype) -> TokenGatherer:
    """Return ``gather(sample, token)``: up to so many tokens (m, K), each from its sample.

    What a call returns is overwritten by the next.
    """
    # A group's bands at a pixel are taken at once where they always lie side by side, and, where bands come
    # first, a row of a token's pixels.
    x, device, first_bands = work.x, work.x.device, bands_first(work)
    x = x if first_bands else x.contiguous()  # positions in it can then be counted
    flat = (x.permute(0, 3, 1, 2) if first_bands else x).reshape(-1)
    flat = (
        flat.view(torch.int16) if flat.dtype == torch.uint16 else flat
    )  # torch indexes no uint16, but its bits
    missing, run = -work.bands % work.group, run_of_tokens(work)
    flat = flat.view(-1, run) if run > 1 else flat
    positions = _positions(work, [step // run for step in x.stride()], run, len(flat))
    groups = torch.arange(work.groups, device=device).repeat_interleave(work.space)
    mean, scale = (None if v is None else by_value(work, v.to(wide)) for v in (work.mean, work.scale))
    tokens, side = torch.empty(2, most, work.values, dtype=wide, device=device)
    taken = tokens if flat.dtype == wide else flat.new_empty(tokens.shape)

    def gather(sample: Tensor, token: Tensor) -> Tensor:
        m, of_group = len(token), groups.index_select(0, token)
        u: Tensor = tokens[:m]
        out = taken[:m].view(-1, run) if run > 1 else taken[:m].view(-1)
        torch.index_select(flat, 0, positions(sample, token), out=out)
        if flat.dtype != wide:
            u.copy_(taken[:m].view(x.dtype))
        for table, apply in ((mean, u.sub_), (scale, u.mul_)):
            if table is not None:
                apply(torch.index_select(table, 0, of_group, out=side[:m]))
        if missing:
            short = (of_group == work.groups - 1).nonzero().squeeze(1)
            by_band = u.view(m, work.group, -1) if first_bands else u.view(m, -1, work.group).mT
            by_band[short, work.group - missing :] = 0
        return u

    return gather


def _positions(work: Work, strides: list[int], run: int, count: int) -> Callable[[Tensor, Tensor], Tensor]:
    """Return ``positions(sample, token)``: where the runs of values of tokens lie, one list for all (m r,).

    Lists for the tokens of one sample are made here, so that calls only look up and add. ``strides`` are
    those of x in runs, of which there are ``count``.
    """
    device, patch, space = work.x.device, work.patch, work.space
    whole = torch.int32 if count < 2**31 else torch.int64
    lead = bands_first(work)
    # with bands first a run is a row of a token
    across = torch.arange(work.wide if lead else work.wide * patch, device=device)
    side = torch.arange(work.high * patch, device=device), across
    down, right = strides[1:3] if work.centres is None else (work.window, 1)
    image = (side[0] * down).unsqueeze(1) + side[1] * (1 if lead else right)
    image = image.view(work.high, patch, work.wide, -1).transpose(1, 2).reshape(space, -1)  # (S, runs)
    bands = torch.arange(work.groups * (work.group if lead else work.group // run), device=device)
    bands = bands.clamp(max=work.bands - 1) * (strides[-1] if lead or run == 1 else 1)
    bands = bands.view(work.groups, -1).to(whole)  # (G, group or group / run)
    if work.centres is None:
        by_band, by_run = ((-1, 1), (1, -1)) if lead else ((1, -1), (-1, 1))
        listed = bands.view(work.groups, 1, *by_band) + image.to(whole).view(1, space, *by_run)
        listed = listed.reshape(work.groups * space, -1)
        offsets = (torch.arange(work.batch, device=device) * strides[0]).to(whole)
        return lambda sample, token: listed.index_select(0, token).add_(offsets[sample].unsqueeze(1)).view(-1)
    row, col = _mirrored(work, slice(None), *side)
    pixels = ((row * strides[0]).unsqueeze(2) + (col * strides[1]).unsqueeze(1)).to(whole).view(-1)

    def in_cube(sample: Tensor, token: Tensor) -> Tensor:
        group = token // space
        at = image.index_select(0, token - group * space) + (sample * work.window**2).unsqueeze(1)
        at = pixels.index_select(0, at.view(-1)).view(len(token), -1, 1)
        return (at + bands.index_select(0, group).unsqueeze(1)).view(-1)

    return in_cube


def _samples(work: Work, first: int, last: int) -> Tensor:
    """Return raw values (n, H, W, C) of samples ``first`` ... ``last`` - 1."""
    if work.centres is None:
        return work.x[first:last]
    cube, side = work.x.contiguous(), torch.arange(work.window, device=work.x.device)
    row, col = _mirrored(work, slice(first, last), side, side)
    pixel = row.unsqueeze(2) * cube.shape[1] + col.unsqueeze(1)  # (n, window, window)
    bits = cube.view(torch.int16) if cube.dtype == torch.uint16 else cube
    cut = bits.view(-1, work.bands).index_select(0, pixel.view(-1)).view(cube.dtype)
    return cut.view(*pixel.shape, work.bands)


def _mirrored(work: Work, sample: Tensor | slice, row: Tensor, col: Tensor) -> tuple[Tensor, Tensor]:
    """Return rows and columns in the cube, from those in the samples' windows; as `cut_windows` does."""
    assert work.centres is not None
    corner = work.centres[sample] - (work.window - 1) // 2
    row, col = (corner[:, :1] + row).abs(), (corner[:, 1:] + col).abs()
    rows, cols, _ = work.x.shape
    return torch.minimum(row, 2 * (rows - 1) - row), torch.minimum(col, 2 * (cols - 1) - col)


def by_value(work: Work, by_band: Tensor) -> Tensor:
    """Return (G, K) from (C,): each group's bands, once for every pixel of a token."""
    by_group = F.pad(by_band, (0, -work.bands % work.group)).view(work.groups, work.group)
    if bands_first(work):
        return by_group.repeat_interleave(work.patch**2, 1)
    return by_group.repeat(1, work.patch**2)


def _order(sizes: tuple[int, ...], axes: tuple[int, ...], device: torch.device) -> Tensor:
    """Return the positions of an array's values, in the order they have with its axes permuted."""
    count = 1
    for size in sizes:
        count *= size
    return torch.arange(count, device=device).view(sizes).permute(axes).reshape(-1)
