"""Band-aware views of patches from a resident cube."""

from hsssl_kernels.spectral_views.lines import resident_cube
from hsssl_kernels.spectral_views.op import spectral_views
from hsssl_kernels.spectral_views.spec import ViewSpec

__all__ = ["ViewSpec", "resident_cube", "spectral_views"]
