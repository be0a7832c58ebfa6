"""Log-sum-exp of a similarity matrix that is never stored, and its gradient: what all contrastive losses share."""

from hsssl_kernels.lse.op import lse, lse_grad

__all__ = ["lse", "lse_grad"]
