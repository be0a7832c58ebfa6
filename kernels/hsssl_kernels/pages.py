"""Memory for large results: in large pages, and that of results that are gone serves the next ones."""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import sys
import weakref
from collections import deque
from math import prod

import torch
from torch import Tensor

__all__ = ["empty_again", "release_idle"]

_LARGE = 1 << 21
# Mappings that no tensor uses any more, the latest first: two views and the tokens of each, 1 GiB in all.
_idle: deque[mmap.mmap] = deque()
_MOST, _MOST_BYTES = 4, 1 << 30


def empty_again(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return a tensor of any values, if it is large in memory that an earlier one had of the same size.

    Linux hands over fresh memory filled with zeros, and takes it back when the tensor is gone: for two views
    of 512 patches that costs a fifth of making them. So the memory of the last four tensors is kept, up to
    1 GiB, as the allocator of a GPU does; a tensor's memory serves again only once nothing refers to it.
    """
    size = -(-prod(shape) * dtype.itemsize // _LARGE) * _LARGE
    if sys.platform != "linux" or device.type != "cpu" or size < 2 * _LARGE:
        return torch.empty(shape, dtype=dtype, device=device)
    memory = _mapping(size)
    lease = (ctypes.c_char * size).from_buffer(memory)  # lives as long as the tensor's storage
    weakref.finalize(lease, _give_back, memory).atexit = False
    return torch.frombuffer(lease, dtype=dtype, count=prod(shape)).view(shape)


def _give_back(memory: mmap.mmap) -> None:
    _idle.appendleft(memory)
    with contextlib.suppress(IndexError):  # another thread was faster
        while len(_idle) > _MOST or sum(map(len, list(_idle))) > _MOST_BYTES:
            _idle.pop()


def release_idle() -> None:
    """Give memory that no tensor uses back to the system."""
    _idle.clear()


def _mapping(size: int) -> mmap.mmap:
    for memory in list(_idle):
        if len(memory) == size:
            with contextlib.suppress(ValueError):  # another thread was faster
                _idle.remove(memory)
                return memory
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with contextlib.suppress(OSError):  # a hint, which the system may refuse
        memory.madvise(mmap.MADV_HUGEPAGE)
    return memory
