"""The compiled declaration: problems, graph and objectives, checked once and then only read."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Iterable, Iterator, Mapping

import torch
from torch import Tensor, nn

from mlo.checks import check_sharing, check_streams
from mlo.declared import Levels, by_name, graph_nodes
from mlo.errors import DeviceError, ParameterError
from mlo.evaluation import Objective
from mlo.graph import DependencyGraph
from mlo.method_checks import check_methods
from mlo.modes import preserved_modes
from mlo.problem import Problem
from mlo.randomness import preserved
from mlo.types import Tensors
from mlo.update import Projection


@dataclasses.dataclass(frozen=True)
class Program:
    """What does not change while an engine runs.

    Attributes:
        problems: name -> declaration, lowest first.
        graph: reads, scopes, contexts and orders.
        variables: problem -> name -> live parameter.
        parameters: the same for all parameters, those that are left out too.
        objectives: problem -> its loss as a function of tensors.
        devices: accelerators that hold variables.
    """

    problems: Mapping[str, Problem]
    graph: DependencyGraph
    variables: Mapping[str, Mapping[str, nn.Parameter]]
    parameters: Mapping[str, Mapping[str, nn.Parameter]]
    objectives: Mapping[str, Objective]
    devices: tuple[torch.device, ...]

    @contextlib.contextmanager
    def undisturbed(self) -> Iterator[None]:
        """Whatever happens inside, random states and modes are as before afterwards."""
        modules = [problem.module for problem in self.problems.values()]
        with preserved(self.devices), preserved_modes(modules):
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
        return tuple(rates[id(p)] for p in self.variables[name].values())

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
    streams = tuple(streams)
    nodes = graph_nodes(named, levels, streams, lookahead=lookahead)
    graph = DependencyGraph(nodes, nested=nested)
    check_streams(named, streams)
    variables = {name: problem.variables() for name, problem in named.items()}
    check_sharing(named, variables)
    check_methods(named, graph)
    if device is not None:
        for problem in named.values():
            _move(problem, device)
    devices = {p.device for own in variables.values() for p in own.values()}
    accelerators = tuple(d for d in devices if d.type not in ("cpu", "meta"))
    objectives = _objectives(named, graph, variables, accelerators)
    parameters = {name: dict(p.module.named_parameters()) for name, p in named.items()}
    return Program(named, graph, variables, parameters, objectives, accelerators)


def _objectives(
    problems: Mapping[str, Problem],
    graph: DependencyGraph,
    variables: Mapping[str, Mapping[str, nn.Parameter]],
    devices: tuple[torch.device, ...],
) -> dict[str, Objective]:
    live = {
        id(p): f"parameter '{key}' of problem '{name}'"
        for name, own in variables.items()
        for key, p in own.items()
    }
    objectives = {}
    for name, problem in problems.items():
        reads = graph.nodes[name].reads
        modules = {read: problems[read].module for read in reads}
        own = {read: tuple(variables[read].values()) for read in reads}
        objectives[name] = Objective(problem, modules, own, live, devices)
    return objectives


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
