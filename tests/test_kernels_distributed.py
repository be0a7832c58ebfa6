"""Losses over several processes: the mean over ranks of the gradients is the one-process gradient."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from datetime import timedelta
from functools import partial

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from hsssl_kernels import info_nce, nt_xent, sinkhorn, sup_con
from hsssl_kernels.info_nce.reference import info_nce_reference
from hsssl_kernels.nt_xent.reference import nt_xent_reference
from hsssl_kernels.sinkhorn.reference import sinkhorn_reference
from hsssl_kernels.sup_con.reference import sup_con_reference

BATCH, COLUMNS = 5, 4
COMPILED = ("nt_xent", "info_nce_symmetric", "sup_con")
# World size, and of every rank its values and gradients by name, and the errors it raised.
Ranks = tuple[int, list[tuple[dict[str, list], list[str]]]]


class Towers(nn.Module):
    """Two small towers and a learnable temperature."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(6, COLUMNS).double(), nn.Linear(6, COLUMNS).double()
        self.temperature = nn.Parameter(torch.tensor(0.3, dtype=torch.float64))

    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.a(x), self.b(y), 1 * self.temperature


def _data(world: int) -> tuple[Tensor, Tensor, Tensor]:
    g = torch.Generator().manual_seed(world)
    x, y = torch.randn(2, world * BATCH, 6, generator=g, dtype=torch.float64)
    # class 9 has one row alone, on rank 1: a rank's own count of rows with a positive is uneven
    labels = torch.arange(world * BATCH) % 3
    labels[BATCH + 1] = 9
    return x, y, labels


LOSSES: dict[str, tuple[Callable[..., Tensor], Callable[..., Tensor]]] = {
    "nt_xent": (
        lambda q, k, t, labels, **o: nt_xent(q, k, temperature=t, **o),
        lambda q, k, t, labels: nt_xent_reference(q, k, temperature=t),
    ),
    "info_nce": (
        lambda q, k, t, labels, **o: info_nce(q, k, temperature=t, **o),
        lambda q, k, t, labels: info_nce_reference(q, k, temperature=t),
    ),
    "info_nce_symmetric": (
        lambda q, k, t, labels, **o: info_nce(q, k, temperature=t, symmetric=True, **o),
        lambda q, k, t, labels: info_nce_reference(q, k, temperature=t, symmetric=True),
    ),
    "sup_con": (
        lambda q, k, t, labels, **o: sup_con(q + k, labels, temperature=t, **o),
        lambda q, k, t, labels: sup_con_reference(q + k, labels, temperature=t),
    ),
}


def _one_process(world: int, name: str) -> list[Tensor]:
    torch.manual_seed(0)
    towers = Towers()
    x, y, labels = _data(world)
    value = LOSSES[name][1](*towers(x, y), labels)
    value.backward()
    return [value.detach(), *(p.grad for p in towers.parameters() if p.grad is not None)]


def _rank(rank: int, world: int, port: int, results: mp.SimpleQueue) -> None:
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=world, timeout=timedelta(seconds=120))
    mine = slice(rank * BATCH, (rank + 1) * BATCH)
    x, y, labels = _data(world)
    got: dict[str, list[Tensor]] = {}
    for name, (loss, _) in LOSSES.items():
        torch.manual_seed(0)
        towers = DistributedDataParallel(Towers())
        value = loss(*towers(x[mine], y[mine]), labels[mine], gather_distributed=True)
        value.backward()
        got[name] = [value.detach(), *(p.grad for p in towers.parameters() if p.grad is not None)]
        gathering = partial(loss, gather_distributed=True)
        rows = [x[mine], y[mine]]
        got[f"{name} cold"] = _cold(gathering, rows, labels[mine])
        if name in COMPILED and world == 2:
            compiled = torch.compile(gathering, fullgraph=True, backend="aot_eager")
            got[f"{name} compiled"] = _cold(compiled, rows, labels[mine])
    got["sinkhorn"] = [sinkhorn(x[mine], epsilon=0.5, gather_distributed=True)]
    said = [_refusal(call) for call in _wrong_calls(rank)]
    numbers = {name: [t.tolist() for t in tensors] for name, tensors in got.items()}
    results.put((rank, numbers, said))
    dist.destroy_process_group()


