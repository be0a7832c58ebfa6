"""The public op: NT-Xent, exact in O(n D) memory, with one sweep over the similarities each way."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from hsssl_kernels.checks import check_flag, check_pair, check_temperature, compute_dtype, log_dtype
from hsssl_kernels.dispatch import Backend, choose_backend
from hsssl_kernels.distributed import described, gather, mean_over_ranks, rank_and_world, together
from hsssl_kernels.first_order import first_order
from hsssl_kernels.lse import expected_similarity, is_swept, lse, lse_grad, self_lse_with_grad, wide_rows
from hsssl_kernels.lse.held import fits_at_once
from hsssl_kernels.rows import finish_rows, unit_rows

__all__ = ["nt_xent"]


def nt_xent(
    z1: Tensor,
    z2: Tensor,
    *,
    temperature: float | Tensor = 0.5,
    normalize: bool = True,
    gather_distributed: bool = False,
    backend: Backend = "auto",
) -> Tensor:
    """Return SimCLR's contrastive loss over a batch of pairs.

    With z the n = 2 B rows of both views, each of norm 1, and i' the partner of row i,
    ``loss = mean_i [ log sum_(j != i) exp(<z_i, z_j> / t) - <z_i, z_i'> / t ]``.
    Memory is O(n D), and the value is exact at any n: similarities are held tile by tile, those of a
    batch of up to 4,096 rows in blocked torch all at once (34 MiB at most, in float64 68).

    Parameters
    ----------
    z1, z2 : Tensor, shape (B, D), float64, float32, float16 or bfloat16
        Embeddings of the two views; row i of both is a pair. Any strides.
    temperature : float or Tensor of one element
        t > 0; a tensor may require a gradient, which for float32 takes one more sweep, in float64:
        rows cancel in it. Reading a tensor waits for the GPU once a call.
    normalize : bool
        Divide every row by its norm; False takes the rows as they are.
    gather_distributed : bool
        Contrast with the rows of all ranks of the default process group (which must bring equal
        shapes). Each rank returns the mean over all ranks' rows, and the mean over ranks of the
        parameters' gradients, as DistributedDataParallel takes it, is that of one process with the
        whole batch. Without a process group this changes nothing.
    backend : {"auto", "triton", "torch"}
        "auto" is Triton on CUDA and ROCm, blocked torch elsewhere.

    Returns
    -------
    loss : Tensor, scalar, float32 (float64 for float64)

    Raises
    ------
    ValueError, TypeError
        If shapes, dtypes or devices disagree, the batch is empty or differs between ranks, or the
        temperature is not a positive finite number.

    References
    ----------
    Chen et al. 2020, "A simple framework for contrastive learning", arXiv:2002.05709.

    Examples
    --------
    >>> import torch
    >>> z = torch.eye(2)
    >>> round(nt_xent(z, z, temperature=1.0).item(), 4)  # log(e + 2) - 1
    0.5514
    """
    world = rank_and_world(gather_distributed)[1]

    def check() -> tuple[Tensor, str]:
        check_flag("nt_xent", "gather_distributed", gather_distributed)
        check_pair("nt_xent", "z1", z1, "z2", z2)
        check_flag("nt_xent", "normalize", normalize)
        if len(z1) * world == 1:
            raise ValueError("nt_xent: one pair has nothing to contrast with, got B=1; bring a larger batch")
        return check_temperature("nt_xent", temperature), choose_backend("nt_xent", backend, z1)

    value, chosen = together(
        "nt_xent", world, check, lambda found: described(z1, found[0], normalize=normalize)
    )
    gathering = world > 1
    loss: Tensor = _NTXent.apply(
        torch.cat([z1, z2]), value, normalize, gathering, chosen, torch.is_grad_enabled()
    )  # type: ignore[no-untyped-call]
    return mean_over_ranks(loss) if gathering else loss


class _NTXent(torch.autograd.Function):
    """Mean over this rank's rows; its gradient is that of the sum of all ranks' means."""

    @staticmethod
    def forward(
        ctx: Any,
        z: Tensor,
        temperature: Tensor,
        normalize: bool,
        gathering: bool,
        backend: str,
        tracked: bool,
    ) -> Tensor:
        value = temperature.detach().to("cpu", torch.float64).reshape(())
        unit, inverse = unit_rows(z, backend) if normalize else (z, z.new_empty(0))
        everyone = gather(unit) if gathering else unit  # (N, D)
        offset = rank_and_world(gathering)[0] * len(z)
        # a batch small enough is swept once: its gradient is formed on the way
        alone = backend == "torch" and not gathering and fits_at_once(len(z), len(z))
        ctx.ready = alone and tracked and ctx.needs_input_grad[0]
        wide = unit.to(compute_dtype(z))
        half = len(z) // 2
        positive = (wide * wide.roll(half, 0)).sum(1) / value
        # a positive stays out of the sum: a share of nearly 1 would cost the others their digits
        if ctx.ready:
            others, total = self_lse_with_grad(unit, value)  # (n,), (n, D)
        else:
            others, _ = lse(unit, everyone, value, offset, half, False, normalize, backend, [])
            total = unit.new_empty(0)
        behind = others - positive
        rows = torch.logaddexp(behind, torch.zeros_like(behind))
        formed = (unit, inverse, everyone, rows + positive, behind.sigmoid(), total)
        ctx.save_for_backward(z, temperature, value, *formed)
        ctx.options = (offset, normalize, gathering, backend)
        loss: Tensor = rows.mean().to(compute_dtype(z))
        return loss

    @staticmethod
    @first_order("nt_xent")
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        z, temperature, value, unit, inverse, everyone, over_rows, pull, total = ctx.saved_tensors
        offset, normalize, gathering, backend = ctx.options
        half = len(z) // 2
        dz = dt = None
        if ctx.needs_input_grad[0] or not is_swept(z):
            if ctx.ready:
                partners = torch.zeros_like(over_rows)  # taken in already
            else:
                all_lse = gather(over_rows) if gathering else over_rows
                ones = torch.ones_like(all_lse)
                sides = (over_rows, ones[: len(z)] if gathering else ones, all_lse, ones)
                total, _ = lse_grad(
                    unit, everyone, value, *sides, offset, half, False, normalize, backend, []
                )
                partners = pull + pull.roll(half, 0)
            factor = gradients[0] / (len(z) * value)
            dz, along = finish_rows(total, unit, partners, z, inverse, factor, half, backend)
        if ctx.needs_input_grad[1]:
            if is_swept(z):
                rows = _rows_by_temperature(z, value, ctx.options)
                dt = rows.mean() * gradients[0] / value
            else:  # every similarity is bilinear in z, hence the half
                dt = -0.5 * along.sum(dtype=log_dtype(z)) / value
            dt = dt.to(temperature).reshape(temperature.shape)
        return dz, dt, None, None, None, None


def _rows_by_temperature(z: Tensor, value: Tensor, options: tuple[int, bool, bool, str]) -> Tensor:
    """Return t times the derivative of every row's loss by t (n,), float64."""
    offset, normalize, gathering, _ = options
    wide = wide_rows(z, normalize)
    everyone = wide_rows(gather(z), normalize) if gathering else wide
    expected, _, _ = expected_similarity(wide, everyone, value, offset, False)
    rows: Tensor = (wide * wide.roll(len(z) // 2, 0)).sum(1) / value - expected
    return rows
