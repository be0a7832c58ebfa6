"""Linear mixing: abundances times endmembers, compared with spectra; no reconstruction is formed."""

from hsssl_kernels.linear_mixing.op import linear_mixing

__all__ = ["linear_mixing"]
