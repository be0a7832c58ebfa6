"""Losses over several processes: the mean over ranks of the gradients is the one-process gradient."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable

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
    dist.init_process_group("gloo", rank=rank, world_size=world)
    mine = slice(rank * BATCH, (rank + 1) * BATCH)
    x, y, labels = _data(world)
    got: dict[str, list[Tensor]] = {}
    for name, (loss, _) in LOSSES.items():
        torch.manual_seed(0)
        towers = DistributedDataParallel(Towers())
        value = loss(*towers(x[mine], y[mine]), labels[mine], gather_distributed=True)
        value.backward()
        got[name] = [value.detach(), *(p.grad for p in towers.parameters() if p.grad is not None)]
    got["sinkhorn"] = [sinkhorn(x[mine], epsilon=0.5, gather_distributed=True)]
    uneven = torch.randn(BATCH + rank, COLUMNS)
    messages = []
    for call in (
        lambda: nt_xent(uneven, uneven, gather_distributed=True),
        lambda: info_nce(uneven, uneven, gather_distributed=True),
        lambda: sup_con(uneven, torch.zeros(len(uneven), dtype=torch.int64), gather_distributed=True),
        lambda: sinkhorn(uneven, gather_distributed=True),
    ):
        try:
            call()
        except ValueError as error:
            messages.append(str(error))
    numbers = {name: [t.tolist() for t in tensors] for name, tensors in got.items()}
    results.put((rank, numbers, messages))
    dist.destroy_process_group()


@pytest.fixture(scope="module", params=[2, 3])
def ranks(request: pytest.FixtureRequest) -> tuple[int, list[tuple[dict[str, list], list[str]]]]:
    """World size, and of every rank its values, gradients and the errors of uneven batches."""
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
        p.join(120)
    for p in processes:
        if p.is_alive():
            p.kill()
    assert [p.exitcode for p in processes] == [0] * world
    collected = sorted(results.get() for _ in range(world))
    return world, [(numbers, messages) for _, numbers, messages in collected]


@pytest.mark.parametrize("name", LOSSES)
def test_value_and_parameter_gradients_are_those_of_one_process(
    ranks: tuple[int, list[tuple[dict[str, list], list[str]]]], name: str
) -> None:
    world, collected = ranks
    expected = _one_process(world, name)
    assert len(expected) == 6  # the value, two weights, two biases, the temperature
    for numbers, _ in collected:
        got = [torch.tensor(x, dtype=torch.float64) for x in numbers[name]]
        for a, b in zip(got, expected, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


def test_sinkhorn_balances_over_all_ranks(ranks: tuple[int, list[tuple[dict[str, list], list[str]]]]) -> None:
    world, collected = ranks
    expected = sinkhorn_reference(_data(world)[0], epsilon=0.5)
    got = torch.tensor(
        [row for numbers, _ in collected for row in numbers["sinkhorn"][0]], dtype=torch.float64
    )
    torch.testing.assert_close(got, expected)


def test_uneven_batches_are_refused_on_every_rank(
    ranks: tuple[int, list[tuple[dict[str, list], list[str]]]],
) -> None:
    world, collected = ranks
    shapes = [(BATCH + r, COLUMNS) for r in range(world)]
    for _, messages in collected:
        assert len(messages) == 4
        for op, message in zip(("nt_xent", "info_nce", "sup_con", "sinkhorn"), messages, strict=True):
            assert message.startswith(f"{op}: every rank must bring the same batch")
            assert f"got shapes {shapes} by rank" in message


def test_without_a_process_group_gathering_changes_nothing() -> None:
    z1, z2 = torch.randn(2, 6, 3)
    assert nt_xent(z1, z2, gather_distributed=True) == nt_xent(z1, z2)
