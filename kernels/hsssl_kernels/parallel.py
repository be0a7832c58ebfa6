"""Whole parts of a batch in threads of their own, in place of one operation after another in all threads."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import cache

import torch

__all__ = ["run_apart"]

_here = threading.local()


def run_apart(
    part: Callable[[slice], None], slices: list[slice], threads: int, *, here_too: bool = False
) -> None:
    """Call ``part`` for every slice, on up to ``threads`` cores; with ``here_too`` one is the caller's.

    torch splits each operation over its threads, and they meet at its end. With a thousand short
    operations a batch these meetings cost as much as the work, and 8 ms each while another
    program holds a core: views of 512 patches took seconds. Threads that each do all operations of
    their samples meet once.

    torch's own threads stay awake for some milliseconds after an operation, on cores that are wanted here: a
    caller that has just looked at 150,000 numbers with all threads waits half as long again.

    The second of two threads that are woken after some milliseconds often begins milliseconds later, as a
    system packs new work on one core; one of them is saved where the caller works. This is for parts that
    call torch for few numbers at most: in the calling thread torch would use all cores.
    """
    in_pool = hasattr(_here, "alone")  # its threads would wait for each other
    if len(slices) < 2 or threads < 2 or in_pool:
        for samples in slices:
            part(samples)
        return
    inference, waiting = torch.is_inference_mode_enabled(), iter(slices)

    def work() -> None:
        try:
            with torch.inference_mode(inference):  # the mode is a thread's own
                while (samples := next(waiting, None)) is not None:
                    part(samples)
        except BaseException:
            _drop(waiting)
            raise

    # A thread's number of threads is its own, but torch also keeps it for threads yet to come.
    before = torch.get_num_threads()
    jobs: list[Future[None]] = []
    try:
        for _ in slices[here_too:threads]:
            jobs.append(_pool(threads).submit(work))
        if here_too:
            work()
        for job in jobs:
            job.result()
    finally:
        _drop(waiting)  # if this thread was interrupted
        wait(jobs)
        torch.set_num_threads(before)


def _drop(waiting: Iterator[slice]) -> None:
    """Leave no slice for any thread to begin."""
    deque(waiting, maxlen=0)


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    """Return threads that stay: beginning takes 1 to 2 ms, and first products take three times as long."""
    return ThreadPoolExecutor(threads, "hsssl", _begin)


def _begin() -> None:
    _here.alone = True
    torch.get_num_threads()  # a thread that first asks takes what was last set anywhere
    torch.set_num_threads(1)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.cache_clear)  # a forked process has no such threads
