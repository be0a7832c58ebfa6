"""An encoder over a whole scene: one feature vector a pixel, at several scales."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from hsssl.cube import Cube, block_of
from hsssl.maps import WriteTile, open_features, refuse_map
from hsssl.memory import kept_memory
from hsssl.quicklook import feature_quicklook, refuse_quicklook
from hsssl.sampling import ResidentScene, load_resident
from hsssl.spec import EncoderSpec, Sensor, fit_cube, spec_of
from hsssl.stream import Tick, Tile, block_side, cut_tiles, stream_tiles
from hsssl.windows import box_average
from hsssl_kernels.spectral_views import ViewSpec, spectral_views

__all__ = ["FeatureTiles", "embed", "plain_patches"]

_BATCH_VALUES = 2**24


@overload
def embed(
    encoder: nn.Module,
    cube: Cube,
    *,
    windows: Sequence[int] | None = None,
    out: None = None,
    overwrite: bool = False,
    quicklook: Literal[False] = False,
    batch_values: int = _BATCH_VALUES,
    device: str | torch.device | None = None,
    progress: bool | None = None,
) -> NDArray[np.float32]: ...


@overload
def embed(
    encoder: nn.Module,
    cube: Cube,
    *,
    windows: Sequence[int] | None = None,
    out: str | Path,
    overwrite: bool = False,
    quicklook: bool = False,
    batch_values: int = _BATCH_VALUES,
    device: str | torch.device | None = None,
    progress: bool | None = None,
) -> Path: ...


def embed(
    encoder: nn.Module,
    cube: Cube,
    *,
    windows: Sequence[int] | None = None,
    out: str | Path | None = None,
    overwrite: bool = False,
    quicklook: bool = False,
    batch_values: int = _BATCH_VALUES,
    device: str | torch.device | None = None,
    progress: bool | None = None,
) -> NDArray[np.float32] | Path:
    """Return the features of every pixel of a cube, or write them to a file.

    The encoder sees the patch around each pixel, normalised as it was in training; its embedding is averaged
    over square windows, and the averages stand side by side. Several windows carry texture and context
    at several scales, where a single pixel carries noise.

    The scene goes through memory tile by tile, whether its values are in memory or in a file, and the
    features are the same to the last bit. With ``out``, memory is bounded by the tile.

    Parameters
    ----------
    encoder : nn.Module
        As `hsssl.load_encoder` returns it, with ``.spec``.
    cube : Cube
        Raw or prepared; a sensor seen in training gets its stored bands and normalisation.
    windows : sequence of int, optional
        Odd sides of the windows in pixels; None takes the encoder's own (``encoder.spec.windows``).
    out : path, optional
        Write the features to this file, a GeoTIFF (``.tif``) or, by any other extension, an ENVI image, and
        return no array.
    overwrite : bool
        Replace the file at ``out``, and the quick-look.
    quicklook : bool
        Write a PNG beside ``out`` too, named after it: the first three principal components of the features
        as red, green and blue, of at most 1200 pixels a side (`hsssl.quicklook`).
    batch_values : int
        Patch values that the encoder gets at a time: bounds the memory.
    device : str or torch.device, optional
        Where to compute; None takes a GPU if there is one.
    progress : bool, optional
        Show a progress bar with pixels per second; None shows it on a terminal.

    Returns
    -------
    ndarray, shape (rows, cols, D len(windows)), float32
        NaN at invalid pixels; they are left out of the averages. With ``out``, its path.

    Raises
    ------
    FileExistsError
        If there is a file at ``out``, or the quick-look's, and ``overwrite`` is off.
    ValueError
        If a quick-look is asked for without ``out``, the encoder has no specification, a patch is larger than
        the scene, a window is even, the bands do not fit (see `hsssl.spec.fit_cube`), or ``out`` is named as
        another format's file.
    """
    if out is not None:
        refuse_map(out, overwrite=overwrite)  # before the work, not after it
    if quicklook:
        refuse_quicklook(out, overwrite=overwrite)
    features = FeatureTiles.of(encoder, cube, windows=windows, batch_values=batch_values, device=device)
    if out is not None:
        block = block_side(features.pixel_bytes)
        look = feature_quicklook(out if quicklook else None, cube.rows, cube.cols, features.dim)
        with look as watch, open_features(out, cube, features.dim, block=block, overwrite=overwrite) as write:
            features.stream(watch(write), progress=progress)
        return Path(out)
    image = np.empty((cube.rows, cube.cols, features.dim), dtype=np.float32)

    def keep(tile: Tile, block: NDArray[np.float32]) -> None:
        image[tile.rows, tile.cols] = block

    features.stream(keep, progress=progress)
    return image


@dataclass(frozen=True, eq=False)
class FeatureTiles:
    """The features of a scene, made tile by tile.

    Parameters
    ----------
    encoder : nn.Module
        On ``device``.
    cube : Cube
        The scene with the encoder's bands in its order, in memory or in a file.
    sensor : Sensor
        Their normalisation.
    spec : EncoderSpec
        The encoder's.
    windows : tuple of int
        Odd sides of the windows that the embedding is averaged over.
    batch_values : int
        Patch values that the encoder gets at a time.
    device : str or torch.device
        Where to compute.
    """

    encoder: nn.Module
    cube: Cube
    sensor: Sensor
    spec: EncoderSpec
    windows: tuple[int, ...]
    batch_values: int
    device: str | torch.device

    @classmethod
    def of(
        cls,
        encoder: nn.Module,
        cube: Cube,
        *,
        windows: Sequence[int] | None = None,
        batch_values: int = _BATCH_VALUES,
        device: str | torch.device | None = None,
    ) -> FeatureTiles:
        """Fit a cube to an encoder; parameters and errors as of `embed`."""
        spec = spec_of(encoder)
        sides = tuple(spec.windows if windows is None else windows)
        if not sides or any(side < 1 or side % 2 == 0 for side in sides):
            raise ValueError(f"embed: windows must be odd sides of at least 1, got {sides}")
        if spec.patch_size > min(cube.rows, cube.cols):
            raise ValueError(
                f"{cube.source}: the encoder's patch of {spec.patch_size} pixels is larger than the scene of "
                f"{cube.rows} x {cube.cols}"
            )
        if device is None:
            device = "cuda" if torch.cuda.is_available() else "cpu"
        return cls(encoder.to(device), *fit_cube(spec, cube), spec, sides, batch_values, device)

    @property
    def dim(self) -> int:
        """Number of features of a pixel."""
        return self.spec.embed_dim * len(self.windows)

    @property
    def pixel_bytes(self) -> int:
        """What is held for a pixel of a tile: its values, its embedding, its features."""
        return 4 * (self.cube.bands + self.spec.embed_dim + self.dim)

    @property
    def reach(self) -> int:
        """Pixels beyond a tile whose embedding its features depend on."""
        return max(self.windows) // 2

    def tiles(self) -> list[Tile]:
        """Cut the scene."""
        radius = self.spec.patch_size // 2
        # A tile at the border, of one row at the least, must hold a patch: hence once more the radius.
        halo = radius + max(radius, self.reach)
        return cut_tiles(
            self.cube.rows,
            self.cube.cols,
            pixel_bytes=self.pixel_bytes,
            halo=halo,
            block=block_of(self.cube.values),
        )

    def read(self, tile: Tile, at: NDArray[np.bool_] | None = None) -> ResidentScene:
        """Put a tile and its halo on the device; its centres are the pixels that features depend on.

        Only those of pixels ``at`` (rows, cols), if given; `compute` then gives theirs, nonsense elsewhere.
        """
        from scipy.ndimage import maximum_filter

        part = self.cube.window(*tile.around)
        wanted = np.zeros(part.valid.shape, dtype=bool)
        wanted[tile.inner] = True if at is None else at
        near = maximum_filter(wanted, 2 * self.reach + 1, mode="constant")
        return load_resident(part, self.sensor, self.device, centres=np.argwhere(part.valid & near))

    def compute(self, tile: Tile, scene: ResidentScene, tick: Tick) -> NDArray[np.float32]:
        """Return the features (rows, cols, dim) of a tile's pixels, NaN at invalid ones."""
        single = self._embed_centres(scene, tile.pixels, tick)
        valid = scene.valid.cpu().numpy()
        found = np.empty((*valid[tile.inner].shape, self.dim), dtype=np.float32)
        for number, side in enumerate(self.windows):
            first = number * self.spec.embed_dim
            found[:, :, first : first + self.spec.embed_dim] = box_average(single, valid, side)[tile.inner]
        return found

    def stream(self, write: WriteTile, *, progress: bool | None = None) -> None:
        """Make the features of every tile, and hand them to ``write`` in another thread."""
        stream_tiles(self.tiles(), self.read, self.compute, write, desc="embed", progress=progress)

    @torch.no_grad()
    def _embed_centres(self, scene: ResidentScene, pixels: int, tick: Tick) -> NDArray[np.float32]:
        """Return the embedding of the patch around every centre, (rows, cols, D); 0 elsewhere."""
        rows, cols, bands = scene.values.shape
        out = np.zeros((rows, cols, self.spec.embed_dim), dtype=np.float32)
        batch = max(1, self.batch_values // (2 * bands * self.spec.patch_size**2))
        was_training = self.encoder.training
        self.encoder.eval()
        with kept_memory():
            for first in range(0, scene.pixels, batch):
                centres = scene.centres[first : first + batch]
                patches = plain_patches(scene, centres, self.spec.patch_size)
                row, col = centres.numpy().T
                out[row, col] = self.encoder(patches, scene.wavelengths).float().cpu().numpy()
                tick(len(centres) * pixels // scene.pixels)
        self.encoder.train(was_training)
        return out


def plain_patches(scene: ResidentScene, centres: Any, patch_size: int) -> torch.Tensor:
    """Return normalised patches (B, C, P, P) around ``centres``: a view with every augmentation off."""
    return spectral_views(
        scene.values,
        centres,
        patch_size=patch_size,
        mean=scene.mean,
        scale=scene.scale,
        spec=ViewSpec.none(),
        seed=0,
        step=0,
        valid=scene.valid,
    )[0]
