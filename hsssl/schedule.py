"""The learning rate as a function of the step."""

from __future__ import annotations

import math

__all__ = ["cosine_warmup"]


def cosine_warmup(step: int, steps: int, warmup: int) -> float:
    """Return the factor on the learning rate: a linear rise over ``warmup`` steps, then a cosine to 0.

    Parameters
    ----------
    step : int
        From 0 to ``steps - 1``.
    steps, warmup : int
        Length of the run and of the rise.

    References
    ----------
    Loshchilov & Hutter 2017, SGDR, arXiv 1608.03983.

    Examples
    --------
    >>> [round(cosine_warmup(s, 12, 2), 2) for s in (0, 1, 2, 7, 11)]
    [0.5, 1.0, 1.0, 0.5, 0.02]
    """
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))
