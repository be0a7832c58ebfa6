"""Self-supervised learning for hyperspectral and multispectral images."""

from hsssl import threads  # noqa: F401  # first: it must come before torch

# isort: split
from hsssl.classify import classify
from hsssl.cluster.segment import cluster
from hsssl.cube import Cube
from hsssl.embed import embed
from hsssl.evaluate.protocol import evaluate
from hsssl.prepare import prepare
from hsssl.run import Run, load_encoder
from hsssl.scenes import SCENES, load_scene, open_cube, open_labels
from hsssl.train import pretrain
from hsssl.views import ViewSpec

__all__ = [
    "SCENES",
    "Cube",
    "Run",
    "ViewSpec",
    "classify",
    "cluster",
    "embed",
    "evaluate",
    "load_encoder",
    "load_scene",
    "open_cube",
    "open_labels",
    "prepare",
    "pretrain",
]
