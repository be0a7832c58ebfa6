"""Random numbers that can be named: integer arithmetic of a key and a counter, equal on every device."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

__all__ = ["NORMAL_COEFFICIENTS", "mix_bits", "normals", "philox", "stream_key"]

_GOLDEN = 0x9E3779B97F4A7C15
_MASK = (1 << 64) - 1
_LOW = 0xFFFFFFFF
_KEY_STEP = (0x9E3779B9, 0xBB67AE85)
_FACTOR = (0xD2511F53, 0xCD9E8D57)

# z = s (a0 + s^2 (a1 + ...)) maps s, the sum of two bytes less 255, to a normal number. Least squares,
# weighted by the sum's probabilities, against the normal quantiles of its 511 values; then variance 1.
NORMAL_COEFFICIENTS = (
    9.411205907e-03,
    -1.069632201e-07,
    7.309723947e-12,
    -1.742866379e-16,
    1.633620234e-21,
)


def stream_key(*parts: int) -> int:
    """Mix whole numbers into one 63-bit key, so that neighbouring keys share nothing.

    The finaliser of splitmix64 after each part (Steele, Lea & Flood 2014, doi:10.1145/2660193.2660195).

    Parameters
    ----------
    *parts : int
        Seed, step, rank or whatever names the stream, in a fixed order.

    Returns
    -------
    int
        A key in 0 ... 2^63 - 1, for `torch.Generator.manual_seed` or `philox`.

    Examples
    --------
    >>> stream_key(0, 1) == stream_key(1, 0)
    False
    """
    state = 0
    for part in parts:
        state = ((state ^ (part & _MASK)) + _GOLDEN) & _MASK
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & _MASK
        state ^= state >> 31
    return state >> 1


def philox(key: int, c0: Tensor, c1: Tensor, c2: Tensor, c3: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return four random 32-bit words for every counter: Philox4x32-10, as `triton.language.philox` gives it.

    Parameters
    ----------
    key : int
        64 bits.
    c0, c1, c2, c3 : Tensor, int64, shapes that broadcast
        The counter; the low 32 bits of each are taken.

    Returns
    -------
    four Tensors, int64
        Words in 0 ... 2^32 - 1.

    References
    ----------
    Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3", doi:10.1145/2063384.2063405.
    """
    k0, k1 = key & _LOW, (key >> 32) & _LOW
    c0, c1, c2, c3 = (c & _LOW for c in (c0, c1, c2, c3))
    for _ in range(10):
        # int64 wraps, and its upper half is that of the unsigned product once the sign is masked off
        a, b = c0 * _FACTOR[0], c2 * _FACTOR[1]
        c0, c2 = ((b >> 32) & _LOW) ^ c1 ^ k0, ((a >> 32) & _LOW) ^ c3 ^ k1
        c1, c3 = b & _LOW, a & _LOW
        k0, k1 = (k0 + _KEY_STEP[0]) & _LOW, (k1 + _KEY_STEP[1]) & _LOW
    return c0, c1, c2, c3


def mix_bits(x: Tensor) -> Tensor:
    """Return the bits of x, int32, so mixed that each depends on all: a permutation; overwrites x.

    Fifteen operations on 32 bits, a thirtieth of Philox's cost in torch; for many numbers from few
    Philox words. The constants are those of C. Wellons' "triple32" (2018, public domain), found by
    search for the least bias.
    """
    for shift, factor in ((17, 0xED5AD4BB), (11, 0xAC4C1B51), (15, 0x31848BAB)):
        x ^= (x >> shift).bitwise_and_((1 << (32 - shift)) - 1)
        x *= factor - (1 << 32) * (factor >> 31)  # the signed number of the same bits
    x ^= (x >> 14).bitwise_and_(0x3FFFF)
    return x


def normals(words: Tensor) -> tuple[Tensor, Tensor]:
    """Return two normal numbers, float32, from the low and the high half of each 32-bit word.

    The two bytes of a half are added, and an odd polynomial bends the sum's triangular
    distribution into the normal one: 511 values up to 3.74 with mean 0, variance 1, kurtosis 2.994,
    nowhere more than 0.001 off the normal distribution function. Additions and multiplications
    alone, each rounded: the same bits everywhere, which logarithm and cosine would not give.

    Parameters
    ----------
    words : Tensor, int32 or int64
        Random words; of int64 the low 32 bits are taken.

    Returns
    -------
    low, high : Tensor, float32, shape of ``words``
    """
    sums = (words & 0xFF00FF) + ((words >> 8) & 0xFF00FF)
    return _bend(sums & 0x1FF), _bend(sums >> 16)


def _bend(total: Tensor) -> Tensor:
    # looked up, as the polynomial's dozen operations on every number take twice as long
    return _bent(total.device).index_select(0, total.reshape(-1)).view(total.shape)


@cache
def _bent(device: torch.device) -> Tensor:
    s = torch.arange(-255, 256, device=device).to(torch.float32)
    square = s * s
    z = torch.full_like(s, NORMAL_COEFFICIENTS[4])
    for a in NORMAL_COEFFICIENTS[3::-1]:
        z.mul_(square).add_(a)
    return z.mul_(s)
