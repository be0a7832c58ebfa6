"""Generate the small files that the tests read; run as a program to look at them: make_fixtures.py FOLDER."""

from __future__ import annotations

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
