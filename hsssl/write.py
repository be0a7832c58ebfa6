"""Writing a cube so that reading it gives the same cube: GeoTIFF or ENVI, tile by tile."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hsssl.cube import Cube, block_of, valid_pixels
from hsssl.envi_writer import Interleave, open_envi
from hsssl.geotiff_writer import is_geotiff, open_raster, write_tile
from hsssl.messages import say_once
from hsssl.readers.envi_header import ByteOrder, braced
from hsssl.stream import Tile, block_side, cut_tiles, stream_tiles

__all__ = ["write_cube", "write_envi"]


def write_cube(path: str | os.PathLike[str], cube: Cube, *, overwrite: bool = False) -> None:
    """Write a cube as GeoTIFF (``.tif``) or, by any other extension, as ENVI image.

    Values, nodata, mask, wavelengths (to 1e-9 nm), FWHM, bad bands, names, scale, CRS and transform are
    read back as they are. Large cubes are written tile by tile.

    Parameters
    ----------
    path : path
        The GeoTIFF; or header (``.hdr``) or data file of an ENVI image.
    cube : Cube
        What to write.
    overwrite : bool
        Replace existing files.

    Raises
    ------
    FileExistsError
        If the file exists and ``overwrite`` is off.
    ValueError
        If the format cannot hold the cube; says what to do.

    Examples
    --------
    >>> write_cube("scene.tif", cube)                                       # doctest: +SKIP
    """
    import rasterio

    if not is_geotiff(path):
        write_envi(path, cube, overwrite=overwrite)
        return
    source = os.fspath(path)
    nodata = _nodata_that_fits(cube, source)
    mask = _mask_beside_nodata(cube, nodata, source)
    # In the file itself: a mask beside it would not appear together with it.
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
        open_raster(
            path,
            cube,
            count=cube.bands,
            dtype=cube.values.dtype.name,
            nodata=nodata,
            descriptions=cube.band_names or None,
            block=block_side(_pixel_bytes(cube)),
            overwrite=overwrite,
        ) as raster,
    ):
        for band in range(cube.bands):
            _tag_band(raster, cube, band)
        if _is_scaled(cube):
            raster.scales = tuple(np.broadcast_to(cube.scale, cube.bands).tolist())
            raster.offsets = tuple(np.broadcast_to(cube.offset, cube.bands).tolist())

        def write(tile: Tile, values: NDArray[Any]) -> None:
            write_tile(raster, tile, values)
            if mask is not None:
                window = ((tile.rows.start, tile.rows.stop), (tile.cols.start, tile.cols.stop))
                raster.write_mask(mask[tile.rows, tile.cols], window=window)

        _stream(cube, lambda values, _: values.astype(values.dtype.newbyteorder("="), copy=False), write)


def write_envi(
    path: str | os.PathLike[str],
    cube: Cube,
    *,
    interleave: Interleave = "bil",
    byte_order: ByteOrder = "little",
    fill: bool = False,
    overwrite: bool = False,
) -> None:
    """Write a cube as ENVI image, tile by tile.

    Parameters
    ----------
    path : path
        Header (``.hdr``) or data file (any other extension); the other is named after it.
    cube : Cube
        What to write.
    interleave : {"bil", "bip", "bsq"}
        Order on disk.
    byte_order : {"little", "big"}
        Of the numbers.
    fill : bool
        Write the nodata value into every band of pixels that are masked for another reason; ENVI has no mask,
        so such cubes are refused without this.
    overwrite : bool
        Replace existing files.

    Raises
    ------
    FileExistsError
        If header or data exist and ``overwrite`` is off.
    ValueError
        If ENVI cannot hold the cube; says what to do.

    Examples
    --------
    >>> write_envi("scene.hdr", cube, interleave="bsq")                     # doctest: +SKIP
    """
    source = os.fspath(path)
    mask = _mask_beside_nodata(cube, cube.nodata, source)
    nodata = cube.nodata
    if mask is not None and nodata is None and cube.values.dtype.kind == "f":
        nodata = np.nan
    if mask is not None and (nodata is None or not fill):
        raise ValueError(
            f"{source}: pixels are masked that do not hold nodata ({cube.nodata}), and ENVI has no mask; "
            f"write a GeoTIFF, or pass fill=True to write nodata into them (integers need a cube with nodata)"
        )
    with open_envi(
        path,
        cube,
        count=cube.bands,
        dtype=cube.values.dtype.name,
        nodata=nodata,
        descriptions=cube.band_names or None,
        interleave=interleave,
        byte_order=byte_order,
        fields=_spectral_fields(cube),
        overwrite=overwrite,
    ) as image:

        def filled(values: NDArray[Any], tile: Tile) -> NDArray[Any]:
            if mask is None:
                return values
            kept = mask[tile.rows, tile.cols][:, :, None]
            return np.where(kept, values, np.array(nodata, dtype=values.dtype))

        _stream(cube, filled, image.write_tile)


def _stream(
    cube: Cube,
    change: Callable[[NDArray[Any], Tile], NDArray[Any]],
    write: Callable[[Tile, NDArray[Any]], None],
) -> None:
    """Take the values of a cube to a file, changed on the way."""
    stream_tiles(
        cut_tiles(cube.rows, cube.cols, pixel_bytes=_pixel_bytes(cube), block=block_of(cube.values)),
        lambda tile: np.asarray(cube.values[tile.around]),
        lambda tile, values, _: change(values, tile),
        write,
        desc="write",
        progress=False,
    )


def _pixel_bytes(cube: Cube) -> int:
    return 2 * cube.bands * cube.values.dtype.itemsize  # as read, and as written


def _nodata_that_fits(cube: Cube, source: str) -> float | None:
    """Return the nodata value, or None, with a message, where no number of the dtype can be it."""
    kind, nodata = cube.values.dtype, cube.nodata
    if nodata is None:
        return None
    if kind.kind == "f":
        fits = not np.isfinite(nodata) or abs(nodata) <= np.finfo(kind).max
    else:
        fits = bool(np.isfinite(nodata)) and np.iinfo(kind).min <= nodata <= np.iinfo(kind).max
    if not fits:
        say_once("%s: left out the nodata value %s, which no %s can have", source, nodata, kind.name)
        return None
    return nodata


def _mask_beside_nodata(cube: Cube, nodata: float | None, source: str) -> NDArray[np.bool_] | None:
    """Return the cube's mask where nodata alone would not give it; None where it does."""
    measured = valid_pixels(cube.values, nodata, cube.good_bands)
    if np.array_equal(measured, cube.valid):
        return None
    if (cube.valid & ~measured).any():
        raise ValueError(
            f"{source}: pixels that count as valid hold nodata ({nodata}) or are not finite; mark them "
            f"invalid, or set the cube's nodata to None"
        )
    return cube.valid


