"""A scene of known mixtures, as tests of unmixing share it."""

from __future__ import annotations

import numpy as np

from hsssl.cube import Cube


def scene(rows: int = 24, cols: int = 20, *, p: int = 3, bands: int = 12, seed: int = 0) -> Cube:
    """A cube of p materials with a pure corner of each, in integers, 5 nm apart."""
    rng = np.random.default_rng(seed)
    endmembers = rng.uniform(200, 3000, (p, bands))
    shares = rng.dirichlet(np.full(p, 0.4), rows * cols)
    for k in range(p):
        shares[10 * k : 10 * k + 10] = np.eye(p)[k]
    values = shares @ endmembers + rng.normal(0, 3, (rows * cols, bands))
    return Cube(values.round().reshape(rows, cols, bands), wavelengths=450 + 5.0 * np.arange(bands))
