"""Copies of what moves change, so that a step, a tick or more can be taken back."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from mlo.moves import Move
from mlo.plain import copied
from mlo.problem_state import ProblemState, load_problem_state, problem_state

if TYPE_CHECKING:
    from mlo.mover import Mover


@dataclasses.dataclass(frozen=True)
class Memory:
    """What a mover remembers besides the problems themselves.

    Attributes:
        moves: problem -> its recorded move.
        states: problem -> the state of its method.
        made: problem -> moves made, by which restarts are counted.
        heard: problem -> epochs that its scheduler has heard of.
        standpoints: what is remembered within a tick (see `Standpoints.kept`).
    """

    moves: Mapping[str, Move]
    states: Mapping[str, Any]
    made: Mapping[str, int]
    heard: Mapping[str, int]
    standpoints: Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Snapshot:
    """Copies of problems and of the mover's memory; it may be put back as often as one likes.

    Attributes:
        problems: name -> state.
        memory: of the mover.
    """

    problems: Mapping[str, ProblemState]
    memory: Memory

    @classmethod
    def take(cls, mover: Mover, names: Iterable[str] | None = None) -> Snapshot:
        """Copy the problems called `names`, or all, and those whose buffers their moves update.

        Raises:
            CheckpointError: a scheduler has no state_dict().
        """
        problems = mover.program.problems
        chosen = dict.fromkeys(problems if names is None else names)
        for name in tuple(chosen):
            chosen |= dict.fromkeys(problems[name].updates_buffers)
        states = {name: copied(problem_state(problems[name])) for name in chosen}
        return cls(states, mover.memory())

    def restore(self, mover: Mover) -> None:
        """Put everything back; nothing of it is shared with the problems afterwards."""
        for name, state in self.problems.items():
            load_problem_state(mover.program.problems[name], state)
        mover.recall(self.memory)


class StepUndo:
    """What one optimizer step changes, kept for as long as it may have to be taken back.

    Args:
        optimizer: before its step.
        params: what it is about to change.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, params: Sequence[nn.Parameter]) -> None:
        self.optimizer = optimizer
        self.params = params
        self.stood = tuple(p.detach().clone() for p in params)
        self._state = {p: _twin(state) for p, state in optimizer.state.items()}
        self._groups = [{**group} for group in optimizer.param_groups]

    def undo(self) -> None:
        """Put back what was kept, which is then the optimizer's own."""
        with torch.no_grad():
            for p, stood in zip(self.params, self.stood, strict=True):
                p.copy_(stood)
        self.optimizer.state.clear()
        self.optimizer.state.update(self._state)
        for group, kept in zip(self.optimizer.param_groups, self._groups, strict=True):
            group.clear()
            group.update(kept)


def _twin(state: Any) -> Any:
    """A copy of the state of one parameter: tensors one by one, which is fast."""
    if not isinstance(state, dict):
        return copied(state)
    return {
        key: value.clone() if isinstance(value, Tensor) else copied(value)
        for key, value in state.items()
    }
