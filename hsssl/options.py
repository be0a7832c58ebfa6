"""The options of a method or an encoder, checked against what its class says it takes."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from numbers import Integral, Real
from types import NoneType
from typing import Any, get_args

__all__ = ["check_options"]

_KINDS = {int: "a whole number", float: "a finite number", bool: "true or false", NoneType: "null"}
_PARTS = ("bottleneck", "cell", "channels", "dim", "group", "heads", "hidden", "latent", "patch_size")


def check_options(what: str, made: type, options: Mapping[str, Any]) -> None:
    """Refuse the first option whose value is not of the kind that the class's signature has.

    What is no number, bool, null or list of those by the signature, and names it does not have, are left to
    the class.

    Parameters
    ----------
    what : str
        What is made, for the message.
    made : type
        The class.
    options : mapping
        Arguments of the class, by name.

    Raises
    ------
    ValueError
        If an option is of another kind, or a whole number below 0, or below 1 where it sizes a network.

    Examples
    --------
    >>> class Made:
    ...     def __init__(self, depth: int = 2) -> None: ...
    >>> check_options("encoder made", Made, {"depth": "two"})
    Traceback (most recent call last):
    ValueError: encoder made: `depth` must be a whole number, at least 0, got 'two'; its default is 2
    """
    taken = inspect.signature(made, eval_str=True).parameters
    for name in [name for name in options if name in taken]:
        wanted, value = taken[name].annotation, options[name]
        # Of most things there may be none; without these there is no network.
        least = int(name in _PARTS or name.endswith(("_dim", "_heads")))
        if not _fits(value, wanted, least):
            raise ValueError(
                f"{what}: `{name}` must be {_words(wanted, least)}, got {value!r}; "
                f"its default is {taken[name].default!r}"
            )


def _fits(value: Any, wanted: Any, least: int) -> bool:
    if wanted is int:
        return isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= least
    if wanted is float:
        return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
    if wanted in _KINDS:
        return isinstance(value, wanted)
    parts = get_args(wanted)
    if not parts or not set(parts) <= set(_KINDS):
        return True
    if len(parts) > 1:
        return any(_fits(value, part, least) for part in parts)
    return isinstance(value, list | tuple) and all(_fits(entry, parts[0], least) for entry in value)


def _words(wanted: Any, least: int) -> str:
    if wanted in _KINDS:
        return _KINDS[wanted] + (f", at least {least}" if wanted is int else "")
    parts = get_args(wanted)
    if len(parts) == 1:
        return f"a list, each entry {_words(parts[0], least)}"
    return " or ".join(_words(part, least) for part in parts)
