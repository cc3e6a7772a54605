"""Networks that a graph hypernetwork gives weights to, beside all baselines."""

from hypergen.evaluation.architectures.evaluate import evaluate_architectures
from hypergen.evaluation.architectures.inits import evaluate_inits
from hypergen.evaluation.architectures.inits_result import InitEvaluation
from hypergen.evaluation.architectures.properties import PropertyFit, predict_property
from hypergen.evaluation.architectures.result import ArchitectureEvaluation

__all__ = [
    "ArchitectureEvaluation",
    "InitEvaluation",
    "PropertyFit",
    "evaluate_architectures",
    "evaluate_inits",
    "predict_property",
]
