"""Programs of architecture search, declared on the engine."""

from __future__ import annotations

from problems.nas.programs.darts import darts_problems
from problems.nas.programs.evaluation import evaluation_problems
from problems.nas.programs.lfm import lfm_problems

__all__ = ["darts_problems", "evaluation_problems", "lfm_problems"]
