"""SwAV: predict the prototype assignment of one view from the other view."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hsssl.encoders.heads import mlp_head
from hsssl.methods.prototypes import Prototypes
from hsssl.methods.queue import Queue
from hsssl.views import Views
from hsssl_kernels import sinkhorn
from hsssl_kernels.distributed import rank_and_world

__all__ = ["SwAV"]


class SwAV(nn.Module):
    """Assign each view to prototypes, all used alike, and predict its assignment from the other view.

    ``loss = 1/2 [ H(q_b, softmax(s_a / t)) + H(q_a, softmax(s_b / t)) ]``, s the cosines of projections and
    prototypes, q = sinkhorn(s) the balanced assignments, H the cross-entropy.

    It assumes that the pixels fall into about as many groups as there are prototypes, of like size: Sinkhorn
    splits a large class over many prototypes and lets rare ones share. Use it where the scene has
    classes rather than gradients, or where groups are wanted besides features.

    Parameters
    ----------
    encoder : nn.Module
        ``(x, wavelengths) -> (B, D)``, with ``embed_dim``.
    hidden, projection_dim : int
        Sizes of the projector; the last is the paper's, ``hidden`` a choice.
    prototypes : int
        Number of prototypes. A choice: the paper's 3,000 are more than a batch of 1,024 can fill.
    temperature, epsilon : float
        Of prediction and assignment.
    freeze : float
        Share of the run at the start in which the prototypes stand still: an epoch of 100 in the paper.
    queue_size : int
        Past projections of each view that take part in the balance, for small batches; divisible by the
        number of processes. A batch over four times the prototypes needs none.

    References
    ----------
    Caron et al. 2020, Unsupervised Learning of Visual Features by Contrasting Cluster Assignments,
    arXiv 2006.09882. Without its small crops: a pixel has none.
    """

    reference = "Caron et al. 2020, arXiv 2006.09882"

    def __init__(
        self,
        encoder: nn.Module,
        hidden: int = 512,
        projection_dim: int = 128,
        prototypes: int = 256,
        temperature: float = 0.1,
        *,
        epsilon: float = 0.05,
        freeze: float = 0.01,
        queue_size: int = 0,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.projector = mlp_head(int(encoder.embed_dim), hidden, projection_dim)  # type: ignore[arg-type]
        self.prototypes = Prototypes(projection_dim, prototypes)
        self.queues = nn.ModuleList(Queue(queue_size, projection_dim) for _ in "ab" if queue_size)
        self.temperature = temperature
        self.epsilon = epsilon
        self.freeze = freeze
        self._projections: list[Tensor] = []

    def forward(self, views: Views) -> Tensor:
        """Return the loss of a batch, a scalar; the assignments are balanced over all ranks."""
        z = [self.projector(self.encoder(x, views.wavelengths)) for x in views.pair]
        scores = [self.prototypes(one) for one in z]
        codes = [self._assign(score, i) for i, score in enumerate(scores)]
        self._projections = [one.detach() for one in z]
        log_a, log_b = (torch.log_softmax(score / self.temperature, dim=1) for score in scores)
        return -((codes[1] * log_a).sum(1).mean() + (codes[0] * log_b).sum(1).mean()) / 2

    @torch.no_grad()
    def _assign(self, scores: Tensor, view: int) -> Tensor:
        """Return the balanced assignments (B, prototypes) of one view."""
        everything = scores
        if self.queues:
            rank, world = rank_and_world(gather_distributed=True)
            past: Tensor = self.queues[view].rows  # type: ignore[assignment]
            everything = torch.cat([scores, self.prototypes(past[rank::world])])
        return sinkhorn(everything, epsilon=self.epsilon, gather_distributed=True)[: len(scores)]

    def after_step(self, progress: float) -> None:
        """Fill the queues, and let the prototypes go; ``progress`` is the share of the run that is done."""
        for queue, z in zip(self.queues, self._projections, strict=False):
            queue.push(z)  # type: ignore[operator]
        self._projections = []
        if progress >= self.freeze:
            self.prototypes.thaw()
