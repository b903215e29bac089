"""A function of modules and batches as a function of tensors.

All modules that a function reads hang in one container; it is evaluated by a functional call on
the container with every parameter and buffer replaced: variables by the given tensors, parameters
that are left out by detached ones, buffers by copies. So the user holds real modules, and live
tensors are never written to.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from mlo.guards import (
    check_graph,
    refusing_batch_writes,
    refusing_checkpointing,
    refusing_writes,
)
from mlo.modes import in_modes
from mlo.notes import noting
from mlo.places import Buffers, Places, copied
from mlo.randomness import RandomState, replayed
from mlo.reads import TICK, Reads
from mlo.setting import Setting
from mlo.types import Batch, Values

PREFIX = "problem_"


class _Container(nn.Module):
    """All modules that a function reads, under one roof; the function itself is no part of it."""

    def __init__(
        self, modules: Mapping[str, nn.Module], function: Callable[..., Any], reads: Reads
    ) -> None:
        super().__init__()
        for name, module in modules.items():
            self.add_module(PREFIX + name, module)
        # In a tuple, since a loss that is a module would be registered as one.
        self.function = (function,)
        self.reads = reads
        self.names = tuple(modules)

    def forward(self, given: Mapping[str, Any]) -> Any:
        """Call the function with its modules, batches and the tick."""
        modules = {name: self.get_submodule(PREFIX + name) for name in self.names}
        returned = self.reads.call(self.function[0], {**given, **modules})
        # Of a module, what hangs in it now: after the call that is the live parameters again.
        return ModuleTensors(returned) if isinstance(returned, nn.Module) else returned


class ModuleTensors(dict[str, Tensor]):
    """What hangs in a module that a function returned."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__(module.named_parameters())


class Evaluator:
    """Calls one function of one problem at any tensors in any setting.

    Args:
        problem: whose function it is.
        kind: what it is, for messages.
        function: as the user wrote it.
        reads: what it reads.
        modules: problem -> module, for the problems that it reads.
        variables: problem -> its variables, the live ones.
        live: id of every live variable of the program -> how to name it in a message.
        devices: accelerators whose random state counts.
    """

    def __init__(
        self,
        problem: str,
        kind: str,
        function: Callable[..., Any],
        *,
        reads: Reads,
        modules: Mapping[str, nn.Module],
        variables: Mapping[str, Sequence[nn.Parameter]],
        live: Mapping[int, str],
        devices: Sequence[torch.device] = (),
    ) -> None:
        self.problem = problem
        self.reads = tuple(modules)
        self._kind = kind
        self._modules = modules
        self._container = _Container(modules, function, reads)
        # Walking the modules is slow beside a small loss, and what it finds does not change.
        self._parts = list(self._container.modules())
        self._places = Places(self._container)
        self._variables = {name: [id(p) for p in variables[name]] for name in modules}
        self._live = live
        self._devices = tuple(devices)

    def setting(
        self,
        batches: Sequence[Batch],
        tick: int,
        *,
        replayable: bool,
        stood: Mapping[tuple[int, str], Tensor | None] = MappingProxyType({}),
    ) -> Setting:
        """The present setting.

        Args:
            batches: one for every micro-batch.
            tick: the present tick.
            replayable: keep what a replay needs.
            stood: (id of a module, name) -> what counts instead of a live buffer.
        """
        if not replayable and not stood:
            return Setting(tick, tuple(batches))
        live = {
            place.key: stood.get((id(place.module), place.name), place.module._buffers[place.name])
            for place in self._places.buffers
        }
        buffers = copied(live)
        if not replayable:
            return Setting(tick, tuple(batches), buffers=buffers)
        modes = tuple(m.training for m in self._parts)
        random = RandomState.capture(self._devices)
        return Setting(tick, tuple(batches), random, buffers, modes)

    @contextlib.contextmanager
    def replaying(self, setting: Setting) -> Iterator[None]:
        """Inside, draw the random numbers of the setting, in its modes; leave no trace."""
        if setting.random is None or setting.modes is None:
            raise RuntimeError("this setting was not kept for a replay")
        with replayed(setting.random), in_modes(self._parts, setting.modes):
            yield

    def call(
        self, values: Values, batch: Batch, tick: int, buffers: Buffers | None
    ) -> tuple[Any, Buffers]:
        """What the function returns, and the buffers as it left them.

        Args:
            values: problem -> tensors that stand for its variables.
            batch: stream -> batch.
            tick: the present tick.
            buffers: what stands for the buffers; `None` takes the live ones. They are copied.

        Raises:
            CheckpointingError: it uses activation checkpointing.
            EvaluationError: it writes into parameters.
        """
        live = self._places.live_buffers() if buffers is None else buffers
        with contextlib.ExitStack() as stack:
            stack.enter_context(refusing_checkpointing(self.problem))
            stack.enter_context(refusing_writes(self.problem, values))
            stack.enter_context(refusing_batch_writes(self.problem, self._kind, batch))
            left = stack.enter_context(self._places.holding(copied(live)))
            stack.enter_context(noting(f"in the {self._kind} of problem '{self.problem}'", batch))
            # Ties need no care of torch: every place has its tensor.
            returned = functional_call(
                self._container,
                self._parameters(values),
                ({**batch, TICK: tick},),
                tie_weights=False,
            )
        # Under autocast, casts of the given tensors would be kept until its end.
        torch.clear_autocast_cache()
        return returned, left

    def check(self, returned: Tensor, values: Values) -> None:
        """What the function returned depends on nothing that it was not handed.

        Raises:
            ClosureError: it uses live parameters of a declared problem.
        """
        check_graph(self.problem, returned, values, self._live, self._kind)

    def write_buffers(self, buffers: Buffers, problems: Sequence[str]) -> None:
        """Give the modules of `problems` the buffers that a real move left."""
        chosen = [
            part
            for name in problems
            if name in self._modules
            for part in self._modules[name].modules()
        ]
        with torch.no_grad():
            self._places.write(buffers, chosen)

    def _parameters(self, values: Values) -> dict[str, Tensor]:
        """Key of a place -> what hangs there: a given tensor, or a live one that is left out."""
        given: dict[int, Tensor] = {}
        for name, variables in self._variables.items():
            given.update(zip(variables, values[name], strict=True))
        return {
            place.key: given[id(p)] if id(p) in given else p.detach()
            for place, p in self._places.parameters
        }
