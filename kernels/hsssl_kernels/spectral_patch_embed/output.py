"""What the CPU's paths write: tokens, after LayerNorm where it is asked for, and what its gradient needs."""

from __future__ import annotations

import torch
from torch import Tensor

from hsssl_kernels.checks import compute_dtype
from hsssl_kernels.pages import empty_again
from hsssl_kernels.spectral_patch_embed.work import Work

__all__ = ["Output"]


class Output:
    """Tokens (B V, D), and where ``keep``, before ``norm`` (B V, D) with its (2, B V) statistics."""

    def __init__(
        self, work: Work, weight: Tensor, norm: tuple[Tensor, Tensor, float] | None, keep: bool
    ) -> None:
        wide, dim = compute_dtype(weight), weight.shape[1]
        self.tokens = empty_again((work.batch * work.kept, dim), weight.dtype, weight.device)
        self.before = torch.empty_like(self.tokens) if keep else self.tokens.new_empty(0, dim)
        self.stats = self.tokens.new_empty(2, len(self.before), dtype=wide)
        self.norm = None if norm is None else (norm[0].to(wide), norm[1].to(wide), norm[2])
        self.kept = work.kept

    def write(self, place: slice | Tensor, rows: Tensor) -> None:
        """Write the sums (m, D) of some slots."""
        if len(self.before):
            self.before[place] = rows.to(self.before.dtype)
        if self.norm is not None:
            rows, mean, inverse = torch.native_layer_norm(rows, rows.shape[1:], *self.norm)
            if len(self.before):
                self.stats[0, place], self.stats[1, place] = mean.squeeze(1), inverse.squeeze(1)
        self.tokens[place] = rows.to(self.tokens.dtype)

    def result(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return tokens (B, V, D), those before LayerNorm and its statistics."""
        return self.tokens.view(-1, self.kept, self.tokens.shape[1]), self.before, self.stats
