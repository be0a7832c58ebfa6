"""Checks of what `spectral_patch_embed` is given."""

from __future__ import annotations

import torch
from torch import Tensor

from hsssl_kernels.spectral_patch_embed.work import Work

__all__ = ["check_geometry", "check_sides", "check_values", "check_visible"]

_OP = "spectral_patch_embed"
_FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
_RAW = (torch.uint8, torch.int16, torch.uint16, torch.int32, *_FLOATS)


def check_values(x: Tensor, centres: Tensor | None, window: int | None, patch: int, group: int) -> None:
    """Refuse wrong kinds of input, before shapes are looked at."""
    if not isinstance(x, Tensor):
        raise TypeError(
            f"{_OP}: `x` must be a tensor, got {type(x).__name__}; convert it with torch.as_tensor"
        )
    if x.dtype not in _RAW:
        raise TypeError(f"{_OP}: `x` must hold integers or floats, got {x.dtype}; cast it first")
    for name, size in (("patch", patch), ("group", group), ("window", window)):
        if size is not None and (isinstance(size, bool) or not isinstance(size, int) or size < 1):
            raise ValueError(f"{_OP}: `{name}` must be a whole number from 1, got {size!r}")
    if (centres is None) != (window is None):
        raise ValueError(
            f"{_OP}: `centres` and `window` go together, to cut windows from a cube; pass both or neither"
        )
    if centres is None and x.ndim != 4:
        raise ValueError(
            f"{_OP}: `x` must be (B, C, H, W), or (B, H, W, C) with bands_last=True, got {tuple(x.shape)}; "
            "pass `centres` and `window` with a cube (rows, cols, bands)"
        )
    if centres is not None and x.ndim != 3:
        raise ValueError(
            f"{_OP}: with `centres`, `x` must be a cube (rows, cols, bands), got {tuple(x.shape)}"
        )
    if 0 in x.shape[1 if centres is None else 0 :]:
        raise ValueError(f"{_OP}: `x` must have at least one pixel and one band, got {tuple(x.shape)}")


def check_geometry(work: Work) -> None:
    """Refuse windows that do not fit the scene, and pixels or bands that do not fit the tokens."""
    if work.centres is not None:
        rows, cols, _ = work.x.shape
        if work.window > min(rows, cols):
            raise ValueError(
                f"{_OP}: `window` must lie in 1 ... {min(rows, cols)} for a scene of {rows} x {cols} pixels, "
                f"got {work.window}"
            )
        _check_indices(
            "centres", work.centres, "(B, 2)", work.centres.ndim == 2 and work.centres.shape[1] == 2
        )
        _check_device("centres", work.centres, work.x.device)
        if work.x.requires_grad:
            raise ValueError(
                f"{_OP}: a cube is data and gets no gradient; pass x.detach(), or cut samples first"
            )
    height, width = work.x.shape[1:3] if work.centres is None else (work.window, work.window)
    if height % work.patch or width % work.patch:
        raise ValueError(
            f"{_OP}: `patch` must divide the {height} x {width} pixels of a sample, got {work.patch}; "
            "pad or crop them first"
        )
    for name, value in (("mean", work.mean), ("scale", work.scale)):
        if value is None:
            continue
        _check_shape(name, value, {"(C,)": (work.bands,)})
        _check_device(name, value, work.x.device)
        if value.requires_grad:
            raise ValueError(f"{_OP}: `{name}` is a constant and gets no gradient; pass {name}.detach()")


def check_visible(work: Work) -> None:
    """Refuse token numbers of a wrong kind; their range is looked at when they are sorted."""
    visible = work.visible
    if visible is None:
        return
    fits = visible.ndim == 2 and len(visible) == work.batch and visible.shape[1] > 0
    _check_indices("visible", visible, f"({work.batch}, V) with V >= 1", fits)
    _check_device("visible", visible, work.x.device)


def check_sides(
    work: Work,
    weight: Tensor,
    bias: Tensor | None,
    position: Tensor | None,
    wavelengths_embedding: Tensor | None,
    norm: tuple[Tensor, Tensor, float] | None,
) -> None:
    """Refuse parameters that do not fit the tokens."""
    groups, values, space = work.groups, work.values, work.space
    if not isinstance(weight, Tensor) or weight.ndim not in (2, 3) or weight.shape[-2] == 0:
        shape = tuple(weight.shape) if isinstance(weight, Tensor) else type(weight).__name__
        raise ValueError(f"{_OP}: `weight` must be (D, K) or (G, D, K), got {shape}")
    dim = weight.shape[-2]
    sides: dict[str, tuple[Tensor | None, dict[str, tuple[int, ...]]]] = {
        "weight": (weight, {"(D, K)": (dim, values), "(G, D, K)": (groups, dim, values)}),
        "bias": (bias, {"(D,)": (dim,), "(G, D)": (groups, dim)}),
        "position": (position, {"(S, D)": (space, dim)}),
        "wavelengths_embedding": (wavelengths_embedding, {"(G, D)": (groups, dim)}),
    }
    if norm is not None:
        if not isinstance(norm, tuple) or len(norm) != 3 or not 0 < float(norm[2]) < float("inf"):
            raise ValueError(f"{_OP}: `norm` must be (weight, bias, eps) with eps above 0, got {norm!r}")
        sides |= {"norm weight": (norm[0], {"(D,)": (dim,)}), "norm bias": (norm[1], {"(D,)": (dim,)})}
    for name, (value, wanted) in sides.items():
        if value is not None:
            _check_shape(name, value, wanted)
            _check_device(name, value, work.x.device)


def _check_shape(name: str, value: Tensor, wanted: dict[str, tuple[int, ...]]) -> None:
    if not isinstance(value, Tensor):
        raise TypeError(f"{_OP}: `{name}` must be a tensor, got {type(value).__name__}")
    if value.dtype not in _FLOATS:
        raise TypeError(f"{_OP}: `{name}` must be floating point, got {value.dtype}; cast it first")
    if tuple(value.shape) not in wanted.values():
        shapes = " or ".join(f"{symbols}={shape}" for symbols, shape in wanted.items())
        raise ValueError(f"{_OP}: `{name}` must be {shapes}, got {tuple(value.shape)}")


def _check_indices(name: str, value: Tensor, wanted: str, fits: bool) -> None:
    if not fits or value.dtype != torch.int64:
        raise ValueError(f"{_OP}: `{name}` must be int64 {wanted}, got {value.dtype} {tuple(value.shape)}")


def _check_device(name: str, value: Tensor, device: torch.device) -> None:
    if value.device != device:
        raise ValueError(
            f"{_OP}: `{name}` must be on {device} as `x` is, got {value.device}; move one of them"
        )
