"""MoCo: find the teacher's key of the other view among keys of this batch or of a queue of past ones."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hsssl.encoders.heads import mlp_head
from hsssl.methods.queue import Queue
from hsssl.methods.teacher import Teacher, cosine_momentum
from hsssl.views import Views
from hsssl_kernels import info_nce

__all__ = ["MoCo"]


class MoCo(nn.Module):
    """Contrast queries with the keys of a slowly moving teacher, in a queue (v2) or in the batch (v3).

    With a queue, ``loss = InfoNCE(q(a), k(b); queue)``: many negatives at the price of a small batch.
    With ``queue_size=0`` (v3), ``loss = 2 t [InfoNCE(p(q(a)), k(b)) + InfoNCE(p(q(b)), k(a))]`` over
    the keys of the batch, with a predictor p.

    It assumes that another pixel is, as a rule, another thing: in a scene with few classes many negatives
    are of the same class. Use it as v2 where memory holds small batches only, as v3 where SimCLR is
    unsteady.

    Parameters
    ----------
    encoder : nn.Module
        ``(x, wavelengths) -> (B, D)``, with ``embed_dim``.
    hidden, projection_dim : int
        Sizes of projector and predictor. ``hidden`` is a choice.
    temperature : float
        Divides the cosine similarities; .2 as in v2 and v3.
    momentum : float
        Momentum of the teacher at the start; it rises to 1 along a cosine, as in v3. A choice: .99,
        the start of v3; v2's constant .999 hardly moves within 1,000 steps.
    queue_size : int
        Keys in the queue. A choice: the paper's 65,536 would hold a small scene several times over.

    References
    ----------
    He et al. 2020, Momentum Contrast, arXiv 1911.05722. Chen et al. 2020, Improved Baselines with Momentum
    Contrastive Learning, arXiv 2003.04297. Chen, Xie, He 2021, An Empirical Study of Training
    Self-Supervised Vision Transformers (v3), arXiv 2104.02057.
    """

    reference = "Chen et al. 2020, arXiv 2003.04297; v3: Chen, Xie, He 2021, arXiv 2104.02057"

    def __init__(
        self,
        encoder: nn.Module,
        hidden: int = 256,
        projection_dim: int = 128,
        temperature: float = 0.2,
        momentum: float = 0.99,
        *,
        queue_size: int = 4096,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.projector = mlp_head(int(encoder.embed_dim), hidden, projection_dim)  # type: ignore[arg-type]
        self.teacher_encoder = Teacher(self.encoder)
        self.teacher_projector = Teacher(self.projector)
        self.queue = Queue(queue_size, projection_dim) if queue_size else None
        self.predictor = None if queue_size else mlp_head(projection_dim, hidden, projection_dim)
        self.temperature = temperature
        self.momentum = momentum
        self._keys: Tensor | None = None

    def forward(self, views: Views) -> Tensor:
        """Return the loss of a batch, a scalar; in the batch, the keys of all ranks are negatives."""
        if self.queue is not None:
            query = self.projector(self.encoder(views.a, views.wavelengths)).float()
            self._keys = self._key(views.b, views.wavelengths)
            return info_nce(query, self._keys, temperature=self.temperature, negatives=self.queue.rows)
        assert self.predictor is not None
        query_a, query_b = (
            self.predictor(self.projector(self.encoder(x, views.wavelengths))).float() for x in views.pair
        )
        key_a, key_b = (self._key(x, views.wavelengths) for x in views.pair)
        options = {"temperature": self.temperature, "gather_distributed": True}
        loss = info_nce(query_a, key_b, **options) + info_nce(query_b, key_a, **options)  # type: ignore[arg-type]
        return 2 * self.temperature * loss

    @torch.no_grad()
    def _key(self, x: Tensor, wavelengths: Tensor) -> Tensor:
        """Return the teacher's unit rows (B, projection_dim), float32 as the queue is."""
        key = self.teacher_projector(self.teacher_encoder(x, wavelengths))
        return nn.functional.normalize(key.float(), dim=1)

    def after_step(self, progress: float) -> None:
        """Let the teacher follow and the queue take the keys; ``progress`` is the share of the run done."""
        momentum = cosine_momentum(self.momentum, progress)
        self.teacher_encoder.update(self.encoder, momentum)
        self.teacher_projector.update(self.projector, momentum)
        if self.queue is not None and self._keys is not None:
            self.queue.push(self._keys)
            self._keys = None
