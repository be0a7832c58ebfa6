"""Large pages for large results: the kernel then hands over fresh memory 512 small pages at a time."""

from __future__ import annotations

import ctypes
import mmap
import sys

from torch import Tensor

__all__ = ["use_large_pages"]

_LARGE = 1 << 21


def use_large_pages(x: Tensor) -> Tensor:
    """Ask Linux to back a new tensor on the CPU by large pages where it can; return the tensor.

    First touching 50 MB took 40 ms in small pages, more than computing what goes there, and 7 ms in
    large ones (measured on a 2-core x86-64 Linux machine). It is a hint: a refusal changes nothing.
    """
    if sys.platform == "linux" and x.device.type == "cpu" and x.nbytes >= 2 * _LARGE:
        first = -(-x.data_ptr() // _LARGE) * _LARGE
        last = (x.data_ptr() + x.nbytes) // _LARGE * _LARGE
        madvise = ctypes.CDLL(None).madvise
        madvise(ctypes.c_void_p(first), ctypes.c_size_t(last - first), ctypes.c_int(mmap.MADV_HUGEPAGE))
    return x
