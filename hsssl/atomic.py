"""Files that are either whole or absent: written under a temporary name, flushed to disk, then renamed."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["atomic_path", "refuse_existing", "refuse_place", "write_bytes_atomic", "write_text_atomic"]


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary path beside ``path`` to write to, and rename it into place when the block ends well.

    A reader sees the old file or the whole new one, at any moment and after a crash. The
    temporary file is removed when the block raises, by an interrupt too; what was at ``path`` stays.

    Parameters
    ----------
    path : path
        The file to write; an existing one is replaced (see `refuse_existing`).

    Yields
    ------
    Path
        A name in the same folder, with the same suffix, at which nothing is yet.

    Raises
    ------
    FileNotFoundError
        If the folder does not exist, or the block wrote nothing.
    IsADirectoryError
        If ``path`` is a folder.

    Examples
    --------
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> with atomic_path(folder / "scores.txt") as temporary:
    ...     _ = temporary.write_text("0.93")
    >>> [file.name for file in folder.iterdir()]
    ['scores.txt']
    """
    target = Path(path)
    refuse_place(target)
    temporary = target.with_name(f".{target.stem}.{secrets.token_hex(6)}.tmp{target.suffix}")
    try:
        yield temporary
        # "r+b" and not "rb": Windows flushes only what is open for writing.
        with temporary.open("r+b") as file:
            os.fsync(file.fileno())
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
    _sync_folder(target.parent)


def write_bytes_atomic(path: str | os.PathLike[str], data: bytes) -> None:
    """Write ``data`` to ``path`` whole or not at all; see `atomic_path`."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def write_text_atomic(path: str | os.PathLike[str], text: str) -> None:
    """Write ``text`` to ``path`` as UTF-8, whole or not at all; see `atomic_path`."""
    write_bytes_atomic(path, text.encode("utf-8"))


def refuse_existing(path: str | os.PathLike[str], *, overwrite: bool) -> None:
    """Raise FileExistsError if something is at ``path`` and ``overwrite`` is off."""
    if not overwrite and os.path.lexists(path):
        raise FileExistsError(f"{os.fspath(path)}: exists; pass --overwrite (overwrite=True) or another name")


def refuse_place(path: str | os.PathLike[str]) -> None:
    """Raise FileNotFoundError if the folder of ``path`` is missing, IsADirectoryError if it is one itself."""
    target = Path(path)
    if not target.parent.is_dir():
        raise FileNotFoundError(f"{target}: there is no folder {target.parent}; create it first")
    if target.is_dir():
        raise IsADirectoryError(f"{target}: is a folder; give the name of a file")


def _sync_folder(folder: Path) -> None:
    """Flush the folder's entry for the renamed file, where the system can."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
