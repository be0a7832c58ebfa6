"""ENVI headers: lines ``field = value``, the files they go with, and the raw numbers they describe."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import RawIOBase
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from hsssl.lazy import as_slice
from hsssl.messages import log
from hsssl.readers.wavelengths import numbers

__all__ = [
    "AXES",
    "CUBE_AXES",
    "DTYPES",
    "NEVER_DATA",
    "ByteOrder",
    "Header",
    "RawLayout",
    "braced",
    "find_header",
    "find_pair",
    "number",
    "number_list",
    "parse_header",
    "runs",
]

Header = Mapping[str, str | list[str]]
ByteOrder = Literal["little", "big"]

# https://www.nv5geospatialsoftware.com/docs/ENVIHeaderFiles.html (2026-01), "data type"; 6 and 9 are complex.
DTYPES = {1: "u1", 2: "i2", 3: "i4", 4: "f4", 5: "f8", 12: "u2", 13: "u4", 14: "i8", 15: "u8"}
# File order of the axes, by the same page's "interleave".
AXES = {"bsq": ("bands", "lines", "samples"), "bil": ("lines", "bands", "samples"),
        "bip": ("lines", "samples", "bands")}  # fmt: skip
CUBE_AXES = ("lines", "samples", "bands")
_DATA_SUFFIXES = (
    "", ".img", ".dat", ".raw", ".bsq", ".bil", ".bip", ".bin", ".hyspex", ".cube", ".sli", ".lib",
)  # fmt: skip
#: Extensions that no data file of an ENVI image has.
NEVER_DATA = {
    ".hdr", ".xml", ".txt", ".csv", ".json", ".png", ".jpg", ".jpeg", ".tif", ".tiff", ".jp2", ".vrt",
    ".mat", ".pdf", ".ovr", ".enp", ".sta", ".kml", ".shp", ".md", ".npy", ".npz", ".h5", ".nc",
}  # fmt: skip
# No header of an image that exists is longer; what is, is some other file.
_LONGEST_HEADER = 2**25
# What is read at a time, before it is put in order.
_READ_BYTES = 2**24


def find_header(data: Path) -> Path | None:
    """Return the ENVI header beside a data file: ``name.ext.hdr`` or ``name.hdr``; None if there is none."""
    if data.suffix.lower() in NEVER_DATA:
        return None
    candidates = [data.with_name(data.name + ".hdr"), data.with_name(data.name + ".HDR")]
    candidates += [data.with_suffix(".hdr"), data.with_suffix(".HDR")]
    return next((path for path in candidates if path.is_file()), None)


def find_pair(path: Path, data: str | os.PathLike[str] | None = None) -> tuple[Path, Path]:
    """Return header and data file, whichever of them ``path`` is; ``data`` names the data file of a header.

    Raises
    ------
    FileNotFoundError
        If either is missing.
    ValueError
        If several files could be the data.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    if data is not None:
        if not Path(data).is_file():
            raise FileNotFoundError(f"{os.fspath(data)}: no such file")
        return path, Path(data)
    if path.suffix.lower() == ".hdr":
        return path, _find_data(path)
    header = find_header(path)
    if header is None:
        raise FileNotFoundError(f"{path}: no ENVI header {path.name}.hdr or {path.stem}.hdr beside it")
    return header, path


def _find_data(header: Path) -> Path:
    stem = header.with_suffix("")
    # "scene.img.hdr" belongs to "scene.img", "scene.hdr" to "scene" with any extension.
    for suffix in _DATA_SUFFIXES:
        for candidate in (Path(f"{stem}{suffix}"), Path(f"{stem}{suffix.upper()}")):
            if candidate.is_file():
                return candidate
    others = [
        file
        for file in header.parent.iterdir()
        if file.stem == stem.name and file.is_file() and file.suffix.lower() not in NEVER_DATA
    ]
    if len(others) == 1:
        return others[0]
    if others:
        listing = ", ".join(sorted(file.name for file in others))
        raise ValueError(f"{header}: several files could be its data: {listing}; give the data file itself")
    tiffs = [
        Path(f"{stem}{suffix}") for suffix in (".tif", ".tiff", ".TIF") if Path(f"{stem}{suffix}").is_file()
    ]
    if tiffs:
        raise ValueError(f"{header}: it describes a TIFF; open {tiffs[0]}")
    raise FileNotFoundError(
        f"{header}: no data file {stem.name}, with or without an extension, beside it; rename one after the "
        f"other, or open the header with data=(its file)"
    )


