"""The command line: parse, call, and turn errors into one line and an exit status."""

from __future__ import annotations

import contextlib
import inspect
import io
import logging
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import tyro

import hsssl
from hsssl.commands import COMMANDS
from hsssl.option_values import option_text

__all__ = ["main"]


def _with_config(arguments: Sequence[str]) -> list[str]:
    """Replace ``--config run.yaml`` by the options it stands for; options given beside it win."""
    given = list(arguments)
    at = next((i for i, word in enumerate(given) if word.partition("=")[0] == "--config"), None)
    if at is None:
        return given
    import yaml

    _, joined, path = given[at].partition("=")
    after = at + 1 if joined else at + 2
    path = path if joined else "".join(given[at + 1 : after])
    if not path:
        raise ValueError("--config: give the path of a YAML file")
    try:
        record = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not readable as YAML ({' '.join(str(error).split())})") from error
    if not isinstance(record, dict):
        raise ValueError(f"{path}: must hold settings by name, got {type(record).__name__}")
    rest = given[:at] + given[after:]
    first = next((i for i, word in enumerate(rest) if word.startswith("--")), len(rest))
    return rest[:first] + _as_options(record.get("settings", record)) + rest[first:]


def _as_options(settings: dict[str, Any], prefix: str = "--") -> list[str]:
    """Write settings as options, lists first: a list at the end would swallow what follows it."""
    options: list[str] = []
    for name, value in sorted(settings.items(), key=lambda item: not isinstance(item[1], (list, dict))):
        flag = prefix + str(name).replace("_", "-")
        if isinstance(value, dict) and name == "views":
            options += _as_options(value, "--views.")
        elif isinstance(value, dict):
            pairs = [word for key, held in value.items() for word in (str(key), option_text(held))]
            options += [flag, *pairs] if value else []
        elif isinstance(value, bool):
            options.append(flag if value else re.sub(r"([^.-][^.]*)$", r"no-\1", flag))
        elif isinstance(value, list):
            options += [flag, *map(str, value)]
        elif value is not None:
            options += [flag, str(value)]
    return options


def _run(arguments: Sequence[str]) -> None:
    """Parse and call; what the parser has to say about wrong options becomes one ValueError."""
    said = io.StringIO()
    chosen: list[Callable[[], Any]] = []

    def later(command: Callable[..., Any]) -> Callable[..., Any]:
        def hold(*args: Any, **kwargs: Any) -> None:
            chosen.append(lambda: command(*args, **kwargs))

        signature = inspect.signature(command, eval_str=True)
        hold.__doc__ = command.__doc__
        hold.__signature__ = signature  # type: ignore[attr-defined]
        hold.__annotations__ = {p.name: p.annotation for p in signature.parameters.values()}
        return hold

    try:
        with contextlib.redirect_stderr(said):
            tyro.extras.subcommand_cli_from_dict(
                {name: later(command) for name, command in COMMANDS.items()},
                prog="hsssl",
                description=hsssl.__doc__,
                args=list(arguments),
            )
    except SystemExit as stop:
        if stop.code:
            raise ValueError(_one_line(said.getvalue())) from None
        return
    chosen[0]()


def _one_line(boxed: str) -> str:
    """Return what the parser's boxed message states, and its nearest option or list of commands."""
    inside = (line.strip("│| ") for line in boxed.splitlines()[1:])
    lines = [line if re.search(r"\w", line) else "" for line in inside]  # a rule is empty
    lines = lines[next((i for i, line in enumerate(lines) if line), 0) :]
    end = next((i for i, line in enumerate(lines) if not line), len(lines))
    stated = " ".join(lines[:end])
    hints = [line for line in lines[end:] if line.startswith(("--", "Available subcommands"))]
    hint = (
        f"did you mean {hints[0].split()[0]}?" if hints and hints[0].startswith("--") else "".join(hints[:1])
    )
    return f"{stated}; {hint or 'see --help'}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status: 0 done, 1 our fault, 2 the input is wrong.

    Parameters
    ----------
    arguments : sequence of str, optional
        Words after the program's name; None takes them from the process.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    logging.basicConfig(format="%(message)s", stream=sys.stderr, level=logging.WARNING)
    try:
        _run(_with_config(words))
    except (ValueError, OSError) as error:
        print(f"hsssl: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("hsssl: interrupted", file=sys.stderr)
        return 1
    except Exception as error:
        if os.environ.get("HSSSL_DEBUG"):
            raise
        print(
            f"hsssl: {type(error).__name__}: {' '.join(str(error).split())} (HSSSL_DEBUG=1 shows where)",
            file=sys.stderr,
        )
        return 1
    return 0
