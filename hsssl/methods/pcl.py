"""PCL: contrast the features of two autoencoders, sample by sample and with prototypes of all samples."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hsssl.encoders.heads import mlp_head
from hsssl.methods.aae import AAE
from hsssl.methods.kmeans import kmeans
from hsssl.methods.queue import Queue
from hsssl.methods.teacher import Teacher
from hsssl.methods.vae import VAE
from hsssl.views import Views
from hsssl_kernels import info_nce
from hsssl_kernels.distributed import rank_and_world

__all__ = ["PCL", "concentration", "proto_nce"]

_VAE_UNTIL, _AAE_UNTIL = 0.25, 0.5  # shares of the run


class PCL(nn.Module):
    """Prototypical contrastive learning on VAE and AAE features: ContrastNet of Cao et al. 2021.

    The first quarter of the run trains a copy of the encoder as `VAE`, the second the encoder itself as
    `AAE`, and the second half contrasts: ``loss = InfoNCE(q, k, queue) + mean over cluster counts of
    ProtoNCE(q)``. The query q projects the encoder's (AAE) feature of one view, the key k the frozen VAE
    feature of the other through the projector's moving average. After 15 % of that half, E-steps find
    prototypes by k-means on the last keys; ProtoNCE pulls q to the prototype nearest to its k, against the
    others, each divided by its concentration.

    Choices: the release freezes both encoders and keeps the projector's output, which this package does not
    keep, so the AAE's encoder goes on learning here; its prototypes are those of all samples, here of the
    last ``memory`` keys; it contrasts with 640 prototypes drawn at random, here with all.

    It assumes that samples fall into many small groups, several a class, and needs long runs, as half of them
    goes into the autoencoders. Use it where a scene has many pixels and fine structure; on short runs `moco`
    or `simclr` do as well at half the cost.

    Parameters
    ----------
    encoder : nn.Module
        ``(x, wavelengths) -> (B, D)``, with ``embed_dim``.
    projection_dim, hidden : int
        Sizes of the projector, 128 in the paper; hidden is a choice.
    temperature : float
        Of InfoNCE, and mean concentration of prototypes. A choice: the release's .01 is hard on an encoder
        that learns; its encoders are frozen.
    momentum : float
        Of the keys' projector. A choice: the release's .999 is made for 16,000 steps.
    negatives : int
        Size of the queue, 640 in the release.
    memory : int
        Keys that k-means sees. A choice.
    clusters : sequence of int
        Numbers of prototypes, at most ``memory / 4``: the release's 1000, 1500 and 2500 for 10,249 samples,
        in proportion.
    e_steps : int
        E-steps over the run. A choice: the release takes one an epoch.

    References
    ----------
    Cao et al. 2021, ContrastNet, Neurocomputing 460, arXiv 2203.07000.
    Li et al. 2021, Prototypical Contrastive Learning, arXiv 2005.04966.
    """

    reference = "Cao et al. 2021, arXiv 2203.07000"
    stage: Tensor
    e_steps_done: Tensor

    def __init__(
        self,
        encoder: nn.Module,
        projection_dim: int = 128,
        hidden: int = 256,
        temperature: float = 0.1,
        momentum: float = 0.99,
        negatives: int = 640,
        memory: int = 2048,
        clusters: Sequence[int] = (200, 300, 500),
        e_steps: int = 5,
    ) -> None:
        super().__init__()
        if not clusters or not 1 <= min(clusters) <= max(clusters) <= memory / 4:
            raise ValueError(
                f"pcl: clusters must be in 1 ... memory / 4 = {memory // 4}, got {list(clusters)}"
            )
        self.vae = VAE(copy.deepcopy(encoder))
        self.aae = AAE(encoder)
        self.encoder = encoder
        self.projector = mlp_head(int(encoder.embed_dim), hidden, projection_dim)  # type: ignore[arg-type]
        self.teacher_projector = Teacher(self.projector)
        self.queue = Queue(negatives, projection_dim)
        self.memory = Queue(memory, projection_dim)
        self.prototypes = nn.ModuleList(Clusters(count, projection_dim) for count in clusters)
        self.temperature, self.momentum, self.e_steps = temperature, momentum, e_steps
        self.register_buffer("stage", torch.zeros((), dtype=torch.int64))  # 0 VAE, 1 AAE, 2 contrast
        self.register_buffer("e_steps_done", torch.zeros((), dtype=torch.int64))

    def forward(self, views: Views) -> Tensor:
        """Return the loss of a batch in the present stage, a scalar."""
        stage = int(self.stage)
        if stage < 2:
            trained = (self.vae, self.aae)[stage]
            return self._rest_too(trained(views), trained.parameters())
        contrast = [*self.encoder.parameters(), *self.projector.parameters()]
        return self._rest_too(self._contrast(views), contrast)

    def _contrast(self, views: Views) -> Tensor:
        q = self.projector(self.encoder(views.a, views.wavelengths))  # (B, P)
        with torch.no_grad():
            k = self.teacher_projector(self.vae.encoder(views.b, views.wavelengths))
            k = F.normalize(k.float(), dim=1)
        # a copy: the queue moves on before the backward pass reads it
        loss = info_nce(q.float(), k, temperature=self.temperature, negatives=self.queue.rows.clone())
        self.queue.push(k)
        self.memory.push(k)
        if int(self.e_steps_done):
            terms = [group.loss(q, k) for group in self.prototypes]  # type: ignore[operator]
            loss = loss + torch.stack(terms).mean()
        return loss

    def _rest_too(self, loss: Tensor, trained: Iterable[nn.Parameter]) -> Tensor:
        """Give all other parameters a gradient of 0 where several ranks train: they wait for every one."""
        if rank_and_world(gather_distributed=True)[1] == 1:
            return loss
        ids = {id(p) for p in trained}
        rest = [p.sum() for p in self.parameters() if p.requires_grad and id(p) not in ids]
        return loss + 0.0 * torch.stack(rest).sum()

    @torch.no_grad()
    def after_step(self, progress: float) -> None:
        """Let the projector's average follow, and go on to the next stage or E-step when it is due."""
        if int(self.stage) == 2:
            self.teacher_projector.update(self.projector, self.momentum)
            due = int(((progress - _AAE_UNTIL) / (1 - _AAE_UNTIL) - 0.15) / 0.85 * self.e_steps + 1)
            full = len(self.memory.filled) == len(self.memory.rows)
            if full and int(self.e_steps_done) < min(due, self.e_steps):
                for group in self.prototypes:
                    group.fit(self.memory.rows, self.temperature)  # type: ignore[operator]
                self.e_steps_done.fill_(due)
        self.stage.fill_((progress >= _VAE_UNTIL) + (progress >= _AAE_UNTIL))


