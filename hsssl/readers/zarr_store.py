"""Zarr stores, versions 2 and 3, through GDAL."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hsssl.cube import Cube
from hsssl.lazy import load_or_defer, refuse_empty_claim
from hsssl.readers.raster import open_gdal, read_gdal_window
from hsssl.readers.wavelengths import band_wavelengths, to_nanometres, unit_of_name

if TYPE_CHECKING:
    from hsssl.readers import Wavelengths

__all__ = ["is_zarr", "read_zarr"]

# zarr-specs, v2 (".zarray", ".zattrs") and v3 ("zarr.json" with node_type and attributes); the names of
# dimensions as Xarray writes them (_ARRAY_DIMENSIONS) and as v3 has them (dimension_names).
_MARKS = ("zarr.json", ".zgroup", ".zarray", ".zmetadata")
_COLS = {"x", "lon", "longitude", "easting", "col", "cols", "column", "columns", "samples"}
_ROWS = {"y", "lat", "latitude", "northing", "row", "rows", "line", "lines"}
_LARGEST_JSON = 2**26
_MANY_CHUNKS, _MOST_MISSING = 2**14, 1000


def is_zarr(folder: Path) -> bool:
    """Whether a folder is a Zarr store."""
    return folder.is_dir() and any((folder / mark).is_file() for mark in _MARKS)


def read_zarr(
    path: str | os.PathLike[str],
    *,
    variable: str | None = None,
    wavelengths: Wavelengths = None,
    lazy: bool | None = None,
) -> Cube:
    """Read the one three-dimensional array of a Zarr store as a cube.

    Rows and columns are the dimensions called y and x (or row, line, lat, ...; col, sample, lon, ...); where
    they have no such names, the last two, as in (bands, rows, cols). Band centres are taken
    from an attribute of the array that is clearly named (``wavelength``, ``wavelengths_nm`` and the like).

    Parameters
    ----------
    path : path
        The store's folder.
    variable : str or None
        Path of the array in the store; needed only where several have three dimensions.
    wavelengths : array_like (bands,) in nm, str or None
        Band centres to use in place of the store's.
    lazy : bool or None
        Leave the values in the store; None does so above `hsssl.lazy.RESIDENT_BYTES`.

    Returns
    -------
    Cube
        Raw values; nodata is the array's fill value, CRS and transform as GDAL finds them.

    Raises
    ------
    ValueError
        If the store is damaged, or holds no cube or several.

    References
    ----------
    https://gdal.org/en/stable/drivers/raster/zarr.html (2026-01)

    Examples
    --------
    >>> cube = read_zarr("scene.zarr")                                      # doctest: +SKIP
    """
    store = Path(path)
    held = _arrays(store)
    name = _choose(held, variable, store)
    about = held[name]
    _refuse_missing_chunks(store / name, about, store)
    rows_at, cols_at = _place_of_rows_and_cols(about["dims"])
    dataset = f'ZARR:"{store}":/{name}' if name else f'ZARR:"{store}"'
    options = {"DIM_Y": str(rows_at), "DIM_X": str(cols_at)}
    with _hint_for_version_3(about), open_gdal(dataset, **options) as raster:
        shape, block = (raster.height, raster.width, raster.count), raster.block_shapes[0]
        dtype = np.result_type(*raster.dtypes)
        if dtype.kind not in "iuf":
            raise ValueError(f"{store}: values are {dtype}, want integers or real numbers")
        files = [file for file in (store / name).rglob("*") if file.is_file()]
        refuse_empty_claim(
            int(np.prod(shape, dtype=object)) * dtype.itemsize,
            sum(file.stat().st_size for file in files),
            source=str(store),
        )
        nodata = raster.nodatavals[0]
        crs = raster.crs.to_wkt() if raster.crs else None
        transform = None if raster.transform.is_identity else tuple(raster.transform)[:6]
    given = band_wavelengths(wavelengths, shape[2], source=str(store))
    read_window = partial(read_gdal_window, dataset, dtype, options=options)
    return Cube(
        values=load_or_defer(read_window, shape, dtype, lazy=lazy, block=block, source=str(store)),
        wavelengths=_wavelengths(about["attrs"], shape[2], str(store)) if given is None else given,
        nodata=None if nodata is None else float(nodata),
        crs=crs,
        transform=transform,
        source=os.fspath(path),
        details={"format": f"Zarr version {about['version']}"},
    )


def _chunks(record: Mapping[str, Any], mark: Path) -> list[int]:
    grid = record.get("chunk_grid", {})
    settings = grid.get("configuration", {}) if isinstance(grid, dict) else {}
    shape = record.get("chunks", settings.get("chunk_shape") if isinstance(settings, dict) else None)
    if not isinstance(shape, list) or not all(isinstance(size, int) and size > 0 for size in shape):
        raise ValueError(f"{mark}: no shape of chunks in it; the store is damaged")
    return shape


@contextmanager
def _hint_for_version_3(about: Mapping[str, Any]) -> Iterator[None]:
    """Add to GDAL's error what to do: before 3.11 it reads drafts of version 3 only."""
    try:
        yield
    except ValueError as error:
        if about["version"] != 3 or "GDAL cannot read it" not in str(error):
            raise
        raise ValueError(f"{error}; GDAL before 3.11 does not; write the store with zarr_format=2") from error


