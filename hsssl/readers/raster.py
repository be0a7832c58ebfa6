"""GeoTIFF and every other raster that GDAL opens."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hsssl.cube import Cube, valid_pixels
from hsssl.lazy import load_or_defer, refuse_empty_claim
from hsssl.messages import log
from hsssl.readers.wavelengths import band_wavelengths, lone_widths_nm, to_nanometres, widths_nm

if TYPE_CHECKING:
    from hsssl.readers import Wavelengths

__all__ = ["open_gdal", "read_gdal_window", "read_raster"]

_DESCRIBED = re.compile(
    r"(\d+(?:\.\d+)?)\s*(nm|nanomet(?:er|re)s?|[uµμ]m|micromet(?:er|re)s?|microns?)\b", re.IGNORECASE
)
BandTags = list[dict[str, str]]
Scale = float | NDArray[np.float64]


def read_raster(
    path: str | os.PathLike[str], *, wavelengths: Wavelengths = None, lazy: bool | None = None
) -> Cube:
    """Read a GeoTIFF or another raster through GDAL, raw values with what the file says beside them.

    Wavelengths come from the first of these that every band has: ``CENTRAL_WAVELENGTH_UM`` (with
    ``FWHM_UM``) of GDAL's IMAGERY domain; band tags ``wavelength``, ``fwhm`` and ``wavelength_units``;
    descriptions such as "490 nm".

    Parameters
    ----------
    path : path
        The file.
    wavelengths : array_like (bands,) in nm, str or None
        Band centres to use in place of the file's; a text as `parse_wavelengths` takes it.
    lazy : bool or None
        Leave the values in the file; None does so above `hsssl.lazy.RESIDENT_BYTES`.

    Returns
    -------
    Cube
        With nodata, scale and offset, CRS as WKT and transform, as far as the file has them.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If GDAL cannot read it, its bytes cannot hold what it claims, or it is no cube.

    Examples
    --------
    >>> cube = read_raster("enmap.tif")                                     # doctest: +SKIP
    """
    file = Path(path)
    if not file.is_file():
        raise FileNotFoundError(f"{file}: no such file")
    with open_gdal(file) as raster:
        return _read_open(raster, file, wavelengths, lazy)


@contextmanager
def open_gdal(file: str | os.PathLike[str], **options: str) -> Iterator[Any]:
    """Open a raster for reading, with GDAL's open options; what GDAL says about damage becomes one line.

    Yields
    ------
    rasterio.io.DatasetReader

    Raises
    ------
    ValueError
        If GDAL cannot open it, or cannot read what the block asks for.
    """
    import rasterio
    from rasterio.errors import NotGeoreferencedWarning, RasterioError

    with warnings.catch_warnings():
        # A cube without georeference is an everyday thing, and the cube says so itself.
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        try:
            with rasterio.open(file, **options) as raster:
                yield raster
        except (RasterioError, UnicodeDecodeError) as error:  # a damaged file's bytes reach GDAL's message
            cause = error.__cause__ or error
            name = os.path.basename(file)
            reason = (str(cause).splitlines() or ["unknown reason"])[0].replace(str(file), name)
            raise ValueError(f"{file}: GDAL cannot read it: {reason[:200]}") from error


def _read_open(raster: Any, file: Path, given: Wavelengths, lazy: bool | None) -> Cube:
    source = str(file)
    _refuse_what_is_no_cube(raster, source)
    bands = raster.count
    tags = [{key.lower(): value for key, value in raster.tags(band + 1).items()} for band in range(bands)]
    imagery = [raster.tags(band + 1, ns="IMAGERY") for band in range(bands)]
    names = tuple(description or "" for description in raster.descriptions)
    centres, widths, unit = band_wavelengths(given, bands, source=source), None, "nm, as given"
    if centres is None:
        centres, widths, unit = _wavelengths(imagery, tags, names, source)
    dtype = np.result_type(*raster.dtypes)
    values = load_or_defer(
        partial(read_gdal_window, file, dtype),
        (raster.height, raster.width, bands),
        dtype,
        lazy=lazy,
        block=raster.block_shapes[0],
        source=source,
    )
    nodata, good = _nodata(raster, source), _good_bands(tags)
    scale, offset, scale_source = _scale(raster, source)
    return Cube(
        values=values,
        wavelengths=centres,
        fwhm=widths,
        good_bands=good,  # type: ignore[arg-type]  # None becomes all True
        nodata=nodata,
        valid=_valid(raster, values, nodata, good),
        scale=scale,
        offset=offset,
        scale_source=scale_source,
        crs=raster.crs.to_wkt() if raster.crs else None,
        transform=None if raster.transform.is_identity else tuple(raster.transform)[:6],
        band_names=names if any(names) else (),
        source=source,
        details=_details(raster, unit if centres is not None else ""),
    )


def read_gdal_window(
    file: str | os.PathLike[str],
    dtype: np.dtype[Any],
    rows: slice,
    cols: slice,
    bands: NDArray[np.int64],
    *,
    options: Mapping[str, str] = {},  # never written to
) -> NDArray[Any]:
    """Read a window of a raster; see `hsssl.lazy.ReadWindow`. Each call opens the file: GDAL shares none."""
    with open_gdal(file, **options) as raster:
        window = ((rows.start, rows.stop), (cols.start, cols.stop))
        read = raster.read([int(band) + 1 for band in bands], window=window, out_dtype=dtype)
    return np.moveaxis(read, 0, 2)  # (rows, cols, bands)


def _refuse_what_is_no_cube(raster: Any, source: str) -> None:
    if raster.count == 0:
        parts = ", ".join(str(name) for name in raster.subdatasets[:4])
        raise ValueError(f"{source}: holds no image of its own; {parts or 'it is empty'}")
    unreal = {dtype for dtype in raster.dtypes if np.dtype(_numpy_name(dtype)).kind not in "iuf"}
    if unreal:
        raise ValueError(f"{source}: values are {', '.join(sorted(unreal))}, want integers or real numbers")
    claimed = raster.height * raster.width * raster.count * np.result_type(*raster.dtypes).itemsize
    # A virtual raster is small itself and lists the files that it is made of.
    held = sum(os.path.getsize(file) for file in raster.files if os.path.isfile(file))
    refuse_empty_claim(claimed, held, source=source)


def _numpy_name(dtype: str) -> str:
    # GDAL's complex integers have no NumPy type.
    return "complex64" if dtype.startswith("complex") else dtype


def _wavelengths(
    imagery: BandTags, tags: BandTags, names: tuple[str, ...], source: str
) -> tuple[NDArray[np.float64] | None, NDArray[np.float64] | None, str]:
    """Return centres and widths in nm, and the unit that the file has them in."""
    described = [_from_description(name) for name in names]
    unit_of_tags = tags[0].get("wavelength_units", tags[0].get("wavelength_unit", ""))
    for band_tags, centre, width, unit in (
        (imagery, "CENTRAL_WAVELENGTH_UM", "FWHM_UM", "um"),
        (tags, "wavelength", "fwhm", unit_of_tags),
        (described, "wavelength", "fwhm", described[0].get("unit", "")),
    ):
        stated = _floats(band_tags, centre)
        if not stated:
            continue
        if len(stated) < len(names):
            log.warning("%s: ignored wavelengths of %d of %d bands", source, len(stated), len(names))
            continue
        centres = to_nanometres(stated, unit=unit, source=source)
        widths = widths_nm(_floats(band_tags, width), stated, unit=unit, source=source)
        return centres, widths, unit or "not stated"
    for band_tags, width, unit in ((imagery, "FWHM_UM", "um"), (tags, "fwhm", unit_of_tags)):
        widths = lone_widths_nm(_floats(band_tags, width), len(names), unit=unit, source=source)
        if widths is not None:
            return None, widths, unit
    return None, None, ""


def _details(raster: Any, unit: str) -> dict[str, str]:
    details = {"format": str(raster.driver)}
    interleave = raster.profile.get("interleave")
    if interleave:
        details["interleave"] = str(interleave)
    return details | ({"wavelength unit": unit} if unit else {})


def _from_description(text: str) -> dict[str, str]:
    found = _DESCRIBED.search(text)
    return {} if found is None else {"wavelength": found[1], "unit": found[2]}


def _floats(band_tags: BandTags, key: str) -> list[float]:
    """Read the numbers of tag ``key``, of the bands that have one."""
    found = []
    for tags in band_tags:
        try:
            found.append(float(tags[key]))
        except (KeyError, ValueError):
            continue
    return found


def _good_bands(tags: BandTags) -> NDArray[np.bool_] | None:
    listed = _floats(tags, "bbl")
    return np.asarray(listed) != 0 if len(listed) == len(tags) else None


def _nodata(raster: Any, source: str) -> float | None:
    # As text, since NaN is not equal to itself.
    if len({str(value) for value in raster.nodatavals}) > 1:
        stated = sorted({str(value) for value in raster.nodatavals})
        raise ValueError(
            f"{source}: its bands have different nodata values ({', '.join(stated[:4])}); write them alike, "
            f"for one with gdal_translate -a_nodata"
        )
    value = raster.nodatavals[0]
    return None if value is None else float(value)


def _scale(raster: Any, source: str) -> tuple[Scale, Scale, str]:
    pairs = np.array([raster.scales, raster.offsets], dtype=np.float64)  # (2, bands)
    if not np.isfinite(pairs).all() or (pairs[0] == 0).any():
        log.warning("%s: ignored its scale and offset: not finite, or a scale of 0", source)
        return 1.0, 0.0, ""
    if (pairs == [[1.0], [0.0]]).all():
        return 1.0, 0.0, ""
    scale, offset = (row if (row != row[0]).any() else float(row[0]) for row in pairs)
    return scale, offset, "GDAL band scale and offset"


def _valid(
    raster: Any, values: NDArray[Any], nodata: float | None, good: NDArray[np.bool_] | None
) -> NDArray[np.bool_]:
    """Join nodata with a mask that the file carries beside its bands."""
    from rasterio.enums import MaskFlags

    valid = valid_pixels(values, nodata, good)
    if all(MaskFlags.per_dataset in flags for flags in raster.mask_flag_enums):
        valid &= raster.dataset_mask() != 0
    return valid
