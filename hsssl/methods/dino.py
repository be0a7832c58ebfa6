"""DINO: match the teacher's centred and sharpened distribution over prototypes; no negatives."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor, nn

from hsssl.methods.prototypes import Prototypes
from hsssl.methods.teacher import Teacher, cosine_momentum
from hsssl.views import Views
from hsssl_kernels.distributed import rank_and_world

__all__ = ["DINO"]


class DINO(nn.Module):
    """Learn the teacher's soft classes of the other view; centring and sharpening keep it from collapsing.

    ``loss = 1/2 sum over both orders of H(softmax((t - c) / t_t), softmax(s / t_s))``, s and t the
    student's and the teacher's cosines with prototypes, c the running mean of t.

    It assumes that the two views show the same thing. Nothing forces the prototypes to be used alike. Use it
    on scenes whose classes differ much in size; it needs more steps than the others, and its loss says
    little: watch the effective rank.

    Parameters
    ----------
    encoder : nn.Module
        Student encoder, ``(x, wavelengths) -> (B, D)``, with ``embed_dim``.
    hidden, bottleneck : int
        Sizes of the head: two hidden layers, then a bottleneck of unit vectors. ``hidden`` is a choice.
    prototypes : int
        Size of the distribution. A choice: the paper's 65,536 outnumber the pixels of a scene.
    student_temperature, teacher_temperature : float
        t_s and t_t, the paper's; t_t without its warm-up to .07.
    momentum : float
        Momentum of the teacher at the start; it rises to 1 along a cosine. A choice: .99 for
        short runs, the paper's .996 is for 100 epochs of ImageNet.
    centre_momentum : float
        Momentum of the centre c.
    freeze : float
        Share of the run at the start in which the prototypes stand still: an epoch of 100 in the paper.

    References
    ----------
    Caron et al. 2021, Emerging Properties in Self-Supervised Vision Transformers, arXiv 2104.14294.
    With two global views and without its small crops: a pixel has none.
    """

    reference = "Caron et al. 2021, arXiv 2104.14294"

    centre: Tensor

    def __init__(
        self,
        encoder: nn.Module,
        hidden: int = 512,
        bottleneck: int = 128,
        prototypes: int = 1024,
        student_temperature: float = 0.1,
        *,
        teacher_temperature: float = 0.04,
        momentum: float = 0.99,
        centre_momentum: float = 0.9,
        freeze: float = 0.01,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = nn.Sequential(
            nn.Linear(int(encoder.embed_dim), hidden),  # type: ignore[arg-type]
            nn.GELU(),
            nn.Linear(hidden, hidden),
            nn.GELU(),
            nn.Linear(hidden, bottleneck),
            Prototypes(bottleneck, prototypes),
        )
        self.teacher_encoder = Teacher(self.encoder)
        self.teacher_head = Teacher(self.head)
        self.register_buffer("centre", torch.zeros(prototypes))
        self.student_temperature = student_temperature
        self.teacher_temperature = teacher_temperature
        self.momentum = momentum
        self.centre_momentum = centre_momentum
        self.freeze = freeze
        self._mean: Tensor | None = None

    def forward(self, views: Views) -> Tensor:
        """Return the loss of a batch, a scalar."""
        student = [self.head(self.encoder(x, views.wavelengths)) for x in views.pair]
        teacher = [self.teacher_head(self.teacher_encoder(x, views.wavelengths)) for x in views.pair]
        self._mean = torch.cat(teacher).mean(0)
        log_a, log_b = (torch.log_softmax(s / self.student_temperature, dim=1) for s in student)
        a, b = (torch.softmax((t - self.centre) / self.teacher_temperature, dim=1) for t in teacher)
        return -((b * log_a).sum(1).mean() + (a * log_b).sum(1).mean()) / 2

    @torch.no_grad()
    def after_step(self, progress: float) -> None:
        """Let teacher and centre follow; ``progress`` is the share of the run that is done."""
        momentum = cosine_momentum(self.momentum, progress)
        self.teacher_encoder.update(self.encoder, momentum)
        self.teacher_head.update(self.head, momentum)
        if self._mean is not None:
            if rank_and_world(gather_distributed=True)[1] > 1:
                dist.all_reduce(self._mean, dist.ReduceOp.SUM)
                self._mean /= dist.get_world_size()
            self.centre.lerp_(self._mean, 1 - self.centre_momentum)
            self._mean = None
        prototypes = self.head[-1]
        assert isinstance(prototypes, Prototypes)
        if progress >= self.freeze:
            prototypes.thaw()
