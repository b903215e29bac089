"""The loss of a problem as a function of tensors.

All modules that a loss reads hang in one container; the loss is evaluated by a functional call on
it with every parameter and buffer replaced: variables by the given tensors, parameters that are
left out by detached ones, buffers by copies. So the user holds real modules, and live tensors are
never written to.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from mlo.errors import LossError
from mlo.guards import check_graph, refusing_checkpointing, refusing_writes
from mlo.modes import in_modes
from mlo.notes import noting
from mlo.places import Buffers, Places, copied
from mlo.problem import Problem
from mlo.randomness import RandomState, replayed
from mlo.reads import TICK, Reads
from mlo.setting import Setting
from mlo.types import Batch, Values

PREFIX = "problem_"


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """What one evaluation of a loss gives.

    Attributes:
        loss: with its graph, 0-dim.
        value: the same number without it, for records.
        metrics: what the loss returned beside its value, without graphs.
        buffers: key of a place -> buffer as the evaluation left it.
    """

    loss: Tensor
    value: Tensor
    metrics: Mapping[str, Tensor | float]
    buffers: Buffers


class _Container(nn.Module):
    """All modules that a loss reads, under one roof; the loss itself is no part of it."""

    def __init__(
        self, modules: Mapping[str, nn.Module], loss: Callable[..., Any], reads: Reads
    ) -> None:
        super().__init__()
        for name, module in modules.items():
            self.add_module(PREFIX + name, module)
        # In a tuple, since a loss that is a module would be registered as one.
        self.loss = (loss,)
        self.reads = reads
        self.names = tuple(modules)

    def forward(self, given: Mapping[str, Any]) -> Any:
        """Call the loss with its modules, batches and the tick."""
        modules = {name: self.get_submodule(PREFIX + name) for name in self.names}
        return self.reads.call(self.loss[0], {**given, **modules})


class Objective:
    """The loss of one problem, evaluated at any tensors in any setting.

    Args:
        problem: the declaration.
        modules: problem -> module, for the problems that it reads.
        variables: problem -> its variables, the live ones.
        live: id of every live variable of the program -> how to name it in a message.
        devices: accelerators whose random state counts.
    """

    def __init__(
        self,
        problem: Problem,
        modules: Mapping[str, nn.Module],
        variables: Mapping[str, Sequence[nn.Parameter]],
        live: Mapping[int, str],
        devices: Sequence[torch.device] = (),
    ) -> None:
        self.problem = problem.name
        self._modules = modules
        self._container = _Container(modules, problem.loss, problem.reads)
        # Walking the modules is slow beside a small loss, and what it finds does not change.
        self._parts = list(self._container.modules())
        self._places = Places(self._container)
        self._variables = {name: [id(p) for p in own] for name, own in variables.items()}
        self._live = live
        self._devices = tuple(devices)

    def setting(self, batch: Batch, tick: int, *, replayable: bool) -> Setting:
        """The present setting; `replayable` keeps what a replay needs."""
        if not replayable:
            return Setting(tick, batch)
        modes = tuple(m.training for m in self._parts)
        random = RandomState.capture(self._devices)
        return Setting(tick, batch, random, copied(self._places.live_buffers()), modes)

    def __call__(self, values: Values, setting: Setting, *, replay: bool = False) -> Evaluation:
        """Evaluate the loss.

        Args:
            values: problem -> tensors that stand for its variables.
            setting: under what.
            replay: draw again the random numbers of the setting, in its mode, and leave no trace.

        Raises:
            LossError: the loss is not a scalar tensor.
            ClosureError: it uses live parameters of a declared problem.
            CheckpointingError: it uses activation checkpointing.
            EvaluationError: it writes into parameters.
        """
        live = self._places.live_buffers() if setting.buffers is None else setting.buffers
        with contextlib.ExitStack() as stack:
            stack.enter_context(refusing_checkpointing(self.problem))
            stack.enter_context(refusing_writes(self.problem, values))
            if replay:
                stack.enter_context(self._replayed(setting))
            buffers = stack.enter_context(self._places.holding(copied(live)))
            given = {**setting.batch, TICK: setting.tick}
            stack.enter_context(noting(f"in the loss of problem '{self.problem}'", setting.batch))
            # Ties need no care of torch: every place has its tensor.
            returned = functional_call(
                self._container, self._parameters(values), (given,), tie_weights=False
            )
        # Under autocast, casts of the given tensors would be kept until its end.
        torch.clear_autocast_cache()
        loss, metrics = self._split(returned)
        check_graph(self.problem, loss, values, self._live)
        return Evaluation(loss, loss.detach().clone(), metrics, buffers)

    def write_buffers(self, evaluation: Evaluation, problems: Sequence[str]) -> None:
        """Give the modules of `problems` the buffers that a real move left."""
        chosen = [
            part
            for name in problems
            if name in self._modules
            for part in self._modules[name].modules()
        ]
        with torch.no_grad():
            self._places.write(evaluation.buffers, chosen)

    def _parameters(self, values: Values) -> dict[str, Tensor]:
        """Key of a place -> what hangs there: a given tensor, or a live one that is left out."""
        given: dict[int, Tensor] = {}
        for name, variables in self._variables.items():
            given.update(zip(variables, values[name], strict=True))
        return {
            place.key: given[id(p)] if id(p) in given else p.detach()
            for place, p in self._places.parameters
        }

    @contextlib.contextmanager
    def _replayed(self, setting: Setting) -> Iterator[None]:
        if setting.random is None or setting.modes is None:
            raise RuntimeError("this setting was not kept for a replay")
        with replayed(setting.random), in_modes(self._parts, setting.modes):
            yield

    def _split(self, returned: Any) -> tuple[Tensor, Mapping[str, Tensor | float]]:
        pair = isinstance(returned, tuple) and len(returned) == 2
        loss, metrics = returned if pair else (returned, {})
        if not isinstance(loss, Tensor) or loss.dim() != 0 or not loss.is_floating_point():
            found = (
                f"a {loss.dtype} tensor of shape {tuple(loss.shape)}"
                if isinstance(loss, Tensor)
                else type(loss).__name__
            )
            raise LossError(
                f"problem '{self.problem}': its loss must return a scalar floating-point tensor, "
                f"or (scalar, {{metric: value}}), got {found}; reduce it, by .mean() for instance",
                problem=self.problem,
            )
        if not isinstance(metrics, Mapping):
            raise LossError(
                f"problem '{self.problem}': its loss must return a scalar, or (scalar, "
                f"{{metric: value}}), got a scalar and a {type(metrics).__name__}; name the metric",
                problem=self.problem,
            )
        for key, metric in metrics.items():
            if not isinstance(metric, Tensor | int | float):
                raise LossError(
                    f"problem '{self.problem}': metric '{key}' of its loss must be a tensor or a "
                    f"number, got {type(metric).__name__} {metric!r}; leave it out or convert it",
                    problem=self.problem,
                )
        # Clones: a loss or metric may share memory with a parameter that moves on.
        own = {k: m.detach().clone() if isinstance(m, Tensor) else m for k, m in metrics.items()}
        return loss, own
