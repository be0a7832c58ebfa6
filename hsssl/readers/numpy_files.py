"""NumPy files: ``.npy``, mapped where it is large, and ``.npz`` archives of arrays."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from hsssl.cube import Cube
from hsssl.lazy import as_slice, load_or_defer, refuse_empty_claim
from hsssl.readers.wavelengths import band_wavelengths, to_nanometres, unit_of_name

if TYPE_CHECKING:
    from hsssl.readers import Wavelengths

__all__ = ["read_npy", "read_npz"]

_READ_BYTES = 2**20
Head = tuple[tuple[int, ...], bool, np.dtype[Any]]


def read_npy(
    path: str | os.PathLike[str], *, wavelengths: Wavelengths = None, lazy: bool | None = None
) -> Cube:
    """Read a ``.npy`` array (rows, cols, bands), or (1, rows, cols, bands), as a cube.

    Parameters
    ----------
    path : path
        The file; arrays of Python objects are never loaded.
    wavelengths : array_like (bands,) in nm, str or None
        Band centres; the format has no place for them.
    lazy : bool or None
        Leave the values in the file; None does so above `hsssl.lazy.RESIDENT_BYTES`.

    Returns
    -------
    Cube
        The numbers of the file and nothing else.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is damaged, or the array is no cube.

    Examples
    --------
    >>> cube = read_npy("cube.npy", wavelengths="400:1000")                 # doctest: +SKIP
    """
    file = Path(path)
    if not file.is_file():
        raise FileNotFoundError(f"{file}: no such file")
    with _one_line(file), file.open("rb") as stream:
        shape, fortran, dtype = _read_head(stream)
        offset = stream.tell()
    claimed, held = _bytes(shape, dtype), file.stat().st_size - offset
    if claimed > held:
        raise ValueError(f"{file}: {held} bytes of numbers, its header describes {claimed}; copy it again")
    rows, cols, bands = _cube_shape(shape, f"{file}: the array")
    open_whole: Callable[[], NDArray[Any]] = partial(
        np.memmap, file, dtype, "r", offset, shape, "F" if fortran else "C"
    )

    def read_window(r: slice, c: slice, b: NDArray[np.int64]) -> NDArray[Any]:
        whole = open_whole().reshape(rows, cols, bands, order="F" if fortran else "C")
        return np.array(whole[r, c][:, :, as_slice(b)])

    values = load_or_defer(read_window, (rows, cols, bands), dtype, lazy=lazy, source=str(file))
    centres = band_wavelengths(wavelengths, bands, source=str(file))
    return Cube(values, centres, source=str(path), details={"format": "NumPy"})


def read_npz(
    path: str | os.PathLike[str],
    *,
    variable: str | None = None,
    wavelengths: Wavelengths = None,
    lazy: bool | None = None,
) -> Cube:
    """Read the cube of a ``.npz`` archive: its one array (1, rows, cols, bands), or else (rows, cols, bands).

    Band centres are taken from a vector of matching length that is clearly named, as in MATLAB files.

    Parameters
    ----------
    path : path
        The archive; arrays of Python objects are never loaded.
    variable : str or None
        Name of the cube; needed only where several arrays have the dimensions of one.
    wavelengths : array_like (bands,) in nm, str or None
        Band centres to use in place of the archive's.
    lazy : bool or None
        An archive cannot be read by windows: True is refused.

    Returns
    -------
    Cube
        The numbers of the array.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the archive is damaged, or holds no cube or several.
    """
    file = Path(path)
    if not file.is_file():
        raise FileNotFoundError(f"{file}: no such file")
    if lazy:
        raise ValueError(f"{file}: an archive cannot be read by windows; save the cube as .npy")
    with _one_line(file), zipfile.ZipFile(file) as archive:
        heads = _heads(archive, file)
        name = _choose(heads, variable, file)
        shape = _cube_shape(heads[name][0], f"{file}: array {name!r}")
        values = _load(archive, name, heads[name]).reshape(shape)
        centres = band_wavelengths(wavelengths, shape[2], source=str(file))
        if centres is None:
            centres = _wavelengths(archive, heads, shape[2], str(file))
    return Cube(values, centres, source=str(path), details={"format": "NumPy archive"})


@contextmanager
def _one_line(file: Path) -> Iterator[None]:
    """Turn what numpy and zipfile raise on damage into one line."""
    try:
        yield
    except Exception as error:
        if isinstance(error, ValueError) and str(error).startswith(str(file)):
            raise
        if isinstance(error, OSError) and error.filename is not None:
            raise
        reason = (" ".join(str(error).split()) or type(error).__name__)[:200]
        raise ValueError(f"{file}: not a NumPy file of plain numbers, or a damaged one: {reason}") from error


def _read_head(stream: IO[bytes]) -> Head:
    version = npy.read_magic(stream)
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, fortran, dtype = read(stream)
    if dtype.kind not in "biuf":
        raise ValueError(f"dtype {dtype}, want integers or real numbers")
    if any(size < 0 for size in shape):
        raise ValueError(f"shape {shape}")
    return shape, fortran, np.dtype(dtype)


def _bytes(shape: tuple[int, ...], dtype: np.dtype[Any]) -> int:
    claimed = dtype.itemsize
    for size in shape:
        claimed *= int(size)
    return claimed


def _cube_shape(shape: tuple[int, ...], what: str) -> tuple[int, int, int]:
    if len(shape) == 4 and shape[0] == 1:
        shape = shape[1:]
    if len(shape) != 3 or 0 in shape:
        raise ValueError(f"{what} has shape {shape}, a cube is (rows, cols, bands); reshape it")
    return shape[0], shape[1], shape[2]


def _heads(archive: zipfile.ZipFile, file: Path) -> dict[str, Head]:
    """Read the header of every array of numbers, and refuse one that claims more than its member has."""
    heads = {}
    for member in archive.infolist():
        if not member.filename.endswith(".npy"):
            continue
        with archive.open(member) as stream:
            try:
                head = _read_head(stream)
            except ValueError:
                continue  # text, objects: no cube, and another array may be one
        refuse_empty_claim(member.file_size, member.compress_size, source=str(file))
        if _bytes(head[0], head[2]) <= member.file_size:
            heads[member.filename.removesuffix(".npy")] = head
    return heads


def _choose(heads: dict[str, Head], variable: str | None, file: Path) -> str:
    listing = ", ".join(f"{name} {' x '.join(map(str, head[0]))}" for name, head in heads.items())
    if variable is not None:
        if variable not in heads:
            raise ValueError(f"{file}: no array {variable!r}; it holds {listing or 'no arrays of numbers'}")
        return variable
    single = [name for name, (shape, _, _) in heads.items() if len(shape) == 4 and shape[0] == 1]
    fitting = single or [name for name, (shape, _, _) in heads.items() if len(shape) == 3]
    if len(fitting) == 1:
        return fitting[0]
    what = "several arrays are" if fitting else "no array is"
    raise ValueError(
        f"{file}: {what} (rows, cols, bands); it holds {listing or 'no arrays of numbers'}; "
        f"choose with --variable"
    )


def _load(archive: zipfile.ZipFile, name: str, head: Head) -> NDArray[Any]:
    shape, fortran, dtype = head
    raw = np.empty(_bytes(shape, dtype), np.uint8)
    with archive.open(f"{name}.npy") as stream:
        _read_head(stream)
        # By parts: what the stream gives is read-only, and copied.
        for first in range(0, len(raw), _READ_BYTES):
            part = raw[first : first + _READ_BYTES]
            held = stream.read(len(part))
            if len(held) != len(part):
                raise ValueError(f"array {name!r} ends before the last of its numbers")
            part[:] = np.frombuffer(held, np.uint8)
    return raw.view(dtype).reshape(shape, order="F" if fortran else "C")


def _wavelengths(
    archive: zipfile.ZipFile, heads: dict[str, Head], bands: int, source: str
) -> NDArray[np.float64] | None:
    for name, head in heads.items():
        unit = unit_of_name(name)
        if unit is not None and max(head[0], default=0) == bands == np.prod(head[0]):
            centres = _load(archive, name, head)
            return to_nanometres(centres, unit=unit, bands=bands, source=f"{source}: array {name!r}")
    return None