def _cold(loss: Callable[..., Tensor], rows: list[Tensor], labels: Tensor) -> list[Tensor]:
    """Value and gradients in float32 at a temperature at which rows cancel in its gradient."""
    q, k = (m.float().requires_grad_() for m in rows)
    t = torch.tensor(0.02, dtype=torch.float64, requires_grad=True)
    value = loss(q, k, t, labels)
    value.backward()
    return [value.detach(), *(leaf.grad for leaf in (q, k, t) if leaf.grad is not None)]


def _wrong_calls(rank: int) -> list[Callable[[], Tensor]]:
    """Calls that are wrong on one rank alone, or differ between ranks."""
    even, uneven = torch.randn(BATCH, COLUMNS), torch.randn(BATCH + rank, COLUMNS)
    empty, zeros = even[: 0 if rank == 1 else BATCH], torch.zeros(BATCH + rank, dtype=torch.int64)
    other = even.double() if rank == 1 else even
    learnable = torch.tensor(0.5, requires_grad=rank == 0)
    on = {"gather_distributed": True}
    return [
        lambda: nt_xent(uneven, uneven, **on),
        lambda: info_nce(uneven, uneven, **on),
        lambda: sup_con(uneven, zeros, **on),
        lambda: sinkhorn(uneven, **on),
        lambda: nt_xent(empty, empty, **on),
        lambda: info_nce(even, even, temperature=0.1 if rank else -1.0, **on),
        lambda: sup_con(even, zeros[:BATCH] if rank else zeros[1:BATCH], **on),
        lambda: sinkhorn(even, iterations=3 if rank else None, **on),
        lambda: nt_xent(other, other, **on),
        lambda: info_nce(even, even, temperature=learnable, **on),
        lambda: sup_con(even, zeros[:BATCH], temperature=0.1 + rank, **on),
        lambda: sinkhorn(even, iterations=2 + rank, **on),
        lambda: info_nce(even, even, symmetric=rank == 0, **on),
        lambda: nt_xent(even, even, normalize=rank == 0, **on),
        lambda: _without_gradients(lambda: nt_xent(even, even, **on), rank == 0),
    ]


def _without_gradients(call: Callable[[], Tensor], off: bool) -> Tensor:
    with torch.set_grad_enabled(not off):
        return call()


def _refusal(call: Callable[[], Tensor]) -> str:
    try:
        return f"no error: {call()}"
    except (TypeError, ValueError) as error:
        return f"{type(error).__name__}: {error}"


@pytest.fixture(scope="module", params=[2, 3])
def ranks(request: pytest.FixtureRequest) -> Ranks:
    """What came out of 2 and of 3 processes."""
    world = request.param
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    context = mp.get_context("spawn")
    results = context.SimpleQueue()
    processes = [context.Process(target=_rank, args=(r, world, port, results)) for r in range(world)]
    for p in processes:
        p.start()
    for p in processes:
        p.join(300)
    for p in processes:
        if p.is_alive():
            p.kill()
    assert [p.exitcode for p in processes] == [0] * world
    collected = sorted(results.get() for _ in range(world))
    return world, [(numbers, messages) for _, numbers, messages in collected]


