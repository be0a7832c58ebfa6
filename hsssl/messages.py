"""How the package speaks to people: one logger, and input errors worded the same way everywhere."""

from __future__ import annotations

import difflib
import logging
import os
from collections.abc import Iterable

__all__ = ["log", "say_once", "unknown_name"]

log = logging.getLogger("hsssl")
_said: set[str] = set()


def say_once(message: str, *values: object) -> None:
    """Log a warning unless this process has said the same already, or is not the first of several."""
    text = message % values
    if text not in _said and os.environ.get("RANK", "0") == "0":
        _said.add(text)
        log.warning("%s", text)


def unknown_name(what: str, name: str, known: Iterable[str]) -> ValueError:
    """Return the error for a name that is not in a registry, with the nearest names that are."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.4)
    hint = f"did you mean {' or '.join(near)}?" if near else f"there are: {', '.join(names)}"
    return ValueError(f"unknown {what} {name!r}; {hint}")
