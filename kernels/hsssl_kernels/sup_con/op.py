"""The public op: the supervised contrastive loss, exact in O(n D) memory."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from hsssl_kernels.checks import check_flag, check_rows, check_temperature, compute_dtype, log_dtype
from hsssl_kernels.dispatch import Backend, choose_backend, register
from hsssl_kernels.distributed import described, gather, mean_over_ranks, rank_and_world, together
from hsssl_kernels.first_order import first_order
from hsssl_kernels.lse import expected_similarity, is_swept, lse, lse_grad, wide_rows
from hsssl_kernels.rows import finish_rows, unit_rows

__all__ = ["sup_con"]

_INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)


def sup_con(
    z: Tensor,
    labels: Tensor,
    *,
    temperature: float | Tensor = 0.1,
    normalize: bool = True,
    gather_distributed: bool = False,
    backend: Backend = "auto",
) -> Tensor:
    """Return the contrastive loss whose positives are all other rows of the same label.

    With rows of norm 1 and P(i) the other rows labelled as row i,
    ``loss_i = log sum_(j != i) exp(<z_i, z_j> / t) - mean_(p in P(i)) <z_i, z_p> / t``, and the loss is
    the mean over the rows that have a positive (0 where none has). The positives enter through sums
    over classes, so that nothing of size n x n is stored.

    Parameters
    ----------
    z : Tensor, shape (n, D), float64, float32, float16 or bfloat16
        Embeddings. Any strides.
    labels : Tensor, shape (n,), integer
        Class of each row; any values.
    temperature : float or Tensor of one element
        t > 0; a tensor may require a gradient, which for float32 takes one more sweep, in float64:
        rows cancel in it. Reading a tensor waits for the GPU once a call.
    normalize : bool
        Divide every row by its norm; False takes the rows as they are.
    gather_distributed : bool
        Contrast with the rows of all ranks, which must bring equal shapes. Each rank returns the
        mean over all ranks' rows, and the mean over ranks of the parameters' gradients is that of
        one process with the whole batch. Without a process group this changes nothing.
    backend : {"auto", "triton", "torch"}
        "auto" is Triton on CUDA and ROCm, blocked torch elsewhere.

    Returns
    -------
    loss : Tensor, scalar, float32 (float64 for float64)

    Raises
    ------
    ValueError, TypeError
        If shapes, dtypes or devices disagree, there are fewer than two rows, the batch differs
        between ranks, or the temperature is not a positive finite number.

    References
    ----------
    Khosla et al. 2020, "Supervised contrastive learning", arXiv:2004.11362, equation 2.

    Examples
    --------
    >>> import torch
    >>> z = torch.eye(2).repeat(2, 1)
    >>> round(sup_con(z, torch.tensor([0, 1, 0, 1]), temperature=1.0).item(), 4)  # log(e + 2) - 1
    0.5514
    """
    rank, world = rank_and_world(gather_distributed)

    def check() -> tuple[Tensor, str]:
        check_flag("sup_con", "gather_distributed", gather_distributed)
        check_rows("sup_con", "z", z)
        _check_labels(z, labels)
        check_flag("sup_con", "normalize", normalize)
        if len(z) * world == 1:
            raise ValueError("sup_con: one row has nothing to contrast with, got n=1; bring a larger batch")
        return check_temperature("sup_con", temperature), choose_backend("sup_con", backend, z)

    value, chosen = together(
        "sup_con", world, check, lambda found: described(z, found[0], normalize=normalize)
    )
    z = z.contiguous()  # sums then have the same bits whatever the strides were
    labels = labels.to(torch.int64)
    all_labels = gather(labels) if world > 1 else labels
    count = (class_sums(z.new_ones(len(all_labels), 1, dtype=log_dtype(z)), all_labels) - 1).squeeze(1)
    valid = count > 0
    # rows without a positive weigh nothing; the mean over ranks of the ranks' sums is the mean over rows
    weight = valid * (world / valid.sum(dtype=log_dtype(z)).clamp(min=1))
    loss: Tensor = _SupCon.apply(z, all_labels, count, weight, value, normalize, (rank, world), chosen)  # type: ignore[no-untyped-call]
    return mean_over_ranks(loss) if world > 1 else loss


def _check_labels(z: Tensor, labels: Tensor) -> None:
    if not isinstance(labels, Tensor) or labels.dtype not in _INTEGERS:
        kind = labels.dtype if isinstance(labels, Tensor) else type(labels).__name__
        raise TypeError(f"sup_con: `labels` must be an integer tensor, got {kind}; convert it first")
    if labels.layout != torch.strided:
        raise TypeError(f"sup_con: `labels` must be a dense tensor, got {labels.layout}; call to_dense()")
    if labels.shape != z.shape[:1]:
        raise ValueError(
            f"sup_con: `labels` must have shape ({len(z)},), got {tuple(labels.shape)}; one a row"
        )
    if labels.device != z.device:
        raise ValueError(
            f"sup_con: `labels` must be on {z.device} as `z` is, got {labels.device}; move one of them"
        )


class _SupCon(torch.autograd.Function):
    """Weighted sum over this rank's rows; its gradient is that of the sum over all ranks."""

    @staticmethod
    def forward(
        ctx: Any,
        z: Tensor,
        labels: Tensor,
        count: Tensor,
        weight: Tensor,
        temperature: Tensor,
        normalize: bool,
        place: tuple[int, int],
        backend: str,
    ) -> Tensor:
        value = temperature.detach().to("cpu", torch.float64).reshape(())
        unit, inverse = unit_rows(z, backend) if normalize else (z, z.new_empty(0))
        everyone = gather(unit) if place[1] > 1 else unit  # (N, D)
        offset = place[0] * len(z)
        mine = slice(offset, offset + len(z))
        own = [labels[mine], labels]
        over_rows, _ = lse(unit, everyone, value, offset, 0, False, normalize, backend, own)  # (n,)
        wide = everyone.to(compute_dtype(z))
        count, weight = count.to(wide.dtype), weight.to(wide.dtype)
        centre = (class_sums(wide, labels) - wide)[mine] / count[mine].clamp(min=1).unsqueeze(1)
        positive = (wide[mine] * centre).sum(1) / value
        ctx.save_for_backward(
            z, unit, inverse, everyone, labels, count, weight, over_rows, temperature, value
        )
        ctx.options = (offset, normalize, place[1], backend)
        loss: Tensor = (weight[mine] * (over_rows - positive)).sum().to(wide.dtype)
        return loss

    @staticmethod
    @first_order("sup_con")
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        z, unit, inverse, everyone, labels, count, weight, over_rows, temperature, value = ctx.saved_tensors
        offset, normalize, world, backend = ctx.options
        mine = slice(offset, offset + len(z))
        dz = dt = None
        if ctx.needs_input_grad[0] or not is_swept(z):
            all_lse = gather(over_rows) if world > 1 else over_rows
            largest = weight.amax().clamp(min=torch.finfo(weight.dtype).tiny)
            share = weight / largest  # 0 or 1 (N,)
            sides = (over_rows, share[mine], all_lse, share)
            # row i pulls at its class, and every row of its class pulls at it
            pull = share / count.clamp(min=1)
            positives = [labels[mine], labels, pull[mine], pull]
            total, _ = lse_grad(
                unit, everyone, value, *sides, offset, 0, False, normalize, backend, positives
            )
            factor = gradients[0] * largest / value
            none = torch.zeros_like(over_rows)  # positives are taken in already
            dz, along = finish_rows(total, unit, none, z, inverse, factor, 0, backend)
        if ctx.needs_input_grad[4]:
            if is_swept(z):
                rows = _rows_by_temperature(z, labels, count[mine], value, ctx.options)
                dt = gradients[0] * (weight[mine] * rows).sum() / value
            else:  # every similarity is bilinear in z, hence the half
                dt = -0.5 * along.sum(dtype=log_dtype(along)) / value
            dt = dt.to(temperature).reshape(temperature.shape)
        return dz, None, None, None, dt, None, None, None


