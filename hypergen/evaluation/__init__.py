"""Honest numbers: generated weights beside every baseline, with intervals, and their report."""

from hypergen.evaluation.assets import RunAssets
from hypergen.evaluation.audit import Audit
from hypergen.evaluation.baselines import DescriptionBank
from hypergen.evaluation.bootstrap import Bootstrap, Scores, gap_closed
from hypergen.evaluation.calibration import Calibration, calibrate
from hypergen.evaluation.compare import WeightComparison, compare_weights, update_cosine
from hypergen.evaluation.demo_gain import fit_demo_gain, measure_demo_gain
from hypergen.evaluation.evaluate import default_splits, evaluate
from hypergen.evaluation.few_shot import evaluate_few_shot
from hypergen.evaluation.few_shot_result import FewShot
from hypergen.evaluation.gain import GainFit, MeasuredGain, fit_gain, measure_gain
from hypergen.evaluation.methods import Split
from hypergen.evaluation.networks import NetworkScores, evaluate_networks
from hypergen.evaluation.report import write_report
from hypergen.evaluation.result import Evaluation, SplitResult
from hypergen.evaluation.stories import evaluate_stories
from hypergen.evaluation.stories_report import write_story_report
from hypergen.evaluation.stories_result import StoryEvaluation
from hypergen.evaluation.zoo import Zoo

__all__ = [
    "Audit",
    "Bootstrap",
    "Calibration",
    "DescriptionBank",
    "Evaluation",
    "FewShot",
    "GainFit",
    "MeasuredGain",
    "NetworkScores",
    "RunAssets",
    "Scores",
    "Split",
    "SplitResult",
    "StoryEvaluation",
    "WeightComparison",
    "Zoo",
    "calibrate",
    "compare_weights",
    "default_splits",
    "evaluate",
    "evaluate_few_shot",
    "evaluate_networks",
    "evaluate_stories",
    "fit_demo_gain",
    "fit_gain",
    "gap_closed",
    "measure_demo_gain",
    "measure_gain",
    "update_cosine",
    "write_report",
    "write_story_report",
]
