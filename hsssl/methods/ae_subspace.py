"""AE + subspace clustering: samples express each other, and the clusters that follow teach the features."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hsssl.methods.kmeans import kmeans
from hsssl.methods.queue import Queue
from hsssl.methods.reconstruction import reconstruction, targets
from hsssl.methods.values import ValueDecoder
from hsssl.views import Views

__all__ = ["AESubspace", "expression_error", "label_loss", "self_expression", "spectral_clusters"]


class AESubspace(nn.Module):
    """Autoencoder with self-expression whose confident clusters supervise it, after Li et al. 2021.

    ``loss = mean |decoder(z) - x|^2 + expression |Z - C Z|^2 / |Z|^2 + supervision * label_loss``. C
    expresses each embedding of the batch by the others. From a fifth of the run on, ten times, spectral
    clustering of |C| + |C|^T over the last ``memory`` embeddings gives clusters; the mean directions of
    their surest half become prototypes, and each view learns the label of the other view, where that is sure.

    Choices: C is the closed ridge solution with a zero diagonal in place of a learnt layer, so it needs no
    initialisation from a neighbour graph and works in batches; labels reach new samples by their nearest
    prototype; sizes and weights, which the abstract does not give.

    It assumes that each class lies near a linear subspace, as mixtures of few endmembers do, and that there
    are about ``clusters`` of them. Use it before subspace clustering of a scene; where classes differ in
    shape rather than in subspace its labels mislead, and ``supervision=0`` leaves a plain autoencoder.

    Parameters
    ----------
    encoder : nn.Module
        ``(x, wavelengths) -> (B, D)``, with ``embed_dim``.
    clusters : int
        Number of subspaces.
    hidden : int
        Width of the decoder.
    expression, supervision : float
        Weights of the two terms. Ten and five times as much draw the embedding together to half its rank.
    ridge : float
        Of the self-expression, as a share of the embeddings' mean variance.
    memory : int
        Embeddings that are clustered; time grows with its cube.
    components : int
        Principal components of the batch that the error is weighed in, see `reconstruction`.
    neighbour : bool
        Rebuild the other view in place of the own. A choice: the paper rebuilds the own.

    References
    ----------
    Li et al. 2021, autoencoder with subspace clustering for hyperspectral feature learning, IEEE JSTARS.
    Ji et al. 2017, Deep Subspace Clustering Networks, arXiv 1709.02508 (self-expression).
    """

    reference = "Li et al. 2021, IEEE JSTARS; self-expression of Ji et al. 2017, arXiv 1709.02508"
    prototypes: Tensor
    found: Tensor

    def __init__(
        self,
        encoder: nn.Module,
        clusters: int = 16,
        hidden: int = 256,
        expression: float = 0.01,
        supervision: float = 0.02,
        ridge: float = 0.1,
        memory: int = 1024,
        components: int = 15,
        neighbour: bool = True,
    ) -> None:
        super().__init__()
        if not 2 <= clusters <= memory // 4:
            raise ValueError(f"ae_subspace: clusters must be in 2 ... memory / 4, got {clusters}")
        self.encoder = encoder
        dim = int(encoder.embed_dim)  # type: ignore[arg-type]
        self.decoder = ValueDecoder(dim, hidden)
        self.memory = Queue(memory, dim)
        self.expression, self.supervision, self.ridge = expression, supervision, ridge
        self.components, self.neighbour = components, neighbour
        self.register_buffer("prototypes", torch.zeros(clusters, dim))
        self.register_buffer("found", torch.zeros((), dtype=torch.int64))  # times clustered

    def forward(self, views: Views) -> Tensor:
        """Return the loss of a batch, a scalar."""
        rebuilt, z = [], []
        for seen, wanted in targets(views, self.neighbour):
            z.append(self.encoder(seen, views.wavelengths))  # (B, D)
            decoded = self.decoder(z[-1], views.wavelengths, *wanted.shape[2:])
            rebuilt.append(reconstruction(decoded, wanted, self.components))
        a, b = (x.float() for x in z)
        loss = (rebuilt[0] + rebuilt[1]) / 2
        with torch.autocast(a.device.type, enabled=False):
            loss = (
                loss
                + self.expression * (expression_error(a, self.ridge) + expression_error(b, self.ridge)) / 2
            )
            if int(self.found):
                pairs = (a, b), (b, a)
                labels = torch.stack([label_loss(x, y, self.prototypes) for x, y in pairs]).mean()
                loss = loss + self.supervision * labels
        self.memory.push(a)
        return loss

    def after_step(self, progress: float) -> None:
        """Cluster what the memory holds when it is due: ten times, from a fifth of the run on."""
        due = int((progress - 0.2) / 0.8 * 10 + 1) if progress >= 0.2 else 0
        rows, clusters = self.memory.filled, len(self.prototypes)
        if int(self.found) < min(due, 10) and len(rows) >= 4 * clusters:
            labels, sure = spectral_clusters(self_expression(rows, self.ridge), clusters)
            weight = F.one_hot(labels, clusters).float() * sure[:, None]  # (n, K)
            self.prototypes.copy_(F.normalize(weight.T @ F.normalize(rows, dim=1), dim=1))
            self.found.fill_(due)


@torch.no_grad()
def self_expression(z: Tensor, ridge: float) -> Tensor:
    """Return C (n, n) that expresses each row by the others: ``min |Z - C Z|^2 + l |C|^2``, diagonal 0.

    With ``H = Z (Z^T Z + l I)^-1 Z^T`` the solution is ``C_ij = H_ij / (1 - H_ii)``, the leave-one-out
    formula of ridge regression; l is ``ridge`` times the mean variance n / D of the rows scaled to |Z|^2 = n.

    Parameters
    ----------
    z : Tensor, shape (n, D)
        Embeddings.
    ridge : float
        Above 0.
    """
    z = z.float() / z.float().square().sum(1).mean().sqrt().clamp_min(1e-12)
    gram = z.T @ z
    penalty = ridge * gram.diagonal().mean().clamp_min(1e-12)
    hat = z @ torch.linalg.solve(gram + penalty * torch.eye(len(gram), device=z.device), z.T)
    c: Tensor = hat / (1 - hat.diagonal())[:, None]
    return c.fill_diagonal_(0)


def expression_error(z: Tensor, ridge: float) -> Tensor:
    """Return ``|Z - C Z|^2 / |Z|^2`` of embeddings (n, D); C is a constant of the gradient."""
    error = (z - self_expression(z.detach(), ridge) @ z).square().sum()
    # the divisor is a constant too, or the loss would fall by growing one direction
    return error / z.detach().square().sum().clamp_min(1e-12)


@torch.no_grad()
def spectral_clusters(c: Tensor, clusters: int) -> tuple[Tensor, Tensor]:
    """Return labels (n,) by spectral clustering of |C| + |C|^T, and which half of them is surest (n,).

    Rows of the first eigenvectors of the normalised affinity, at unit length, are clustered by k-means; the
    surest half lies closest to its centroid (Ng, Jordan & Weiss 2001).
    """
    affinity = c.abs() + c.abs().T
    degree = affinity.sum(1).clamp_min(1e-12).rsqrt()
    vectors = torch.linalg.eigh(affinity * degree[:, None] * degree)[1][:, -clusters:]
    rows = F.normalize(vectors, dim=1)
    centroids, labels = kmeans(rows, clusters, apart=True)
    distance = (rows - centroids[labels]).norm(dim=1)
    return labels, distance <= distance.median()


def label_loss(z: Tensor, other: Tensor, prototypes: Tensor, temperature: float = 0.1) -> Tensor:
    """Return the cross-entropy of z's cosines with ``prototypes`` and the labels of ``other``.

    Only the surest half (the median with it) counts. The label is the nearest prototype; it is sure
    where the second nearest is far behind.
    """
    with torch.no_grad():
        best = (F.normalize(other, dim=1) @ prototypes.T).topk(2, 1)
        margin = best.values[:, 0] - best.values[:, 1]
        sure = margin >= margin.median()
    logits = F.normalize(z, dim=1) @ prototypes.T / temperature
    return F.cross_entropy(logits[sure], best.indices[sure, 0])
