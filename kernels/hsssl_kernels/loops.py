"""Loops that Numba compiles for the CPU, where plain torch would pass over memory again and again.

This file, ``lanes.py`` and those whose names end in ``loops.py`` in the folders of ops alone need Numba and
NumPy, and are imported only where Numba is installed (`hsssl_kernels.dispatch.compiles_loops`).
"""

# Numba's decorators have no types.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

from typing import Any

import numba

__all__ = ["NO_MEMORY", "compile_and_keep", "compile_inline", "compile_part"]

NO_MEMORY = "a thread found no memory; take a smaller batch"
# Other threads run meanwhile; no check for divisions by 0, which none of the loops has.
_OPTIONS = {"nogil": True, "error_model": "numpy"}


def compile_and_keep(function: Any) -> Any:
    """Compile what torch calls: at the first call with each dtype, and once for all processes.

    Numba looks for changes in the function's own file alone: what goes into it from elsewhere must leave a
    digest there.
    """
    try:
        return numba.njit(cache=True, **_OPTIONS)(function)
    except RuntimeError:  # neither this folder nor the user's can be written to
        return numba.njit(**_OPTIONS)(function)


def compile_part(function: Any) -> Any:
    """Compile what compiled functions call. It is not kept: machine code cannot become part of its caller."""
    return numba.njit(**_OPTIONS)(function)


def compile_inline(function: Any) -> Any:
    """Compile what stands in a loop of vector instructions: LLVM's own inlining comes too late for that."""
    return numba.njit(inline="always", **_OPTIONS)(function)
