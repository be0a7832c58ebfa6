"""MAE: restore the hidden parts of a patch from the visible ones."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from hsssl.encoders.plain import PlainEncoder
from hsssl.encoders.transformer import TransformerBlock
from hsssl.methods.reconstruction import reconstruction, targets
from hsssl.methods.values import ValueDecoder
from hsssl.views import Views

__all__ = ["MAE", "TokenEncoder"]

_LOOKS = 8  # band sets a batch is seen by


@runtime_checkable
class TokenEncoder(Protocol):
    """What an encoder offers so that it can look at some of the tokens only."""

    token_size: int

    def embed(self, x: Tensor, wavelengths: Tensor, visible: Tensor | None = None) -> Tensor:
        """Return the tokens numbered in ``visible`` (B, n), or all, before attention: (B, n, D)."""

    def tokenize(self, x: Tensor, wavelengths: Tensor) -> tuple[Tensor, Tensor]:
        """Return the values in each token, (B, N, P), and the tokens' positions, (N, D)."""

    def attend(self, tokens: Tensor) -> Tensor:
        """Return tokens (B, n, D), any number of them, after the blocks."""


class MAE(nn.Module):
    """Hide most of a patch, and restore its values from what is left visible.

    ``loss = mean over hidden values (x - x')^2``. What is hidden depends on what the encoder can do without:

    - a transformer of this package, or any `TokenEncoder`: tokens, that is band groups x places. It sees the
      visible tokens only, and a small transformer restores the hidden ones, as in the paper;
    - any other encoder that takes wavelengths, the default one for instance: bands. It sees the
      visible bands only, and a decoder restores the others from the embedding;
    - a module of fixed bands: values, band groups x pixels. It sees 0, their mean over the scene, in their
      place, as SimMIM's encoder sees a mark.

    Without tokens the error is weighed by principal components, see `reconstruction`.

    It assumes that bands and places predict each other beyond what neighbours share. Use it with patches of
    many pixels, with bands that are often missing, and to start a fine-tuning from; as frozen features of
    single pixels contrastive methods are ahead. With transformers of band groups watch the effective rank:
    it starts low.

    Parameters
    ----------
    encoder : nn.Module
        ``(x, wavelengths) -> (B, D)``, with ``embed_dim``.
    mask : float, optional
        Share hidden. None is the paper's .75 of tokens, .5 of bands, and .3 of values for a module of fixed
        bands. The last two are choices: an encoder that never saw a whole patch reads it badly. Of .5, .75
        and .9 of bands .5 did best on SalinasA, and of the first two on Indian Pines, by a linear classifier.
    group : int
        Bands hidden together where the encoder has no tokens, at most a quarter of them. A choice.
    decoder_dim, decoder_depth, decoder_heads : int
        Size of the transformer that restores tokens. A choice: small beside the encoder, as in the paper.
    hidden : int
        Size of the decoder's layers where the encoder has no tokens. A choice.
    components : int
        Principal components of the batch that the error is weighed in where the encoder has no tokens,
        see `reconstruction`: a choice; 0 is the plain mean over hidden values.
    neighbour : bool
        Restore the other view's values in place of its own: noise, which no neighbour shares, is then
        not worth learning. A choice; False is the paper's.

    References
    ----------
    He et al. 2022, Masked Autoencoders Are Scalable Vision Learners, arXiv 2111.06377.
    Xie et al. 2022, SimMIM, arXiv 2111.09886 (the encoder sees what is hidden as such).
    """

    reference = "He et al. 2022, arXiv 2111.06377"

    def __init__(
        self,
        encoder: nn.Module,
        mask: float | None = None,
        group: int = 1,
        *,
        decoder_dim: int = 64,
        decoder_depth: int = 1,
        decoder_heads: int = 4,
        hidden: int = 256,
        components: int = 15,
        neighbour: bool = True,
    ) -> None:
        super().__init__()
        self.mask = _default_mask(encoder) if mask is None else mask
        if not 0 < self.mask < 1 or group < 1:
            raise ValueError(
                f"mae: mask must lie between 0 and 1, and group be at least 1, got {mask}, {group}"
            )
        self.encoder = encoder
        self.group = group
        self.components = components
        self.neighbour = neighbour
        dim = int(encoder.embed_dim)  # type: ignore[arg-type]
        self.decoder: nn.Module
        if isinstance(encoder, TokenEncoder):
            values = encoder.token_size
            self.decoder = TokenDecoder(dim, values, decoder_dim, decoder_depth, decoder_heads)
        else:
            self.decoder = ValueDecoder(dim, hidden)

    def forward(self, views: Views) -> Tensor:
        """Return the loss of a batch, a scalar; both views are samples."""
        (a, whole_a), (b, whole_b) = targets(views, self.neighbour)
        x, whole = torch.cat([a, b]), torch.cat([whole_a, whole_b])  # (2 B, C, H, W)
        if isinstance(self.encoder, TokenEncoder):
            return self._by_tokens(self.encoder, x, whole, views.wavelengths)
        if isinstance(self.encoder, PlainEncoder):
            hidden = self._hidden_values(x)
            embedding = self.encoder(x.masked_fill(hidden, 0.0), views.wavelengths)
        else:
            embedding, hidden = self._by_bands(x, views.wavelengths)
        restored = self.decoder(embedding, views.wavelengths, *x.shape[2:]).float()
        if self.components:
            return reconstruction(torch.where(hidden, restored, whole), whole, self.components)
        return _mean_square(whole - restored, hidden)

    def _by_tokens(self, encoder: TokenEncoder, x: Tensor, whole: Tensor, wavelengths: Tensor) -> Tensor:
        """Return the loss where the encoder sees the visible tokens only."""
        values, position = encoder.tokenize(x, wavelengths)  # (B, N, P), (N, D)
        real, _ = encoder.tokenize(torch.ones_like(x[:1]), wavelengths)  # 0 where a token is filled up
        hidden = self._hide(len(values), values.shape[1], x.device)  # (B, N), alike many in every row
        visible = (~hidden).nonzero()[:, 1].view(len(x), -1)  # (B, n)
        tokens = encoder.embed(x, wavelengths, visible)
        restored = self.decoder(encoder.attend(tokens), position, visible).float()
        wanted, _ = encoder.tokenize(whole, wavelengths)
        return _mean_square(wanted - restored, hidden.unsqueeze(2) & (real > 0))

    def _by_bands(self, x: Tensor, wavelengths: Tensor) -> tuple[Tensor, Tensor]:
        """Return the embeddings (B, D) of visible bands of ``x`` (B, C, H, W); which are hidden (B, C, 1, 1).

        Samples that see the same bands are encoded together: parts of the batch see different ones.
        """
        parts = x.tensor_split(min(_LOOKS, len(x)))
        group = min(self.group, -(-x.shape[1] // 4))
        groups = self._hide(len(parts), -(-x.shape[1] // group), x.device)
        hidden = groups.repeat_interleave(group, dim=1)[:, : x.shape[1]]  # (parts, C)
        seen = [
            self.encoder(part[:, ~gone], wavelengths[~gone]) for part, gone in zip(parts, hidden, strict=True)
        ]
        sizes = torch.tensor([len(part) for part in parts], device=x.device)
        return torch.cat(seen), hidden.repeat_interleave(sizes, dim=0)[:, :, None, None]

    def _hidden_values(self, x: Tensor) -> Tensor:
        """Return which values (B, C, H, W) are hidden: band groups x pixels."""
        batch, bands, high, wide = x.shape
        group = min(self.group, -(-bands // 4))
        groups = -(-bands // group)
        hidden = self._hide(batch, groups * high * wide, x.device).view(batch, groups, high, wide)
        return hidden.repeat_interleave(group, dim=1)[:, :bands]

    def _hide(self, batch: int, parts: int, device: torch.device) -> Tensor:
        """Draw which of ``parts`` are hidden, (batch, parts): as many in every row, never all or none."""
        if parts < 2:
            raise ValueError(
                f"mae: a patch of {parts} part has nothing to restore it from; use more bands, a smaller "
                "`group` or larger patches"
            )
        count = min(max(round(self.mask * parts), 1), parts - 1)
        rank = torch.rand(batch, parts, device=device).argsort(1).argsort(1)
        return rank < count

    def after_step(self, progress: float) -> None:
        """Nothing follows a step."""


def _default_mask(encoder: nn.Module) -> float:
    """Return the share hidden: of tokens, of the values of fixed bands, or of bands."""
    if isinstance(encoder, TokenEncoder):
        return 0.75
    return 0.3 if isinstance(encoder, PlainEncoder) else 0.5


class TokenDecoder(nn.Module):
    """Restore the values of every token from the visible ones: a narrow transformer."""

    def __init__(self, dim: int, values: int, width: int, depth: int, heads: int) -> None:
        super().__init__()
        self.narrow = nn.Linear(dim, width)
        self.place = nn.Linear(dim, width)
        self.hidden = nn.Parameter(torch.zeros(width))
        self.blocks = nn.Sequential(*(TransformerBlock(width, heads) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.out = nn.Linear(width, values)

    def forward(self, seen: Tensor, position: Tensor, visible: Tensor) -> Tensor:
        """Return values (B, N, P); ``seen`` (B, n, D) lies at the places ``visible`` (B, n) of N."""
        narrow = self.narrow(seen)  # (B, n, width)
        tokens = self.hidden.to(narrow.dtype).expand(len(seen), len(position), -1)
        tokens = tokens.scatter(1, visible.unsqueeze(2).expand_as(narrow), narrow)
        restored: Tensor = self.out(self.norm(self.blocks(tokens + self.place(position))))
        return restored


def _mean_square(error: Tensor, where: Tensor) -> Tensor:
    """Return the mean square of ``error`` over the places of ``where``."""
    return (error.square() * where).sum() / where.expand_as(error).sum()
