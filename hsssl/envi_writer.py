"""Writing ENVI images block by block; header and data appear together when all is written."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
from numpy.typing import NDArray

from hsssl.atomic import atomic_path, refuse_existing
from hsssl.cube import Cube
from hsssl.messages import say_once
from hsssl.readers.envi_header import AXES, CUBE_AXES, DTYPES, NEVER_DATA, ByteOrder, braced, runs
from hsssl.sidecars import remove_sidecars
from hsssl.stream import Tile

__all__ = ["EnviWriter", "Interleave", "class_fields", "envi_paths", "open_envi"]

Interleave = Literal["bsq", "bil", "bip"]
_CODES = {name: code for code, name in DTYPES.items()}
# What parts the lists of a header.
_PLAIN = str.maketrans({",": ";", "{": "(", "}": ")", "\n": " ", "\r": " "})


@dataclass(frozen=True)
class EnviWriter:
    """An open ENVI data file that takes blocks of an image, in any order."""

    stream: IO[bytes]
    rows: int
    cols: int
    bands: int
    dtype: np.dtype[Any]
    interleave: Interleave

    def write(self, block: NDArray[Any], first_row: int, first_col: int = 0) -> None:
        """Write a block of the image.

        Parameters
        ----------
        block : ndarray, shape (rows, cols, bands)
            Its numbers.
        first_row, first_col : int
            Where in the image its first pixel is.

        Raises
        ------
        ValueError
            If the block does not fit into the image.
        """
        lines, samples = block.shape[:2]
        if (
            block.shape[2:] != (self.bands,)
            or not 0 <= first_row <= self.rows - lines
            or not 0 <= first_col <= self.cols - samples
        ):
            raise ValueError(
                f"a block of an image of {self.rows} x {self.cols} pixels and {self.bands} bands lies in it, "
                f"got {block.shape} at row {first_row}, column {first_col}"
            )
        axes = AXES[self.interleave]
        stored = block.transpose([CUBE_AXES.index(axis) for axis in axes])
        stored = np.ascontiguousarray(stored, dtype=self.dtype)
        sizes = dict(zip(CUBE_AXES, (self.rows, self.cols, self.bands), strict=True))
        first = dict(zip(CUBE_AXES, (first_row, first_col, 0), strict=True))
        for start, run in runs(stored, [sizes[axis] for axis in axes], [first[axis] for axis in axes]):
            self.stream.seek(start * self.dtype.itemsize)
            self.stream.write(run.data)

    def write_tile(self, tile: Tile, block: NDArray[Any]) -> None:
        """Write a block (rows, cols) or (rows, cols, bands) where the tile lies."""
        self.write(np.atleast_3d(block), *tile.corner)


def envi_paths(path: str | os.PathLike[str]) -> tuple[Path, Path]:
    """Return header and data file of an image named by either: "scene.hdr" goes with "scene.img".

    Raises
    ------
    ValueError
        If the extension is another format's.
    """
    file = Path(path)
    if file.suffix.lower() in NEVER_DATA - {".hdr"}:
        raise ValueError(f"{path}: {file.suffix} is no ENVI image; end it in .tif (GeoTIFF), .hdr or .img")
    if file.suffix.lower() == ".hdr":
        return file, file.with_suffix(".img")
    return file.with_suffix(".hdr"), file


@contextmanager
def open_envi(
    path: str | os.PathLike[str],
    like: Cube,
    *,
    count: int,
    dtype: str,
    nodata: float | None,
    descriptions: Sequence[str] | None = None,
    interleave: Interleave = "bil",
    byte_order: ByteOrder = "little",
    fields: Mapping[str, str] | None = None,
    overwrite: bool = False,
) -> Iterator[EnviWriter]:
    """Open a new ENVI image for writing by blocks; it appears under its name when the block ends well.

    Parameters
    ----------
    path : path
        Header (``.hdr``) or data file (any other extension); the other is named after it.
    like : Cube
        Gives rows, columns, CRS and transform.
    count : int
        Number of bands.
    dtype : str
        NumPy name of the dtype: uint8, and int and uint of 16, 32 and 64 bits, float32, float64.
    nodata : float or None
        Value of pixels that hold nothing ("data ignore value").
    descriptions : sequence of str or None
        Name of each band; commas and braces, which part the header's lists, become semicolons and brackets.
    interleave : {"bil", "bip", "bsq"}
        Order on disk. By line, what is written at a time lies together.
    byte_order : {"little", "big"}
        Of the numbers.
    fields : mapping of str to str, optional
        More fields of the header, such as ``{"wavelength": "{450, 550}"}``.
    overwrite : bool
        Replace existing files.

    Yields
    ------
    EnviWriter

    Raises
    ------
    FileExistsError
        If header or data exist and ``overwrite`` is off.
    ValueError
        If ENVI has no such dtype, cannot hold the transform (rotated, or with rows going north), or the
        extension is another format's.

    References
    ----------
    https://www.nv5geospatialsoftware.com/docs/ENVIHeaderFiles.html (2026-01)
    """
    header, data = envi_paths(path)
    # What other programs name the header; readers, ours too, look for it first.
    other = data.with_name(f"{data.name}.hdr")
    for file in (header, data, other):
        refuse_existing(file, overwrite=overwrite)
    text = _header_text(like, count, dtype, nodata, descriptions, interleave, byte_order, fields, str(data))
    stored = np.dtype(dtype).newbyteorder("<" if byte_order == "little" else ">")
    with atomic_path(header) as temporary:
        temporary.write_text(text, encoding="utf-8")
        with atomic_path(data) as numbers:
            with numbers.open("wb") as stream:
                stream.truncate(like.rows * like.cols * count * stored.itemsize)
                yield EnviWriter(stream, like.rows, like.cols, count, stored, interleave)
            # Killed between the two renames, the image is without a header and never with the old one.
            for old in (header, other):
                old.unlink(missing_ok=True)
            remove_sidecars(data)


def class_fields(names: Sequence[str], colours: Sequence[tuple[int, int, int]]) -> dict[str, str]:
    """Return the fields of the header that make an image a classification.

    Parameters
    ----------
    names : sequence of str
        Of class 0, 1, and so on; commas and braces become semicolons and brackets.
    colours : sequence of (red, green, blue)
        Of the same classes, 0 to 255.
    """
    return {
        "file type": "ENVI Classification",
        "classes": str(len(names)),
        "class names": braced([name.translate(_PLAIN).strip() for name in names]),
        "class lookup": braced([part for colour in colours for part in colour]),
    }


def _header_text(
    like: Cube,
    count: int,
    dtype: str,
    nodata: float | None,
    descriptions: Sequence[str] | None,
    interleave: str,
    byte_order: str,
    fields: Mapping[str, str] | None,
    source: str,
) -> str:
    code = _CODES.get(np.dtype(dtype).str[1:])
    if code is None:
        known = ", ".join(np.dtype(name).name for name in _CODES)
        raise ValueError(f"{source}: ENVI has no {dtype}; convert the values to one of {known}")
    if interleave not in AXES or byte_order not in ("little", "big"):
        raise ValueError(
            f"{source}: interleave is bsq, bil or bip and byte_order little or big, "
            f"got {interleave}, {byte_order}"
        )
    written = {
        "samples": str(like.cols),
        "lines": str(like.rows),
        "bands": str(count),
        "header offset": "0",
        "file type": "ENVI Standard",
        "data type": str(code),
        "interleave": interleave,
        "byte order": str(int(byte_order == "big")),
    }
    if nodata is not None:
        written["data ignore value"] = repr(float(nodata))
    if descriptions is not None:
        written["band names"] = braced(_plain_names(descriptions, count, source))
    written |= _place(like, source) | dict(fields or {})
    return "ENVI\n" + "".join(f"{name} = {value}\n" for name, value in written.items())


def _plain_names(names: Sequence[str], count: int, source: str) -> list[str]:
    if len(names) != count:
        raise ValueError(f"{source}: {len(names)} descriptions for {count} bands")
    plain = [name.translate(_PLAIN).strip() for name in names]
    if plain != list(names):
        say_once("%s: replaced commas and braces in band names, which part the header's lists", source)
    return plain


def _place(like: Cube, source: str) -> dict[str, str]:
    """Return map info and coordinate system string, as far as the cube has a place."""
    from rasterio.crs import CRS

    if like.transform is None:
        if like.crs is not None:
            say_once("%s: left out the CRS: without a transform, ENVI has no place for it", source)
        return {}
    a, b, c, d, e, f = like.transform
    if b or d or a <= 0 or e >= 0:
        raise ValueError(
            f"{source}: ENVI holds images with rows going south and columns east, the transform is "
            f"{like.transform}; write a GeoTIFF, or warp it first"
        )
    corner = [1, 1, repr(float(c)), repr(float(f)), repr(float(a)), repr(float(-e))]
    if like.crs is None:
        return {"map info": braced(["Arbitrary", *corner])}
    crs = CRS.from_wkt(like.crs)
    kind = ["Geographic Lat/Lon", *corner, "units=Degrees"]
    if not crs.is_geographic:
        kind = ["Projection", *corner]
    return {"map info": braced(kind), "coordinate system string": "{" + crs.to_wkt(version="WKT1_ESRI") + "}"}
