"""When problems begin anew, and what that does to them and to their optimizers."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from mlo.moves import Begun
from mlo.program import Program
from mlo.sweep import Sweep
from mlo.types import Batch, Tensors
from mlo.update import kept_state, renew


class Restarts:
    """Counts the moves of all problems, and sets those that are due to their start.

    Args:
        program: the compiled declaration.

    Attributes:
        made: problem -> moves made.
        fresh: problem -> the state of its optimizer before its first step.
    """

    def __init__(self, program: Program) -> None:
        self.program = program
        self.made = dict.fromkeys(program.problems, 0)
        self.fresh = {n: kept_state(program.problems[n].optimizer) for n in program.starts}

    def begin(self, sweep: Sweep, name: str, batches: Sequence[Batch], tick: int) -> Begun | None:
        """Set `name` in the sweep to its start, if its coming move begins there."""
        if name not in self.program.starts:
            return None
        if self.made[name] % self.program.problems[name].restart != 0:
            return None
        evaluator = self.program.starts[name].evaluator
        setting = evaluator.setting(batches, tick, replayable=True)
        begun = Begun(setting, sweep.values[name])
        with torch.no_grad():
            own = sweep.begin(name, begun, sweep.values, replay=False)
            sweep.values[name] = tuple(t.detach().clone() for t in own)
        return begun

    def write(self, name: str, values: Tensors) -> None:
        """Put the live problem where it begins, its optimizer as it was when it was given."""
        with torch.no_grad():
            live = self.program.variables[name].values()
            for p, t in zip(live, values, strict=True):
                p.copy_(t)
        self.renew(name, self.program.problems[name].optimizer)

    def renew(self, name: str, optimizer: torch.optim.Optimizer) -> None:
        """Give the optimizer of `name`, or a copy of it, the state from before its first step."""
        renew(optimizer, self.fresh[name])
