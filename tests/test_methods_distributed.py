"""Methods over two processes: queue, statistics, prototypes and centre are those of the whole batch."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from hsssl.encoders import build_encoder
from hsssl.methods import METHODS, build_method
from hsssl.methods.queue import Queue
from hsssl.methods.ranks import all_rows
from hsssl.views import Views

WORLD, BATCH, BANDS = 2, 8, 24
WAVELENGTHS = torch.linspace(400, 2500, BANDS)
# Those whose loss a process cannot know from its own half of the batch.
WHOLE_BATCH = {
    "barlow_twins": {},
    "cmc": {},
    "contrastive_clustering": {"clusters": 3},
    "dino": {"prototypes": 5, "centre_momentum": 0.5},
    "moco": {"queue_size": 20},
    "moco v3": {"queue_size": 0},
    "simclr": {},
    "swav": {"prototypes": 3, "queue_size": 20, "freeze": 0.0},
    "vicreg": {},
}
FEW = {"ae_subspace": {"memory": 32, "clusters": 4}, "pcl": {"memory": 32, "clusters": [4], "negatives": 32}}


def whole_batch() -> Views:
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(WORLD * BATCH, BANDS, 1, 1, generator=generator)
    return Views(a, a + 0.3 * torch.randn(a.shape, generator=generator), WAVELENGTHS)


def make(variant: str, options: dict) -> nn.Module:
    torch.manual_seed(0)
    encoder = build_encoder("spectral_spatial", dim=16, hidden=32, channels=16)
    return build_method(variant.split()[0], encoder, **options)


def two_steps(variant: str, options: dict, views: Views, *, parallel: bool) -> dict[str, Tensor]:
    """Return losses, gradients and buffers after two steps of plain descent, batch norms in evaluation mode.

    A batch norm in training mode takes the statistics of its own process: that is left out here.
    """
    method = make(variant, options).eval()
    called = DistributedDataParallel(method) if parallel else method
    optimizer = torch.optim.SGD([p for p in method.parameters() if p.requires_grad], lr=0.05)
    seen: dict[str, Tensor] = {}
    for step in range(2):
        optimizer.zero_grad()
        loss = called(views)
        loss.backward()
        if parallel:
            dist.all_reduce(loss.detach())
        seen[f"loss {step}"] = loss.detach() / (WORLD if parallel else 1)
        seen |= {
            f"gradient {step} {n}": p.grad.clone() for n, p in method.named_parameters() if p.grad is not None
        }
        optimizer.step()
        method.after_step((step + 1) / 2)
    return seen | {f"buffer {name}": value.clone() for name, value in method.named_buffers()}


def trains(name: str, views: Views) -> list[float]:
    """Return the losses of four steps in training mode, as a run takes them."""
    method = make(name, FEW.get(name, {}))
    called = DistributedDataParallel(method)
    optimizer = torch.optim.AdamW([p for p in method.parameters() if p.requires_grad], lr=1e-3)
    losses = []
    for step in range(4):
        torch.manual_seed(10 * step + dist.get_rank())
        loss = called(views)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        method.after_step((step + 1) / 4)
        losses.append(loss.item())
    weights = torch.cat([p.detach().flatten() for p in method.encoder.parameters()])
    return [*losses, float(weights.double().sum())]


def _rank(rank: int, port: int, folder: Path) -> None:
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=WORLD)
    batch = whole_batch()
    half = slice(rank * BATCH, (rank + 1) * BATCH)
    mine = Views(batch.a[half], batch.b[half], WAVELENGTHS)
    found = {name: two_steps(name, options, mine, parallel=True) for name, options in WHOLE_BATCH.items()}
    queue = Queue(6, 1)
    queue.push(torch.tensor([[1.0], [2.0]]) + 10 * rank)
    queue.push(torch.tensor([[3.0], [4.0]]) + 10 * rank)
    x = torch.tensor([[1.0 + rank]], requires_grad=True)
    (all_rows(x).square().sum() * (1 + rank)).backward()
    ends = {name: trains(name, mine) for name in METHODS}
    torch.save((found, queue.rows.flatten(), x.grad, ends), folder / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """Of both processes what they found."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    folder = tmp_path_factory.mktemp("ranks")
    mp.spawn(_rank, args=(port, folder), nprocs=WORLD)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(WORLD)]


@pytest.mark.parametrize("name", WHOLE_BATCH)
def test_two_processes_descend_as_one_with_the_whole_batch(ranks, name):
    expected = two_steps(name, WHOLE_BATCH[name], whole_batch(), parallel=False)
    for found, *_ in ranks:
        assert found[name].keys() == expected.keys()
        for key, value in expected.items():  # sums in another order: float32, against the largest
            near = {"rtol": 1e-3, "atol": 1e-5 + 1e-4 * float(value.float().abs().max())}
            torch.testing.assert_close(found[name][key], value, **near, msg=lambda m, key=key: f"{key}: {m}")


def test_queue_takes_the_rows_of_all_ranks_in_order(ranks):
    for _, rows, *_ in ranks:
        assert rows.tolist() == [13, 14, 11, 12, 3, 4]


def test_gradient_of_all_rows_is_this_ranks_times_their_number(ranks):
    # d (1 + rank) x^2 / dx at x = 1 + rank, twice
    assert [gradient.item() for *_, gradient, _ in ranks] == [4.0, 16.0]


@pytest.mark.parametrize("name", METHODS)
def test_every_method_trains_and_its_ranks_stay_alike(ranks, name):
    first, second = (ends[name] for *_, ends in ranks)
    assert torch.isfinite(torch.tensor(first + second)).all()
    assert first[-1] == second[-1]
