"""What an engine does about numbers that are not finite, solves that fail, and divergence."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from mlo.errors import ConfigurationError, listed, nearest

WAYS = ("raise", "skip", "rollback", "ignore")
"""What `Guards.on_nonfinite` may be."""


@dataclasses.dataclass(frozen=True)
class Guards:
    """What `Engine(guards=...)` watches in every tick, and what it then does.

    A NaN or an infinity is looked for in the loss of every move, moves on trial included, in its
    total gradient, in the responses that this goes through, where `start=` begins, and in the
    parameters after the step. The first one, in the order of computation, is named.

    - `"raise"`: `NonfiniteError`, before anything of the offending move is applied. Its `incident`
      holds what is needed to make the move again (see `mlo.replay`).
    - `"skip"`: the whole tick is taken back, and the run goes on with the next batches.
    - `"rollback"`: everything goes back to the last snapshot, and the run goes on with the next
      batches.
    - `"ignore"`: nothing is looked for; moves are made with whatever comes.

    Where ticks are taken back, random states, data streams and the tick counter go on, and the
    record of the tick says so. Callbacks have heard of the moves that were made before.

    Cost: on a CPU a few numbers are looked at before and after each step, and parameters and
    optimizer of the moving problem are copied for the time of its step. On an accelerator flags
    stay on the device and are read once a tick, with the losses and outcomes of all moves. The
    optimizers have stepped by then, so every problem that moves is copied at the beginning of each
    tick, and the tick is taken back and made once more, looking at every move, before anything is
    raised. `"skip"` copies these on a CPU as well; `"rollback"` copies all problems at every
    `rollback_every`-th tick.

    Args:
        on_nonfinite: `"raise"`, `"skip"`, `"rollback"` or `"ignore"`.
        rollback_every: ticks between two snapshots in memory; the first is taken in the first tick.
        patience: ticks in a row that may be taken back before `NonfiniteError` is raised after all.
        max_failed_solves: failed solves of one problem's response in a row after which
            `SolveError` is raised; `None`: never.
        max_divergence: `SolveError` is raised when the loss of a problem that others differentiate
            through has grown beyond this factor (`mlo.health.Growth` has the formula); `None`:
            never.
        probe: evaluate the loss of each problem twice at its first move that will be replayed, and
            raise `ReplayError` where the two values differ.

    Raises:
        ConfigurationError: an argument is not what it may be.
    """

    on_nonfinite: str = "raise"
    rollback_every: int = 100
    patience: int = 10
    max_failed_solves: int | None = None
    max_divergence: float | None = None
    probe: bool = True

    def __post_init__(self) -> None:
        if self.on_nonfinite not in WAYS:
            hint = nearest(str(self.on_nonfinite), WAYS)
            raise _misfit("on_nonfinite", f"one of {listed(WAYS)}", self.on_nonfinite, hint)
        self._check_whole("rollback_every", least=1)
        self._check_whole("patience", least=0)
        if self.max_failed_solves is not None:
            self._check_whole("max_failed_solves", least=1)
        factor = self.max_divergence
        number = isinstance(factor, int | float) and not isinstance(factor, bool)
        if factor is not None and not (number and math.isfinite(factor) and factor > 0):
            raise _misfit("max_divergence", "a positive number or None", factor)
        if not isinstance(self.probe, bool):
            raise _misfit("probe", "True or False", self.probe)

    def _check_whole(self, name: str, *, least: int) -> None:
        value = getattr(self, name)
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise _misfit(name, f"a whole number of at least {least}", value)


def checked_guards(guards: Any) -> Guards:
    """What was given as `Engine(guards=...)`.

    Raises:
        ConfigurationError: it is no `Guards`.
    """
    if not isinstance(guards, Guards):
        raise ConfigurationError(
            f"Engine(guards=...) must be an mlo.Guards, got {guards!r}; write "
            "mlo.Guards(on_nonfinite='skip'), or leave it out"
        )
    return guards


def _misfit(name: str, expected: str, value: Any, hint: str = "") -> ConfigurationError:
    return ConfigurationError(f"Guards({name}=...) must be {expected}, got {value!r}{hint}")
