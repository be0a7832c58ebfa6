"""Self-expression in plain torch, tile by tile: O((n + m) (D + F)) memory on any device.

Coefficients are visited in tiles that stay near the cache. Backward forms each tile once more and takes
all gradients from it: five matrix products a tile, against two sweeps of a kernel that owns rows.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from hsssl_kernels.checks import compute_dtype

__all__ = ["express_blocked", "express_grad_blocked", "top_blocked"]

_ROWS, _COLUMNS = 1024, 2048
# selecting the largest of many at once costs less than of few at a time
_TOP_ROWS, _TOP_COLUMNS = 256, 16384


def express_blocked(
    query: Tensor, key: Tensor, x: Tensor, threshold: Tensor, own: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return C x (n, F), and the sums of |c| and c^2 over each row (n,), in the dtype computed in."""
    dtype, limit = compute_dtype(query), float(threshold)
    query, key, x = (t.to(dtype) for t in (query, key, x))
    out = query.new_zeros(len(query), x.shape[1])
    l1, l2 = query.new_zeros(len(query)), query.new_zeros(len(query))
    for rows, columns in _tiles(len(query), len(key)):
        c = _coefficients(query[rows], key[columns], limit, own[rows], columns)  # (r, c)
        out[rows].addmm_(c, x[columns])
        l1[rows] += c.abs().sum(1)
        l2[rows] += c.square().sum(1)
    return out, l1, l2


def express_grad_blocked(
    query: Tensor,
    key: Tensor,
    x: Tensor,
    threshold: Tensor,
    own: Tensor,
    gradient: Tensor,
    weight: Tensor,
    by_x: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the gradients by query (n, D), key (m, D), x (m, F) or (0, F), and the threshold ().

    ``gradient`` (n, F) is that of C x, ``weight`` (2, n) those of both sums.
    """
    dtype, limit = compute_dtype(query), float(threshold)
    query, key, x, gradient, weight = (t.to(dtype) for t in (query, key, x, gradient, weight))
    by_query, by_key = torch.zeros_like(query), torch.zeros_like(key)
    by_value = x.new_zeros(len(x) if by_x else 0, x.shape[1])
    by_threshold = query.new_zeros(())
    for rows, columns in _tiles(len(query), len(key)):
        c = _coefficients(query[rows], key[columns], limit, own[rows], columns)
        sign = c.sign()
        slope = gradient[rows] @ x[columns].T
        slope.addcmul_(sign, weight[0, rows, None]).addcmul_(c, weight[1, rows, None], value=2)
        slope *= sign.abs()  # nothing moves a coefficient that is cut to 0
        by_query[rows].addmm_(slope, key[columns])
        by_key[columns].addmm_(slope.T, query[rows])
        by_threshold -= (slope * sign).sum()
        if by_x:
            by_value[columns].addmm_(c.T, gradient[rows])
    return by_query, by_key, by_value, by_threshold


def top_blocked(
    query: Tensor, key: Tensor, threshold: Tensor, own: Tensor, neighbours: int
) -> tuple[Tensor, Tensor]:
    """Return columns (n, t) int64 and values (n, t) of the largest |c_ij|; -1 and 0 where none is left."""
    dtype, limit = compute_dtype(query), float(threshold)
    query, key = query.to(dtype), key.to(dtype)
    index = own.new_full((len(query), neighbours), -1)
    value = query.new_zeros(len(query), neighbours)
    for first in range(0, len(query), _TOP_ROWS):
        rows = slice(first, first + _TOP_ROWS)
        for start in range(0, len(key), _TOP_COLUMNS):
            columns = slice(start, start + _TOP_COLUMNS)
            c = _coefficients(query[rows], key[columns], limit, own[rows], columns)
            at = c.abs().topk(min(neighbours, c.shape[1]), 1).indices
            found, place = (
                torch.cat([value[rows], c.gather(1, at)], 1),
                torch.cat([index[rows], at + start], 1),
            )
            # in rising order of columns before a stable sort: of equals the first column goes first
            order = place.argsort(1)
            found, place = found.gather(1, order), place.gather(1, order)
            order = found.abs().argsort(dim=1, descending=True, stable=True)[:, :neighbours]
            value[rows], index[rows] = found.gather(1, order), place.gather(1, order)
    return index.masked_fill_(value == 0, -1), value


def _tiles(n: int, m: int) -> Iterator[tuple[slice, slice]]:
    for i in range(0, n, _ROWS):
        for j in range(0, m, _COLUMNS):
            yield slice(i, i + _ROWS), slice(j, j + _COLUMNS)


def _coefficients(query: Tensor, key: Tensor, threshold: float, own: Tensor, columns: slice) -> Tensor:
    """Return a tile of coefficients, 0 where a row would express itself."""
    c: Tensor = query @ key.T
    if threshold > 0:
        c = F.softshrink(c, threshold)
    column = own - columns.start
    rows = torch.nonzero((column >= 0) & (column < len(key))).squeeze(1)
    c[rows, column[rows]] = 0
    return c
