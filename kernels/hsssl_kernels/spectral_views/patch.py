"""Where a patch's pixels lie in the scene: mirrored at the border, turned, and with a square cut out."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["inside_cut", "patch_pixels", "view_centres"]


def view_centres(centres: Tensor, shift: Tensor | None, valid: Tensor | None) -> Tensor:
    """Return (n, 2) shifted centres, but those unshifted that would come to lie on an invalid pixel."""
    if shift is None or valid is None:
        return centres if shift is None else centres + shift
    at = centres + shift
    row, col = (_mirror(i, n) for i, n in zip(at.unbind(1), valid.shape, strict=True))
    return torch.where(valid[row, col].unsqueeze(1), at, centres)


def patch_pixels(
    size: torch.Size, centres: Tensor, patch_size: int, symmetry: Tensor | None = None
) -> Tensor:
    """Return (B, P P) int64 flat pixel numbers of the patches, mirrored at the scene's border.

    ``symmetry`` (B, 3) bool says: mirror the rows, mirror the columns, transpose.
    """
    rows, cols = size
    reach = torch.arange(patch_size, device=centres.device) - (patch_size - 1) // 2
    i, j = _mirror(centres[:, :1] + reach, rows), _mirror(centres[:, 1:] + reach, cols)  # (B, P) each
    if symmetry is None:
        return (i.unsqueeze(2) * cols + j.unsqueeze(1)).flatten(1)
    i = torch.where(symmetry[:, 0:1], i.flip(1), i)
    j = torch.where(symmetry[:, 1:2], j.flip(1), j)
    grid = i.unsqueeze(2) * cols + j.unsqueeze(1)  # (B, P, P)
    return torch.where(symmetry[:, 2, None, None], grid.transpose(1, 2), grid).flatten(1)


def _mirror(index: Tensor, size: int) -> Tensor:
    """Reflect indices into 0 ... size - 1 without repeating the edge: -1 is 1, size is size - 2."""
    if size == 1:
        return torch.zeros_like(index)
    period = 2 * (size - 1)
    folded = index.remainder(period)
    return torch.where(folded < size, folded, period - folded)


def inside_cut(cut: Tensor, patch_size: int) -> Tensor:
    """Return (B, P P) bool: True in the cut-out square, but never at the patch's centre."""
    at = torch.arange(patch_size, device=cut.device)
    row = (at >= cut[:, 0:1]) & (at < cut[:, 1:2])
    col = (at >= cut[:, 2:3]) & (at < cut[:, 3:4])
    inside = (row.unsqueeze(2) & col.unsqueeze(1)).flatten(1)
    inside[:, (patch_size - 1) // 2 * (patch_size + 1)] = False
    return inside
