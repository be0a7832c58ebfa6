"""Generate the small files that the tests read; run as a program to look at them: make_fixtures.py FOLDER."""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np

ENVI_CODES = {"u1": 1, "i2": 2, "i4": 3, "f4": 4, "f8": 5, "u2": 12, "u4": 13, "i8": 14, "u8": 15}
ENVI_ORDER = {"bsq": (2, 0, 1), "bil": (0, 2, 1), "bip": (0, 1, 2)}
UTM33 = "EPSG:32633"


def small_values(
    dtype: str = "u2", *, rows: int = 6, cols: int = 5, bands: int = 4, seed: int = 0
) -> np.ndarray:
    """Values (rows, cols, bands) between 1 and 99, different in every pixel and band."""
    return np.random.default_rng(seed).integers(1, 100, (rows, cols, bands)).astype(dtype)


def write_envi(
    folder: Path,
    values: np.ndarray,
    *,
    interleave: str = "bsq",
    byte_order: int | None = 0,
    suffix: str = ".img",
    header: dict[str, str] | None = None,
    name: str = "scene",
    offset: int = 0,
) -> Path:
    """Write an ENVI header and data file by hand, and return the header's path; ``header`` adds fields."""
    dtype = values.dtype.newbyteorder("<" if byte_order in (0, None) else ">")
    raw = values.transpose(ENVI_ORDER[interleave]).astype(dtype).tobytes()
    (folder / f"{name}{suffix}").write_bytes(b"\xff" * offset + raw)
    fields = {
        "samples": values.shape[1],
        "lines": values.shape[0],
        "bands": values.shape[2],
        "header offset": offset,
        "file type": "ENVI Standard",
        "data type": ENVI_CODES[values.dtype.str[1:]],
        "interleave": interleave,
    }
    if byte_order is not None:
        fields["byte order"] = byte_order
    fields |= header or {}
    path = folder / f"{name}.hdr"
    path.write_text(
        "ENVI\n" + "".join(f"{key} = {value}\n" for key, value in fields.items()), encoding="utf-8"
    )
    return path


def write_mat(path: Path, **arrays: Any) -> Path:
    """Write a MATLAB 5 file."""
    from scipy.io import savemat

    savemat(path, arrays)
    return path


def write_mat73(path: Path, **arrays: np.ndarray) -> Path:
    """Write a MATLAB 7.3 file as MATLAB does: HDF5 behind 512 bytes of text, axes reversed."""
    import h5py

    classes = {"float64": "double", "float32": "single"}
    with h5py.File(path, "w", userblock_size=512) as file:
        for name, array in arrays.items():
            dataset = file.create_dataset(name, data=array.T)
            dataset.attrs["MATLAB_class"] = np.bytes_(classes.get(array.dtype.name, array.dtype.name))
        file.create_group("#refs#")
    with path.open("r+b") as stream:
        stream.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\x00\x02IM")
    return path


