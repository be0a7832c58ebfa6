"""Losses without negatives: embeddings whose dimensions vary and do not repeat each other."""

from hsssl_kernels.decorrelation.op import barlow_twins, vicreg

__all__ = ["barlow_twins", "vicreg"]
