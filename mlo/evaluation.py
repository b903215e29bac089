"""The loss of a problem as a function of tensors.

All modules that a loss reads hang in one container; the loss is evaluated by a functional call on
it with every parameter and buffer replaced: variables by the given tensors, parameters that are
left out by detached ones, buffers by copies. So the user holds real modules, and live tensors are
never written to.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from mlo.errors import LossError
from mlo.guards import check_graph, refusing_checkpointing, refusing_writes
from mlo.modes import in_modes
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
        buffers: container key -> buffer as the evaluation left it.
    """

    loss: Tensor
    value: Tensor
    metrics: Mapping[str, Tensor | float]
    buffers: Mapping[str, Tensor]


class _Container(nn.Module):
    def __init__(
        self, modules: Mapping[str, nn.Module], loss: Callable[..., Any], reads: Reads
    ) -> None:
        super().__init__()
        for name, module in modules.items():
            self.add_module(PREFIX + name, module)
        self.names = tuple(modules)
        self.loss = loss
        self.reads = reads

    def forward(self, given: Mapping[str, Any]) -> Any:
        """Call the loss with its modules, batches and the tick."""
        modules = {name: self.get_submodule(PREFIX + name) for name in self.names}
        return self.reads.call(self.loss, {**given, **modules})


class Objective:
    """The loss of one problem, evaluated at any tensors in any setting.

    Args:
        problem: the declaration.
        modules: problem -> module, for the problems that it reads.
        variables: problem -> names of its variables.
        live: id of every live variable of the program -> how to name it in a message.
        devices: accelerators whose random state counts.
    """

    def __init__(
        self,
        problem: Problem,
        modules: Mapping[str, nn.Module],
        variables: Mapping[str, Sequence[str]],
        live: Mapping[int, str],
        devices: Sequence[torch.device] = (),
    ) -> None:
        self.problem = problem.name
        self.container = _Container(modules, problem.loss, problem.reads)
        self.keys = {r: tuple(f"{PREFIX}{r}.{k}" for k in variables[r]) for r in modules}
        self._live = live
        self._devices = tuple(devices)
        # Walking the modules is slow beside a small loss, and what it finds does not change.
        own = {key for keys in self.keys.values() for key in keys}
        named = dict(self.container.named_parameters())
        self._parts = list(self.container.modules())
        self._left_out = {key: p for key, p in named.items() if key not in own}
        self._buffer_owners = {
            key: (self.container.get_submodule(key.rpartition(".")[0]), key.rpartition(".")[2])
            for key, _ in self.container.named_buffers()
        }
        every_name = list(self.container.named_parameters(remove_duplicate=False))
        self._tied = len(every_name) > len(named)

    def setting(self, batch: Batch, tick: int, *, replayable: bool) -> Setting:
        """The present setting; `replayable` keeps what a replay needs."""
        if not replayable:
            return Setting(tick, batch)
        modes = tuple(m.training for m in self._parts)
        random = RandomState.capture(self._devices)
        return Setting(tick, batch, random, self._buffers(None), modes)

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
        buffers = self._buffers(setting.buffers)
        tensors = {key: p.detach() for key, p in self._left_out.items()}
        tensors.update(buffers)
        for read, keys in self.keys.items():
            tensors.update(zip(keys, values[read], strict=True))
        with contextlib.ExitStack() as stack:
            stack.enter_context(refusing_checkpointing(self.problem))
            stack.enter_context(refusing_writes(self.problem, values))
            if replay:
                stack.enter_context(self._replayed(setting))
            given = {**setting.batch, TICK: setting.tick}
            returned = functional_call(self.container, tensors, (given,), tie_weights=self._tied)
        loss, metrics = self._split(returned)
        check_graph(self.problem, loss, values, self._live)
        value = loss.detach().clone()
        return Evaluation(loss, value, metrics, {key: tensors[key] for key in buffers})

    def write_buffers(self, evaluation: Evaluation, problems: Sequence[str]) -> None:
        """Give the modules of `problems` the buffers that a real move left."""
        prefixes = tuple(f"{PREFIX}{p}." for p in problems)
        with torch.no_grad():
            for key, live in self._live_buffers():
                if key.startswith(prefixes):
                    live.copy_(evaluation.buffers[key])

    def _buffers(self, given: Mapping[str, Tensor] | None) -> dict[str, Tensor]:
        source = self._live_buffers() if given is None else given.items()
        return {key: b.detach().clone() for key, b in source}

    def _live_buffers(self) -> Iterable[tuple[str, Tensor]]:
        return ((key, getattr(part, k)) for key, (part, k) in self._buffer_owners.items())

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