def _arrays(store: Path) -> dict[str, dict[str, Any]]:
    """List the arrays of a store: path, shape, names of dimensions, attributes."""
    held: dict[str, dict[str, Any]] = {}
    for mark in sorted([*store.rglob(".zarray"), *store.rglob("zarr.json")]):
        record = _json(mark)
        if mark.name == "zarr.json" and record.get("node_type") != "array":
            continue
        side = mark.with_name(".zattrs")
        attrs = record.get("attributes", {}) if mark.name == "zarr.json" else {}
        attrs = _json(side) if side.is_file() else attrs
        shape = record.get("shape")
        if not isinstance(shape, list) or not all(isinstance(size, int) for size in shape):
            raise ValueError(f"{mark}: no shape in it; the store is damaged")
        if not isinstance(attrs, dict):
            raise ValueError(f"{mark}: its attributes are no mapping; the store is damaged")
        dims = record.get("dimension_names") or attrs.get("_ARRAY_DIMENSIONS") or []
        names = [str(dim).lower() for dim in dims] if isinstance(dims, list) else []
        name = "" if mark.parent == store else mark.parent.relative_to(store).as_posix()
        version = 3 if mark.name == "zarr.json" else 2
        held[name] = {"shape": shape, "dims": names, "attrs": attrs, "version": version}
        held[name]["chunks"] = _chunks(record, mark)
    return held


def _refuse_missing_chunks(array: Path, about: Mapping[str, Any], store: Path) -> None:
    """Refuse a store of which nearly nothing is there: GDAL looks for each missing chunk."""
    grid = zip(about["shape"], about["chunks"], strict=False)
    chunks = math.prod(-(-size // part) for size, part in grid)
    if chunks <= _MANY_CHUNKS:
        return
    files = sum(1 for file in array.rglob("*") if file.is_file())
    if chunks > _MOST_MISSING * files:
        raise ValueError(f"{store}: {chunks} chunks by its metadata, {files} files in it; copy it again")


def _json(file: Path) -> dict[str, Any]:
    try:
        if file.stat().st_size > _LARGEST_JSON:
            raise ValueError("too long")
        record = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file}: not readable as JSON ({str(error)[:60]}); the store is damaged") from error
    if not isinstance(record, dict):
        raise ValueError(f"{file}: want a mapping; the store is damaged")
    return record


def _choose(held: Mapping[str, dict[str, Any]], variable: str | None, store: Path) -> str:
    listing = ", ".join(f"{name or '/'} {' x '.join(map(str, a['shape']))}" for name, a in held.items())
    if variable is not None:
        if variable.strip("/") not in held:
            raise ValueError(f"{store}: no array {variable!r}; it holds {listing or 'no arrays'}")
        return variable.strip("/")
    fitting = [name for name, about in held.items() if len(about["shape"]) == 3]
    if len(fitting) == 1:
        return fitting[0]
    what = "several arrays have" if fitting else "no array has"
    raise ValueError(
        f"{store}: {what} three dimensions; it holds {listing or 'no arrays'}; choose with --variable"
    )


def _place_of_rows_and_cols(names: list[str]) -> tuple[int, int]:
    rows = [at for at, name in enumerate(names) if name in _ROWS]
    cols = [at for at, name in enumerate(names) if name in _COLS]
    return (rows[0], cols[0]) if len(names) == 3 and len(rows) == len(cols) == 1 else (1, 2)


def _wavelengths(attrs: Mapping[str, Any], bands: int, source: str) -> Any:
    for name, value in attrs.items():
        unit = unit_of_name(name)
        if unit is None or not isinstance(value, list) or len(value) != bands:
            continue
        try:
            numbers = np.array(value, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{source}: attribute {name!r} holds other than numbers") from error
        return to_nanometres(numbers, unit=unit, bands=bands, source=f"{source}: attribute {name!r}")
    return None
