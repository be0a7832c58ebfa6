"""The elements of MATLAB files of versions 4 and 5, checked before scipy reads them.

scipy looks up their types in tables and makes room for their sizes without a check: on a damaged file it can
crash, or ask for any amount of memory.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO, Literal

__all__ = ["check_elements"]

Order = Literal["little", "big"]

# MAT-File Format (MathWorks), "Level 5 MAT-File Data Types": numbers and text, an array of elements, and a
# compressed one.
_MATRIX, _COMPRESSED = 14, 15
_ELEMENTS = {1, 2, 3, 4, 5, 6, 7, 9, 12, 13, 16, 17, 18, _MATRIX, _COMPRESSED}
# The same, "Level 4 MAT-File Format": bytes of a number by the digit P of the type MOPT.
_V4_BYTES = (8, 4, 4, 2, 2, 1)
_LONGEST_NAME = 4096


def check_elements(path: str | os.PathLike[str]) -> None:
    """Raise if an element is of no known type or larger than what holds it.

    Raises
    ------
    ValueError
        As said; names the place in the file.
    """
    with Path(path).open("rb") as file:
        head = file.read(128)
        # As scipy tells them apart: the text that version 5 opens with has no zero in its first four bytes.
        if 0 in head[:4]:
            _check_v4(file)
        elif head[126:] in (b"IM", b"MI"):
            _check_v5(file, "little" if head[126:] == b"IM" else "big")


def _check_v4(file: BinaryIO) -> None:
    whole = os.fstat(file.fileno()).st_size
    file.seek(0)
    while (start := file.tell()) < whole:
        head = file.read(20)
        order: Order = "little" if int.from_bytes(head[:4], "little") <= 5000 else "big"
        kind, rows, cols, imaginary, name = (
            int.from_bytes(head[at : at + 4], order) for at in range(0, 20, 4)
        )
        digit = kind // 10 % 10
        if len(head) < 20 or kind > 5000 or digit >= len(_V4_BYTES) or name > _LONGEST_NAME:
            raise ValueError(f"element of type {kind} and a name of {name} bytes at byte {start}")
        end = start + 20 + name + rows * cols * _V4_BYTES[digit] * (2 if imaginary else 1)
        if end > whole:
            raise ValueError(
                f"element of {rows} x {cols} numbers at byte {start}, the file has {whole} bytes"
            )
        file.seek(end)


def _check_v5(file: BinaryIO, order: Order) -> None:
    whole = os.fstat(file.fileno()).st_size
    ends = [whole]  # of the file, and of the arrays that the current element is in
    while (start := file.tell()) < whole:
        while start >= ends[-1]:
            ends.pop()
        tag = file.read(8)
        kind, size = (int.from_bytes(part, order) for part in (tag[:4], tag[4:]))
        if kind >> 16:  # a small element has its size beside its type, and its data in the tag
            kind, small = kind & 0xFFFF, kind >> 16
            size = 0 if small <= 4 else whole
        if len(tag) < 8 or kind not in _ELEMENTS or start + 8 + size > ends[-1]:
            raise ValueError(f"element of type {kind} and {size} bytes at byte {start}")
        if kind == _MATRIX:
            ends.append(start + 8 + size)
            continue  # its parts come next
        padding = 0 if kind == _COMPRESSED else -size % 8
        file.seek(start + 8 + size + padding)
