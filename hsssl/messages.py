"""How the package speaks to people: one logger, and input errors worded the same way everywhere."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Iterable

__all__ = ["log", "unknown_name"]

log = logging.getLogger("hsssl")


def unknown_name(what: str, name: str, known: Iterable[str]) -> ValueError:
    """Return the error for a name that is not in a registry, with the nearest names that are."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.4)
    hint = f"did you mean {' or '.join(near)}?" if near else f"there are: {', '.join(names)}"
    return ValueError(f"unknown {what} {name!r}; {hint}")
