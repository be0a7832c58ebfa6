"""SimCLR's normalised temperature-scaled cross-entropy."""

from hsssl_kernels.nt_xent.op import nt_xent

__all__ = ["nt_xent"]
