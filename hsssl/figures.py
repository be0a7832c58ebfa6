"""Pictures of scenes, features and class maps as PNG, in which every square is exactly one pixel's value."""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hsssl.cube import Cube
from hsssl.maps import CLASS_COLORS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "blank_figure",
    "class_maps",
    "class_name",
    "false_colour",
    "feature_colour",
    "figure_png",
    "has_infrared",
    "has_natural",
    "thinning",
]

NATURAL = (660.0, 550.0, 470.0)
INFRARED = (860.0, 660.0, 550.0)
# A band further than this from the colour asked for shows something else.
_NEAR = 40.0
# Length of a map's longer side in PNG pixels: small scenes are enlarged to it by a whole factor, large
# ones thinned to twice it by a whole step, so that every square shown is exactly one pixel's value.
_SIDE = 600
_GREY = 128
_READ_VALUES = 2**22
DPI = 144
INK = "#22262b"

Image = NDArray[np.uint8]


def has_infrared(cube: Cube) -> bool:
    """Say whether the cube has the bands of a near-infrared false colour (about 860, 660, 550 nm)."""
    return _near_bands(cube, INFRARED) is not None


def has_natural(cube: Cube) -> bool:
    """Say whether the cube has bands near red, green and blue (660, 550, 470 nm)."""
    return _near_bands(cube, NATURAL) is not None


def false_colour(cube: Cube, *, infrared: bool = False) -> bytes:
    """Show a cube in red, green and blue, each stretched from its 2nd to its 98th percentile.

    The bands are those nearest 660, 550 and 470 nm, or 860, 660 and 550 nm for ``infrared``; where the
    cube has none near them, the middles of the last, the second and the first third of its bands.

    Parameters
    ----------
    cube : Cube
        The scene; pixels that are not valid are grey.
    infrared : bool
        Show vegetation red: near infrared, red, green.

    Returns
    -------
    bytes
        A PNG of the scene's pixels alone, enlarged (or thinned) by a whole factor.

    Examples
    --------
    >>> cube = Cube(np.arange(48).reshape(4, 4, 3), wavelengths=np.array([470.0, 550.0, 660.0]))
    >>> false_colour(cube)[1:4]
    b'PNG'
    """
    bands = _near_bands(cube, INFRARED if infrared else NATURAL)
    if bands is None:
        bands = tuple(cube.bands * sixth // 6 for sixth in (5, 3, 1))
    step = thinning(cube.rows, cube.cols)
    values = _every(cube, step, list(bands))
    return _png_of_image(_stretched(values, cube.valid[::step, ::step]))


def feature_colour(features: NDArray[np.floating[Any]]) -> bytes:
    """Show features by their first three principal components as red, green and blue.

    Parameters
    ----------
    features : ndarray, shape (rows, cols, dim), real
        One vector a pixel; pixels with NaN are grey.

    Returns
    -------
    bytes
        A PNG of the scene's pixels alone, enlarged (or thinned) by a whole factor.
    """
    step = thinning(*features.shape[:2])
    shown = features[::step, ::step]
    valid = np.isfinite(shown).all(axis=2)
    components = np.zeros((*valid.shape, 3))
    if valid.any():
        table = shown[valid].astype(np.float64)  # (pixels, dim)
        table -= table.mean(axis=0)
        _, vectors = np.linalg.eigh(table.T @ table)
        axes = vectors[:, ::-1][:, :3]
        # An eigenvector's sign is arbitrary; fixed, the same features have the same colours.
        axes = axes * np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(axes.shape[1])])
        components[valid, : axes.shape[1]] = table @ axes
    return _png_of_image(_stretched(components, valid))


