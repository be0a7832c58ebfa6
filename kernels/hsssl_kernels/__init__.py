"""Fused operations for self-supervised learning on spectral images; needs torch and triton only."""

from hsssl_kernels.cosine_regression import cosine_regression
from hsssl_kernels.decorrelation import barlow_twins, vicreg
from hsssl_kernels.embed_views import embed_views
from hsssl_kernels.info_nce import info_nce
from hsssl_kernels.linear_mixing import linear_mixing
from hsssl_kernels.nt_xent import nt_xent
from hsssl_kernels.self_expression import SelfExpression, self_expression, top_coefficients
from hsssl_kernels.sinkhorn import sinkhorn
from hsssl_kernels.spectral_angle import spectral_angle, spectral_divergence
from hsssl_kernels.spectral_patch_embed import WavelengthWeights, group_weights, spectral_patch_embed
from hsssl_kernels.spectral_views import ViewSpec, resident_cube, spectral_views
from hsssl_kernels.sup_con import sup_con

__all__ = [
    "SelfExpression",
    "ViewSpec",
    "WavelengthWeights",
    "barlow_twins",
    "cosine_regression",
    "embed_views",
    "group_weights",
    "info_nce",
    "linear_mixing",
    "nt_xent",
    "resident_cube",
    "self_expression",
    "sinkhorn",
    "spectral_angle",
    "spectral_divergence",
    "spectral_patch_embed",
    "spectral_views",
    "sup_con",
    "top_coefficients",
    "vicreg",
]
