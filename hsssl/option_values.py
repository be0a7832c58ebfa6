"""The value of a method's, an encoder's or a reader's option as text, on the command line, and back."""

from __future__ import annotations

import contextlib
import json
from typing import Any

__all__ = ["option_text", "option_value"]

_WORDS = {"true": True, "false": False, "null": None, "~": None}


def option_value(text: str) -> Any:
    """Return what a text stands for by the rules of YAML 1.2: number, bool, null, list, mapping, else text.

    A list or a quotation that is not closed is text.

    Examples
    --------
    >>> [option_value(text) for text in ("20", "1e-3", "false", "null", "[20, 30]", "little")]
    [20, 0.001, False, None, [20, 30], 'little']
    """
    if text[:1] not in ("[", "{", '"', "'"):
        return _scalar(text)
    import yaml

    # Nodes and not values: PyYAML's own values go by YAML 1.1, in which 1e-3 is text and no is false.
    with contextlib.suppress(yaml.YAMLError):
        return _held(yaml.compose(text, Loader=yaml.BaseLoader))
    return text


def option_text(value: Any) -> str:
    """Return a text from which `option_value` makes ``value``; texts stay as they are."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _held(node: Any) -> Any:
    """Return what a node of YAML holds; quoted, it is text."""
    if node.id == "sequence":
        return [_held(part) for part in node.value]
    if node.id == "mapping":
        return {str(_held(name)): _held(part) for name, part in node.value}
    return node.value if node.style else _scalar(node.value)


def _scalar(text: str) -> Any:
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    for kind in (int, float):
        with contextlib.suppress(ValueError):
            return kind(text)
    return text
