"""Learning From Mistakes: training examples weighted by what a first learner gets wrong."""

from __future__ import annotations

from problems.evaluation import accuracy
from problems.lfm.evaluation import similarity_summary, training_weights
from problems.lfm.reweighting import lfm_problems, plain_problems
from problems.lfm.settings import Settings
from problems.lfm.validator import Validator
from problems.lfm.weights import (
    example_weights,
    label_similarity,
    mistakes,
    visual_similarity,
)

__all__ = [
    "Settings",
    "Validator",
    "accuracy",
    "example_weights",
    "label_similarity",
    "lfm_problems",
    "mistakes",
    "plain_problems",
    "similarity_summary",
    "training_weights",
    "visual_similarity",
]
