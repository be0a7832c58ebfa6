"""HDF5 files: what the products' readers share, and the reader of files of no known product."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hsssl.cube import Cube
from hsssl.lazy import as_slice, load_or_defer, refuse_empty_claim
from hsssl.readers.wavelengths import band_wavelengths, to_nanometres, unit_of_name

if TYPE_CHECKING:
    from hsssl.readers import Wavelengths

__all__ = [
    "block_in",
    "check_dataset",
    "epsg_wkt",
    "first",
    "is_hdf5",
    "open_hdf5",
    "read_hdf5",
    "read_hdf5_window",
    "refuse_false_sizes",
    "small_array",
    "small_text",
]

_CUBE_AXES = "rcb"
# No vector of wavelengths or the like is longer.
_MOST_NUMBERS = 2**20
_LONGEST_TEXT = 2**16
_LONGEST_HEAP = 2**26


def is_hdf5(path: str | os.PathLike[str]) -> bool:
    """Whether a file has the signature of HDF5, which netCDF-4 and MATLAB 7.3 have too."""
    import h5py

    return Path(path).is_file() and bool(h5py.is_hdf5(os.fspath(path)))


@contextmanager
def open_hdf5(path: str | os.PathLike[str]) -> Iterator[Any]:
    """Open an HDF5 file for reading; whatever the library raises on damage becomes one line.

    Yields
    ------
    h5py.File

    Raises
    ------
    ValueError
        If it is no HDF5 file or a damaged one; a ValueError of the block itself passes as it is.
    """
    import h5py

    try:
        # Without a lock: the file is only read, and many products lie on disks that cannot lock.
        with h5py.File(path, "r", locking=False) as file:
            yield file
    except ValueError as error:
        if str(error).startswith(os.fspath(path)):
            raise
        raise damaged(path, error) from error
    except (OSError, RuntimeError, KeyError, TypeError, AttributeError, UnicodeError) as error:
        raise damaged(path, error) from error


def damaged(path: str | os.PathLike[str], error: Exception) -> ValueError:
    """Return the one-line error for a file that the HDF5 library cannot read."""
    reason = (" ".join(str(error).split()) or type(error).__name__)[:200]
    return ValueError(f"{os.fspath(path)}: not an HDF5 file, or a damaged one: {reason}")


def read_hdf5(
    path: str | os.PathLike[str],
    *,
    variable: str | None = None,
    axes: str = "rcb",
    wavelengths: Wavelengths = None,
    lazy: bool | None = None,
) -> Cube:
    """Read the one three-dimensional array of an HDF5 or netCDF-4 file of no product known here.

    Band centres are taken from a vector of matching length that is clearly named, as in MATLAB files;
    ``_FillValue``, ``scale_factor`` and ``add_offset`` from the array's attributes (the CF conventions).

    Parameters
    ----------
    path : path
        The file.
    variable : str or None
        Path of the array in the file; needed only where several have three dimensions.
    axes : str
        Order of its dimensions: r rows, c columns, b bands; "brc" is common in netCDF.
    wavelengths : array_like (bands,) in nm, str or None
        Band centres to use in place of the file's.
    lazy : bool or None
        Leave the values in the file; None does so above `hsssl.lazy.RESIDENT_BYTES`.

    Returns
    -------
    Cube
        Raw values; no georeference.

    Raises
    ------
    ValueError
        If the file is damaged, or holds no cube or several.

    Examples
    --------
    >>> cube = read_hdf5("cube.h5", variable="scene/data", axes="brc")      # doctest: +SKIP
    """
    source = os.fspath(path)
    if sorted(axes) != sorted(_CUBE_AXES):
        raise ValueError(f"{source}: axes must name r, c and b in some order, such as rcb, got {axes!r}")
    with open_hdf5(path) as file:
        held = _arrays(file)
        name = _choose(held, variable, source)
        data = held[name]
        check_dataset(data, source=source)
        sizes = dict(zip(axes, data.shape, strict=True))
        shape = (sizes["r"], sizes["c"], sizes["b"])
        attrs = {key: first(data.attrs.get(key)) for key in ("_FillValue", "scale_factor", "add_offset")}
        dtype, block = data.dtype, block_in(data, axes)
        centres = band_wavelengths(wavelengths, shape[2], source=source)
        if centres is None:
            centres = _wavelengths(held, shape[2], source)
    read_window = partial(read_hdf5_window, source, name, axes)
    scaled = attrs["scale_factor"] is not None or attrs["add_offset"] is not None
    return Cube(
        values=load_or_defer(read_window, shape, dtype, lazy=lazy, block=block, source=source),
        wavelengths=centres,
        nodata=attrs["_FillValue"],
        scale=attrs["scale_factor"] or 1.0,
        offset=attrs["add_offset"] or 0.0,
        scale_source="scale_factor and add_offset" if scaled else "",
        source=source,
        details={"format": "HDF5", "interleave": f"{axes} (r rows, c columns, b bands)"},
    )


def _arrays(file: Any) -> dict[str, Any]:
    """List the datasets of numbers in an open file, by their path in it."""
    import h5py

    found: dict[str, Any] = {}

    def note(name: Any, item: Any) -> None:
        # A name that is not UTF-8 comes as bytes, and is none that a product has.
        if isinstance(item, h5py.Dataset) and isinstance(name, str) and item.dtype.kind in "iuf":
            found[name] = item

    file.visititems(note)
    return found


def _choose(held: dict[str, Any], variable: str | None, source: str) -> str:
    listing = ", ".join(f"{name} {' x '.join(map(str, data.shape))}" for name, data in held.items())[:400]
    if variable is not None:
        if variable.strip("/") not in held:
            raise ValueError(f"{source}: no array {variable!r}; it holds {listing or 'no arrays of numbers'}")
        return variable.strip("/")
    fitting = [name for name, data in held.items() if data.ndim == 3]
    if len(fitting) == 1:
        return fitting[0]
    what = "several arrays have" if fitting else "no array has"
    raise ValueError(
        f"{source}: {what} three dimensions; it holds {listing or 'no arrays of numbers'}; "
        f"choose with --variable"
    )


def _wavelengths(held: dict[str, Any], bands: int, source: str) -> NDArray[np.float64] | None:
    for name, data in held.items():
        unit = unit_of_name(name.rsplit("/", 1)[-1])
        if unit is not None and data.size == bands == max(data.shape, default=0):
            refuse_false_sizes(data, source=source)
            return to_nanometres(np.asarray(data), unit=unit, bands=bands, source=f"{source}: {name}")
    return None


def block_in(dataset: Any, axes: str) -> tuple[int, int] | None:
    """Return rows and columns of a dataset's chunks, None without any; ``axes`` as in `read_hdf5`."""
    if dataset.chunks is None:
        return None
    sizes = dict(zip(axes, dataset.chunks, strict=True))
    return sizes["r"], sizes["c"]


