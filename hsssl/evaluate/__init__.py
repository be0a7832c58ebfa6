"""Scores of frozen features that cannot be fooled by location: splits, classifiers, baselines, audit."""

from hsssl.evaluate.audit import Audit, audit
from hsssl.evaluate.baselines import BASELINES, baseline_features
from hsssl.evaluate.classifiers import CLASSIFIERS
from hsssl.evaluate.finetune import finetune
from hsssl.evaluate.metrics import average_accuracy, class_accuracy, confusion_matrix, kappa, overall_accuracy
from hsssl.evaluate.protocol import PROTOCOLS, Protocol, evaluate, score_table
from hsssl.evaluate.score import Score

__all__ = [
    "BASELINES",
    "CLASSIFIERS",
    "PROTOCOLS",
    "Audit",
    "Protocol",
    "Score",
    "audit",
    "average_accuracy",
    "baseline_features",
    "class_accuracy",
    "confusion_matrix",
    "evaluate",
    "finetune",
    "kappa",
    "overall_accuracy",
    "score_table",
]
