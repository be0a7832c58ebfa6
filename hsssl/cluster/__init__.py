"""Clusters of pixels without labels: self-expression, spectral clustering, and their scores."""

from hsssl.cluster.features import Pixels
from hsssl.cluster.methods import CLUSTER_METHODS
from hsssl.cluster.metrics import ClusterScore, match_clusters, score_clusters
from hsssl.cluster.segment import cluster

__all__ = ["CLUSTER_METHODS", "ClusterScore", "Pixels", "cluster", "match_clusters", "score_clusters"]
