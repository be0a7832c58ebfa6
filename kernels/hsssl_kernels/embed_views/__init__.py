"""Views straight into tokens: no batch of views is ever written."""

from hsssl_kernels.embed_views.op import embed_views

__all__ = ["embed_views"]
