"""Log-sum-exp and its gradient in plain torch, tile by tile: O(n D) memory on any device.

The whole matrix S = x y^T / temperature is visited in tiles that stay in the cache. Where x is y
and S is therefore symmetric, only tiles on and above the diagonal are computed: each serves its
rows and, transposed, its columns. Forward and backward then take 2 n^2 D operations for the
similarities and 2 n^2 D for the gradient, against 6 n^2 D with the matrix stored.
"""

from __future__ import annotations

import torch
from torch import Tensor

from hsssl_kernels.checks import compute_dtype, log_dtype
from hsssl_kernels.lse.tiles import leave_out, same, similarity, tiles

__all__ = ["is_safe", "lse_blocked", "lse_grad_blocked", "lse_with_grad_blocked"]

# Rows and columns of a tile. A quarter of it is some 10 % faster on idle cores, but then the threads wait for
# each other so often that a busy machine takes ten times as long.
_TILE = 2048
_STRIPE = 2**23  # values of S held at once where whole rows are
# Up to here exp(S) neither overflows nor vanishes, so no maximum need be taken off first; the
# distance to the limits (88 and 709) leaves room for sums over any number of columns.
_SAFE = {torch.float32: 60.0, torch.float64: 600.0}


def lse_blocked(
    x: Tensor,
    y: Tensor,
    scale: float,
    self_offset: int,
    half: int,
    columns: bool,
    labels: tuple[Tensor, ...] = (),
) -> tuple[Tensor, Tensor]:
    """Return log-sum-exp over rows (n,) and, where ``columns``, over columns (m,), else (0,).

    Parameters
    ----------
    x, y : Tensor, shapes (n, D) and (m, D)
        Rows and columns of the similarity matrix.
    scale : float
        1 / temperature.
    self_offset : int
        Entry (i, i + self_offset) is left out; -1 leaves nothing out.
    half : int
        Where above 0, the entries of partners are left out too: see `leave_out`.
    columns : bool
        Whether the sums over columns are wanted too.
    labels : tuple of Tensor, shapes (n,) and (m,)
        Entries of equal labels, which may take nearly all of a row, are summed apart and in float64: the
        others keep their digits. Not with ``columns``.
    """
    triangle = not columns and self_offset == 0 and same(x, y)
    x, y = x.to(compute_dtype(x)), y.to(compute_dtype(x))
    safe = is_safe(x, y, scale)
    gone = 0.0 if safe else float("-inf")
    kept = x.dtype if safe else log_dtype(x)  # logarithms are never rounded to float32, sums of them may be
    over_rows = x.new_full((len(x),), gone, dtype=kept)
    over_columns = over_rows if triangle else x.new_full((len(y) if columns else 0,), gone, dtype=kept)
    near = x.new_full((len(x),), float("-inf"), dtype=log_dtype(x))
    (left, right), scratch = _scaled(x, y, scale), _scratch(x, y)
    for rows, cols in tiles(len(x), len(y), triangle, _side(labels)):
        tile = similarity(left[rows], right[cols], scratch)  # (r, c)
        if labels:
            alike = labels[0][rows, None] == labels[1][cols]
            leave_out(alike, rows.start, cols.start, self_offset, half, False)
            near[rows] = torch.logaddexp(near[rows], _log_sum_of(tile, alike))
            if triangle and rows != cols:
                near[cols] = torch.logaddexp(near[cols], _log_sum_of(tile.T, alike.T))
            tile.masked_fill_(alike, float("-inf"))
        if safe:
            tile.exp_()
        leave_out(tile, rows.start, cols.start, self_offset, half, gone)
        _add(over_rows[rows], tile, 1, safe)
        if columns or (triangle and rows != cols):
            _add(over_columns[cols], tile, 0, safe)
    over_rows, over_columns = over_rows.to(log_dtype(x)), over_columns.to(log_dtype(x))
    if safe:
        over_rows, over_columns = over_rows.log(), over_columns.log()
    over_rows = torch.logaddexp(over_rows, near) if labels else over_rows
    return over_rows, x.new_empty(0) if triangle else over_columns


