"""Whole parts of a batch in threads of their own, in place of one operation after another in all threads."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import torch

__all__ = ["run_apart"]


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
    inference = torch.is_inference_mode_enabled()

    def in_thread(samples: slice) -> None:
        with torch.inference_mode(inference):  # the mode is a thread's own
            part(samples)

    # A thread's number of threads is its own too, but torch also keeps it for threads yet to come.
    try:
        list(_pool(threads).map(in_thread, slices))
    finally:
        torch.set_num_threads(threads)


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    """Return threads that stay: beginning takes 1 to 2 ms, and first products take three times as long."""
    return ThreadPoolExecutor(threads, "hsssl", torch.set_num_threads, (1,))


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.cache_clear)  # a forked process has no such threads
