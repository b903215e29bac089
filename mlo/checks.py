"""What must hold of a declaration, checked while the engine is built."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence

import torch
from torch import nn

from mlo.errors import (
    DeclarationError,
    GraphError,
    MethodError,
    ParameterError,
    ReadError,
    listed,
    nearest,
)
from mlo.graph import DependencyGraph, Node
from mlo.hypergradients import Direct, Implicit
from mlo.problem import Problem
from mlo.reads import TICK
from mlo.update_rules import known_names, knows

Variables = Mapping[str, Mapping[str, nn.Parameter]]
"""Problem -> name -> live parameter."""


def by_name(problems: Sequence[Problem]) -> dict[str, Problem]:
    """Name -> problem, each name once."""
    named: dict[str, Problem] = {}
    for problem in problems:
        if not isinstance(problem, Problem):
            raise DeclarationError(
                "Engine(problems=...) must be a flat list of mlo.Problem, lowest level first; "
                f"found {type(problem).__name__} in it"
            )
        if problem.name in named:
            raise DeclarationError(
                f"two problems are called '{problem.name}'; give each a name of its own",
                problem=problem.name,
            )
        named[problem.name] = problem
    if not named:
        raise DeclarationError("Engine(problems=[]) has nothing to do; declare a Problem")
    return named


def graph_nodes(problems: Mapping[str, Problem], streams: tuple[str, ...]) -> list[Node]:
    """The problems as the graph sees them, every read resolved."""
    for stream in streams:
        if stream in problems or stream == TICK:
            raise DeclarationError(
                f"data stream '{stream}' has the name of "
                f"{'the present tick' if stream == TICK else 'a problem'}; rename the stream"
            )
    return [_node(problem, problems, streams) for problem in problems.values()]


def _node(problem: Problem, problems: Mapping[str, Problem], streams: tuple[str, ...]) -> Node:
    known = (*problems, *streams, TICK)
    for read in problem.reads.names:
        if read not in known:
            raise ReadError(
                f"problem '{problem.name}': its loss reads '{read}', which is neither a problem "
                f"nor a data stream{nearest(read, known)} (problems: {listed(problems)}; streams: "
                f"{listed(streams)}); declare it, or give the argument a default",
                problem=problem.name,
            )
    reads = tuple(r for r in problem.reads.names if r in problems)
    level = {name: i for i, name in enumerate(problems)}
    for argument in ("constant", "updates_buffers"):
        for name in getattr(problem, argument):
            if name not in reads or name == problem.name:
                raise GraphError(
                    f"problem '{problem.name}': {argument}= names '{name}', which its loss does "
                    f"not read as another problem{nearest(name, reads)} (it reads {listed(reads)})",
                    problem=problem.name,
                )
    for name in problem.constant:
        if level[name] > level[problem.name]:
            raise GraphError(
                f"problem '{problem.name}': constant= names '{name}', which is above it and a "
                "constant already; cut the route in the upper problem",
                problem=problem.name,
            )
    return Node(
        problem.name,
        reads,
        tuple(r for r in problem.reads.names if r in streams),
        frozenset(problem.constant),
        type(problem.hypergradient).__name__,
    )


def check_streams(problems: Mapping[str, Problem], streams: tuple[str, ...]) -> None:
    """Every stream is read, and every stream that a scheduler follows exists."""
    read = {r for problem in problems.values() for r in problem.reads.names}
    for stream in streams:
        if stream not in read:
            raise DeclarationError(
                f"data stream '{stream}' is read by no loss{nearest(stream, read)}; name it in a "
                "loss or leave it out of data="
            )
    for problem in problems.values():
        if problem.scheduler_every is not None and problem.scheduler_every not in streams:
            raise DeclarationError(
                f"problem '{problem.name}': scheduler_every='{problem.scheduler_every}' is no data "
                f"stream{nearest(problem.scheduler_every, streams)} (streams: {listed(streams)})",
                problem=problem.name,
            )


def check_sharing(problems: Mapping[str, Problem], variables: Variables) -> None:
    """No variable of one problem sits in the module of another."""
    owner: dict[int, tuple[str, str]] = {}
    for name, own in variables.items():
        for key, p in own.items():
            owner[p.data_ptr() or id(p)] = (name, key)
    for name, problem in problems.items():
        for key, p in problem.module.named_parameters():
            other, other_key = owner.get(p.data_ptr() or id(p), (name, key))
            if other != name:
                raise ParameterError(
                    f"problems '{other}' and '{name}' share a parameter ('{other_key}' and "
                    f"'{key}'); each variable belongs to one problem. Copy the module, or let one "
                    "problem read the other",
                    problem=name,
                )


def check_methods(problems: Mapping[str, Problem], graph: DependencyGraph) -> None:
    """Every method can serve where it was put, and no upper problem is left without an answer."""
    for name, problem in problems.items():
        if _needs_closure(problem.optimizer):
            raise MethodError(
                f"problem '{name}': optimizer {type(problem.optimizer).__name__} needs a closure, "
                "which the engine does not drive; use one whose step() takes none, such as Adam",
                problem=name,
            )
        if name in graph.responding:
            _check_method(problem, graph)
    for name in graph.names:
        scope = graph.scope(name)
        direct = all(isinstance(problems[n].hypergradient, Direct) for n in scope)
        if name not in problems[name].reads.names and direct:
            raise GraphError(
                f"problem '{name}': its loss does not read itself, and every problem below it "
                f"({listed(sorted(scope))}) has hypergradient=Direct(), which answers nothing: its "
                "gradient would be zero for ever. Choose another method, such as OneStep()",
                problem=name,
            )


def _check_method(problem: Problem, graph: DependencyGraph) -> None:
    name, method = problem.name, problem.hypergradient
    kind = type(method).__name__
    if "optimizer" in method.needs and not knows(problem.optimizer):
        raise MethodError(
            f"problem '{name}': hypergradient={kind} needs the derivative of the optimizer's "
            f"update, which is known for {', '.join(known_names())} and not for "
            f"{type(problem.optimizer).__name__}; choose one of these optimizers, or an implicit "
            "method such as Neumann(alpha=...) or ConjugateGradient()",
            problem=name,
        )
    if isinstance(method, Implicit) and problem.project is not None:
        raise MethodError(
            f"problem '{name}': hypergradient={kind} takes the gradient to be zero at the "
            "solution, which fails where project= holds parameters at a bound; use OneStep() or "
            "FiniteDifference(), which differentiate the projected move",
            problem=name,
        )
    for reader in graph.names:
        if not graph.anticipates(reader):
            continue
        if (name == reader or name in graph.scope(reader)) and not method.differentiable:
            raise MethodError(
                f"problem '{name}': '{reader}' anticipates its response and is itself "
                f"differentiated through, so hypergradient={kind} would have to be differentiated "
                "again, which it cannot; choose Neumann, ConjugateGradient or Dense",
                problem=name,
            )


def _needs_closure(optimizer: torch.optim.Optimizer) -> bool:
    step = inspect.signature(type(optimizer).step).parameters
    return "closure" in step and step["closure"].default is inspect.Parameter.empty