def lse_grad_blocked(
    x: Tensor,
    y: Tensor,
    scale: float,
    x_side: tuple[Tensor, Tensor],
    y_side: tuple[Tensor, Tensor],
    self_offset: int,
    half: int,
    both: bool,
    positives: tuple[Tensor, ...] = (),
) -> tuple[Tensor, Tensor]:
    """Return W y (n, D) and, where ``both``, W^T x (m, D), else (0, D).

    ``W_ij = a_i exp(S_ij - r_i) + b_j exp(S_ij - c_j)`` with ``x_side = (r, a)`` and
    ``y_side = (c, b)``; a side that takes no part has log-sum-exp inf and weight 0. Entries are
    left out as by `lse_blocked`. With ``positives``, the labels (n,) and (m,) and the pulls (n,) and
    (m,) of both sides, ``W_ij`` loses both its pulls where the labels are equal: inside the sum and in
    float64, so that a share of nearly 1 costs the others no digits.
    """
    symmetric = same(x, y) and same(x_side[0], y_side[0]) and same(x_side[1], y_side[1])
    triangle = not both and self_offset == 0 and symmetric
    x, y = x.to(compute_dtype(x)), y.to(compute_dtype(x))
    safe = is_safe(x, y, scale)
    # W factorises where it is safe: exp(S) (u_i + v_j), with no reference value r, c inside
    (r, u), (c, v) = (_split(*side, x.dtype, safe) for side in (x_side, y_side))
    dx = torch.zeros_like(x)
    dy = dx if triangle else x.new_zeros(len(y) if both else 0, x.shape[1])
    (left, right), scratch, spare = _scaled(x, y, scale), _scratch(x, y), _scratch(x, y)
    for rows, cols in tiles(len(x), len(y), triangle, _side(positives)):
        tile = similarity(left[rows], right[cols], scratch)  # (r, c)
        other = spare[: tile.numel()].view_as(tile)
        pulled = _pulled(tile, rows, cols, x_side, y_side, positives) if positives else None
        if safe:
            tile.exp_().mul_(torch.add(u[rows, None], v[cols], out=other))
        else:
            torch.sub(tile, c[cols], out=other).exp_().mul_(v[cols])
            tile.sub_(r[rows, None]).exp_().mul_(u[rows, None]).add_(other)
        if pulled:
            tile[pulled[0]] = pulled[1]
        leave_out(tile, rows.start, cols.start, self_offset, half, 0.0)
        dx[rows].addmm_(tile, y[cols])
        if both or (triangle and rows != cols):
            dy[cols].addmm_(tile.T, x[rows])
    return dx, x.new_empty(0, x.shape[1]) if triangle else dy


