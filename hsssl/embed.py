"""An encoder over a whole scene: one feature vector a pixel, at several scales."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from hsssl.cube import Cube
from hsssl.maps import write_features
from hsssl.sampling import ResidentScene, load_resident
from hsssl.spec import EncoderSpec, fit_cube, spec_of
from hsssl.windows import box_average
from hsssl_kernels.spectral_views import ViewSpec, spectral_views

__all__ = ["embed", "plain_patches"]


def embed(
    encoder: nn.Module,
    cube: Cube,
    *,
    windows: Sequence[int] | None = None,
    out: str | Path | None = None,
    overwrite: bool = False,
    batch_values: int = 2**24,
    device: str | torch.device | None = None,
    progress: bool | None = None,
) -> NDArray[np.float32]:
    """Return the features of every pixel of a cube.

    The encoder sees the patch around each pixel, normalised as it was in training; its embedding is averaged
    over square windows, and the averages stand side by side. Several windows carry texture and context
    at several scales, where a single pixel carries noise.

    Parameters
    ----------
    encoder : nn.Module
        As `hsssl.load_encoder` returns it, with ``.spec``.
    cube : Cube
        Raw or prepared; a sensor seen in training gets its stored bands and normalisation.
    windows : sequence of int, optional
        Odd sides of the windows in pixels; None takes the encoder's own (``encoder.spec.windows``).
    out : path, optional
        Write the features to this GeoTIFF too.
    overwrite : bool
        Replace the file at ``out``.
    batch_values : int
        Patch values held at a time: bounds the memory.
    device : str or torch.device, optional
        Where to compute; None takes a GPU if there is one.
    progress : bool, optional
        Show a progress bar; None shows it on a terminal.

    Returns
    -------
    ndarray, shape (rows, cols, D len(windows)), float32
        NaN at invalid pixels; they are left out of the averages.

    Raises
    ------
    ValueError
        If the encoder has no specification, a patch is larger than the scene, a window is even, or
        the bands do not fit (see `hsssl.spec.fit_cube`).
    """
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
    fitted, sensor = fit_cube(spec, cube)
    scene = load_resident(fitted, sensor, device)
    single = _embed_pixels(encoder.to(device), scene, spec, batch_values, progress)
    features = np.concatenate([box_average(single, fitted.valid, side) for side in sides], axis=2)
    if out is not None:
        write_features(out, features, cube, overwrite=overwrite)
    return features


@torch.no_grad()
def _embed_pixels(
    encoder: nn.Module, scene: ResidentScene, spec: EncoderSpec, batch_values: int, progress: bool | None
) -> NDArray[np.float32]:
    """Return the embedding of the patch around every valid pixel, (rows, cols, D); 0 elsewhere."""
    from tqdm import tqdm

    rows, cols, bands = scene.values.shape
    out = np.zeros((rows, cols, spec.embed_dim), dtype=np.float32)
    batch = max(1, batch_values // (2 * bands * spec.patch_size**2))
    was_training = encoder.training
    encoder.eval()
    hidden = None if progress is None else not progress
    with tqdm(total=len(scene.centres), disable=hidden, unit="pixel", desc="embed", leave=False) as bar:
        for centres in torch.split(scene.centres, batch):
            patches = plain_patches(scene, centres, spec.patch_size)
            row, col = centres.cpu().numpy().T
            out[row, col] = encoder(patches, scene.wavelengths).float().cpu().numpy()
            bar.update(len(centres))
    encoder.train(was_training)
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
