"""The parameters of the uppermost problem of a search by Learning From Mistakes."""

from __future__ import annotations

from torch import nn

from problems.lfm.validator import Validator
from problems.nas.architecture import Architecture


class Architect(nn.Module):
    """What is judged on validation data: architecture A, encoder V and coefficients r.

    Args:
        architecture: A, which learner and relearner share.
        validator: V and r, which make the weights a of the relearner's examples.
    """

    def __init__(self, architecture: Architecture, validator: Validator) -> None:
        super().__init__()
        self.architecture = architecture
        self.validator = validator
