"""Whole parts of a batch in each thread, in place of one operation after another in all threads."""

from __future__ import annotations

import ctypes
import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import cache
from typing import Any, NamedTuple

import torch

__all__ = ["ALONE", "Team", "run_apart", "run_loop"]

_here = threading.local()
_FIRST = os.getpid()


class Team(NamedTuple):
    """The threads that run a compiled loop together."""

    start: int  # address of OpenMP's `GOMP_parallel`, which lets all begin; or 0 for the calling one alone
    threads: int


ALONE = Team(0, 1)


def run_loop(loop: Callable[..., None], given: tuple[Any, ...], threads: int) -> None:
    """Let ``threads`` threads run a compiled loop, whose turns they take one after another.

    They are torch's own, where torch has OpenMP on Linux. After an operation of torch these stay awake for
    some milliseconds, on cores that any others would wait for; and they begin within 2 us, where waking a
    thread from Python takes 150 and more. Elsewhere they are those of `run_apart`.

    The loop is called with a `Team`, for `lanes.together`, and what is given; or by each thread with a team
    of one.
    """
    if threads < 2 or hasattr(_here, "alone"):
        loop(ALONE, *given)
    elif start := _start_of_team(os.getpid()):
        # as many as torch has itself: it would end the others, and begin them anew for its next operation
        loop(Team(start, threads), *given)
    else:
        run_apart(lambda _: loop(ALONE, *given), [slice(0, 1)] * threads, threads, here_too=True)


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
            # once all parts are taken, nobody waits for a thread that has yet to begin
            if not (here_too and job.cancel()):
                job.result()
    finally:
        _drop(waiting)  # if this thread was interrupted
        wait([job for job in jobs if not job.cancelled()])
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


@cache
def _start_of_team(process: int) -> int:
    """Return the address of `GOMP_parallel` in the OpenMP that torch uses, or 0.

    A process that is forked from this one has none of its threads, for which it would wait for ever. So do
    torch's own operations there, until it is given one thread, as a DataLoader does.
    """
    if sys.platform != "linux" or process != _FIRST or not torch._C.has_openmp:
        return 0
    for library in (None, torch._C.__file__):  # what all use, by LD_PRELOAD; what torch depends on
        if found := getattr(ctypes.CDLL(library), "GOMP_parallel", None):
            return ctypes.cast(found, ctypes.c_void_p).value or 0
    return 0


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.cache_clear)  # a forked process has no such threads
