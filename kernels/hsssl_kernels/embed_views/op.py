"""The public op: tokens of two views of every patch, from the cube where it lies."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from hsssl_kernels.checks import compute_dtype
from hsssl_kernels.dispatch import Backend, choose_backend, register, send
from hsssl_kernels.embed_views.blocks import embed_in_blocks, grad_in_blocks
from hsssl_kernels.embed_views.compiled import embed_views_compiled, grad_compiled, takes_loops
from hsssl_kernels.embed_views.source import Source
from hsssl_kernels.first_order import first_order
from hsssl_kernels.spectral_patch_embed.inputs import (
    check_geometry,
    check_sides,
    check_values,
    check_visible,
)
from hsssl_kernels.spectral_patch_embed.table import side_table
from hsssl_kernels.spectral_patch_embed.work import Work
from hsssl_kernels.spectral_views.checks import check_centres, check_views
from hsssl_kernels.spectral_views.spec import ViewSpec

__all__ = ["embed_views"]


def embed_views(
    cube: Tensor,
    centres: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    patch_size: int,
    patch: int,
    group: int,
    mean: Tensor,
    scale: Tensor,
    spec: ViewSpec,
    seed: int,
    step: int,
    sample_ids: Tensor | None = None,
    valid: Tensor | None = None,
    position: Tensor | None = None,
    wavelengths_embedding: Tensor | None = None,
    visible: Tensor | None = None,
    norm: tuple[Tensor, Tensor, float] | None = None,
    backend: Backend = "auto",
) -> tuple[Tensor, Tensor]:
    """Return the tokens of two augmented views of every patch, without writing the views of a batch.

    It is `spectral_patch_embed` of what `spectral_views` returns, in one pass over the batch: views of a
    block of samples are made in a scratch of a few megabytes, embedded, and overwritten by the next block's.
    The backward pass makes the same views again, from seed, step and sample ids; nothing but the inputs is
    kept for it. On a GPU two kernels take turns a block, and the scratch is sized to stay in its
    second-level cache; it is not one kernel. LayerNorm is torch's, on the finished tokens.

    Parameters
    ----------
    cube, centres, patch_size, mean, scale, spec, seed, step, sample_ids, valid
        As in `spectral_views`.
    weight, bias, patch, group, position, wavelengths_embedding, norm
        As in `spectral_patch_embed`; ``patch`` divides ``patch_size``.
    visible : Tensor, shape (2, B, V), int64, optional
        Numbers of the tokens to compute in each view; all where it is not given.
    backend : {"auto", "triton", "torch"}
        "auto" is Triton on CUDA and ROCm, torch elsewhere. White noise differs between them as in
        `spectral_views`.

    Returns
    -------
    tokens_a, tokens_b : Tensor, shape (B, G S, D) or (B, V, D), dtype of ``weight``
        Gradients flow to all that is learned, none to the cube.

    Raises
    ------
    ValueError, TypeError
        As `spectral_views` and `spectral_patch_embed` do, in their words.

    References
    ----------
    Chen et al. 2016, "Training deep nets with sublinear memory cost", arXiv:1604.06174 (computing again
    in the backward pass in place of keeping).

    Examples
    --------
    >>> cube = torch.rand(32, 32, 100)
    >>> a, b = embed_views(cube, torch.tensor([[4, 5]]), torch.randn(64, 90), patch_size=9, patch=3,
    ...                    group=10, mean=cube.mean((0, 1)), scale=1 / cube.std((0, 1)), spec=ViewSpec(),
    ...                    seed=0, step=0)
    >>> a.shape
    torch.Size([1, 90, 64])
    """
    check_views(cube, centres, patch_size, mean, scale, spec, seed, step, sample_ids, valid, torch.float32)
    check_values(cube, centres, patch_size, patch, group)
    if visible is not None and (visible.ndim != 3 or len(visible) != 2):
        raise ValueError(
            f"embed_views: `visible` must be int64 (2, {len(centres)}, V), the tokens of each view, "
            f"got {tuple(visible.shape)}; stack those of both"
        )
    one = None if visible is None else visible[0]
    # only sizes are checked, so nothing is sent
    there = torch.empty_like(centres, device=cube.device)
    work = Work(cube, there, mean, scale, one, None, None, patch, group, patch_size)
    check_geometry(work)
    check_visible(work)
    check_sides(work, weight, bias, position, wavelengths_embedding, norm)
    if torch.is_autocast_enabled(cube.device.type):
        weight = weight.to(torch.get_autocast_dtype(cube.device.type))
    chosen = choose_backend("embed_views", backend, weight.mT)
    table = side_table(work, bias, position, wavelengths_embedding)
    weight = weight if weight.ndim == 3 else weight.unsqueeze(0)
    source = (
        cube,
        centres,
        mean,
        scale,
        sample_ids,
        valid,
        visible,
        patch_size,
        spec.strengths(),
        seed,
        step,
    )
    pair: tuple[Tensor, Tensor] = _EmbedViews.apply(*source, patch, group, weight, table, chosen)  # type: ignore[no-untyped-call]
    if norm is None:
        return pair
    by, plus = (v.to(weight.dtype) for v in norm[:2])
    a, b = (F.layer_norm(tokens, tokens.shape[2:], by, plus, norm[2]) for tokens in pair)
    return a, b


class _EmbedViews(torch.autograd.Function):
    """Saves its inputs; views are made again."""

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> tuple[Tensor, Tensor]:
        source, (weight, table, backend) = inputs[:13], inputs[13:]
        ctx.save_for_backward(*source[:7], weight, table)
        ctx.rest, ctx.backend = source[7:], backend
        # two results, as one would have its gradient stacked
        a, b = _embed_op(*source, weight, table, backend)
        return a, b

    @staticmethod
    @first_order("embed_views")
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        *tensors, weight, table = ctx.saved_tensors
        by_weight = by_table = None
        rows = len(table) if ctx.needs_input_grad[14] else 0
        if ctx.needs_input_grad[13] or rows:
            by_weight, by_table = _grad_op(
                *tensors, *ctx.rest, *gradients, len(weight) > 1, rows, ctx.backend
            )
            by_weight, by_table = by_weight.to(weight.dtype), by_table.to(table.dtype) if rows else None
        return *[None] * 13, by_weight, by_table, None


def _source(*parts: Any) -> Source:
    source = Source(*parts)
    check_centres(source.cube, source.centres)
    device = source.cube.device
    return source._replace(
        centres=send(source.centres, device),
        mean=source.mean.detach().to(torch.float32),
        scale=source.scale.detach().to(torch.float32),
        ids=None if source.ids is None else send(source.ids, device),
    )


def _embed(*inputs: Any) -> tuple[Tensor, Tensor]:
    source, (weight, table, backend) = _source(*inputs[:13]), inputs[13:]
    if backend == "torch" and takes_loops(source):
        return embed_views_compiled(source, weight, table)
    return embed_in_blocks(source, weight, table, backend)


def _embed_fake(*inputs: Any) -> tuple[Tensor, Tensor]:
    source, weight = Source(*inputs[:13]), inputs[13]
    shape = (len(source.centres), source.tokens, weight.shape[1])
    return weight.new_empty(shape), weight.new_empty(shape)


def _grad(*inputs: Any) -> tuple[Tensor, Tensor]:
    source, (a, b, grouped, rows, backend) = _source(*inputs[:13]), inputs[13:]
    if backend == "torch" and takes_loops(source):
        return grad_compiled(source, (a, b), grouped, rows)
    return grad_in_blocks(source, (a, b), grouped, rows, backend)


def _grad_fake(*inputs: Any) -> tuple[Tensor, Tensor]:
    source, (gradient, _, grouped, rows, _) = Source(*inputs[:13]), inputs[13:]
    groups, dim = -(-source.cube.shape[2] // source.group) if grouped else 1, gradient.shape[2]
    shape = (groups, dim, source.patch**2 * source.group)
    wide = compute_dtype(gradient)
    return gradient.new_empty(shape, dtype=wide), gradient.new_empty(rows, dim, dtype=wide)


_SOURCE = (
    "Tensor cube, Tensor centres, Tensor mean, Tensor scale, Tensor? sample_ids, Tensor? valid,"
    " Tensor? visible, SymInt patch_size, float[] strengths, SymInt seed, SymInt step, SymInt patch,"
    " SymInt group"
)

# _embed_op(...) -> tokens of both views (B, V, D); weight is (1 or G, D, K), table (1 or G or G S, D)
_embed_op = register(
    f"embed_views({_SOURCE}, Tensor weight, Tensor? table, str backend) -> (Tensor, Tensor)",
    _embed,
    _embed_fake,
)

# _grad_op(...) -> gradients by the weight and by the table (rows, D), float32 or float64
_grad_op = register(
    f"embed_views_grad({_SOURCE}, Tensor gradient_a, Tensor gradient_b, bool grouped, int rows,"
    " str backend) -> (Tensor, Tensor)",
    _grad,
    _grad_fake,
)
