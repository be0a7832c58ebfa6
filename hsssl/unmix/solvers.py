"""Abundances of every pixel for given endmembers: exact constrained least squares, and a sparse variant.

`nnls` and `fcls` follow all pixels' active sets at once. Pixels that share a set of endmembers in use share
one small inverse, so that the work is matrix products; what is returned meets its constraints exactly.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["fcls", "nnls", "sunsal"]

Array = NDArray[np.floating[Any]]
Spectra = Array | Tensor
# Relative to the mean of the Gram matrix's diagonal: a gain below it is rounding.
_TOLERANCE = 1e-11
_RIDGE = 1e-14
# Values held at a time, over all the small matrices of a chunk of pixels.
_CHUNK_VALUES = 2**23


def fcls(pixels: Spectra, endmembers: Spectra) -> Any:
    """Return the fully constrained least-squares abundances: non-negative, of sum one.

    ``a_i = argmin |x_i - a E|^2`` subject to ``a >= 0`` and ``sum(a) = 1``, the exact minimum by a primal
    active-set method. Where several abundances are equally good (identical endmembers), it is one of them.

    Parameters
    ----------
    pixels : ndarray or Tensor, shape (n, bands)
        Spectra without NaN, on any device; computed in float64, which Apple's GPU lacks.
    endmembers : ndarray or Tensor, shape (p, bands)
        In the same unit.

    Returns
    -------
    ndarray or Tensor, shape (n, p)
        As ``pixels``: the same kind, device and floating dtype; without gradient.

    Raises
    ------
    ValueError
        If shapes disagree, something is empty, or a value is not finite.

    References
    ----------
    Heinz and Chang 2001, "Fully constrained least squares linear spectral mixture analysis",
    doi:10.1109/36.911111. Nocedal and Wright 2006, *Numerical Optimization*, algorithm 16.3.

    Examples
    --------
    >>> import numpy as np
    >>> fcls(np.array([[0.25, 0.75], [3.0, 0.0]]), np.eye(2)).round(6).tolist()
    [[0.25, 0.75], [1.0, 0.0]]
    """
    return _by_chunks("fcls", pixels, endmembers, lambda gram, b: _active_set(gram, b, sum_to_one=True))


def nnls(pixels: Spectra, endmembers: Spectra) -> Any:
    """Return the non-negative least-squares abundances, whatever their sum.

    ``a_i = argmin |x_i - a E|^2`` subject to ``a >= 0``; parameters, returns and errors as in `fcls`.

    References
    ----------
    Lawson and Hanson 1974, *Solving Least Squares Problems*, chapter 23.
    Bro and de Jong 1997, "A fast non-negativity-constrained least squares algorithm",
    doi:10.1002/(SICI)1099-128X(199709/10)11:5<393::AID-CEM483>3.0.CO;2-L.

    Examples
    --------
    >>> import numpy as np
    >>> nnls(np.array([[2.0, -1.0]]), np.eye(2)).round(6).tolist()
    [[2.0, 0.0]]
    """

    def solve(gram: Tensor, b: Tensor) -> Tensor:
        # solutions are inversely proportional to an endmember's length: dark and bright ones are one problem
        length = gram.diagonal().sqrt()
        inverse = torch.where(length > 0, 1 / length, 0.0)
        return _active_set(gram * inverse[:, None] * inverse, b * inverse, sum_to_one=False) * inverse

    return _by_chunks("nnls", pixels, endmembers, solve)


def sunsal(
    pixels: Spectra,
    endmembers: Spectra,
    *,
    sparsity: float = 0.0,
    sum_to_one: bool = False,
    iterations: int = 1000,
    tolerance: float = 1e-8,
) -> Any:
    """Return sparse abundances by SUnSAL, the alternating direction method of multipliers.

    ``a_i = argmin 1/2 |x_i - a E|^2 + sparsity |a|_1`` subject to ``a >= 0``, and ``sum(a) = 1`` where asked
    for. For a library of many spectra, from which each pixel needs a few.

    Parameters
    ----------
    pixels, endmembers : ndarray or Tensor, shapes (n, bands) and (p, bands)
        As in `fcls`.
    sparsity : float
        Weight of the L1 norm, in the squared unit of the pixels; at least 0. Without effect on sums of one.
    sum_to_one : bool
        Hold the sum; it then holds to ``tolerance``.
    iterations : int
        At most so many.
    tolerance : float
        Ends when the two copies of the abundances agree, and stand still, to this (root mean square).

    Returns
    -------
    ndarray or Tensor, shape (n, p)
        Non-negative.

    References
    ----------
    Bioucas-Dias and Figueiredo 2010, "Alternating direction algorithms for constrained sparse regression",
    arXiv:1002.4527.
    """
    if not sparsity >= 0 or iterations < 1 or not tolerance > 0:
        raise ValueError(
            f"sunsal: want sparsity >= 0, iterations >= 1 and tolerance > 0, got {sparsity}, {iterations}, "
            f"{tolerance}"
        )

    def solve(gram: Tensor, b: Tensor) -> Tensor:
        return _admm(gram, b, sparsity, sum_to_one, iterations, tolerance)

    return _by_chunks("sunsal", pixels, endmembers, solve)


@torch.no_grad()
def _by_chunks(
    op: str, pixels: Spectra, endmembers: Spectra, solve: Callable[[Tensor, Tensor], Tensor]
) -> Any:
    """Form the Gram matrix and each chunk's products with the endmembers, solve, and return as it came."""
    x = pixels if isinstance(pixels, Tensor) else torch.from_numpy(np.ascontiguousarray(pixels))
    e = endmembers if isinstance(endmembers, Tensor) else torch.from_numpy(np.ascontiguousarray(endmembers))
    if x.ndim != 2 or e.ndim != 2 or x.shape[1] != e.shape[1] or 0 in e.shape:
        raise ValueError(
            f"{op}: want pixels (n, bands) and endmembers (p, bands), got {tuple(x.shape)}, {tuple(e.shape)}"
        )
    e = e.to(x.device, torch.float64)
    out = torch.empty(
        len(x), len(e), dtype=x.dtype if x.is_floating_point() else torch.float64, device=x.device
    )
    gram = e @ e.T
    if not bool(torch.isfinite(gram).all()):
        raise ValueError(f"{op}: endmembers hold NaN or infinity; choose them among measured pixels")
    step = max(1, _CHUNK_VALUES // max(e.shape[1], 2 * len(e) ** 2))
    for start in range(0, len(x), step):
        b = x[start : start + step].to(torch.float64) @ e.T
        if not bool(torch.isfinite(b).all()):
            raise ValueError(f"{op}: pixels hold NaN or infinity; leave out those that were not measured")
        out[start : start + step] = solve(gram, b)
    return out if isinstance(pixels, Tensor) else out.numpy()


def _active_set(gram: Tensor, b: Tensor, *, sum_to_one: bool) -> Tensor:
    """Minimise ``1/2 a G a - b a`` for every row of ``b`` (n, p) over a >= 0, of sum one where asked for.

    From a feasible start, each turn solves the equality problem on the endmembers in use (the passive
    set), goes there as far as all stay positive, and drops those that reach zero; at a minimum it takes in
    the endmember whose gradient promises most, until none does. The objective never rises.
    """
    n, p = b.shape
    scale = gram.diagonal().mean()
    if not scale > 0:  # endmembers of zeros explain nothing: all abundances are equally good
        return torch.full_like(b, 1 / p) if sum_to_one else torch.zeros_like(b)
    gram = gram / scale + _RIDGE * torch.eye(p, dtype=b.dtype, device=b.device)
    b = b / scale
    size = torch.ones_like(b[:, :1])
    if sum_to_one:
        # a constant more in all products changes nothing but how endmembers near zero are conditioned
        gram, b = gram + 1, b + 1
    else:  # solutions are proportional to b: faint pixels and bright ones are one problem
        size = b.abs().amax(1, keepdim=True)
        size = torch.where(size > 0, size, 1.0)
        b = b / size
    a = torch.zeros_like(b)
    passive = torch.zeros(n, p, dtype=torch.bool, device=b.device)
    if sum_to_one:
        first = (gram.diagonal() / 2 - b).argmin(1, keepdim=True)
        a.scatter_(1, first, 1.0)
        passive.scatter_(1, first, True)
    # the last endmember taken in; one that leaves again at once was let in by rounding
    entered = torch.full((n,), -1, device=b.device)
    going = torch.arange(n, device=b.device)
    slack = _TOLERANCE * (1 + b.abs().amax(1))
    for _ in range(10 * p + 10):
        if not len(going):
            break
        at, used, rows = a[going], passive[going], b[going]
        wanted = _on_passive(gram, rows, used, sum_to_one)
        blocked = used & (wanted <= 0)
        share = torch.where(blocked, at / (at - wanted).clamp_min(1e-300), 1.0).clamp(0, 1).amin(1)
        at = at + share[:, None] * (wanted - at)
        leaves = blocked & (at <= 1e-15)
        reached = ~blocked.any(1)
        at = torch.where(used & ~leaves, at.clamp_min(0), 0.0)
        used = used & ~leaves
        last = entered[going]
        bounced = (last >= 0) & leaves.gather(1, last.clamp_min(0)[:, None])[:, 0] & (share == 0)
        steepest, which = _steepest(gram, rows, at, used, sum_to_one)
        takes = reached & (steepest > slack[going])
        used[takes, which[takes]] = True
        entered[going] = torch.where(takes, which, last)
        a[going], passive[going] = at, used
        going = going[~((reached & ~takes) | bounced)]
    a = a.clamp_min(0)
    return a / a.sum(1, keepdim=True) if sum_to_one else a * size


def _on_passive(gram: Tensor, b: Tensor, passive: Tensor, sum_to_one: bool) -> Tensor:
    """Return the minimum of each row's problem over its passive set alone, zero elsewhere, (n, p)."""
    sets, which = _distinct(passive)
    inverse, constant = _inverses(gram, sets, sum_to_one)
    if len(sets) <= 64:  # one product a set moves less memory than a matrix a pixel
        out = torch.empty_like(b)
        order = which.argsort()
        ends = torch.bincount(which, minlength=len(sets)).cumsum(0).tolist()
        for k, (start, end) in enumerate(zip([0, *ends[:-1]], ends, strict=True)):
            rows = order[start:end]
            out[rows] = b[rows] @ inverse[k] + constant[k]
        return out
    return torch.bmm(b[:, None], inverse[which])[:, 0] + constant[which]


def _distinct(passive: Tensor) -> tuple[Tensor, Tensor]:
    """Return the distinct rows of a boolean matrix and each row's number among them."""
    p = passive.shape[1]
    if p > 62:
        sets, which = torch.unique(passive, dim=0, return_inverse=True)
        return sets, which
    bits = 1 << torch.arange(p, device=passive.device)
    codes, which = torch.unique((passive * bits).sum(1), return_inverse=True)
    return (codes[:, None] & bits) > 0, which


def _inverses(gram: Tensor, sets: Tensor, sum_to_one: bool) -> tuple[Tensor, Tensor]:
    """Return (sets, p, p) and (sets, p), by which ``b @ inverse + constant`` solves on each set."""
    inside = sets[:, :, None] & sets[:, None, :]
    outside = torch.diag_embed((~sets).to(gram.dtype))
    inverse = torch.linalg.inv(torch.where(inside, gram, 0.0) + outside)
    inverse = torch.where(inside, inverse, 0.0)
    inverse = (inverse + inverse.mT) / 2
    if not sum_to_one:
        return inverse, torch.zeros_like(inverse[:, 0])
    ones = inverse.sum(2)  # (sets, p): the inverse times ones
    total = ones.sum(1, keepdim=True)
    # the multiplier of the sum is eliminated: (1 - b K 1) / (1 K 1) of K 1 is added
    return inverse - ones[:, :, None] * ones[:, None, :] / total[:, None], ones / total


def _steepest(gram: Tensor, b: Tensor, a: Tensor, passive: Tensor, sum_to_one: bool) -> tuple[Tensor, Tensor]:
    """Return the largest gain a unit that an endmember not in use promises, and which it is, each (n,)."""
    fall = b - a @ gram  # minus the gradient
    if sum_to_one:  # what is given to one is taken from those in use
        count = passive.sum(1, keepdim=True).clamp_min(1)
        fall = fall - torch.where(passive, fall, 0.0).sum(1, keepdim=True) / count
    steepest, which = torch.where(passive, -torch.inf, fall).max(1)
    return steepest, which


def _admm(
    gram: Tensor, b: Tensor, sparsity: float, sum_to_one: bool, iterations: int, tolerance: float
) -> Tensor:
    p = len(gram)
    scale = gram.diagonal().mean().clamp_min(1e-300)
    gram, b, sparsity = gram / scale, b / scale, sparsity / float(scale)
    # a step between the extreme eigenvalues makes both halves of the iteration contract alike
    values = torch.linalg.eigvalsh(gram).clamp_min(1e-6)
    step = float((values[0] * values[-1]).sqrt().clamp(1e-3, 1))
    inverse = torch.linalg.inv(gram + step * torch.eye(p, dtype=gram.dtype, device=gram.device))
    ones = inverse.sum(1)
    u, d = torch.zeros_like(b), torch.zeros_like(b)
    for _ in range(iterations):
        a = (b + step * (u + d)) @ inverse
        if sum_to_one:
            a = a + (1 - a.sum(1, keepdim=True)) / ones.sum() * ones
        before, u = u, (a - d - sparsity / step).clamp_min(0)
        d = d - (a - u)
        apart = torch.stack([(a - u).square().mean(), (u - before).square().mean()]).amax().sqrt()
        if apart <= tolerance:
            break
    return u