def parse_header(path: Path) -> dict[str, str | list[str]]:
    """Read the fields of a header: names in lower case, text in braces split at its commas.

    Raises
    ------
    ValueError
        If it is no ENVI header, or a brace is not closed.
    """
    if path.stat().st_size > _LONGEST_HEADER:
        raise ValueError(f"{path}: not an ENVI header: {path.stat().st_size} bytes are too many for one")
    raw = path.read_bytes()
    if not raw.lstrip(b"\xef\xbb\xbf").startswith(b"ENVI"):
        raise ValueError(f"{path}: not an ENVI header: its first line must be ENVI")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = raw.decode("latin-1")
    fields: dict[str, str | list[str]] = {}
    lines = iter(text.splitlines()[1:])
    for line in lines:
        name, equals, value = line.partition("=")
        if not equals or line.lstrip().startswith(";"):
            continue
        value = value.strip()
        if value.startswith("{"):
            inside = [value]
            while "}" not in inside[-1]:
                following = next(lines, None)
                if following is None:
                    field = name.strip()[:40]
                    raise ValueError(
                        f"{path}: a damaged ENVI header: {field!r} has a brace that is not closed"
                    )
                inside.append(following)
            joined = " ".join(inside)
            fields[name.strip().lower()] = [p.strip() for p in joined[1 : joined.rindex("}")].split(",")]
        else:
            fields[name.strip().lower()] = value
    return fields


