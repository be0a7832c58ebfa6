"""InfoNCE between two towers, or against a queue of negatives."""

from hsssl_kernels.info_nce.op import info_nce

__all__ = ["info_nce"]
