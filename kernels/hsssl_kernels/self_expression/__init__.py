"""Self-expression: every row as a sparse sum of other rows, with coefficients that are never stored."""

from hsssl_kernels.self_expression.op import SelfExpression, self_expression
from hsssl_kernels.self_expression.top import top_coefficients

__all__ = ["SelfExpression", "self_expression", "top_coefficients"]
