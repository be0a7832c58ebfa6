"""Normalised values of tokens side by side, in plain torch: of whole samples, or of single tokens."""

from __future__ import annotations

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from hsssl_kernels.spectral_patch_embed.reference import cut_windows
from hsssl_kernels.spectral_patch_embed.work import Work

__all__ = ["gather_samples", "gather_tokens", "in_one_piece"]

# Values of a sample up to which all of its tokens are gathered through one list of positions, four times as
# fast as a permuted copy; beyond that the list itself leaves the cache.
_LISTED = 2**16


def in_one_piece(work: Work) -> Work:
    """Return the work with x without gaps in memory, so that positions in it can be counted."""
    x = work.x
    bands_first = x.ndim == 4 and x.permute(0, 3, 1, 2).is_contiguous()
    return work if bands_first else work._replace(x=x.contiguous())


def gather_samples(work: Work, first: int, last: int, wide: torch.dtype) -> Tensor:
    """Return all tokens (n, G, S, K) of samples ``first`` ... ``last`` - 1."""
    if work.centres is None:
        x = work.x[first:last]
    else:
        x = cut_windows(work.x, work.centres[first:last], work.window)
    x = x.to(wide, copy=work.mean is not None or work.scale is not None)  # (n, H, W, C)
    if work.mean is not None:
        x -= work.mean.to(wide)
    if work.scale is not None:
        x *= work.scale.to(wide)
    patch, group, groups = work.patch, work.group, work.groups
    sizes = (work.high, patch, work.wide, patch)
    shape = (len(x), groups, work.space, work.values)
    if x.permute(0, 3, 1, 2).is_contiguous():
        x = x.permute(0, 3, 1, 2)
        x = F.pad(x, (0, 0, 0, 0, 0, -work.bands % group)) if work.bands % group else x
        order = _order((group, *sizes), (1, 3, 2, 4, 0), x.device)
        return x.reshape(-1, len(order)).index_select(1, order).view(shape)
    x = F.pad(x, (0, -work.bands % group)) if work.bands % group else x  # it copies even by nothing
    if x[0].numel() <= _LISTED:
        order = _order((*sizes, groups, group), (4, 0, 2, 1, 3, 5), x.device)
        return x.view(-1, len(order)).index_select(1, order).view(shape)
    x = x.view(-1, *sizes, groups, group)
    return x.permute(0, 5, 1, 3, 2, 4, 6).reshape(shape)


def gather_tokens(work: Work, sample: Tensor, token: Tensor, wide: torch.dtype) -> Tensor:
    """Return tokens (m, K), each from its sample; x is in one piece."""
    x = work.x
    flat = (x.permute(0, 3, 1, 2) if x.ndim == 4 and not x.is_contiguous() else x).reshape(-1)
    pixel, last = _pixels(work, sample, token % work.space), work.bands - 1
    of_group = token // work.space
    bands = torch.arange(work.groups * work.group, device=x.device).clamp(max=last).view(work.groups, -1)
    at = pixel.unsqueeze(2) + (bands * x.stride(-1))[of_group].unsqueeze(1)  # (m, patch patch, group)
    u = _take(flat, at.view(-1)).to(wide).view(len(token), work.values)
    if work.mean is not None:
        u -= _by_value(work, work.mean.to(wide))[of_group]
    if work.scale is not None:
        u *= _by_value(work, work.scale.to(wide))[of_group]
    filled = work.bands % work.group
    if filled:
        short = (of_group == work.groups - 1).nonzero().squeeze(1)
        u.view(-1, work.patch**2, work.group)[short, :, filled:] = 0
    return u


def _pixels(work: Work, sample: Tensor, place: Tensor) -> Tensor:
    """Return where the pixels (m, patch patch) of tokens lie in x, as offsets of their first bands."""
    x, patch = work.x, work.patch
    reach = torch.arange(patch, device=x.device)
    row = (place // work.wide * patch).unsqueeze(1) + reach  # (m, patch)
    col = (place % work.wide * patch).unsqueeze(1) + reach
    if work.centres is None:
        row = sample.unsqueeze(1) * x.stride(0) + row * x.stride(1)
        col = col * x.stride(2)
    else:
        corner = work.centres[sample] - (work.window - 1) // 2
        row, col = (corner[:, :1] + row).abs(), (corner[:, 1:] + col).abs()
        # mirrored at the border as in `cut_windows`
        row = torch.minimum(row, 2 * (x.shape[0] - 1) - row) * x.stride(0)
        col = torch.minimum(col, 2 * (x.shape[1] - 1) - col) * x.stride(1)
    return (row.unsqueeze(2) + col.unsqueeze(1)).flatten(1)


def _by_value(work: Work, by_band: Tensor) -> Tensor:
    """Return (G, K) from (C,): each group's bands, once for every pixel of a token."""
    by_group = F.pad(by_band, (0, -work.bands % work.group)).view(work.groups, work.group)
    return by_group.repeat(1, work.patch**2)


def _take(flat: Tensor, at: Tensor) -> Tensor:
    """Return flat[at]; torch is fastest at floats by one function and at integers by another."""
    if flat.is_floating_point():
        return flat.index_select(0, at)
    signed = flat.view(torch.int16) if flat.dtype == torch.uint16 else flat
    return signed.gather(0, at).view(flat.dtype)


@cache
def _order(sizes: tuple[int, ...], axes: tuple[int, ...], device: torch.device) -> Tensor:
    """Return the positions of an array's values, in the order they have with its axes permuted."""
    count = 1
    for size in sizes:
        count *= size
    return torch.arange(count, device=device).view(sizes).permute(axes).reshape(-1)
