"""What the CPU's paths write: tokens, after LayerNorm where it is asked for, and what its gradient needs."""

from __future__ import annotations

import torch
from torch import Tensor

from hsssl_kernels.checks import compute_dtype
from hsssl_kernels.pages import empty_again
from hsssl_kernels.spectral_patch_embed.work import Work

__all__ = ["Output"]


class Output:
    """Tokens (m, D), and where ``keep``, before ``norm`` (m, D) with its statistics (2, m)."""

    def __init__(
        self, tokens: Tensor, norm: tuple[Tensor, Tensor, float] | None = None, keep: bool = False
    ) -> None:
        wide = compute_dtype(tokens)
        self.tokens = tokens
        self.before = torch.empty_like(tokens) if keep else tokens.new_empty(0, tokens.shape[1])
        self.stats = tokens.new_empty(2, len(self.before), dtype=wide)
        self.norm = None if norm is None else (norm[0].to(wide), norm[1].to(wide), norm[2])

    @classmethod
    def of(cls, work: Work, weight: Tensor, norm: tuple[Tensor, Tensor, float] | None, keep: bool) -> Output:
        """Return memory for the tokens (B V, D) that a weight (1 or G, D, K) gives."""
        shape = work.batch * work.kept, weight.shape[1]
        return cls(empty_again(shape, weight.dtype, weight.device), norm, keep)

    def write(self, place: slice | Tensor, rows: Tensor) -> None:
        """Write the sums (m, D) of some slots."""
        if len(self.before):
            self.before[place] = rows.to(self.before.dtype)
        if self.norm is not None:
            rows, mean, inverse = torch.native_layer_norm(rows, rows.shape[1:], *self.norm)
            if len(self.before):
                self.stats[0, place], self.stats[1, place] = mean.squeeze(1), inverse.squeeze(1)
        self.tokens[place] = rows.to(self.tokens.dtype)

    def result(self, kept: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return tokens (B, V, D), where V are ``kept``, those before LayerNorm and its statistics."""
        return self.tokens.view(-1, kept, self.tokens.shape[1]), self.before, self.stats
