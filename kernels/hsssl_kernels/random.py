"""Keys of random streams: one whole number from several, so that every draw can be named and repeated."""

from __future__ import annotations

__all__ = ["stream_key"]

_GOLDEN = 0x9E3779B97F4A7C15
_MASK = (1 << 64) - 1


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
        A key in 0 ... 2^63 - 1, for `torch.Generator.manual_seed`.

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
