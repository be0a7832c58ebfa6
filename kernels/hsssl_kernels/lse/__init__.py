"""Log-sum-exp of a similarity matrix that is never stored whole beyond small batches, and its gradient."""

from hsssl_kernels.lse.op import (
    lse,
    lse_grad,
    lse_with_grad,
    pair_lse_with_grad,
    queue_lse_with_grad,
    self_lse_with_grad,
)
from hsssl_kernels.lse.temperature import expected_similarity, is_swept, wide_rows

__all__ = [
    "expected_similarity",
    "is_swept",
    "lse",
    "lse_grad",
    "lse_with_grad",
    "pair_lse_with_grad",
    "queue_lse_with_grad",
    "self_lse_with_grad",
    "wide_rows",
]
