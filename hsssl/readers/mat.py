"""MATLAB files: version 5 through scipy, version 7.3 (HDF5) through h5py."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from hsssl.cube import Cube
from hsssl.lazy import load_or_defer, refuse_empty_claim
from hsssl.messages import say_once
from hsssl.readers.hdf5 import (
    block_in,
    check_dataset,
    is_hdf5,
    open_hdf5,
    read_hdf5_window,
    refuse_false_sizes,
)
from hsssl.readers.mat_elements import check_elements
from hsssl.readers.wavelengths import band_wavelengths, to_nanometres, unit_of_name

if TYPE_CHECKING:
    from hsssl.readers import Wavelengths

__all__ = ["load_variable", "read_mat", "variables"]

T = TypeVar("T")

_NUMERIC = {f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)} | {"single", "double"}


@dataclass(frozen=True)
class Variable:
    """One variable of a MATLAB file: shape as MATLAB shows it, and its class ("double", "uint16", "cell")."""

    shape: tuple[int, ...]
    kind: str

    @property
    def numeric(self) -> bool:
        """Whether it is an array of numbers; logical arrays count."""
        return self.kind in _NUMERIC or self.kind == "logical"


def read_mat(
    path: str | os.PathLike[str],
    *,
    variable: str | None = None,
    wavelengths: Wavelengths = None,
    rows: int | None = None,
    cols: int | None = None,
    lazy: bool | None = None,
) -> Cube:
    """Read the cube of a MATLAB file: its one numeric variable with three dimensions.

    A list of pixels, (bands, pixels) or (pixels, bands), is a cube too where the size of the image is known:
    given, or as scalars ``nRow`` and ``nCol`` in the file. Its pixels go down the columns of the image, as
    MATLAB reshapes: pixel k is row k mod rows, column k div rows.

    Band centres are taken from a vector of matching length that is clearly named
    (``wavelength``, ``wavelengths``, ``wl_nm``, ``lambda`` and the like).

    Parameters
    ----------
    path : path
        File of version 4, 5 or 7.3.
    variable : str or None
        Name of the cube; needed only where several variables have three dimensions.
    wavelengths : array_like (bands,) in nm, str or None
        Band centres to use in place of the file's; a text as `parse_wavelengths` takes it.
    rows, cols : int or None
        Size of the image that a list of pixels is.
    lazy : bool or None
        Leave the values in the file, which version 7.3 can; None does so above
        `hsssl.lazy.RESIDENT_BYTES`.

    Returns
    -------
    Cube
        Values (rows, cols, bands) as MATLAB shows them; no scale, nodata or georeference.

    Raises
    ------
    ValueError
        If no variable, or more than one, has three dimensions, or the file is damaged.

    Examples
    --------
    >>> cube = read_mat("Indian_pines_corrected.mat")                       # doctest: +SKIP
    """
    path = os.fspath(path)
    held = variables(path)
    size = _image_size(path, held, rows, cols)
    if size is None:
        name = choose(path, held, variable, lambda v: v.numeric and len(v.shape) == 3, "three dimensions")
    else:
        pixels = size[0] * size[1]
        what = f"two dimensions, one of {pixels} pixels"
        name = choose(
            path, held, variable, lambda v: v.numeric and len(v.shape) == 2 and pixels in v.shape, what
        )
    if size is None and len(held[name].shape) != 3:
        raise ValueError(
            f"{path}: variable {name!r} has shape {held[name].shape}, a cube is (rows, cols, bands); "
            f"it holds {_listing(held)}; choose another with --variable, or give rows and cols of a list"
        )
    values = _load_cube(path, name, held[name], lazy) if size is None else _unfold(path, name, size)
    bands = values.shape[2]
    centres = band_wavelengths(wavelengths, bands, source=path)
    if centres is None:
        centres = _wavelengths(path, held, bands)
    details = {"format": "MATLAB 7.3 (HDF5)" if is_hdf5(path) else "MATLAB"}
    return Cube(values=values, wavelengths=centres, source=path, details=details)


def _image_size(
    path: str, held: Mapping[str, Variable], rows: int | None, cols: int | None
) -> tuple[int, int] | None:
    """Return the size of the image that a list of pixels is; None where there is none to unfold."""
    if rows is not None or cols is not None:
        if not (isinstance(rows, int) and isinstance(cols, int) and min(rows, cols) > 0):
            raise ValueError(
                f"{path}: a list of pixels needs rows and cols, both positive: got {rows}, {cols}"
            )
        return rows, cols
    scalars = {name: held[name] for name in ("nRow", "nCol") if name in held}
    if any(v.numeric and len(v.shape) == 3 for v in held.values()) or len(scalars) < 2:
        return None
    if any(not v.numeric or np.prod(v.shape) != 1 for v in scalars.values()):
        return None
    size = [int(load_variable(path, name).item()) for name in scalars]
    if min(size) < 1:
        raise ValueError(f"{path}: it says nRow, nCol = {size[0]}, {size[1]}; give rows and cols")
    say_once("%s: a list of pixels, read down the columns of its %d x %d (nRow, nCol) image", path, *size)
    return size[0], size[1]


def _load_cube(path: str, name: str, variable: Variable, lazy: bool | None) -> Any:
    if not is_hdf5(path):
        return load_variable(path, name)
    with open_hdf5(path) as file:
        check_dataset(file[name], source=path)
        dtype, block = file[name].dtype, block_in(file[name], "bcr")
    # MATLAB stores column-major, so HDF5 shows the axes reversed.
    read_window = partial(read_hdf5_window, path, name, "bcr")
    rows, cols, bands = variable.shape
    return load_or_defer(read_window, (rows, cols, bands), dtype, lazy=lazy, block=block, source=path)


def _unfold(path: str, name: str, size: tuple[int, int]) -> NDArray[Any]:
    """Return a list of pixels as the image (rows, cols, bands) that MATLAB made it of."""
    values, (rows, cols) = load_variable(path, name), size
    if values.ndim != 2 or rows * cols not in values.shape:
        raise ValueError(
            f"{path}: variable {name!r} has shape {values.shape}, want a list of {rows} x {cols} = "
            f"{rows * cols} pixels; correct rows and cols"
        )
    # (bands, pixels) is the custom of the unmixing scenes; it wins where both axes fit.
    pixels = values.T if values.shape[1] == rows * cols else values  # (pixels, bands)
    return np.ascontiguousarray(pixels.reshape(cols, rows, -1).transpose(1, 0, 2))


def variables(path: str) -> dict[str, Variable]:
    """List the variables of a MATLAB file of either format.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is not a MATLAB file or is damaged.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: no such file")
    return _guarded(path, lambda: _variables_hdf5(path) if is_hdf5(path) else _variables_v5(path))


