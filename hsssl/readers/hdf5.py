"""What the readers of HDF5 files share: opening them, finding what they hold, and reading windows of it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hsssl.lazy import as_slice, refuse_empty_claim

__all__ = ["arrays", "check_dataset", "is_hdf5", "open_hdf5", "read_hdf5_window", "text"]

_CUBE_AXES = "rcb"


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


def arrays(file: Any) -> dict[str, Any]:
    """List the datasets of numbers in an open file, by their path in it."""
    import h5py

    found: dict[str, Any] = {}

    def note(name: Any, item: Any) -> None:
        # A name that is not UTF-8 comes as bytes, and is none that a product has.
        if isinstance(item, h5py.Dataset) and isinstance(name, str) and item.dtype.kind in "iuf":
            found[name] = item

    file.visititems(note)
    return found


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
    if dataset.external or dataset.is_virtual:
        raise ValueError(
            f"{source}: {dataset.name} has its numbers in other files; gather them with h5repack"
        )
    claimed = dataset.size * dataset.dtype.itemsize
    refuse_empty_claim(claimed, dataset.id.get_storage_size(), source=source)


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


def text(value: Any) -> str:
    """Return an attribute or scalar dataset as text, whichever of HDF5's kinds of text it is."""
    array = np.asarray(value).ravel()
    first = array[0] if array.size else ""
    return first.decode("utf-8", "replace") if isinstance(first, bytes) else str(first)
