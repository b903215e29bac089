"""The compiled declaration: problems, graph and objectives, checked once and then only read."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from mlo.checks import check_sharing, check_streams
from mlo.declared import Levels, by_name, graph_nodes
from mlo.devices import accelerators
from mlo.errors import CheckpointError, DeviceError, ParameterError
from mlo.evaluation import Objective
from mlo.evaluator import Evaluator
from mlo.graph import DependencyGraph
from mlo.hypergradients import Hypergradient
from mlo.method_checks import check_methods
from mlo.modes import preserved_modes
from mlo.problem import Problem
from mlo.projection import Projection
from mlo.randomness import preserved
from mlo.reads import Reads
from mlo.second_moments import scale_of
from mlo.start import Start
from mlo.types import Tensors


@dataclasses.dataclass(frozen=True)
class Layout:
    """Problem -> level, the names of all streams, and the order of moves."""

    levels: Mapping[str, int]
    streams: tuple[str, ...]
    lookahead: bool


class Occupation:
    """Whether something is being done that must be over before a state can be saved or loaded."""

    def __init__(self) -> None:
        self._doing: list[str] = []

    @contextlib.contextmanager
    def by(self, what: str) -> Iterator[None]:
        """Inside, `what` is being done."""
        self._doing.append(what)
        try:
            yield
        finally:
            self._doing.pop()

    def check(self) -> None:
        """Nothing is being done.

        Raises:
            CheckpointError: something is.
        """
        if self._doing:
            raise CheckpointError(
                f"checkpoint: in the middle of {self._doing[0]} there is no state that a run could "
                "go on from; save and load between two ticks, as in on_tick or on_evaluation of a "
                "callback, or let Engine.run(checkpoints=...) do so"
            )


@dataclasses.dataclass(frozen=True)
class Program:
    """What does not change while an engine runs.

    Attributes:
        problems: name -> declaration, lowest first.
        graph: reads, scopes, contexts and orders.
        variables: problem -> name -> live parameter.
        parameters: the same for all parameters, those that are left out too.
        objectives: problem -> its loss as a function of tensors.
        starts: problem -> where it begins anew, for those that do.
        layout: what its graph was drawn from, besides the problems.
        devices: accelerators that hold variables.
        occupation: what is being done at the moment.
    """

    problems: Mapping[str, Problem]
    graph: DependencyGraph
    variables: Mapping[str, Mapping[str, nn.Parameter]]
    parameters: Mapping[str, Mapping[str, nn.Parameter]]
    objectives: Mapping[str, Objective]
    starts: Mapping[str, Start]
    layout: Layout
    devices: tuple[torch.device, ...]
    occupation: Occupation = dataclasses.field(default_factory=Occupation)

    def answering_by(self, methods: Mapping[str, Hypergradient], nested: str) -> Program:
        """The same program, everything shared, with other methods and another `nested=`.

        Raises:
            DeclarationError: (one of its kinds) a method cannot serve there.
        """
        problems = {
            n: p.answering_by(methods[n]) if n in methods else p for n, p in self.problems.items()
        }
        graph = _drawn(problems, self.layout, nested)
        check_methods(problems, graph, lookahead=self.layout.lookahead)
        return dataclasses.replace(self, problems=problems, graph=graph)

    @contextlib.contextmanager
    def undisturbed(self) -> Iterator[None]:
        """Whatever happens inside, random states and modes are as before afterwards."""
        modules = [problem.module for problem in self.problems.values()]
        doing = self.occupation.by("an evaluation or a hypergradient")
        with doing, preserved(self.devices), preserved_modes(modules):
            yield

    def check_unchanged(self) -> None:
        """Modules and optimizers still hold what the program was compiled with.

        Raises:
            ParameterError: a parameter was replaced, frozen, unfrozen or given a hook since.
        """
        for name, problem in self.problems.items():
            own, before = self.variables[name], self.parameters[name]
            now = dict(problem.module.named_parameters())
            changes = {k: "replaced" for k in {**before, **now} if before.get(k) is not now.get(k)}
            if not changes:
                present = problem.variables()
                changes = {k: "frozen" for k in own if k not in present}
                changes |= {k: "unfrozen" for k in present if k not in own}
            for key, change in changes.items():
                what = "variable" if key in own else "parameter"
                raise ParameterError(
                    f"problem '{name}': its {what} '{key}' was {change} since the engine was "
                    "built, of which the engine does not know; build a new engine after such a "
                    "change, or write values in place",
                    problem=name,
                )

    def present(self, name: str) -> Tensors:
        """Where a problem stands: its live tensors, detached but not copied."""
        return tuple(p.detach() for p in self.variables[name].values())

    def learning_rate(self, name: str) -> tuple[float | Tensor, ...]:
        """The present learning rate of each variable; NaN where its optimizer has none."""
        groups = self.problems[name].optimizer.param_groups
        rates = {id(p): group.get("lr", math.nan) for group in groups for p in group["params"]}
        found = (rates[id(p)] for p in self.variables[name].values())
        # A scheduler may change a tensor in place, after the move that this rate belongs to.
        return tuple(r.clone() if isinstance(r, Tensor) else r for r in found)

    def optimizer_scale(self, name: str) -> Callable[[], Tensors] | None:
        """Where the problem's method needs it: what gives the scale of its optimizer's steps."""
        problem = self.problems[name]
        if "second_moments" not in problem.hypergradient.needs:
            return None
        return lambda: scale_of(problem.optimizer, list(self.variables[name].values()))

    def projection(self, name: str) -> Projection | None:
        """The projection of a problem, ready to be applied to its variables."""
        project = self.problems[name].project
        return Projection(project, tuple(self.variables[name]), name) if project else None

    def records_moves(self, name: str) -> bool:
        """Whether moves of the problem are recorded in full."""
        method = self.problems[name].hypergradient
        return name in self.graph.responding and "moves" in method.needs


def compile_program(
    problems: Levels,
    streams: Iterable[str],
    device: torch.device | None,
    *,
    lookahead: bool,
    nested: str = "exact",
) -> Program:
    """Check a declaration and make the objects that a run needs.

    Raises:
        DeclarationError: (one of its kinds) the program cannot work; the message says why.
        DeviceError: a module cannot be moved to `device`.
    """
    named, levels = by_name(problems)
    layout = Layout(levels, tuple(streams), lookahead)
    graph = _drawn(named, layout, nested)
    check_streams(named, layout.streams)
    variables = {name: problem.variables() for name, problem in named.items()}
    check_sharing(named, variables)
    check_methods(named, graph, lookahead=lookahead)
    if device is not None:
        for problem in named.values():
            _move(problem, device)
    devices = accelerators(p for own in variables.values() for p in own.values())
    evaluators = _Evaluators(named, variables, devices)
    parameters = {name: dict(p.module.named_parameters()) for name, p in named.items()}
    return Program(
        named,
        graph,
        variables,
        parameters,
        {name: Objective(evaluators.of(p, "loss", p.loss, p.reads)) for name, p in named.items()},
        {
            name: Start(evaluators.of(p, "start=", p.start, p.start_reads), tuple(variables[name]))
            for name, p in named.items()
            if p.start is not None and p.start_reads is not None
        },
        layout,
        devices,
    )


def _drawn(problems: Mapping[str, Problem], layout: Layout, nested: str) -> DependencyGraph:
    nodes = graph_nodes(problems, layout.levels, layout.streams, lookahead=layout.lookahead)
    return DependencyGraph(nodes, nested=nested)


class _Evaluators:
    """Makes the functions of all problems callable at any tensors."""

    def __init__(
        self,
        problems: Mapping[str, Problem],
        variables: Mapping[str, Mapping[str, nn.Parameter]],
        devices: tuple[torch.device, ...],
    ) -> None:
        self.problems = problems
        self.variables = {name: tuple(own.values()) for name, own in variables.items()}
        self.devices = devices
        self.live = {
            id(p): f"parameter '{key}' of problem '{name}'"
            for name, own in variables.items()
            for key, p in own.items()
        }

    def of(
        self, problem: Problem, kind: str, function: Callable[..., Any], reads: Reads
    ) -> Evaluator:
        """The evaluator of one function of `problem`."""
        modules = {r: self.problems[r].module for r in reads.names if r in self.problems}
        return Evaluator(
            problem.name,
            kind,
            function,
            reads=reads,
            modules=modules,
            variables=self.variables,
            live=self.live,
            devices=self.devices,
        )


def _move(problem: Problem, device: torch.device) -> None:
    problem.module.to(device)
    tensors = [*problem.module.named_parameters(), *problem.module.named_buffers()]
    for name, tensor in tensors:
        same_index = device.index is None or tensor.device.index == device.index
        if tensor.device.type != device.type or not same_index:
            raise DeviceError(
                f"problem '{problem.name}': '{name}' stayed on {tensor.device} when its module was "
                f"moved to {device}; let module.to(device) move every parameter and buffer",
                problem=problem.name,
            )
    for p, state in problem.optimizer.state.items():
        for key, value in state.items():
            if isinstance(value, Tensor) and value.shape == p.shape and value.dim() > 0:
                state[key] = value.to(p.device)