@pytest.mark.parametrize("name", LOSSES)
def test_value_and_parameter_gradients_are_those_of_one_process(ranks: Ranks, name: str) -> None:
    world, collected = ranks
    expected = _one_process(world, name)
    assert len(expected) == 6  # the value, two weights, two biases, the temperature
    for numbers, _ in collected:
        got = [torch.tensor(x, dtype=torch.float64) for x in numbers[name]]
        for a, b in zip(got, expected, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


def test_sinkhorn_balances_over_all_ranks(ranks: Ranks) -> None:
    world, collected = ranks
    expected = sinkhorn_reference(_data(world)[0], epsilon=0.5)
    got = torch.tensor(
        [row for numbers, _ in collected for row in numbers["sinkhorn"][0]], dtype=torch.float64
    )
    torch.testing.assert_close(got, expected)


@pytest.mark.parametrize("name", LOSSES)
def test_float32_at_small_temperatures_and_compiled(ranks: Ranks, name: str) -> None:
    world, collected = ranks
    x, y, labels = _data(world)
    q, k = (m.float().double().requires_grad_() for m in (x, y))
    t = torch.tensor(0.02, dtype=torch.float64, requires_grad=True)
    value = LOSSES[name][1](q, k, t, labels)
    by_q, by_k, by_t = torch.autograd.grad(value, (q, k, t))
    ways = ["cold", "compiled"] if name in COMPILED and world == 2 else ["cold"]
    for way in ways:
        each = [[torch.tensor(n, dtype=torch.float64) for n in got[f"{name} {way}"]] for got, _ in collected]
        for got in each:
            torch.testing.assert_close(got[0], value.detach(), rtol=1e-6, atol=1e-6)
        # a rank's gradient is that of the sum over ranks: their mean is that of the loss
        found = [torch.cat([got[i] for got in each]) / world for i in (1, 2)]
        for ours, right in zip(found, (by_q, by_k), strict=True):
            assert (ours - right).norm() <= 1e-5 * right.norm()
        torch.testing.assert_close(sum(got[3] for got in each) / world, by_t, rtol=1e-6, atol=0)


def test_what_is_wrong_on_one_rank_is_said_on_every_rank(ranks: Ranks) -> None:
    world, collected = ranks
    for rank, (_, said) in enumerate(collected):
        assert len(said) == 15
        uneven = [f"rank {r}: {(BATCH + r, COLUMNS)} torch.float32" for r in range(world)]
        for op, message in zip(("nt_xent", "info_nce", "sup_con", "sinkhorn"), said[:4], strict=True):
            assert message.startswith(f"ValueError: {op}: every rank must bring the same batch")
            assert all(part in message for part in uneven)
        for message, guilty, op, words in zip(
            said[4:8],
            (1, 0, 0, 0),
            ("nt_xent", "info_nce", "sup_con", "sinkhorn"),
            (
                "`z1` must have at least one row and one column, got (0, 4)",
                "`temperature` must be finite and above 0, got -1.0",
                "`labels` must have shape (5,), got (4,)",
                "`iterations` must be a whole number, got None",
            ),
            strict=True,
        ):
            assert f"{op}: {words}" in message
            assert (f"{op}: rank {guilty} cannot go on, so no rank does" in message) == (rank != guilty)
        assert "rank 0: (5, 4) torch.float32, fixed temperature 0.5" in said[8]
        assert "rank 1: (5, 4) torch.float64, fixed temperature 0.5" in said[8]
        assert "rank 0: (5, 4) torch.float32, learnable temperature 0.5, symmetric=False" in said[9]
        assert "rank 1: (5, 4) torch.float32, fixed temperature 0.5, symmetric=False" in said[9]
        assert "fixed temperature 1.1" in said[10]
        assert "symmetric=True, normalize=True, with gradients; rank 1:" in said[12]
        assert (
            "normalize=True, with gradients; rank 1: (5, 4) torch.float32, fixed temperature 0.5, norm"
            in said[13]
        )
        assert (
            "without gradients; rank 1: (5, 4) torch.float32, fixed temperature 0.5, normalize=T" in said[14]
        )
        assert "epsilon 0.05, 2 iterations; rank 1: (5, 4) torch.float32, epsilon 0.05, 3" in said[11]


def test_without_a_process_group_gathering_changes_nothing() -> None:
    z1, z2 = torch.randn(2, 6, 3)
    assert nt_xent(z1, z2, gather_distributed=True) == nt_xent(z1, z2)
