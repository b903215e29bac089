"""The programs, each a short declaration.

All read the stream `train`, which may be noisy or imbalanced, and those that learn weights also
`valid`, a small clean balanced set ("meta set" in the literature). Batches are (x, y, index).
"""

from __future__ import annotations

from problems.reweighting.programs.ensemble import Ensemble, ensemble_problems
from problems.reweighting.programs.l2rw import l2rw_problems
from problems.reweighting.programs.learned_weights import (
    ExampleWeights,
    LearnedWeightsSettings,
    learned_problems,
)
from problems.reweighting.programs.meta_weight_net import (
    MetaWeightNetSettings,
    WeightNet,
    meta_weight_net_problems,
)
from problems.reweighting.programs.plain import (
    class_balanced_problems,
    focal_problems,
    plain_problems,
)

__all__ = [
    "Ensemble",
    "ExampleWeights",
    "LearnedWeightsSettings",
    "MetaWeightNetSettings",
    "WeightNet",
    "class_balanced_problems",
    "ensemble_problems",
    "focal_problems",
    "l2rw_problems",
    "learned_problems",
    "meta_weight_net_problems",
    "plain_problems",
]