def _tag_band(raster: object, cube: Cube, band: int) -> None:
    tags: dict[str, str] = {}
    imagery: dict[str, str] = {}
    if cube.wavelengths is not None:
        imagery["CENTRAL_WAVELENGTH_UM"] = _micrometres(cube.wavelengths[band])
        tags["wavelength"] = repr(float(cube.wavelengths[band]))
    if cube.fwhm is not None:
        imagery["FWHM_UM"] = _micrometres(cube.fwhm[band])
        tags["fwhm"] = repr(float(cube.fwhm[band]))
    if tags:
        tags["wavelength_units"] = "Nanometers"
    if not cube.good_bands.all():
        tags["bbl"] = str(int(cube.good_bands[band]))
    raster.update_tags(band + 1, **tags)  # type: ignore[attr-defined]  # rasterio is untyped
    raster.update_tags(band + 1, ns="IMAGERY", **imagery)  # type: ignore[attr-defined]


def _micrometres(nanometres: float) -> str:
    # 418.24 / 1000 is 0.41824000000000006 in binary; the decimal number is what is meant.
    return repr(round(float(nanometres) / 1000, 12))


def _is_scaled(cube: Cube) -> bool:
    return bool(np.any(np.not_equal(cube.scale, 1)) or np.any(np.not_equal(cube.offset, 0)))


def _spectral_fields(cube: Cube) -> dict[str, str]:
    fields = {}
    for name, stated in (("wavelength", cube.wavelengths), ("fwhm", cube.fwhm)):
        if stated is not None:
            fields["wavelength units"] = "Nanometers"
            fields[name] = braced([repr(float(nm)) for nm in stated])
    if not cube.good_bands.all():
        fields["bbl"] = braced([int(good) for good in cube.good_bands])
    if _is_scaled(cube):
        scale, offset = (np.broadcast_to(part, cube.bands).tolist() for part in (cube.scale, cube.offset))
        fields["data gain values"] = braced([repr(part) for part in scale])
        fields["data offset values"] = braced([repr(part) for part in offset])
    return fields
