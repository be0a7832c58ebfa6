"""The cube: one hyperspectral or multispectral image as its file has it, and all that goes with it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hsssl.blocks import cut_parts
from hsssl.lazy import LazyValues, pick_bands

__all__ = ["Cube"]

FloatArray = NDArray[np.floating[Any]]
BoolArray = NDArray[np.bool_]
IntArray = NDArray[np.int64]
_TILE_VALUES = 2**21


@dataclass(frozen=True, eq=False)
class Cube:
    """A cube of raw values with wavelengths, masks and georeference.

    Readers fill it with what the file says and change nothing: physical values are
    ``values * scale + offset``, and dropping, sorting or masking is the explicit step
    `hsssl.prepare`.

    Parameters
    ----------
    values : ndarray or `hsssl.lazy.LazyValues`, shape (rows, cols, bands)
        Numbers as the file has them, any integer or real dtype. Those of a large file stay in it and are
        read by slicing, ``values[first:last]``; `window` makes a cube in memory of a part.
    wavelengths : ndarray, shape (bands,), float64, or None
        Band centres in nm, in file order (not necessarily sorted). None if the file has none.
    fwhm : ndarray, shape (bands,), float64, or None
        Full width at half maximum of each band in nm.
    good_bands : ndarray, shape (bands,), bool, or None
        The file's own bad-band list (ENVI ``bbl``); None becomes all True.
    nodata : float or None
        The raw value that means "nothing measured here".
    valid : ndarray, shape (rows, cols), bool, or None
        False where a pixel was not measured. None is computed from the raw numbers: a pixel is
        invalid if every band, or any good band that is not void throughout, is nodata or not finite.
    scale, offset : float or ndarray, shape (bands,), float64
        Physical value = raw value x scale + offset; arrays where bands differ.
    scale_source : str
        Where ``scale`` and ``offset`` come from; empty if the file states none.
    crs : str or None
        Coordinate reference system as WKT.
    transform : tuple of 6 floats or None
        Affine transform (a, b, c, d, e, f): x = a col + b row + c, y = d col + e row + f.
    band_names : tuple of str
        Names of the bands, or empty.
    source_index : ndarray, shape (bands,), int64, or None
        Number of each band in the file it came from; None becomes 0 ... bands - 1.
    source_bands : int or None
        How many bands the file has; None becomes the number of bands.
    source : str
        Path or scene name, for messages and records.
    details : dict of str to str
        What else the file says, for people: ``format``, ``interleave``, ``byte order``, ``wavelength unit``,
        ``sensor``, as far as it does.

    Raises
    ------
    ValueError
        If shapes disagree or wavelengths are not positive and finite.
    """

    values: NDArray[Any]
    wavelengths: FloatArray | None = None
    fwhm: FloatArray | None = None
    good_bands: BoolArray = None  # type: ignore[assignment]  # filled in __post_init__
    nodata: float | None = None
    valid: BoolArray = None  # type: ignore[assignment]
    scale: float | FloatArray = 1.0
    offset: float | FloatArray = 0.0
    scale_source: str = ""
    crs: str | None = None
    transform: tuple[float, float, float, float, float, float] | None = None
    band_names: tuple[str, ...] = ()
    source_index: IntArray = None  # type: ignore[assignment]
    source_bands: int = None  # type: ignore[assignment]
    source: str = field(default="cube")
    details: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.values.ndim != 3:
            raise ValueError(
                f"{self.source}: a cube has 3 dimensions (rows, cols, bands), got shape {self.values.shape}"
            )
        if self.values.dtype.kind not in "iuf" or 0 in self.values.shape:
            raise ValueError(
                f"{self.source}: a cube holds at least one integer or real number, got dtype "
                f"{self.values.dtype} and shape {self.values.shape}"
            )
        bands = self.values.shape[2]
        fill = object.__setattr__
        if self.good_bands is None:
            fill(self, "good_bands", np.ones(bands, dtype=bool))
        if self.source_index is None:
            fill(self, "source_index", np.arange(bands))
        if self.source_bands is None:
            fill(self, "source_bands", bands)
        for name in ("wavelengths", "fwhm", "good_bands", "source_index", "scale", "offset"):
            array = getattr(self, name)
            if isinstance(array, np.ndarray) and array.shape != (bands,):
                raise ValueError(f"{self.source}: {name} must have shape ({bands},), got {array.shape}")
        if self.band_names and len(self.band_names) != bands:
            raise ValueError(f"{self.source}: {bands} bands but {len(self.band_names)} band names")
        if (
            self.wavelengths is not None
            and not (np.isfinite(self.wavelengths) & (self.wavelengths > 0)).all()
        ):
            raise ValueError(
                f"{self.source}: wavelengths must be positive and finite (nm); give --wavelengths"
            )
        if self.valid is None:
            fill(self, "valid", valid_pixels(self.values, self.nodata, self.good_bands))
        if self.valid.shape != self.values.shape[:2]:
            raise ValueError(
                f"{self.source}: valid must have shape {self.values.shape[:2]}, got {self.valid.shape}"
            )

    @property
    def rows(self) -> int:
        """Number of image rows."""
        return int(self.values.shape[0])

    @property
    def cols(self) -> int:
        """Number of image columns."""
        return int(self.values.shape[1])

    @property
    def bands(self) -> int:
        """Number of bands held."""
        return int(self.values.shape[2])

    def take_bands(self, index: IntArray) -> Cube:
        """Return the cube with bands ``index`` (positions in this cube, in the order given)."""
        pick = np.asarray(index, dtype=np.int64)
        return replace(
            self,
            values=pick_bands(self.values, pick),
            wavelengths=None if self.wavelengths is None else self.wavelengths[pick],
            fwhm=None if self.fwhm is None else self.fwhm[pick],
            good_bands=self.good_bands[pick],
            scale=self.scale[pick] if isinstance(self.scale, np.ndarray) else self.scale,
            offset=self.offset[pick] if isinstance(self.offset, np.ndarray) else self.offset,
            band_names=tuple(self.band_names[i] for i in pick) if self.band_names else (),
            source_index=self.source_index[pick],
        )

    def window(self, rows: slice = slice(None), cols: slice = slice(None)) -> Cube:
        """Return a part of the image as a cube in memory; only that part of a large file is read.

        Validity is that of the whole image, and the transform moves along.

        Parameters
        ----------
        rows, cols : slice
            Pixels from ``start`` to before ``stop``, as numpy counts them; no step.

        Raises
        ------
        ValueError
            If the window holds no pixel, or a slice has a step.

        Examples
        --------
        >>> Cube(np.zeros((4, 5, 2))).window(slice(1, 3)).values.shape
        (2, 5, 2)
        """
        (top, bottom, row_step), (left, right, col_step) = rows.indices(self.rows), cols.indices(self.cols)
        if row_step != 1 or col_step != 1 or top >= bottom or left >= right:
            raise ValueError(
                f"{self.source}: a window takes slices of at least one pixel without a step, got rows "
                f"{rows.start}:{rows.stop}:{rows.step}, columns {cols.start}:{cols.stop}:{cols.step} "
                f"of {self.rows} x {self.cols}"
            )
        inside = (slice(top, bottom), slice(left, right))
        transform = self.transform
        if transform is not None:
            a, b, c, d, e, f = transform
            transform = (a, b, a * left + b * top + c, d, e, d * left + e * top + f)
        return replace(
            self, values=np.asarray(self.values[inside]), valid=self.valid[inside], transform=transform
        )


def not_measured(values: NDArray[Any], nodata: float | None) -> BoolArray:
    """Mark raw numbers that are nodata or not finite; same shape as ``values``."""
    hit: BoolArray | None = None
    if nodata is not None:
        # Some files give float32 bands the lowest float64 as nodata: it overflows to -inf, also void.
        with np.errstate(over="ignore"):
            hit = np.equal(values, nodata)
    if values.dtype.kind != "f":
        return np.zeros(values.shape, dtype=bool) if hit is None else hit
    unreal: BoolArray = ~np.isfinite(values)
    return unreal if hit is None else np.logical_or(unreal, hit)


def block_of(values: NDArray[Any] | LazyValues) -> tuple[int, int] | None:
    """Return rows and columns of the blocks of the file that values are in; None where there are none."""
    return values.block if isinstance(values, LazyValues) else None


def void_bands(values: NDArray[Any], nodata: float | None) -> BoolArray:
    """Mark bands (bands,) in which no pixel was measured."""
    return np.array([not_measured(values[:, :, b], nodata).all() for b in range(values.shape[2])])


def valid_pixels(
    values: NDArray[Any] | LazyValues, nodata: float | None, good: BoolArray | None = None
) -> BoolArray:
    """Mark pixels (rows, cols) measured in every ``good`` band (bands,) that is not void throughout.

    All bands count where none is good, or ``good`` is not given. Reads part by part.
    """
    rows, cols, bands = values.shape
    if good is None or not good.any():
        good = np.ones(bands, dtype=bool)
    if values.dtype.kind != "f" and nodata is None:
        return np.ones((rows, cols), dtype=bool)
    void_here = np.zeros((rows, cols), dtype=np.int32)  # in how many bands a pixel is void
    void_there = np.zeros(bands, dtype=np.int64)  # in how many pixels a band is
    for part in cut_parts((rows, cols, bands), _TILE_VALUES, block_of(values)):
        void = not_measured(values[part], nodata) & good
        if not void.any():  # most tiles, and counting takes much longer
            continue
        void_here[part] = np.count_nonzero(void, axis=2)
        void_there += np.count_nonzero(void, axis=(0, 1))
    void_throughout = np.count_nonzero(void_there == rows * cols)
    if void_throughout == np.count_nonzero(good):
        return np.zeros((rows, cols), dtype=bool)
    # A void band is void in every pixel, so a pixel with no more than those is measured in all others.
    return np.equal(void_here, void_throughout)
