"""Named scenes, and opening cubes and label maps by name or by path."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hsssl.cube import Cube
from hsssl.maps import CLASS_COLORS
from hsssl.messages import unknown_name
from hsssl.published import PUBLISHED, scene_files
from hsssl.readers import read
from hsssl.readers.mat import choose, load_variable, variables
from hsssl.readers.wavelengths import band_wavelengths

if TYPE_CHECKING:
    from hsssl.readers import Source, Wavelengths

__all__ = ["SCENES", "Scene", "indian_pines", "load_scene", "open_cube", "open_labels", "published_scene"]

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Scene:
    """A cube with its ground truth: classes, or endmembers and abundances.

    Parameters
    ----------
    cube : Cube
        The image, raw.
    labels : ndarray, shape (rows, cols), int64
        Class of each pixel, 1 ... classes; 0 is unlabelled, as is every pixel of a scene without classes.
    class_names : tuple of str
        Name of class 1, 2, and so on.
    endmembers : ndarray, shape (p, bands), float64, or None
        Spectra of the pure materials, on the scale of their source.
    abundances : ndarray, shape (rows, cols, p), float64, or None
        Share of each endmember in each pixel.
    endmember_names : tuple of str
        Names of the p endmembers.
    """

    cube: Cube
    labels: IntArray
    class_names: tuple[str, ...]
    endmembers: FloatArray | None = None
    abundances: FloatArray | None = None
    endmember_names: tuple[str, ...] = ()

    @property
    def class_colors(self) -> NDArray[np.uint8]:
        """Colours of the classes, RGB (classes, 3): those of maps and legends; no publisher states any."""
        return CLASS_COLORS[1 + np.arange(len(self.class_names)) % (len(CLASS_COLORS) - 1)]


def indian_pines() -> Scene:
    """Load the AVIRIS scene of the Indian Pine test site (Indiana, 12 June 1992).

    145 x 145 pixels of about 20 m, 200 of 220 bands (water absorption removed), 10,249 labelled
    pixels in 16 classes. It comes with the package tensorly, which is the extra ``hsssl[demo]``.
    Wavelengths are as that package has them, which is not sorted; the values, floats there, are the
    integers of the original again. Data: CC BY 3.0.

    Returns
    -------
    Scene
        Cube (145, 145, 200) uint16 with wavelengths in nm, labels (145, 145).

    Raises
    ------
    ValueError
        If tensorly is not installed.

    References
    ----------
    Baumgardner, Biehl, Landgrebe: 220 Band AVIRIS Hyperspectral Image Data Set, June 12, 1992 Indian
    Pine Test Site 3. Purdue University Research Repository, 2015. doi:10.4231/R7RX991C

    Examples
    --------
    >>> indian_pines().cube.values.shape                                    # doctest: +SKIP
    (145, 145, 200)
    """
    with warnings.catch_warnings():
        # Whatever tensorly has to say about its backends is not about this scene.
        warnings.simplefilter("ignore")
        try:
            from tensorly.datasets import load_indian_pines
        except ImportError as error:
            raise ValueError(
                'indian_pines: the scene comes with tensorly; run: pip install "hsssl[demo]"'
            ) from error
        bunch = load_indian_pines()
    stored = np.asarray(bunch["tensor"])
    values = stored.astype(np.uint16)
    if not np.array_equal(values, stored):
        raise ValueError(
            "indian_pines: tensorly's values are not the integers expected; use version 0.9 or 0.10"
        )
    labels, wavelengths = bunch["ticks"]
    cube = Cube(values=values, wavelengths=np.asarray(wavelengths, dtype=np.float64), source="indian_pines")
    return Scene(cube, checked_labels(np.asarray(labels), source="indian_pines"), _INDIAN_PINES_CLASSES)


_INDIAN_PINES_CLASSES = (
    "Alfalfa", "Corn-notill", "Corn-mintill", "Corn", "Grass-pasture", "Grass-trees", "Grass-pasture-mowed",
    "Hay-windrowed", "Oats", "Soybean-notill", "Soybean-mintill", "Soybean-clean", "Wheat", "Woods",
    "Buildings-Grass-Trees-Drives", "Stone-Steel-Towers",
)  # fmt: skip


def published_scene(name: str) -> Scene:
    """Load one of the published scenes from the data folder ``HSSSL_DATA``; nothing is downloaded.

    Parameters
    ----------
    name : str
        Key of `hsssl.published.PUBLISHED`, which has source, files, shape and classes of each.

    Returns
    -------
    Scene
        With labels, or with endmembers and abundances.

    Raises
    ------
    FileNotFoundError
        If a file is missing; says where to get it.
    ValueError
        If a file has another shape than the scene.
    """
    record, files = PUBLISHED[name], scene_files(name)
    cube = replace(read(files[record.cube]), source=name)
    if cube.values.shape != record.shape:
        raise ValueError(
            f"{files[record.cube]}: {name} has shape {record.shape}, this file {cube.values.shape}; "
            f"get the file from {record.page}"
        )
    size = cube.rows, cube.cols
    labels = open_labels(files[record.labels]) if record.labels else np.zeros(size, dtype=np.int64)
    if labels.shape != size or labels.max() > len(record.class_names):
        raise ValueError(
            f"{files[record.labels]}: labels {labels.shape} up to {labels.max()} are not those of {name}, "
            f"{size} and {len(record.class_names)} classes"
        )
    endmembers, abundances = _mixture(files[record.truth], cube) if record.truth else (None, None)
    return Scene(cube, labels, record.class_names, endmembers, abundances, record.endmember_names)


def _mixture(file: Path, cube: Cube) -> tuple[FloatArray, FloatArray]:
    """Read endmembers M (bands, p) and abundances A (p, pixels), pixels down the columns of the image."""
    spectra, shares = (np.asarray(load_variable(str(file), key), dtype=np.float64) for key in ("M", "A"))
    p, pixels = spectra.shape[1], cube.rows * cube.cols
    if spectra.shape != (cube.bands, p) or shares.shape != (p, pixels):
        raise ValueError(
            f"{file}: want M ({cube.bands}, p) and A (p, {pixels}) for {cube.source}, "
            f"got {spectra.shape} and {shares.shape}"
        )
    return spectra.T, shares.T.reshape(cube.cols, cube.rows, p).transpose(1, 0, 2)


#: Scenes by name: the one that a package brings, and those that are looked up in ``HSSSL_DATA``.
SCENES: dict[str, Callable[[], Scene]] = {
    "indian_pines": indian_pines,
    **{name: partial(published_scene, name) for name in PUBLISHED},
}


def load_scene(name: str) -> Scene:
    """Load a named scene with its labels; the names are the keys of `SCENES`.

    Raises
    ------
    ValueError
        If there is no such scene; offers the nearest names.
    """
    if name not in SCENES:
        raise unknown_name("scene", name, SCENES)
    return SCENES[name]()


def open_cube(
    source: Source,
    *,
    variable: str | None = None,
    wavelengths: Wavelengths = None,
    lazy: bool | None = None,
    **options: Any,
) -> Cube:
    """Open a cube by the path of its file or by the name of a scene.

    Parameters
    ----------
    source : str, path, or sequence of paths
        A file or a product's folder (see `hsssl.readers.read`) or a key of `SCENES`; a scene's name goes
        first. Several files give one band each.
    variable : str or None
        Name of the cube in a MATLAB file; needed only where several have three dimensions.
    wavelengths : array_like (bands,) in nm, str or None
        Band centres to use in place of the file's: an array, "start:stop" in nm, or a text file.
    lazy : bool or None
        Leave the values in the file until they are sliced; None does so for large files only.
    **options
        What the reader of the format takes besides; see `hsssl.readers.read`.

    Returns
    -------
    Cube
        Raw values; see `hsssl.prepare.prepare` for the step to what a model sees.

    Raises
    ------
    FileNotFoundError
        If ``source`` looks like a path and is not there.
    ValueError
        If it is neither a scene nor a file, or the file is no cube.

    Examples
    --------
    >>> cube = open_cube("scene.hdr", wavelengths="400:1000")               # doctest: +SKIP
    """
    if not isinstance(source, str | os.PathLike):
        return read(source, wavelengths=wavelengths, lazy=lazy, variable=variable, **options)
    name = os.fspath(source)
    if name in SCENES:
        cube = load_scene(name).cube
        centres = band_wavelengths(wavelengths, cube.bands, source=name)
        return cube if centres is None else replace(cube, wavelengths=centres, fwhm=None)
    return read(_existing(name), variable=variable, wavelengths=wavelengths, lazy=lazy, **options)


def open_labels(source: str | os.PathLike[str], *, variable: str | None = None) -> IntArray:
    """Open a label map by the path of its file or by the name of a scene.

    Parameters
    ----------
    source : str or path
        A scene's name; a MATLAB file with one two-dimensional variable; a GeoTIFF, PNG or other
        raster with one band, whose nodata and masked pixels count as unlabelled; an ENVI classification; a
        ``.npy`` file.
    variable : str or None
        Name of the map in a MATLAB file; needed only where several have two dimensions.

    Returns
    -------
    ndarray, shape (rows, cols), int64
        Class of each pixel; 0 is unlabelled.

    Raises
    ------
    FileNotFoundError
        If ``source`` looks like a path and is not there.
    ValueError
        If the values are not integers of at least 0, or the file holds other than one map.

    Examples
    --------
    >>> labels = open_labels("Indian_pines_gt.mat")                         # doctest: +SKIP
    """
    name = os.fspath(source)
    if name in SCENES:
        scene = load_scene(name)
        if not scene.labels.any():
            raise ValueError(f"{name}: comes without a map of classes; give the labels' own file")
        return scene.labels
    path = _existing(name)
    suffix = path.suffix.lower()
    if suffix == ".mat":
        array = _labels_mat(name, variable)
    elif variable is not None:
        raise ValueError(f"{name}: only MATLAB files have variables; leave --variable out")
    elif suffix == ".npy":
        array = _labels_npy(path)
    else:
        array = _labels_image(path)
    return checked_labels(array, source=name)


def checked_labels(array: NDArray[Any], *, source: str) -> IntArray:
    """Return ``array`` as int64 labels (rows, cols), or say why it is no label map.

    Raises
    ------
    ValueError
        If it has not two dimensions, or holds anything but integers of at least 0.
    """
    if array.ndim != 2 or array.size == 0:
        raise ValueError(f"{source}: a label map has shape (rows, cols), got {array.shape}")
    if array.dtype.kind not in "biuf":
        raise ValueError(f"{source}: labels must be integers, got dtype {array.dtype}")
    if array.dtype.kind == "f" and not (np.isfinite(array).all() and (array == np.round(array)).all()):
        raise ValueError(f"{source}: labels must be integers, 0 for unlabelled; some are fractions or NaN")
    if array.min() < 0:
        raise ValueError(f"{source}: labels must be at least 0 (unlabelled), the lowest is {array.min():g}")
    return array.astype(np.int64)


def _existing(name: str) -> Path:
    path = Path(name)
    if path.exists():
        return path
    if path.suffix or path.name != name:
        raise FileNotFoundError(
            f"{name}: no such file; check the path, or give a scene name, such as indian_pines"
        )
    error = unknown_name("scene", name, SCENES)
    raise ValueError(f"{error}; there is no file of that name either")


def _labels_mat(name: str, variable: str | None) -> NDArray[Any]:
    held = variables(name)
    # Every MATLAB scalar and vector has two dimensions as well.
    chosen = choose(
        name, held, variable, lambda v: v.numeric and len(v.shape) == 2 and min(v.shape) > 1, "two dimensions"
    )
    return load_variable(name, chosen)


def _labels_npy(path: Path) -> NDArray[Any]:
    try:
        return np.asarray(np.load(path, allow_pickle=False))
    except (ValueError, EOFError) as error:
        raise ValueError(f"{path}: not a .npy file of plain numbers, or a damaged one") from error


def _labels_image(path: Path) -> NDArray[Any]:
    cube = read(path)
    if cube.bands != 1:
        raise ValueError(
            f"{path}: a label map has one band of class numbers, this image has {cube.bands}; "
            f"write class numbers, not colours"
        )
    values = cube.values[:, :, 0]
    return np.where(cube.valid, values, np.zeros((), values.dtype))
