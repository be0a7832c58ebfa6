"""Balanced assignments of samples to prototypes."""

from hsssl_kernels.sinkhorn.op import sinkhorn

__all__ = ["sinkhorn"]
