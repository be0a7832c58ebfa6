"""Log-sum-exp and its gradient at once, while exp(S), S = x y^T / temperature, is held.

This is for blocked torch: nothing is computed twice, where `lse` and then `lse_grad` make all similarities in
each. All of exp(S) is held for a batch with itself or its pairs, if it fits, and a few rows of it against a
queue. Rows come in stripes. Each thread takes a stripe at a time and does all operations on it, so that
threads meet a few times in all, and not at every operation.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from hsssl_kernels.checks import compute_dtype, log_dtype
from hsssl_kernels.lse.blocked import is_safe, lse_blocked, lse_grad_blocked
from hsssl_kernels.lse.tiles import leave_out
from hsssl_kernels.parallel import run_apart

__all__ = [
    "fits_at_once",
    "pair_lse_with_grad_held",
    "queue_lse_with_grad_blocked",
    "self_lse_with_grad_held",
]

# The most similarities of a batch.
_MOST = 2**24
# Rows of a stripe. Up to _SMALL in all are one, and threads share its operations: handing over takes as long.
_HEIGHT, _SMALL = 256, 512
# Similarities of a stripe that is not kept.
_STRIPE = 2**21


def fits_at_once(n: int, m: int) -> bool:
    """Return whether n m similarities may be held at once."""
    return n * m <= _MOST


def self_lse_with_grad_held(x: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """Return the log-sum-exp of each row (n,) without itself and its partner, and (P + P^T - 2 I') x (n, D).

    ``P_ij = exp(S_ij) / sum_(k != i) exp(S_ik)`` for j != i, the partner's share among them, and I' picks
    the partner of a row, n / 2 rows on. With E = exp(S) and u one over those sums,
    ``P_ij + P_ji = E_ij (u_i + u_j)``. S is symmetric, and stripes of E begin on the diagonal: n^2 D
    operations for the similarities and 2 n^2 D for the gradient.
    """
    x = x.detach().to(compute_dtype(x))
    if not is_safe(x, x, scale):
        return _self_lse_then_grad(x, scale)
    half, parts, root = len(x) // 2, _stripes(len(x)), x * scale**0.5
    stripes = [x.new_empty(0)] * len(parts)
    others, positive, below = x.new_empty(len(x)), x.new_empty(half), x.new_zeros(len(parts), len(x))

    def fill(k: int, rows: slice) -> None:
        stripe = (root[rows] @ root[rows.start :].T).exp_()  # (r, n - first)
        pairs = stripe.diagonal(half)
        positive[rows.start : rows.start + len(pairs)] = pairs
        leave_out(stripe, rows.start, rows.start, 0, half, 0.0)
        torch.sum(stripe, 1, out=others[rows])
        torch.sum(stripe[:, len(stripe) :], 0, out=below[k, rows.stop :])
        stripes[k] = stripe

    _for_each(parts, fill, x)
    others += below.sum(0)
    weight = 1 / (others + positive.repeat(2))
    # P - 1 of a positive is minus the share of the others, in which nothing cancels
    grad = _pull_of_partners(x, others * weight)

    def weigh(k: int, rows: slice) -> None:
        stripes[k].mul_(weight[rows, None] + weight[rows.start :])

    def multiply(k: int, rows: slice) -> None:
        own = grad[rows].addmm_(stripes[k], x[rows.start :])
        for stripe, above in zip(stripes[:k], parts, strict=False):
            columns = slice(rows.start - above.start, rows.stop - above.start)
            own.addmm_(stripe[:, columns].T, x[above])

    _for_each(parts, weigh, x)
    _for_each(parts, multiply, x)
    return others.to(log_dtype(x)).log(), grad


def pair_lse_with_grad_held(x: Tensor, y: Tensor, scale: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return log-sum-exps over rows and columns (n,) without S_ii, W y (n, D) and W^T x (n, D).

    ``W = (P + Q) / 2 - I`` with shares P of a row and Q of a column, S_ii among them. With E = exp(S) and
    u, v half of one over the sums of rows and columns, ``W_ij = E_ij (u_i + v_j)`` for i != j: 2 n^2 D
    operations for the similarities and 4 n^2 D for the gradients.
    """
    x, y = (z.detach().to(compute_dtype(z)) for z in (x, y))
    if not is_safe(x, y, scale):
        return _pair_lse_then_grad(x, y, scale)
    parts, left = _stripes(len(x)), x * scale
    e, positive = x.new_empty(len(x), len(x)), x.new_empty(len(x))
    over_rows, below = x.new_empty(len(x)), x.new_empty(len(parts), len(x))

    def fill(k: int, rows: slice) -> None:
        stripe = torch.mm(left[rows], y.T, out=e[rows]).exp_()
        pairs = stripe.diagonal(rows.start)
        positive[rows] = pairs
        pairs.zero_()
        torch.sum(stripe, 1, out=over_rows[rows])
        torch.sum(stripe, 0, out=below[k])

    _for_each(parts, fill, x)
    over_columns = below.sum(0)
    u, v = 0.5 / (over_rows + positive), 0.5 / (over_columns + positive)
    # W_ii is minus the shares of all others, in which nothing cancels
    pull = (over_rows * u + over_columns * v).unsqueeze(1)
    dx, dy = y * -pull, x * -pull

    def by_rows(_: int, rows: slice) -> None:
        dx[rows].addmm_(e[rows].mul_(u[rows, None] + v), y)

    def by_columns(_: int, columns: slice) -> None:
        dy[columns].addmm_(e[:, columns].T, x)

    _for_each(parts, by_rows, x)
    _for_each(parts, by_columns, x)
    return *(s.to(log_dtype(x)).log() for s in (over_rows, over_columns)), dx, dy  # type: ignore[return-value]


def queue_lse_with_grad_blocked(x: Tensor, y: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """Return the log-sum-exp of each row (n,) and P y (n, D), for ``P_ij = exp(S_ij) / sum_k exp(S_ik)``.

    A stripe of S at a time is held by each thread, so there may be any number of rows and columns.
    """
    x, y = (z.detach().to(compute_dtype(z)) for z in (x, y))
    safe, left = is_safe(x, y, scale), x * scale
    log, grad = x.new_empty(len(x), dtype=log_dtype(x)), torch.empty_like(x)

    def fill(_: int, rows: slice) -> None:
        stripe = left[rows] @ y.T  # (r, m)
        top = torch.zeros_like(stripe[:, :1]) if safe else stripe.amax(1, keepdim=True)
        total = (stripe if safe else stripe.sub_(top)).exp_().sum(1, keepdim=True)
        log[rows] = (total.to(log.dtype).log() + top).squeeze(1)
        torch.mm(stripe, y, out=grad[rows]).div_(total)

    _for_each(_stripes(len(x), max(16, _STRIPE // len(y))), fill, x)
    return log, grad


def _stripes(n: int, most: int = _SMALL) -> list[slice]:
    """Return the rows of each stripe, ``most`` at most."""
    height = n if n <= min(most, _SMALL) else min(most, _HEIGHT)
    return [slice(i, min(i + height, n)) for i in range(0, n, height)]


def _for_each(parts: list[slice], work: Callable[[int, slice], None], x: Tensor) -> None:
    """Call ``work`` with the number and the rows of every stripe, in threads on a CPU."""

    def those(numbers: slice) -> None:
        for k in range(numbers.start, numbers.stop):
            work(k, parts[k])

    # other threads would not use a GPU's current stream
    threads = torch.get_num_threads() if x.device.type == "cpu" else 1
    run_apart(those, [slice(k, k + 1) for k in range(len(parts))], threads)


def _self_lse_then_grad(x: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """Return what `self_lse_with_grad_held` does, where exp(S) may overflow."""
    half = len(x) // 2
    others, _ = lse_blocked(x, x, scale, 0, half, False)
    positive = scale * (x * x.roll(half, 0)).sum(1)
    side = torch.logaddexp(others, positive), torch.ones_like(others)
    grad, _ = lse_grad_blocked(x, x, scale, side, side, 0, half, False)
    return others, grad.add_(_pull_of_partners(x, (others - positive).sigmoid().to(x.dtype)))


def _pull_of_partners(x: Tensor, pull: Tensor) -> Tensor:
    """Return what shares q (n,) make of the rows' partners, -(q_i + q_i') x_i' (n, D)."""
    half = len(x) // 2
    return x.roll(half, 0) * -(pull + pull.roll(half, 0)).unsqueeze(1)


def _pair_lse_then_grad(x: Tensor, y: Tensor, scale: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return what `pair_lse_with_grad_held` does, where exp(S) may overflow."""
    over_rows, over_columns = lse_blocked(x, y, scale, 0, 0, True)
    positive = scale * (x * y).sum(1)
    share = torch.full_like(over_rows, 0.5)
    sides = [(torch.logaddexp(others, positive), share) for others in (over_rows, over_columns)]
    dx, dy = lse_grad_blocked(x, y, scale, sides[0], sides[1], 0, 0, True)
    pull = (over_rows - positive).sigmoid() + (over_columns - positive).sigmoid()
    pull = (0.5 * pull).to(x.dtype).unsqueeze(1)
    return over_rows, over_columns, dx.sub_(pull * y), dy.sub_(pull * x)