def lse_with_grad_blocked(x: Tensor, y: Tensor, scale: float) -> tuple[Tensor, Tensor, Tensor]:
    """Return the log-sum-exp of each row (n,) without S_ii, W y (n, D) and W^T x (m, D).

    ``W = P - I`` with shares ``P_ij = exp(S_ij) / sum_k exp(S_ik)``, the positive's among them.
    Where rows weigh the same, their gradient can be formed while their similarities are at hand:
    three matrix products and one exponential, against four and two for `lse` and then `lse_grad`.
    """
    x, y = x.to(compute_dtype(x)), y.to(compute_dtype(x))
    safe = is_safe(x, y, scale)
    height = max(16, min(512, len(x), _STRIPE // len(y)))
    log = x.new_empty(len(x), dtype=log_dtype(x))
    dx, dy, scratch = torch.empty_like(x), torch.zeros_like(y), x.new_empty(height * len(y))
    left, right = _scaled(x, y, scale)
    for first in range(0, len(x), height):
        rows = slice(first, first + height)
        stripe = similarity(left[rows], right, scratch)  # (r, m)
        top = torch.zeros_like(stripe[:, :1]) if safe else stripe.amax(1, keepdim=True)
        share = (stripe if safe else stripe.sub_(top)).exp_()
        # P_ii - 1 is minus the sum of the others, in which nothing cancels
        positive = share.diagonal(first).clone()
        share.diagonal(first).zero_()
        others = share.sum(1)
        share.diagonal(first).copy_(others).neg_()
        total = (others + positive).unsqueeze(1)
        log[rows] = others.to(log.dtype).log() + top.squeeze(1)
        torch.mm(share, y, out=dx[rows]).div_(total)
        dy.addmm_(share.T, x[rows] / total)
    return log, dx, dy


def is_safe(x: Tensor, y: Tensor, scale: float) -> bool:
    """Return whether exp(S) is sure not to overflow."""
    largest = x.square().sum(1).amax().sqrt() * y.square().sum(1).amax().sqrt()
    return float(largest) * scale <= _SAFE[x.dtype]


def _pulled(
    tile: Tensor,
    rows: slice,
    cols: slice,
    x_side: tuple[Tensor, Tensor],
    y_side: tuple[Tensor, Tensor],
    positives: tuple[Tensor, ...],
) -> tuple[tuple[Tensor, Tensor], Tensor]:
    """Return where labels are equal in a tile of S, as indices, and W there."""
    x_label, y_label, x_pull, y_pull = positives
    i, j = (x_label[rows, None] == y_label[cols]).nonzero(as_tuple=True)
    s = tile[i, j].to(x_side[0].dtype)
    held = torch.zeros_like(s)
    for (log, weight), pull, part, at in ((x_side, x_pull, rows, i), (y_side, y_pull, cols, j)):
        held += weight[part][at] * (s - log[part][at]).exp() - pull[part][at]
    return (i, j), held.to(tile.dtype)


def _log_sum_of(tile: Tensor, chosen: Tensor) -> Tensor:
    """Return the log-sum-exp over each row's chosen entries (r,), in float64; -inf where there are none."""
    counts = chosen.sum(1)
    s = tile[chosen].to(log_dtype(tile))
    top = torch.segment_reduce(s, "max", lengths=counts)
    share = (s - top.repeat_interleave(counts)).exp_()
    return torch.segment_reduce(share, "sum", lengths=counts).log() + top


def _side(labels: tuple[Tensor, ...]) -> int:
    """Return the side of a tile: a smaller one where entries are picked by labels, which takes indices."""
    return _TILE // 4 if labels else _TILE


def _scaled(x: Tensor, y: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """Return both sides times the root of the scale: S_ij and S_ji then have the same bits where x is y."""
    left = x * scale**0.5
    return left, left if same(x, y) else y * scale**0.5


def _scratch(x: Tensor, y: Tensor) -> Tensor:
    return x.new_empty(min(_TILE, len(x)) * min(_TILE, len(y)))


def _add(total: Tensor, tile: Tensor, dim: int, safe: bool) -> None:
    """Take the tile into running sums, or into running logarithms of sums, in place."""
    if safe:
        total += tile.sum(dim)
    else:
        top = tile.amax(dim, keepdim=True).clamp_(min=torch.finfo(tile.dtype).min)  # all may be left out
        found = (tile - top).exp_().sum(dim).to(total.dtype).log() + top.squeeze(dim)
        torch.logaddexp(total, found, out=total)


def _split(log: Tensor, weight: Tensor, dtype: torch.dtype, safe: bool) -> tuple[Tensor, Tensor]:
    """Return a rounded reference r and ``weight exp(r - log)``; r is 0 where that is safe."""
    reference = torch.zeros_like(log) if safe else log.to(dtype).to(log.dtype)
    factor = torch.where(log == float("inf"), 0.0, weight * (reference - log).exp())
    return reference.to(dtype), factor.to(dtype)
