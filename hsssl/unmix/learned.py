"""What a method of unmixing hands over: endmembers, and the rule that gives abundances."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from hsssl.unmix.solvers import fcls, nnls

__all__ = ["RULES", "Learned", "Rule", "abundances_of"]

Rule = Literal["signal", "fcls", "nnls"]
#: How abundances follow from endmembers, by name.
RULES: dict[str, str] = {
    "signal": "shares of the signal: NNLS against endmembers of one length, divided by the sum",
    "fcls": "shares of the area: least squares, non-negative and of sum one",
    "nnls": "NNLS coefficients of the endmembers as they are, of any sum",
}
FloatArray = NDArray[np.floating[Any]]
# (rows, cols, bands) -> abundances (rows, cols, p) and reconstruction (rows, cols, bands)
Model = Callable[[NDArray[np.float32]], tuple[NDArray[np.float32], NDArray[np.float32]]]


@dataclass(frozen=True)
class Learned:
    """Endmembers of a scene and, for a method with abundances of its own, the model that gives them.

    Parameters
    ----------
    endmembers : ndarray, shape (p, bands), float64
        In the cube's raw numbers.
    pseudo : bool
        True if the method reconstructs without them: they were found beforehand, by another one.
    model : callable, optional
        From a part of the scene to its abundances and reconstruction; None leaves them to a rule in `RULES`.
    margin : int
        Pixels beyond a tile that the model looks at.
    """

    endmembers: NDArray[np.float64]
    pseudo: bool = False
    model: Model | None = None
    margin: int = 0


def abundances_of(pixels: FloatArray, endmembers: FloatArray, rule: str) -> tuple[FloatArray, FloatArray]:
    """Return abundances (n, p) by a rule, and the reconstructed spectra (n, bands).

    A pixel without any signal tells nothing; by "signal" its shares are equal, so that the sum is one.

    Parameters
    ----------
    pixels : ndarray, shape (n, bands)
        Spectra without NaN.
    endmembers : ndarray, shape (p, bands)
        In the same unit.
    rule : {"signal", "fcls", "nnls"}
        A key of `RULES`.
    """
    if rule == "fcls":
        shares = fcls(pixels, endmembers)
        return shares, shares @ endmembers
    lengths = np.linalg.norm(endmembers, axis=1)
    directions = endmembers / np.where(lengths > 0, lengths, 1)[:, None]
    signal = nnls(pixels, directions)
    rebuilt = signal @ directions
    if rule == "nnls":
        return signal / np.where(lengths > 0, lengths, np.inf), rebuilt
    total = signal.sum(axis=1, keepdims=True)
    equal = np.full_like(signal, 1 / len(endmembers))
    return np.divide(signal, total, out=equal, where=total > 0), rebuilt
