"""Linear mixing: abundances times endmembers, compared with the spectra without forming their reconstruction."""

from hsssl_kernels.linear_mixing.op import linear_mixing

__all__ = ["linear_mixing"]