def load_variable(path: str, name: str) -> NDArray[Any]:
    """Load the numeric array ``name`` of a MATLAB file, with the axes in MATLAB's order."""
    array = _guarded(path, lambda: _load_hdf5(path, name) if is_hdf5(path) else _load_v5(path, name))
    if array.dtype.kind not in "biuf":
        raise ValueError(f"{path}: variable {name!r} has dtype {array.dtype}, want integers or real numbers")
    return array.astype(np.uint8) if array.dtype.kind == "b" else array


def choose(
    path: str,
    held: Mapping[str, Variable],
    wanted: str | None,
    fits: Callable[[Variable], bool],
    what: str,
) -> str:
    """Return ``wanted`` if the file holds it, or else the one variable that fits.

    Raises
    ------
    ValueError
        If none or several fit; lists the variables with their shapes.
    """
    if wanted is not None:
        if wanted not in held:
            raise ValueError(f"{path}: no variable {wanted!r}; it holds {_listing(held)}")
        return wanted
    fitting = [name for name, variable in held.items() if fits(variable)]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        among = {name: held[name] for name in fitting}
        raise ValueError(f"{path}: several variables have {what}: {_listing(among)}; choose with --variable")
    raise ValueError(
        f"{path}: no variable has {what}; it holds {_listing(held)}; give rows and cols of a list of pixels, "
        f"name a variable that fits with --variable, or use a label map as --labels"
    )


def _listing(held: Mapping[str, Variable]) -> str:
    named = [f"{name} {' x '.join(map(str, v.shape))} {v.kind}" for name, v in held.items()]
    return ", ".join(named) or "no variables"


def _wavelengths(path: str, held: Mapping[str, Variable], bands: int) -> NDArray[np.float64] | None:
    for name, variable in held.items():
        unit = unit_of_name(name)
        if unit is not None and variable.numeric and max(variable.shape) == bands == np.prod(variable.shape):
            centres = load_variable(path, name)
            return to_nanometres(centres, unit=unit, bands=bands, source=f"{path}: variable {name!r}")
    return None


def _guarded(path: str, action: Callable[[], T]) -> T:
    """Turn whatever a parser raises on a damaged file into one line; none promises an exception type."""
    try:
        return action()
    except MemoryError as error:
        raise ValueError(f"{path}: too large for this machine's memory; cut it first") from error
    except Exception as error:
        if isinstance(error, ValueError) and str(error).startswith(path):
            raise
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"{path}: not a MATLAB file, or a damaged one: {reason[:200]}") from error


def _variables_v5(path: str) -> dict[str, Variable]:
    from scipy.io import whosmat

    check_elements(path)
    listed = whosmat(path)
    return {name: Variable(tuple(shape), kind) for name, shape, kind in listed if not name.startswith("__")}


def _load_v5(path: str, name: str) -> NDArray[Any]:
    from scipy.io import loadmat, whosmat

    shape = next(tuple(shape) for held, shape, _ in whosmat(path) if held == name)
    # A double may be stored in one byte.
    refuse_empty_claim(8 * math.prod(shape), 8 * os.path.getsize(path), source=path)
    return np.asarray(loadmat(path, variable_names=[name])[name])


def _variables_hdf5(path: str) -> dict[str, Variable]:
    import h5py

    held = {}
    with h5py.File(path, "r") as file:
        for name, item in file.items():
            # A name that is not UTF-8 comes as bytes, and is none that MATLAB writes.
            if isinstance(item, h5py.Dataset) and isinstance(name, str):
                kind = item.attrs.get("MATLAB_class", item.dtype.name)
                kind = kind.decode() if isinstance(kind, bytes) else str(kind)
                kind = {"float64": "double", "float32": "single"}.get(kind, kind)
                held[name] = Variable(tuple(item.shape[::-1]), kind)
    return held


def _load_hdf5(path: str, name: str) -> NDArray[Any]:
    """Load with the axes put right: MATLAB stores column-major, so HDF5 shows them reversed."""
    import h5py

    with h5py.File(path, "r") as file:
        refuse_false_sizes(file[name], source=path)
        return np.asarray(file[name][()]).T
