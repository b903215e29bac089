"""Where a problem begins anew: `start=` as a function of tensors."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from mlo.errors import EvaluationError, listed
from mlo.evaluator import Evaluator, ModuleTensors
from mlo.setting import Setting
from mlo.types import Tensors, Values


class Start:
    """The parameters from which a problem begins anew, given those that its `start=` reads.

    Args:
        evaluator: calls the function.
        names: the names of the problem's variables, in order.
    """

    def __init__(self, evaluator: Evaluator, names: Sequence[str]) -> None:
        self.evaluator = evaluator
        self.names = tuple(names)
        self.reads = evaluator.reads

    def __call__(
        self, values: Values, setting: Setting, own: Tensors, *, replay: bool = False
    ) -> Tensors:
        """One tensor per variable, attached to `values` where the function is.

        Args:
            values: problem -> tensors that stand for its variables.
            setting: under what; of several micro-batches it is handed the first.
            own: the problem's present variables, for their shapes and dtypes.
            replay: draw again the random numbers of the setting, in its mode.

        Raises:
            EvaluationError: it does not return a tensor of the right shape for every variable.
            ClosureError: it uses live parameters of a declared problem.
        """
        with self.evaluator.replaying(setting) if replay else contextlib.nullcontext():
            returned, _ = self.evaluator.call(
                values, setting.batches[0], setting.tick, setting.buffers
            )
        tensors = self._ordered(returned, own)
        for tensor in tensors:
            self.evaluator.check(tensor, values)
        return tensors

    def _ordered(self, returned: Any, own: Tensors) -> Tensors:
        problem = self.evaluator.problem
        if not isinstance(returned, Mapping):
            raise EvaluationError(
                f"problem '{problem}': start= must return name -> tensor for its variables "
                f"({listed(self.names)}), or a module with parameters of these names, got "
                f"{type(returned).__name__}",
                problem=problem,
            )
        missing = [name for name in self.names if name not in returned]
        # A module may hold more than was asked for, such as frozen parameters.
        extra = () if isinstance(returned, ModuleTensors) else returned
        unknown = [name for name in extra if name not in self.names]
        if missing or unknown:
            raise EvaluationError(
                f"problem '{problem}': start= must return a tensor for each of its variables and "
                f"no other; missing: {listed(missing)}; unknown: {listed(unknown)}",
                problem=problem,
            )
        for name, like in zip(self.names, own, strict=True):
            tensor = returned[name]
            if not isinstance(tensor, Tensor) or tensor.shape != like.shape:
                found = tuple(tensor.shape) if isinstance(tensor, Tensor) else type(tensor).__name__
                raise EvaluationError(
                    f"problem '{problem}': start= must return '{name}' as a tensor of shape "
                    f"{tuple(like.shape)}, got {found}",
                    problem=problem,
                )
        return tuple(
            returned[name].to(device=like.device, dtype=like.dtype)
            for name, like in zip(self.names, own, strict=True)
        )
