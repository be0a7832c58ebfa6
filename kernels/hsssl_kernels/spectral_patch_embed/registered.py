"""The two registered ops under `spectral_patch_embed`: tokens, and the gradient by the weight."""

from __future__ import annotations

import torch
from torch import Tensor

from hsssl_kernels.checks import compute_dtype
from hsssl_kernels.dispatch import register
from hsssl_kernels.spectral_patch_embed.blocked import embed_blocked, weight_grad_blocked
from hsssl_kernels.spectral_patch_embed.compiled import embed_compiled, takes_loops, weight_grad_compiled
from hsssl_kernels.spectral_patch_embed.grouping import bounds, check_range, inside
from hsssl_kernels.spectral_patch_embed.table import table_grad
from hsssl_kernels.spectral_patch_embed.work import Work

__all__ = ["embed", "weight_grad"]

_WORK = (
    "Tensor x, Tensor? centres, Tensor? mean, Tensor? scale, Tensor? visible, Tensor? order, Tensor? starts,"
    " int patch, int group, int window"
)


def _embed(
    x: Tensor,
    centres: Tensor | None,
    mean: Tensor | None,
    scale: Tensor | None,
    visible: Tensor | None,
    order: Tensor | None,
    starts: Tensor | None,
    patch: int,
    group: int,
    window: int,
    weight: Tensor,
    table: Tensor | None,
    norm_weight: Tensor | None,
    norm_bias: Tensor | None,
    eps: float,
    keep: bool,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor]:
    work = Work(x, centres, mean, scale, visible, order, starts, patch, group, window)
    norm = None if norm_weight is None or norm_bias is None else (norm_weight, norm_bias, eps)
    _check_centres(work)
    if not (backend == "triton" and x.is_cuda):
        _check_numbers(work)
    if backend == "torch":
        embed_there = embed_compiled if takes_loops(work) else embed_blocked
        return embed_there(work, weight, table, norm, keep)
    from hsssl_kernels.spectral_patch_embed.launchers import launch_embed

    launched: tuple[Tensor, Tensor, Tensor] = launch_embed(work, weight, table, norm, keep)
    return launched


def _embed_fake(
    x: Tensor,
    centres: Tensor | None,
    mean: Tensor | None,
    scale: Tensor | None,
    visible: Tensor | None,
    order: Tensor | None,
    starts: Tensor | None,
    patch: int,
    group: int,
    window: int,
    weight: Tensor,
    table: Tensor | None,
    norm_weight: Tensor | None,
    norm_bias: Tensor | None,
    eps: float,
    keep: bool,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor]:
    work = Work(x, centres, mean, scale, visible, order, starts, patch, group, window)
    dim, slots = weight.shape[1], work.batch * work.kept
    return (
        weight.new_empty(work.batch, work.kept, dim),
        weight.new_empty(slots if keep else 0, dim),
        weight.new_empty(2, slots if keep else 0, dtype=compute_dtype(weight)),
    )


def _weight_grad(
    x: Tensor,
    centres: Tensor | None,
    mean: Tensor | None,
    scale: Tensor | None,
    visible: Tensor | None,
    order: Tensor | None,
    starts: Tensor | None,
    patch: int,
    group: int,
    window: int,
    gradient: Tensor,
    grouped: bool,
    rows: int,
    backend: str,
) -> tuple[Tensor, Tensor]:
    work = Work(x, centres, mean, scale, visible, order, starts, patch, group, window)
    if backend == "torch":
        if not takes_loops(work):
            return weight_grad_blocked(work, gradient, grouped, rows)
        _check_centres(work)
        _check_numbers(work)  # they may have changed, and loops read wherever they point
        return weight_grad_compiled(work, gradient, grouped, rows)
    from hsssl_kernels.spectral_patch_embed.launchers import launch_weight_grad

    by_weight, by_table = launch_weight_grad(work, gradient, grouped, rows)
    if by_table is None:
        flat, token = gradient.flatten(0, 1), None if visible is None else inside(work, visible).flatten()
        by_table = table_grad(work, flat, token, rows) if rows else by_weight.new_empty(0, flat.shape[1])
    return by_weight, by_table


def _weight_grad_fake(
    x: Tensor,
    centres: Tensor | None,
    mean: Tensor | None,
    scale: Tensor | None,
    visible: Tensor | None,
    order: Tensor | None,
    starts: Tensor | None,
    patch: int,
    group: int,
    window: int,
    gradient: Tensor,
    grouped: bool,
    rows: int,
    backend: str,
) -> tuple[Tensor, Tensor]:
    work = Work(x, centres, mean, scale, visible, order, starts, patch, group, window)
    shape = (work.groups if grouped else 1, gradient.shape[2], work.values)
    wide = compute_dtype(gradient)
    return gradient.new_empty(shape, dtype=wide), gradient.new_empty(rows, gradient.shape[2], dtype=wide)


def _check_centres(work: Work) -> None:
    if work.centres is None or not len(work.centres):
        return
    rows, cols, _ = work.x.shape
    size = torch.tensor([rows, cols], device=work.x.device)
    if not bool(((work.centres >= 0) & (work.centres < size)).all()):
        raise ValueError(
            f"spectral_patch_embed: a centre lies outside the scene of {rows} x {cols} pixels; "
            "rows and columns count from 0"
        )


def _check_numbers(work: Work) -> None:
    if work.visible is not None:
        check_range(work.visible, work.groups, work.space)
    if work.order is not None:
        lowest, highest = bounds(work.order)
        if lowest < 0 or highest >= work.batch * work.kept:
            raise ValueError(
                f"spectral_patch_embed: `order` must list the {work.batch * work.kept} slots, "
                f"got {lowest} ... {highest}"
            )


# embed(...) -> tokens (B, V, D); where `keep`, tokens before LayerNorm (B V, D), their means and inverse
# deviations (2, B V). x is (B, H, W, C) or a cube; weight is (1 or G, D, K), table (1 or G or G S, D).
embed = register(
    f"spectral_patch_embed({_WORK}, Tensor weight, Tensor? table, Tensor? norm_weight, Tensor? norm_bias,"
    f" float eps, bool keep, str backend) -> (Tensor, Tensor, Tensor)",
    _embed,
    _embed_fake,
)

# weight_grad(...) -> gradients by the weight (1 or G, D, K) and by the table (rows, D; none where rows is 0),
# float32 or float64, from that by the tokens.
weight_grad = register(
    f"spectral_patch_embed_weight_grad({_WORK}, Tensor gradient, bool grouped, int rows, str backend)"
    f" -> (Tensor, Tensor)",
    _weight_grad,
    _weight_grad_fake,
)