def write_tif(
    path: Path,
    values: np.ndarray,
    *,
    nodata: float | None = None,
    tags: list[dict[str, str]] | None = None,
    imagery: list[dict[str, str]] | None = None,
    descriptions: list[str] | None = None,
    scale: float | None = None,
    georeference: bool = True,
    driver: str = "GTiff",
) -> Path:
    """Write a raster through GDAL; ``tags`` and ``imagery`` hold one dict a band."""
    import rasterio
    from rasterio.errors import NotGeoreferencedWarning

    rows, cols, bands = values.shape
    profile: dict[str, Any] = {"driver": driver, "height": rows, "width": cols, "count": bands}
    profile |= {"dtype": values.dtype.name, "nodata": nodata}
    if georeference:
        profile |= {"crs": UTM33, "transform": rasterio.Affine(30, 0, 366015, 0, -30, 5809965)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(path, "w", **profile) as raster:
            raster.write(np.moveaxis(values, 2, 0))
            for band in range(bands):
                if tags:
                    raster.update_tags(band + 1, **tags[band])
                if imagery:
                    raster.update_tags(band + 1, ns="IMAGERY", **imagery[band])
            if descriptions:
                raster.descriptions = tuple(descriptions)
            if scale is not None:
                raster.scales = (scale,) * bands
    return path


def write_neon(path: Path, values: np.ndarray, centres: np.ndarray, *, site: str = "SJER") -> Path:
    """Write a NEON reflectance tile, with FWHM and one window of water vapour, 630 to 700 nm."""
    import h5py

    with h5py.File(path, "w") as file:
        reflectance = file.create_group(f"{site}/Reflectance")
        reflectance.attrs["Band_Window_1_Nanometers"] = np.array([630, 700])
        data = reflectance.create_dataset("Reflectance_Data", data=values, chunks=(2, 2, 1))
        data.attrs["Scale_Factor"] = np.array([10000.0])
        data.attrs["Data_Ignore_Value"] = np.array([-9999.0])
        spectral = reflectance.create_group("Metadata/Spectral_Data")
        spectral["Wavelength"] = centres
        spectral["FWHM"] = np.full(centres.shape, 5.5)
        place = reflectance.create_group("Metadata/Coordinate_System")
        place["EPSG Code"] = np.array([b"32611"])
        place["Map_Info"] = (
            b"UTM,  1.000,  1.000, 257000.0, 4112000.0, 1.0, 1.0, 11, North, WGS-84, units=Meters, 0"
        )
    return path


def write_prisma(path: Path, vnir: np.ndarray, swir: np.ndarray, centres: tuple[list, list]) -> Path:
    """Write a PRISMA L2D product of (rows, cols, bands) arrays; a wavelength of 0 is a band not sent."""
    import h5py

    with h5py.File(path, "w") as file:
        fields = file.create_group("HDFEOS/SWATHS/PRS_L2D_HCO/Data Fields")
        for name, array, listed in (("Vnir", vnir, centres[0]), ("Swir", swir, centres[1])):
            fields.create_dataset(f"{name.upper()}_Cube", data=array.transpose(0, 2, 1), compression="gzip")
            file.attrs[f"List_Cw_{name}"] = np.array(listed, dtype=np.float32)
            file.attrs[f"List_Fwhm_{name}"] = np.array(
                [12.0 if nm else 0.0 for nm in listed], dtype=np.float32
            )
        scales = {"VnirMin": 0.0, "VnirMax": 0.65535, "SwirMin": 0.1, "SwirMax": 0.755350}
        for name, value in scales.items():
            file.attrs[f"L2Scale{name}"] = np.float32(value)
        rows, cols = vnir.shape[:2]
        file.attrs["Epsg_Code"] = np.int64(32633)
        file.attrs["Product_ULcorner_easting"] = 300015.0
        file.attrs["Product_ULcorner_northing"] = 4999985.0
        file.attrs["Product_LRcorner_easting"] = 300015.0 + 30 * (cols - 1)
        file.attrs["Product_LRcorner_northing"] = 4999985.0 - 30 * (rows - 1)
    return path


def write_emit(path: Path, values: np.ndarray, centres: np.ndarray, good: np.ndarray) -> Path:
    """Write an EMIT L2A granule (downtrack, crosstrack, bands)."""
    import h5py

    with h5py.File(path, "w") as file:
        data = file.create_dataset("reflectance", data=values.astype(np.float32))
        data.attrs["_FillValue"] = np.array([-9999.0], dtype=np.float32)
        bands = file.create_group("sensor_band_parameters")
        bands["wavelengths"], bands["good_wavelengths"] = centres.astype(np.float32), good.astype(np.float32)
        bands["fwhm"] = np.full(centres.shape, 8.5, dtype=np.float32)
        file.create_group("location")["glt_x"] = np.zeros((3, 3), dtype=np.int32)
    return path


def write_enmap(
    folder: Path, values: np.ndarray, centres: list[float], *, nodata: float | None = None
) -> Path:
    """Write an EnMAP L2A product and return its folder; the XML lists its bands in reverse."""
    name = "ENMAP01-____L2A-DT0000000001_20240101T000000Z_001_V010000_20240102T000000Z"
    product = folder / name
    product.mkdir()
    write_tif(product / f"{name}-SPECTRAL_IMAGE.TIF", values, nodata=nodata)
    bands = "".join(
        f'<bandID number="{number}"><wavelengthCenterOfBand>{nm}</wavelengthCenterOfBand>'
        f"<FWHMOfBand>{6 + number}</FWHMOfBand><GainOfBand>1.0e-04</GainOfBand>"
        f"<OffsetOfBand>0.0</OffsetOfBand></bandID>"
        for number, nm in reversed(list(enumerate(centres, 1)))
    )
    text = f"<level_X><specific><bandCharacterisation>{bands}</bandCharacterisation></specific></level_X>"
    (product / f"{name}-METADATA.XML").write_text(text, encoding="utf-8")
    return product


def write_safe(folder: Path, bands: dict[str, np.ndarray], sizes: dict[str, int]) -> Path:
    """Write a Sentinel-2B SAFE product with bands of 10, 20 and 60 m, JPEG 2000 without loss."""
    product = folder / "S2B_MSIL2A_20240101T000000_N0510_R001_T33UVU_20240101T000000.SAFE"
    images = product / "GRANULE" / "L2A_T33UVU_A000001_20240101T000000" / "IMG_DATA"
    for name, values in bands.items():
        target = images / f"R{sizes[name]}m"
        target.mkdir(parents=True, exist_ok=True)
        file = target / f"T33UVU_20240101T000000_{name}_{sizes[name]}m.jp2"
        write_single(file, values, sizes[name], driver="JP2OpenJPEG", QUALITY="100", REVERSIBLE="YES")
    return product


def write_single(
    path: Path, values: np.ndarray, size: float, *, driver: str = "GTiff", **options: str
) -> Path:
    """Write a band (rows, cols) with pixels of ``size`` from the corner (300000, 5000000) in UTM 33."""
    import rasterio

    rows, cols = values.shape
    profile = {"driver": driver, "height": rows, "width": cols, "count": 1, "dtype": values.dtype.name}
    profile |= {"crs": UTM33, "transform": rasterio.Affine(size, 0, 300000, 0, -size, 5000000)}
    with rasterio.open(path, "w", **profile, **options) as raster:
        raster.write(values, 1)
    return path


def write_zarr(folder: Path, values: np.ndarray, dims: tuple[str, str, str], *, version: int = 2) -> Path:
    """Write a Zarr store by hand: array "cube" in one chunk without compression, its dimensions named."""
    array = folder / "cube"
    array.mkdir(parents=True)
    attrs = {"wavelengths_nm": [450.0 + 100 * band for band in range(values.shape[dims.index("band")])]}
    if version == 2:
        (folder / ".zgroup").write_text('{"zarr_format": 2}')
        record = {"zarr_format": 2, "shape": values.shape, "chunks": values.shape, "dtype": values.dtype.str}
        record |= {"compressor": None, "fill_value": -1, "order": "C", "filters": None}
        (array / ".zarray").write_text(json.dumps(record))
        (array / ".zattrs").write_text(json.dumps(attrs | {"_ARRAY_DIMENSIONS": dims}))
        values.tofile(array / "0.0.0")
        return folder
    (folder / "zarr.json").write_text('{"zarr_format": 3, "node_type": "group", "attributes": {}}')
    grid = {"name": "regular", "configuration": {"chunk_shape": values.shape}}
    keys = {"name": "default", "configuration": {"separator": "/"}}
    codecs = [{"name": "bytes", "configuration": {"endian": "little"}}]
    record = {"zarr_format": 3, "node_type": "array", "shape": values.shape, "data_type": values.dtype.name}
    record |= {"chunk_grid": grid, "chunk_key_encoding": keys, "fill_value": -1, "codecs": codecs}
    record |= {"attributes": attrs, "dimension_names": dims}
    (array / "zarr.json").write_text(json.dumps(record))
    (array / "c" / "0" / "0").mkdir(parents=True)
    values.tofile(array / "c" / "0" / "0" / "0")
    return folder


def make_fixtures(folder: Path) -> dict[str, Path]:
    """Write one file of each format into ``folder`` and return their paths by name."""
    values = small_values()
    centres = [450.0, 550.0, 650.0, 850.0]
    metres = [{"CENTRAL_WAVELENGTH_UM": str(nm / 1000), "FWHM_UM": "0.01"} for nm in centres]
    listed = "{" + ", ".join(map(str, centres)) + "}"
    labels = (values[:, :, 0] % 3).astype(np.uint8)
    return {
        "mat": write_mat(folder / "cube.mat", cube=values, wavelengths=np.array([centres])),
        "mat73": write_mat73(folder / "cube73.mat", cube=values, wavelengths=np.array([centres])),
        "envi": write_envi(folder, values, header={"wavelength": listed, "wavelength units": "nm"}),
        "tif": write_tif(folder / "cube.tif", values, imagery=metres, nodata=0),
        "labels_tif": write_tif(folder / "labels.tif", labels[:, :, None]),
        "labels_mat": write_mat(folder / "labels.mat", labels=labels.astype(np.float64)),
    }


if __name__ == "__main__":
    target = Path(sys.argv[1])
    target.mkdir(parents=True, exist_ok=True)
    for path in make_fixtures(target).values():
        print(f"{path.stat().st_size:>8}  {path}")
