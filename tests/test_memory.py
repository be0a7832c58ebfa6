"""Memory that tensors leave: kept within the context, given back after it."""

from __future__ import annotations

import resource
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from hsssl import memory
from hsssl.memory import kept_memory

needs_glibc = pytest.mark.skipif(memory._glibc() is None, reason="malloc is not glibc's")
SIZE = 48 << 20


def faults_of(work: Callable[[], object]) -> int:
    """Return how many pages the system hands over meanwhile."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    work()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def fill() -> None:
    torch.empty(SIZE, dtype=torch.uint8).fill_(1)


def resident() -> int:
    """Return the bytes of the process that are in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


@needs_glibc
def test_the_next_tensor_takes_the_same_pages() -> None:
    with kept_memory():
        fill()
        with kept_memory():
            fill()
        # the inner context has given nothing back; once, something small may have taken a corner of the room
        assert min(faults_of(fill) for _ in range(5)) < 100


@needs_glibc
def test_pages_are_given_back_at_the_end() -> None:
    with kept_memory():
        fill()
        inside = resident()
    assert resident() < inside - SIZE // 2


def test_an_error_ends_the_context() -> None:
    with pytest.raises(ZeroDivisionError), kept_memory():
        raise ZeroDivisionError
    assert memory._users == 0


def test_nothing_happens_without_glibc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_glibc", lambda: None)
    with kept_memory():
        assert memory._users == 0