@dataclass(frozen=True)
class RawLayout:
    """Where each number of an ENVI data file stands.

    Parameters
    ----------
    path : Path
        The data file.
    dtype : dtype
        In the file's byte order.
    offset : int
        Bytes before the numbers.
    interleave : str
        "bsq", "bil" or "bip".
    shape : tuple of 3 int
        Rows, columns, bands.
    """

    path: Path
    dtype: np.dtype[Any]
    offset: int
    interleave: str
    shape: tuple[int, int, int]

    @classmethod
    def of(cls, header: Header, data: Path, source: str, byte_order: ByteOrder | None) -> RawLayout:
        """Take the layout from a header, and check that the data file is long enough.

        Raises
        ------
        ValueError
            If a field is missing or wrong, or the data file too short.
        """
        rows, cols, bands = (_integer(header, axis, source, least=1) for axis in CUBE_AXES)
        offset = _integer(header, "header offset", source, least=0) if "header offset" in header else 0
        interleave = str(header.get("interleave", "")).lower()
        if interleave not in AXES:
            raise ValueError(f"{source}: interleave {interleave[:40]!r}; correct the line: interleave = bsq")
        dtype = _dtype(header, source, byte_order)
        # Python integers: a damaged header must not overflow on its way to the comparison.
        wanted, actual = offset + rows * cols * bands * dtype.itemsize, data.stat().st_size
        if actual < wanted:
            raise ValueError(
                f"{data}: {actual} bytes, but {source} describes {wanted}; "
                f"copy the file again or correct the header"
            )
        if actual > wanted:
            log.warning(
                "%s: %d bytes more than its header describes; the rest is ignored", data, actual - wanted
            )
        return cls(data, dtype, offset, interleave, (rows, cols, bands))

    def read_window(self, rows: slice, cols: slice, bands: NDArray[np.int64]) -> NDArray[Any]:
        """Read a window; see `hsssl.lazy.ReadWindow`.

        The file is read and not mapped: what lies around a window then never counts as memory in use, and
        a file that is cut short meanwhile gives an error.
        """
        height, width = rows.stop - rows.start, cols.stop - cols.start
        found = np.empty((height, width, len(bands)), self.dtype.newbyteorder("="))
        step = max(1, _READ_BYTES // (width * self.shape[2] * self.dtype.itemsize))
        with self.path.open("rb", buffering=0) as stream:
            for first in range(0, height, step):
                lines = slice(first, min(first + step, height))
                taken = slice(rows.start + lines.start, rows.start + lines.stop)
                for there, picked, here in self._neighbours(bands):
                    found[lines, :, here] = self._read_box(stream, taken, cols, there)[:, :, picked]
        return found

    def _neighbours(self, bands: NDArray[np.int64]) -> Iterator[tuple[slice, Any, slice]]:
        """Cut a list of bands into what is read at a time: bands in the file, which of those, where to."""
        if self.interleave == "bip":  # the bands of a pixel lie together
            yield slice(0, self.shape[2]), as_slice(bands), slice(0, len(bands))
            return
        for run in np.split(np.arange(len(bands)), np.flatnonzero(np.diff(bands) != 1) + 1):
            first = int(bands[run[0]])
            yield slice(first, first + len(run)), slice(None), slice(int(run[0]), int(run[-1]) + 1)

    def _read_box(self, stream: RawIOBase, rows: slice, cols: slice, bands: slice) -> NDArray[Any]:
        """Read (rows, cols, bands) of the file."""
        axes = AXES[self.interleave]
        sizes = dict(zip(CUBE_AXES, self.shape, strict=True))
        spans = dict(zip(CUBE_AXES, (rows, cols, bands), strict=True))
        box = np.empty([spans[axis].stop - spans[axis].start for axis in axes], self.dtype)
        for start, run in runs(box, [sizes[axis] for axis in axes], [spans[axis].start for axis in axes]):
            stream.seek(self.offset + start * self.dtype.itemsize)
            if stream.readinto(run.data) != run.nbytes:
                raise OSError(f"{self.path}: ends before the last of its numbers; copy the file again")
        return box.transpose([axes.index(axis) for axis in CUBE_AXES])


def runs(
    block: NDArray[Any], sizes: Sequence[int], first: Sequence[int]
) -> Iterator[tuple[int, NDArray[Any]]]:
    """Cut a block of a file's array into what lies together there.

    Parameters
    ----------
    block : ndarray, shape (a, b, c)
        In the order of the file, contiguous.
    sizes : sequence of 3 int
        Shape of the whole array.
    first : sequence of 3 int
        Where in it the block begins.

    Yields
    ------
    start : int
        Numbers in the file before the run.
    run : ndarray
        A view into the block.
    """
    # An axis that is taken whole lies together with the one before it.
    lead = 2
    while lead and block.shape[lead] == sizes[lead]:
        lead -= 1
    strides = (sizes[1] * sizes[2], sizes[2], 1)
    starts = np.array([sum(at * stride for at, stride in zip(first, strides, strict=True))])
    for length, stride in zip(block.shape[:lead], strides, strict=False):
        starts = np.add.outer(starts, np.arange(length) * stride)
    yield from zip(starts.ravel().tolist(), block.reshape(starts.size, -1), strict=True)


def _dtype(header: Header, source: str, byte_order: ByteOrder | None) -> np.dtype[Any]:
    code = _integer(header, "data type", source, least=0)
    if code not in DTYPES:
        raise ValueError(f"{source}: data type {code} is complex or unknown; want one of {sorted(DTYPES)}")
    if byte_order not in (None, "little", "big"):
        raise ValueError(f"{source}: byte_order must be little or big, got {byte_order!r}")
    if "byte order" in header:
        order = _integer(header, "byte order", source, least=0)
        if order > 1 or (byte_order is not None and byte_order != ("little", "big")[order]):
            raise ValueError(
                f"{source}: byte order = {order}; want 0 (little-endian) or 1 (big-endian)"
                + (f", and byte_order={byte_order!r} was asked for" if byte_order else "")
            )
    elif byte_order is not None or np.dtype(DTYPES[code]).itemsize == 1:
        order = int(byte_order == "big")
        log.warning("%s: no byte order; read as %s-endian, as asked for", source, byte_order or "little")
    else:
        raise ValueError(
            f"{source}: no byte order; add the line: byte order = 0 (little-endian, as PCs write; 1 is "
            f"big-endian), or open it with byte_order=little (--reader-options byte_order little)"
        )
    return np.dtype((">" if order else "<") + DTYPES[code])


def _integer(header: Header, key: str, source: str, *, least: int) -> int:
    text = str(header.get(key, "")).strip()
    if not (text.isascii() and text.isdecimal()) or len(text) > 30 or int(text) < least:
        found = f"{key} = {text[:40]}" if text else f"no {key}"
        raise ValueError(f"{source}: {found}; want the line: {key} = (an integer, at least {least})")
    return int(text)


def braced(parts: Sequence[object]) -> str:
    """Write a list as a header has it."""
    return "{" + ", ".join(str(part) for part in parts) + "}"


def number(header: Header, key: str, source: str) -> float | None:
    """Return the (first) number of a field, or None where there is none."""
    found = number_list(header, key, source)
    return found[0] if found else None


def number_list(header: Header, key: str, source: str) -> list[float]:
    """Return the numbers of a field; none where it is missing.

    Raises
    ------
    ValueError
        If something in it is no number.
    """
    value = header.get(key, "")
    return numbers(" ".join(value) if isinstance(value, list) else str(value), source=f"{source}: {key}")
