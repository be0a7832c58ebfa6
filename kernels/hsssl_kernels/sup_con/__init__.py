"""Supervised contrastive loss: several positives a row."""

from hsssl_kernels.sup_con.op import sup_con

__all__ = ["sup_con"]
