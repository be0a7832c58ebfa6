"""Contrastive clustering: contrast samples by rows and clusters by columns of one batch."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hsssl.encoders.heads import mlp_head
from hsssl.methods.ranks import all_rows
from hsssl.views import Views
from hsssl_kernels import nt_xent

__all__ = ["ContrastiveClustering", "balance"]


class ContrastiveClustering(nn.Module):
    """Learn features and clusters together, as Hu et al. 2021 do by spatial-spectral augmentations.

    ``loss = NT-Xent(z_a, z_b) + NT-Xent(p_a^T, p_b^T) + sum over both views of sum_k q_k log q_k``: z are
    the rows of the instance head, the columns of p are soft memberships of clusters over the batch, and q
    their mean, whose entropy keeps clusters from emptying.

    It assumes that the scene falls into about ``clusters`` kinds of similar size; rare classes are merged.
    Use it when a segmentation without labels is wanted beside the features: `assign` gives it.

    Parameters
    ----------
    encoder : nn.Module
        ``(x, wavelengths) -> (B, D)``, with ``embed_dim``.
    clusters : int
        Number K of clusters. A choice: the literature takes the true number of classes, which is not known
        here.
    hidden, projection_dim : int
        Sizes of the heads. A choice.
    temperature, cluster_temperature : float
        Of rows and columns, .5 and 1 in contrastive clustering (Li et al. 2021).

    References
    ----------
    Hu et al. 2021, Spatial-Spectral Contrastive Clustering, doi:10.3390/rs13214418.
    Li et al. 2021, Contrastive Clustering, arXiv 2009.09687.
    """

    reference = "Hu et al. 2021, Remote Sens. 13(21):4418; heads of Li et al. 2021, arXiv 2009.09687"

    def __init__(
        self,
        encoder: nn.Module,
        clusters: int = 16,
        hidden: int = 256,
        projection_dim: int = 128,
        temperature: float = 0.5,
        cluster_temperature: float = 1.0,
    ) -> None:
        super().__init__()
        if clusters < 2:
            raise ValueError(f"contrastive_clustering: clusters must be at least 2, got {clusters}")
        self.encoder = encoder
        dim = int(encoder.embed_dim)  # type: ignore[arg-type]
        self.instance_head = mlp_head(dim, hidden, projection_dim)
        self.cluster_head = mlp_head(dim, hidden, clusters)
        self.temperature = temperature
        self.cluster_temperature = cluster_temperature

    def forward(self, views: Views) -> Tensor:
        """Return the loss of a batch, a scalar; the samples of all ranks take part in both contrasts."""
        features = [self.encoder(x, views.wavelengths) for x in views.pair]
        a, b = (self.instance_head(f) for f in features)
        p, q = (all_rows(torch.softmax(self.cluster_head(f).float(), 1)) for f in features)  # (B, K)
        rows = nt_xent(a, b, temperature=self.temperature, gather_distributed=True)
        columns = nt_xent(p.T, q.T, temperature=self.cluster_temperature)
        return rows + columns + balance(p) + balance(q)

    @torch.no_grad()
    def assign(self, x: Tensor, wavelengths: Tensor) -> Tensor:
        """Return the cluster (B,), 0 ... K - 1, of each patch of ``x`` (B, C, H, W); call `eval` first."""
        clusters: Tensor = self.cluster_head(self.encoder(x, wavelengths)).argmax(1)
        return clusters

    def after_step(self, progress: float) -> None:
        """Nothing follows a step."""


def balance(memberships: Tensor) -> Tensor:
    """Return minus the entropy of the mean of soft ``memberships`` (B, K): least where clusters are even."""
    entropy: Tensor = torch.special.entr(memberships.mean(0)).sum()
    return -entropy