def class_maps(
    class_map: NDArray[np.integer[Any]],
    labels: NDArray[np.integer[Any]] | None = None,
    *,
    class_names: Sequence[str] = (),
    title: str = "class map",
) -> bytes:
    """Show a class map beside the truth in the same colours, with the names below.

    Parameters
    ----------
    class_map : ndarray, shape (rows, cols), integer
        Predicted class, 0 where there is none.
    labels : ndarray, shape (rows, cols), integer, or None
        True class, 0 where unlabelled; None shows the class map alone.
    class_names : sequence of str
        Name of class 1, 2, and so on.
    title : str
        What the first map is.

    Returns
    -------
    bytes
        A PNG; each pixel of the maps is a square of one colour.
    """
    panels = {title: class_map} if labels is None else {title: class_map, "truth": labels}
    step = thinning(*class_map.shape)
    images = [_enlarged(_class_colours(panel[::step, ::step])) for panel in panels.values()]
    present = sorted(set().union(*(np.unique(panel).tolist() for panel in panels.values())))
    names = ["unlabelled" if number == 0 else class_name(number, class_names) for number in present]
    height, width = images[0].shape[:2]
    pad, line = 16, 26
    cell = 44 + 11 * max(len(name) for name in names)
    across = max(pad + len(images) * (width + pad), cell + 2 * pad)
    columns = max(1, (across - 2 * pad) // cell)
    deep = math.ceil(len(names) / columns)
    down = pad + line + height + pad + line * deep + pad
    figure = blank_figure(across, down)
    for number, (title, image) in enumerate(zip(panels, images, strict=True)):
        left = pad + number * (width + pad)
        _write(figure, title, left, down - pad - line / 2, weight="bold")
        figure.figimage(image, left, down - pad - line - height)
    for number, (class_number, name) in enumerate(zip(present, names, strict=True)):
        left = pad + (number // deep) * cell
        middle = down - pad - line - height - pad - line * (number % deep + 0.5)
        swatch = np.broadcast_to(_class_colours(np.array(class_number)), (16, 16, 3))
        figure.figimage(swatch, left, middle - 8)
        _write(figure, name, left + 24, middle)
    return figure_png(figure)


def blank_figure(width: float, height: float) -> Figure:
    """Return a white figure of ``width`` x ``height`` PNG pixels."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def figure_png(figure: Figure) -> bytes:
    """Draw a figure as PNG, pixel for pixel."""
    file = io.BytesIO()
    with warnings.catch_warnings():
        # A script that the font lacks is drawn as boxes; that is no reason to have no picture.
        warnings.filterwarnings("ignore", message=r"Glyph \d+ .* missing", category=UserWarning)
        figure.savefig(file, format="png", dpi=DPI, metadata={"Software": None})
    return file.getvalue()


def class_name(number: int, class_names: Sequence[str], *, longest: int = 30) -> str:
    """Return the name of class ``number`` (from 1) on one line, or "class n" if it has none."""
    name = " ".join(class_names[number - 1].split()) if number <= len(class_names) else ""
    name = name or f"class {number}"
    return name if len(name) <= longest else f"{name[: longest - 1]}…"


def _near_bands(cube: Cube, wanted: Sequence[float]) -> tuple[int, ...] | None:
    """Return the band nearest each wavelength (nm), or None if one has no band near it."""
    if cube.wavelengths is None:
        return None
    apart = np.abs(np.asarray(cube.wavelengths)[None] - np.array(wanted)[:, None])  # (3, bands)
    if (apart.min(axis=1) > _NEAR).any():
        return None
    return tuple(int(band) for band in apart.argmin(axis=1))


def _every(cube: Cube, step: int, bands: list[int]) -> NDArray[np.float64]:
    """Return bands (rows, cols, bands) of every ``step``-th pixel, some rows at a time."""
    high = max(1, _READ_VALUES // (cube.cols * len(bands)) // step) * step
    tops = range(0, cube.rows, high)
    parts = [cube.values[top : top + high, ::step, bands][::step] for top in tops]
    return np.concatenate(parts).astype(np.float64)


def _stretched(values: NDArray[np.float64], valid: NDArray[np.bool_]) -> Image:
    """Stretch each channel from its 2nd to its 98th percentile over valid pixels to 0 ... 255."""
    valid = valid & np.isfinite(values).all(axis=2)
    image = np.full(values.shape, _GREY, dtype=np.uint8)
    if valid.any():
        low, high = np.percentile(values[valid], (2, 98), axis=0)
        # A channel with one value throughout is in the middle, not black.
        share = np.divide(
            values[valid] - low, high - low, out=np.full_like(values[valid], 0.5), where=high > low
        )
        image[valid] = np.round(255 * share.clip(0, 1))
    return image


def _class_colours(classes: NDArray[Any]) -> Image:
    """Colour class numbers: 0 as unlabelled, the class colours over and over."""
    numbers = np.asarray(classes, dtype=np.int64)
    return CLASS_COLORS[np.where(numbers > 0, (numbers - 1) % (len(CLASS_COLORS) - 1) + 1, 0)]


def thinning(rows: int, cols: int) -> int:
    """Return every how many pixels a large scene is shown: so that no side is above 1200."""
    return math.ceil(max(rows, cols) / (2 * _SIDE))


def _enlarged(image: Image) -> Image:
    """Repeat each pixel of a small scene."""
    times = max(1, _SIDE // max(image.shape[:2]))
    return image.repeat(times, axis=0).repeat(times, axis=1)


def _png_of_image(image: Image) -> bytes:
    large = _enlarged(image)
    figure = blank_figure(large.shape[1], large.shape[0])
    figure.figimage(large)
    return figure_png(figure)


def _write(figure: Figure, text: str, x: float, y: float, **style: Any) -> None:
    """Put text at pixel (x, y) from the lower left, as it is: no formulas, no markup."""
    figure.text(
        x / figure.bbox.width, y / figure.bbox.height, text, va="center_baseline", size=8, color=INK,
        parse_math=False, **style,
    )  # fmt: skip
