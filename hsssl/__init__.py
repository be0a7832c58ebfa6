"""Self-supervised learning for hyperspectral and multispectral images."""

from hsssl import threads  # noqa: F401  # first: it must come before torch

# isort: split
from hsssl.classify import classify
from hsssl.cluster.segment import cluster
from hsssl.cube import Cube
from hsssl.embed import embed
from hsssl.evaluate.finetune import finetune
from hsssl.evaluate.protocol import evaluate
from hsssl.prepare import prepare
from hsssl.readers import open_library
from hsssl.report_run import report_run
from hsssl.run import Run, load_encoder
from hsssl.scenes import SCENES, load_scene, open_cube, open_labels
from hsssl.train import pretrain
from hsssl.unmix import Unmixing, unmix
from hsssl.views import ViewSpec
from hsssl.write import write_cube

__all__ = [
    "SCENES",
    "Cube",
    "Run",
    "Unmixing",
    "ViewSpec",
    "classify",
    "cluster",
    "embed",
    "evaluate",
    "finetune",
    "load_encoder",
    "load_scene",
    "open_cube",
    "open_labels",
    "open_library",
    "prepare",
    "pretrain",
    "report_run",
    "unmix",
    "write_cube",
]
