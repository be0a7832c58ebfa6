"""Log-sum-exp of a batch's similarities with itself and its gradient at once, while all are held.

Rows of S = x x^T / temperature are made in stripes, from the diagonal on: S is symmetric. Each thread takes a
stripe at a time and does all operations on it, so that threads meet three times in all. This takes n^2 D
operations for the similarities and 2 n^2 D for the gradient, against twice n^2 D and 2 n^2 D for `lse`
and then `lse_grad`.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from hsssl_kernels.checks import compute_dtype, log_dtype
from hsssl_kernels.lse.blocked import is_safe, lse_blocked, lse_grad_blocked
from hsssl_kernels.lse.tiles import leave_out
from hsssl_kernels.parallel import run_apart

__all__ = ["fits_at_once", "self_lse_with_grad_held"]

# The most similarities of a batch, of which about half are held; and rows of a stripe.
_MOST = 2**24
_HEIGHT = 256


def fits_at_once(n: int) -> bool:
    """Return whether the similarities of n rows may be held at once, as `self_lse_with_grad` does."""
    return n * n <= _MOST


def self_lse_with_grad_held(x: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """Return the log-sum-exp of each row (n,) without itself and its partner, and (P + P^T - 2 I') x (n, D).

    ``P_ij = exp(S_ij) / sum_(k != i) exp(S_ik)`` for j != i, the partner's share among them, and I' picks
    the partner of a row, n / 2 rows on. With E = exp(S) and u one over those sums,
    ``P_ij + P_ji = E_ij (u_i + u_j)``.
    """
    x = x.detach().to(compute_dtype(x))
    if not is_safe(x, x, scale):
        return _self_lse_then_grad(x, scale)
    others, positive, stripes = _sums_and_stripes(x, scale)
    weight = 1 / (others + positive)
    # P - 1 of a positive is minus the share of the others, in which nothing cancels
    grad = _pull_of_partners(x, others * weight)

    def weigh(k: int, rows: slice) -> None:
        stripes[k].mul_(weight[rows, None] + weight[rows.start :])

    def multiply(k: int, rows: slice) -> None:
        own = grad[rows].addmm_(stripes[k], x[rows.start :])
        for above in range(k):
            first = above * _HEIGHT
            columns = slice(rows.start - first, rows.stop - first)
            own.addmm_(stripes[above][:, columns].T, x[first : first + _HEIGHT])

    _for_each_stripe(weigh, x)
    _for_each_stripe(multiply, x)
    return others.to(log_dtype(x)).log(), grad


def _sums_and_stripes(x: Tensor, scale: float) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Return sums of E over all but a row and its partner (n,), E of the partners (n,), and stripes of E.

    A stripe (r, n - first) begins on the diagonal. Entries of rows with themselves and their partners are 0.
    """
    half, count, root = len(x) // 2, -(-len(x) // _HEIGHT), x * scale**0.5
    stripes = [x.new_empty(0)] * count
    over_rows, positive = x.new_empty(len(x)), x.new_empty(half)
    below = x.new_zeros(count, len(x))

    def fill(k: int, rows: slice) -> None:
        stripe = (root[rows] @ root[rows.start :].T).exp_()
        pairs = stripe.diagonal(half)
        positive[rows.start : rows.start + len(pairs)] = pairs
        leave_out(stripe, rows.start, rows.start, 0, half, 0.0)
        torch.sum(stripe, 1, out=over_rows[rows])
        torch.sum(stripe[:, _HEIGHT:], 0, out=below[k, rows.stop :])
        stripes[k] = stripe

    _for_each_stripe(fill, x)
    return over_rows + below.sum(0), positive.repeat(2), stripes


def _for_each_stripe(part: Callable[[int, slice], None], x: Tensor) -> None:
    """Call ``part`` with the number and the rows of every stripe, in threads on a CPU."""
    rows = [slice(i, min(i + _HEIGHT, len(x))) for i in range(0, len(x), _HEIGHT)]

    def those(numbers: slice) -> None:
        for k in range(numbers.start, numbers.stop):
            part(k, rows[k])

    # other threads would not use a GPU's current stream
    threads = torch.get_num_threads() if x.device.type == "cpu" else 1
    run_apart(those, [slice(k, k + 1) for k in range(len(rows))], threads)


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
