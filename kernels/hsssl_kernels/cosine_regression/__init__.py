"""The loss of BYOL and SimSiam."""

from hsssl_kernels.cosine_regression.op import cosine_regression

__all__ = ["cosine_regression"]