def check_dataset(dataset: Any, *, source: str) -> None:
    """Refuse a dataset that is no array of numbers with three dimensions, or claims more than it holds.

    Raises
    ------
    ValueError
        As said; see `hsssl.lazy.refuse_empty_claim`.
    """
    if dataset.ndim != 3 or dataset.dtype.kind not in "iuf" or 0 in dataset.shape:
        raise ValueError(
            f"{source}: {dataset.name} has shape {dataset.shape} and dtype {dataset.dtype}, a cube has three "
            f"dimensions of numbers"
        )
    refuse_false_sizes(dataset, source=source)


def refuse_false_sizes(dataset: Any, *, source: str) -> None:
    """Refuse a dataset that claims more than it holds, in all or a chunk, or has its numbers elsewhere."""
    if dataset.external or dataset.is_virtual:
        raise ValueError(
            f"{source}: {dataset.name} has its numbers in other files; gather them with h5repack"
        )
    itemsize = dataset.dtype.itemsize
    held = dataset.id.get_storage_size()
    refuse_empty_claim(math.prod(dataset.shape) * itemsize, held, source=source)
    # The library makes room for a whole chunk whatever part of it is asked for.
    refuse_empty_claim(math.prod(dataset.chunks or ()) * itemsize, 0, source=source)


