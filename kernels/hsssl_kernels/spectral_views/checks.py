"""What `spectral_views` refuses."""

from __future__ import annotations

import torch
from torch import Tensor

from hsssl_kernels.spectral_views.spec import ViewSpec

__all__ = ["check_centres", "check_views"]

_FLOATS = (torch.float32, torch.float16, torch.bfloat16)
_RAW = (torch.uint8, torch.int16, torch.uint16, torch.int32, torch.float64, *_FLOATS)


def check_views(
    cube: Tensor,
    centres: Tensor,
    patch_size: int,
    mean: Tensor,
    scale: Tensor,
    spec: ViewSpec,
    seed: int,
    step: int,
    sample_ids: Tensor | None,
    valid: Tensor | None,
    dtype: torch.dtype,
) -> None:
    """Refuse what can be told from types and shapes."""
    given = {"cube": cube, "centres": centres, "mean": mean, "scale": scale}
    for name, value in (given | {"sample_ids": sample_ids, "valid": valid}).items():
        if not isinstance(value, Tensor) and (name in given or value is not None):
            raise TypeError(
                f"spectral_views: `{name}` must be a tensor, got {type(value).__name__}; "
                "convert it with torch.as_tensor"
            )
    _check_cube(cube, patch_size)
    _check_key(seed, step)
    rows, cols, bands = cube.shape
    if centres.ndim != 2 or centres.shape[1] != 2 or centres.dtype != torch.int64:
        raise ValueError(
            f"spectral_views: `centres` must be int64 (B, 2), got {centres.dtype} {tuple(centres.shape)}; "
            "give the row and column of each sample as whole pixels"
        )
    for name, value in (("mean", mean), ("scale", scale)):
        if value.shape != (bands,) or not value.is_floating_point():
            raise ValueError(
                f"spectral_views: `{name}` must be ({bands},) floating point, one number a band of `cube`, "
                f"got {value.dtype} {tuple(value.shape)}; take it from the same bands"
            )
    if not isinstance(spec, ViewSpec):
        raise TypeError(
            f"spectral_views: `spec` must be a ViewSpec, got {type(spec).__name__}; pass ViewSpec()"
        )
    if sample_ids is not None and (sample_ids.shape != centres.shape[:1] or sample_ids.dtype != torch.int64):
        raise ValueError(
            f"spectral_views: `sample_ids` must be int64 ({len(centres)},), one id a centre, "
            f"got {sample_ids.dtype} {tuple(sample_ids.shape)}; or leave it out"
        )
    if valid is not None and (valid.shape != (rows, cols) or valid.dtype != torch.bool):
        raise ValueError(
            f"spectral_views: `valid` must be bool ({rows}, {cols}) as `cube` is, "
            f"got {valid.dtype} {tuple(valid.shape)}; True marks pixels that were measured"
        )
    if dtype not in _FLOATS:
        raise TypeError(
            f"spectral_views: `dtype` must be float32, float16 or bfloat16, got {dtype}; cast the views after"
        )
    _check_devices(cube, {"mean": mean, "scale": scale, "valid": valid}, centres, sample_ids)


def _check_cube(cube: Tensor, patch_size: int) -> None:
    if cube.ndim != 3 or 0 in cube.shape:
        raise ValueError(
            f"spectral_views: `cube` must be (rows, cols, bands) with at least one of each, "
            f"got {tuple(cube.shape)}; bands come last"
        )
    if cube.dtype not in _RAW:
        raise TypeError(
            f"spectral_views: `cube` must hold 8-, 16- or 32-bit integers or floats, got {cube.dtype}; "
            "cast it first"
        )
    rows, cols, _ = cube.shape
    if isinstance(patch_size, bool) or not isinstance(patch_size, (int, torch.SymInt)):
        raise TypeError(
            f"spectral_views: `patch_size` must be a whole number of pixels, got {patch_size!r}; pass an int"
        )
    if not 1 <= patch_size <= min(rows, cols):
        raise ValueError(
            f"spectral_views: `patch_size` must lie in 1 ... {min(rows, cols)} for a scene of "
            f"{rows} x {cols} pixels, got {patch_size}; take a smaller patch"
        )


def _check_key(seed: int, step: int) -> None:
    for name, value in (("seed", seed), ("step", step)):
        if isinstance(value, bool) or not isinstance(value, (int, torch.SymInt)):
            raise TypeError(f"spectral_views: `{name}` must be a whole number, got {value!r}; pass an int")
        if not -(2**63) <= value < 2**63:
            raise ValueError(
                f"spectral_views: `{name}` must fit into 64 bits, got {value}; take a smaller one"
            )


def _check_devices(
    cube: Tensor, beside: dict[str, Tensor | None], centres: Tensor, sample_ids: Tensor | None
) -> None:
    for name, value in beside.items():
        if value is not None and value.device != cube.device:
            raise ValueError(
                f"spectral_views: `{name}` must be on {cube.device} as `cube` is, got {value.device}; move it"
            )
    for name, value in {"centres": centres, "sample_ids": sample_ids}.items():
        if value is not None and value.device not in (cube.device, torch.device("cpu")):
            raise ValueError(
                f"spectral_views: `{name}` must be on {cube.device} as `cube` is, or on the CPU, "
                f"got {value.device}; move it"
            )


def check_centres(cube: Tensor, centres: Tensor) -> None:
    """Refuse centres outside the scene; on a GPU this waits for their values."""
    rows, cols, _ = cube.shape
    row, col = centres.unbind(1)
    outside = (row < 0) | (row >= rows) | (col < 0) | (col >= cols)
    if bool(outside.any()):
        worst = tuple(centres[outside][0].tolist())
        raise ValueError(
            f"spectral_views: every centre must lie inside the scene of {rows} x {cols} pixels, "
            f"got {worst} as (row, column); drop those outside"
        )