class Clusters(nn.Module):
    """Prototypes found by k-means: unit centroids (K, P) and the concentration of each (K,), as buffers."""

    centroids: Tensor
    spread: Tensor

    def __init__(self, count: int, dim: int) -> None:
        super().__init__()
        self.register_buffer("centroids", torch.zeros(count, dim))
        self.register_buffer("spread", torch.ones(count))

    def fit(self, rows: Tensor, temperature: float) -> None:
        """Cluster ``rows`` (n, P)."""
        centroids, labels = kmeans(rows, len(self.centroids))
        self.spread.copy_(concentration(rows, centroids, labels, temperature))
        self.centroids.copy_(F.normalize(centroids, dim=1))

    def loss(self, query: Tensor, key: Tensor) -> Tensor:
        """Return ProtoNCE of a batch with these prototypes."""
        return proto_nce(query, key, self.centroids, self.spread)


def concentration(rows: Tensor, centroids: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """Return each cluster's concentration (K,), scaled to the mean ``temperature``.

    It is ``mean distance / log(size + 10)``. Clusters of one row take the largest; values are clipped to the
    10th and 90th percentile (Li et al. 2021, eq. 12, and its release).
    """
    distance = (rows.float() - centroids[labels]).norm(dim=1)
    size = torch.bincount(labels, minlength=len(centroids))
    total = torch.zeros_like(centroids[:, 0]).index_add_(0, labels, distance)
    phi = total / size.clamp_min(1) / (size + 10).log()
    phi = torch.where(size > 1, phi, phi.max())
    low, high = torch.quantile(phi, phi.new_tensor([0.1, 0.9])).tolist()
    phi = phi.clamp(low, high)
    return (temperature * phi / phi.mean().clamp_min(1e-12)).clamp_min(0.1 * temperature)


def proto_nce(query: Tensor, key: Tensor, centroids: Tensor, spread: Tensor) -> Tensor:
    """Return ``mean_i -log softmax_j(<q_i, c_j> / phi_j)`` at the prototype c_j nearest to k_i.

    ``key`` (B, P) and ``centroids`` (K, P) are unit rows, ``spread`` is phi (K,).
    """
    with torch.autocast(query.device.type, enabled=False):
        nearest = (key.float() @ centroids.T).argmax(1)
        return F.cross_entropy(F.normalize(query.float(), dim=1) @ centroids.T / spread, nearest)
