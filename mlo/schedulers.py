"""Learning-rate schedulers, stepped once per own move or once per epoch of a stream."""

from __future__ import annotations

from collections.abc import Mapping

from torch.optim.lr_scheduler import ReduceLROnPlateau

from mlo.errors import LossError, listed, nearest
from mlo.evaluation import Evaluation
from mlo.notes import noting
from mlo.problem import Problem
from mlo.streams import Stream


class Schedulers:
    """Steps the schedulers of all problems.

    Attributes:
        heard: problem -> epochs that its scheduler has heard of.
    """

    def __init__(self, streams: Mapping[str, Stream]) -> None:
        self._streams = streams
        self.heard: dict[str, int] = {}

    def step(self, problem: Problem, evaluation: Evaluation) -> None:
        """Step the scheduler of `problem` after a real move, where it is due.

        Args:
            problem: who moved.
            evaluation: its loss and metrics at its last update.
        """
        if problem.scheduler is None:
            return
        steps = 1
        if problem.scheduler_every is not None:
            epochs = self._streams[problem.scheduler_every].epochs
            steps = epochs - self.heard.get(problem.name, 0)
            self.heard[problem.name] = epochs
        with noting(f"in the scheduler of problem '{problem.name}'"):
            self._advance(problem, evaluation, steps)

    def _advance(self, problem: Problem, evaluation: Evaluation, steps: int) -> None:
        for _ in range(steps):
            if isinstance(problem.scheduler, ReduceLROnPlateau):
                problem.scheduler.step(_metric(problem, evaluation))
            else:
                problem.scheduler.step()


def _metric(problem: Problem, evaluation: Evaluation) -> float:
    known = {**evaluation.metrics, "loss": evaluation.value}
    name = problem.scheduler_metric
    if name not in known:
        raise LossError(
            f"problem '{problem.name}': scheduler_metric='{name}' is not returned by its loss"
            f"{nearest(name, known)} (known: {listed(known)})",
            problem=problem.name,
        )
    return float(known[name])
