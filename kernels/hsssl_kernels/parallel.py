"""Whole parts of a batch in threads of their own, in place of one operation after another in all threads."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from functools import cache

import torch

__all__ = ["one_thread", "run_apart"]


@contextmanager
def one_thread() -> Iterator[int]:
    """Let the calling thread alone do torch's operations; gives the number of threads there were.

    torch's own threads stay awake for some milliseconds after an operation, on cores that `run_apart` needs:
    looking at a batch's 150,000 numbers of tokens made embedding them take half as long again.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield threads
    finally:
        torch.set_num_threads(threads)


def run_apart(part: Callable[[slice], None], slices: list[slice], threads: int) -> None:
    """Call ``part`` for every slice, on up to ``threads`` cores.

    torch splits each operation over its threads, and they meet at its end. With a thousand short
    operations a batch these meetings cost as much as the work, and 8 ms each while another
    program holds a core: views of 512 patches took seconds. Threads that each do all operations of
    their samples meet once.
    """
    if len(slices) < 2 or threads < 2:
        for samples in slices:
            part(samples)
        return
    inference, waiting = torch.is_inference_mode_enabled(), iter(slices)

    def work() -> None:
        with torch.inference_mode(inference):  # the mode is a thread's own
            while (samples := next(waiting, None)) is not None:
                part(samples)

    with one_thread():  # threads of the pool, when they begin, change the number of all
        # the calling thread works too: one more than there are cores would hold up another
        others = [_pool(threads - 1).submit(work) for _ in slices[1:threads]]
        try:
            work()
        finally:
            wait(others)
    for other in others:
        other.result()  # raises what was raised there


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    """Return threads that stay: beginning takes 1 to 2 ms, and first products take three times as long."""
    return ThreadPoolExecutor(threads, "hsssl", torch.set_num_threads, (1,))


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.cache_clear)  # a forked process has no such threads