def _rows_by_temperature(
    z: Tensor,
    labels: Tensor,
    count: Tensor,
    value: Tensor,
    options: tuple[int, bool, int, str],
) -> Tensor:
    """Return t times the derivative of every row's loss by t (n,), float64."""
    offset, normalize, world, _ = options
    wide = wide_rows(z, normalize)
    everyone = wide_rows(gather(z), normalize) if world > 1 else wide
    expected, _, _ = expected_similarity(wide, everyone, value, offset, False)
    others = class_sums(everyone, labels)[offset : offset + len(z)] - wide
    rows: Tensor = (wide * others).sum(1) / (count.clamp(min=1).to(wide) * value) - expected
    return rows


def _class_sums(values: Tensor, labels: Tensor) -> Tensor:
    _, inverse, counts = torch.unique(labels, return_inverse=True, return_counts=True)
    # sorted and summed by segments: index_add would use atomics on a GPU, and differ from run to run
    order = inverse.argsort(stable=True)
    return torch.segment_reduce(values[order], "sum", lengths=counts, axis=0)[inverse]


def _class_sums_fake(values: Tensor, labels: Tensor) -> Tensor:
    return torch.empty_like(values)


# class_sums(values (n, D), labels (n,)) -> (n, D): to every row the sum of the rows of its label.
class_sums = register("class_sums(Tensor values, Tensor labels) -> Tensor", _class_sums, _class_sums_fake)
