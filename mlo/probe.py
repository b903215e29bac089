"""A look whether a loss that will be evaluated again gives the same value."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from mlo.errors import ReplayError
from mlo.setting import Setting
from mlo.vectors import leaves, rounding
from mlo.watch import Watch

if TYPE_CHECKING:
    from mlo.sweep import Gradient, Sweep


class Probe:
    """Evaluates the loss of every problem twice, at its first move that will be replayed.

    The loss is evaluated again at the same parameters, batch, buffers, modes and random numbers.
    The values may differ by sqrt(eps) relatively (1.5e-8 in float64, 3.5e-4 in float32) and by 16
    eps absolutely, with eps that of the coarsest tensor: accelerators add in another order.
    Random states and buffers stay as they are.

    Args:
        active: whether to look at all.
    """

    def __init__(self, *, active: bool) -> None:
        self.active = active
        self.seen: set[str] = set()

    def __call__(self, sweep: Sweep, name: str, setting: Setting, gradient: Gradient) -> None:
        """Look at a move before its step, the first time that one of this problem is shown.

        Raises:
            ReplayError: the loss has another value.
        """
        if not self.active or name in self.seen or not _replays(sweep, name, setting, gradient):
            return
        first = float(gradient.evaluation.value)
        if not math.isfinite(first):  # the business of those who look for these
            return
        self.seen.add(name)
        objective = sweep.program.objectives[name]
        values = {read: leaves(sweep.values[read]) for read in objective.reads}
        with torch.enable_grad():  # a loss may differentiate inside
            again = objective(values, setting, replay=True).value
        eps = rounding((*sweep.values[name], again))
        second = float(again)
        if math.isclose(first, second, rel_tol=eps**0.5, abs_tol=16 * eps):
            return
        raise ReplayError(
            f"problem '{name}': its loss is {first!r} in its move, but {second!r} when it is "
            "evaluated again on the same batch and random state, as hypergradients through it do. "
            "Draw random numbers from the global generators of torch, numpy or random, and keep "
            "counters and caches out of the loss; mlo.Guards(probe=False) goes on without a look",
            problem=name,
        )


class Probing(Watch):
    """Evaluates losses again and looks at nothing else.

    Args:
        probe: what does so.
    """

    def __init__(self, probe: Probe) -> None:
        self._probe = probe

    def probe(self, sweep: Sweep, name: str, setting: Setting, gradient: Gradient) -> None:
        """Evaluate the loss again, the first time; on an accelerator this waits for it.

        Raises:
            ReplayError: it has another value.
        """
        self._probe(sweep, name, setting, gradient)


def _replays(sweep: Sweep, name: str, setting: Setting, gradient: Gradient) -> bool:
    """Whether the move will be replayed: somebody differentiates it, and not by its own graph."""
    graph, method = sweep.program.graph, sweep.program.problems[name].hypergradient
    if name not in graph.responding or setting.random is None or gradient.graph is not None:
        return False
    return method.work(sum(t.numel() for t in sweep.values[name])) != 0