def small_array(file: Any, name: str, *, source: str) -> NDArray[np.float64]:
    """Read a vector that goes with the bands as float64, and refuse one of an absurd size."""
    dataset = file[name]
    if dataset.size > _MOST_NUMBERS or dataset.dtype.kind not in "biuf":
        raise ValueError(
            f"{source}: {name} has {dataset.size} elements of {dataset.dtype}, want a few numbers"
        )
    refuse_false_sizes(dataset, source=source)
    return np.asarray(dataset, dtype=np.float64).ravel()


def read_hdf5_window(
    path: str | os.PathLike[str],
    name: str,
    axes: str,
    rows: slice,
    cols: slice,
    bands: NDArray[np.int64],
) -> NDArray[Any]:
    """Read a window of a dataset; see `hsssl.lazy.ReadWindow`.

    ``axes`` names its dimensions in order, "r" rows, "c" columns, "b" bands: "rbc" is a pushbroom swath.
    """
    # HDF5 takes ascending numbers only, each once.
    wanted, back = np.unique(bands, return_inverse=True)
    chosen = as_slice(wanted)
    part = dict(zip(_CUBE_AXES, (rows, cols, chosen), strict=True))
    with open_hdf5(path) as file:
        read = np.asarray(file[name][tuple(part[axis] for axis in axes)])
    cube = read.transpose([axes.index(axis) for axis in _CUBE_AXES])
    return cube if len(bands) == len(wanted) and (back == np.arange(len(back))).all() else cube[:, :, back]


def small_text(file: Any, name: str, *, source: str) -> str:
    """Read a dataset of one text, and refuse one of an absurd size."""
    dataset = file[name]
    if dataset.size != 1 or dataset.dtype.itemsize > _LONGEST_TEXT:
        raise ValueError(f"{source}: {name} has {dataset.size} elements of {dataset.dtype}, want one text")
    if dataset.dtype.kind == "O":
        _refuse_endless_heap(file.file.filename, dataset, source=source)
    value = np.ravel(np.asarray(dataset[()]))[0]
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _refuse_endless_heap(path: str, dataset: Any, *, source: str) -> None:
    """Refuse a text of variable length whose heap is damaged: the library can walk around it forever.

    HDF5 File Format Specification version 3.0, III.E "Disk Format: Level 1E - Global Heap": the dataset holds
    a length, the address of a collection and a number in it; a collection is a head of 16 bytes, and objects
    of 16 bytes and their data, padded to 8, one after the other.
    """
    place = dataset.id.get_offset()
    if place is None:  # chunked or in the object's head, where the library checks what it reads
        return
    with open(path, "rb") as file:
        file.seek(place + 4)
        file.seek(int.from_bytes(file.read(8), "little"))
        head = file.read(16)
        left = int.from_bytes(head[8:], "little") - 16
        sound = head[:4] == b"GCOL" and left <= _LONGEST_HEAP
        collection = file.read(left) if sound else b""
    at, sound = 0, sound and len(collection) == left
    while sound and at + 16 <= left:
        number, size = collection[at : at + 2], int.from_bytes(collection[at + 8 : at + 16], "little")
        if number == b"\0\0":  # the free space at the end, whose size counts its head
            size -= 16
            if size != left - at - 16:
                break
        at += 16 + size + -size % 8
        sound = at <= left
    if not sound or at < left - 15:
        raise ValueError(f"{source}: {dataset.name} is a text in a damaged heap; copy the file again")


def first(value: Any) -> float | None:
    """Return the first number of an attribute as a float; None where there is none."""
    try:
        array = np.ravel(np.asarray(value, dtype=np.float64))
    except (TypeError, ValueError):
        return None
    return float(array[0]) if array.size else None


def epsg_wkt(code: str) -> str | None:
    """Return the coordinate reference system of an EPSG code as WKT; None for a code that is none."""
    from rasterio.crs import CRS
    from rasterio.errors import CRSError

    try:
        return str(CRS.from_epsg(int(float(code))).to_wkt())
    except (CRSError, ValueError, OverflowError):
        return None
