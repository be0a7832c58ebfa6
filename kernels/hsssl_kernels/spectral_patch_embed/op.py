"""The public op: tokens of band groups and space straight from raw values."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from hsssl_kernels.checks import compute_dtype
from hsssl_kernels.dispatch import Backend, choose_backend
from hsssl_kernels.first_order import first_order
from hsssl_kernels.spectral_patch_embed.grouping import group_visible, inside
from hsssl_kernels.spectral_patch_embed.inputs import (
    check_geometry,
    check_sides,
    check_values,
    check_visible,
)
from hsssl_kernels.spectral_patch_embed.registered import embed, weight_grad
from hsssl_kernels.spectral_patch_embed.table import side_table
from hsssl_kernels.spectral_patch_embed.work import Work

__all__ = ["spectral_patch_embed"]


def spectral_patch_embed(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    patch: int,
    group: int,
    mean: Tensor | None = None,
    scale: Tensor | None = None,
    position: Tensor | None = None,
    wavelengths_embedding: Tensor | None = None,
    visible: Tensor | None = None,
    norm: tuple[Tensor, Tensor, float] | None = None,
    centres: Tensor | None = None,
    window: int | None = None,
    bands_last: bool = False,
    backend: Backend = "auto",
) -> Tensor:
    """Return one token for every group of bands and every ``patch`` x ``patch`` pixels.

    With u the K = patch patch group raw values of band group g at place s, pixel by pixel and band by band
    within a pixel, ``token_gs = W_g ((u - mean) scale) + bias_g + position_s + wavelengths_g``, then
    LayerNorm where ``norm`` is given. Normalisation is in float32 (float64 for a float64 weight), and its
    result is cast to the weight's dtype on a GPU, never before: raw numbers of 10,000 would lose 32 in
    bfloat16. On a CPU all is added up in float32; with Numba, loops are compiled at the first call with each
    dtype of x and weight, for 5 to 15 seconds once for a machine.

    S = (H / patch) (W / patch) places and G = ceil(C / group) groups give G S tokens: group by group, in a
    group row by row, so that token g S + s is group g at place s. The last group is filled up with bands that
    are 0 after normalisation. Only the tokens in ``visible`` are computed. No normalised copy of x is kept:
    the backward pass gathers the raw values again.

    Parameters
    ----------
    x : Tensor, uint8, int16, uint16, int32 or floating point, any strides
        Samples (B, C, H, W); (B, H, W, C) with ``bands_last``, as sensors' files often have it; or, with
        ``centres`` and ``window``, a resident cube (rows, cols, C) from which samples are cut.
    weight : Tensor, shape (D, K) or (G, D, K), float64, float32, float16 or bfloat16
        One for all groups, or one each. A Conv3d weight w (D, 1, group, patch, patch) serves as
        ``w.permute(0, 1, 3, 4, 2).reshape(D, -1)``.
    bias : Tensor, shape (D,) or (G, D), optional
        One for all groups, or one each.
    patch : int
        Side of a token in pixels; divides H and W.
    group : int
        Bands of a token.
    mean, scale : Tensor, shape (C,), optional
        Normalisation of each band, (x - mean) scale; constants without a gradient.
    position : Tensor, shape (S, D), optional
        Added by place.
    wavelengths_embedding : Tensor, shape (G, D), optional
        Added by group.
    visible : Tensor, shape (B, V), int64, optional
        Numbers of the tokens to compute, in the order wanted; all where it is not given. On a GPU, where
        looking at them would wait for the device, a number that there is not gives a token of NaN.
    norm : tuple of weight (D,), bias (D,) and eps, optional
        LayerNorm of the tokens.
    centres : Tensor, shape (B, 2), int64, optional
        Row and column of each sample's centre in the cube; samples are mirrored at its border.
    window : int, optional
        Side of those samples in pixels; an even one reaches one pixel further down and right.
    bands_last : bool
        Whether samples are (B, H, W, C).
    backend : {"auto", "triton", "torch"}
        "auto" is Triton on CUDA and ROCm, torch elsewhere.

    Returns
    -------
    tokens : Tensor, shape (B, G S, D) or (B, V, D), dtype of ``weight``
        Under autocast, of autocast's dtype. Gradients flow to every parameter, and to a floating-point x of
        samples.

    Raises
    ------
    ValueError, TypeError
        If shapes, dtypes or devices disagree, ``patch`` does not divide the pixels, ``window`` is larger
        than the scene, a token number or a centre lies outside, or a cube, ``mean`` or ``scale`` asks for a
        gradient.

    References
    ----------
    Dosovitskiy et al. 2021, "An image is worth 16x16 words", arXiv:2010.11929.
    Hong et al. 2024, "SpectralGPT", doi:10.1109/TPAMI.2024.3362475 (tokens of band groups and space).
    He et al. 2022, "Masked autoencoders are scalable vision learners", arXiv:2111.06377 (visible
    tokens only).

    Examples
    --------
    >>> x = torch.randint(0, 10_000, (2, 9, 9, 200), dtype=torch.int16)
    >>> tokens = spectral_patch_embed(x, torch.randn(128, 3 * 3 * 10), patch=3, group=10, bands_last=True,
    ...                               mean=torch.full((200,), 5e3), scale=torch.full((200,), 1e-3))
    >>> tokens.shape  # 20 groups at 9 places
    torch.Size([2, 180, 128])
    """
    check_values(x, centres, window, patch, group)
    if centres is None and not bands_last:
        x = x.permute(0, 2, 3, 1)
    work = Work(x, centres, mean, scale, visible, None, None, patch, group, window or 0)
    check_geometry(work)
    check_visible(work)
    check_sides(work, weight, bias, position, wavelengths_embedding, norm)
    if torch.is_autocast_enabled(x.device.type):
        weight = weight.to(torch.get_autocast_dtype(x.device.type))
    chosen = choose_backend("spectral_patch_embed", backend, weight.mT)
    if visible is not None and weight.ndim == 3:
        order, starts = group_visible(visible, work.groups, work.space)
        work = work._replace(order=order, starts=starts)
    table = side_table(work, bias, position, wavelengths_embedding)
    weight = weight if weight.ndim == 3 else weight.unsqueeze(0)
    affine = (None, None, 0.0) if norm is None else (norm[0], norm[1], float(norm[2]))
    tokens: Tensor = _PatchEmbed.apply(*work, weight, table, *affine, chosen)  # type: ignore[no-untyped-call]
    return tokens


class _PatchEmbed(torch.autograd.Function):
    """Saves its inputs and, for LayerNorm, the tokens before it; values are gathered and normalised again."""

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Tensor:
        work, (weight, table, norm_weight, norm_bias, eps, backend) = Work(*inputs[:10]), inputs[10:]
        keep = norm_weight is not None and any(ctx.needs_input_grad)
        tokens, before, stats = embed(*work, weight, table, norm_weight, norm_bias, eps, keep, backend)
        ctx.save_for_backward(*work[:7], weight, table, norm_weight, norm_bias, before, stats)
        ctx.sizes, ctx.backend = work[7:], backend
        result: Tensor = tokens
        return result

    @staticmethod
    @first_order("spectral_patch_embed")
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        *tensors, weight, table, norm_weight, norm_bias, before, stats = ctx.saved_tensors
        work, gradient = Work(*tensors, *ctx.sizes), gradients[0]
        wanted = ctx.needs_input_grad
        by_x = by_weight = by_table = by_norm_weight = by_norm_bias = None
        if norm_weight is not None:
            gradient, by_norm_weight, by_norm_bias = _through_norm(
                gradient, before, stats, norm_weight, norm_bias
            )
        if wanted[10] or wanted[11]:
            rows = len(table) if wanted[11] else 0
            by_weight, by_table = weight_grad(*work, gradient, len(weight) > 1, rows, ctx.backend)
            by_weight, by_table = by_weight.to(weight.dtype), by_table.to(table.dtype) if rows else None
        if wanted[0]:
            by_x = _input_grad(work, gradient, weight)
        return by_x, *[None] * 9, by_weight, by_table, by_norm_weight, by_norm_bias, None, None


def _through_norm(
    gradient: Tensor, before: Tensor, stats: Tensor, weight: Tensor, bias: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return gradients by the tokens before LayerNorm (B, V, D), its weight (D,) and its bias (D,)."""
    dim = before.shape[1]
    # on the CPU, mean and deviation would be wanted in half precision too
    dtype = before.dtype if before.is_cuda else stats.dtype
    by_tokens, by_weight, by_bias = torch.ops.aten.native_layer_norm_backward(
        gradient.reshape(-1, dim).to(dtype),
        before.to(dtype),
        (dim,),
        stats[0].unsqueeze(1),
        stats[1].unsqueeze(1),
        weight.to(dtype),
        bias.to(dtype),
        [True, True, True],
    )
    by_tokens = by_tokens.view_as(gradient).to(gradient.dtype)
    return by_tokens, by_weight.to(weight.dtype), by_bias.to(bias.dtype)


def _input_grad(work: Work, gradient: Tensor, weight: Tensor) -> Tensor:
    """Return the gradient by samples x (B, H, W, C)."""
    wide = compute_dtype(weight)
    if work.visible is not None:
        full = gradient.new_zeros(work.batch, work.groups * work.space, gradient.shape[2], dtype=wide)
        gradient = full.scatter_add(
            1, inside(work, work.visible).unsqueeze(2).expand_as(gradient), gradient.to(wide)
        )
    gradient = gradient.to(wide).reshape(work.batch, work.groups, work.space, gradient.shape[2])
    gradient = gradient @ weight.to(wide)  # (B, G, S, K)
    patch = work.patch
    by_x = gradient.view(work.batch, work.groups, work.high, work.wide, patch, patch, work.group)
    by_x = by_x.permute(0, 2, 4, 3, 5, 1, 6).reshape(*work.x.shape[:3], work.groups * work.group)
    by_x = by_x[..., : work.bands]
    return (by_x if work.scale is None else by_x * work.scale).to(work.x.dtype)
