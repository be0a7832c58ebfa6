"""Log-sum-exp of a similarity matrix that is never stored, and its gradient."""

from hsssl_kernels.lse.op import lse, lse_grad, lse_with_grad, self_lse_with_grad

__all__ = ["lse", "lse_grad", "lse_with_grad", "self_lse_with_grad"]
