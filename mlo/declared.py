"""From declared problems to the nodes of the graph, every read resolved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mlo.errors import DeclarationError, GraphError, ReadError, listed, nearest
from mlo.graph import Node
from mlo.graph_checks import twice_named
from mlo.hypergradients import Hypergradient
from mlo.problem import Problem
from mlo.reads import TICK

Levels = Sequence["Problem | Sequence[Problem]"]
"""Problems, lowest first; those in a list of their own share a level."""


def by_name(problems: Levels) -> tuple[dict[str, Problem], dict[str, int]]:
    """Name -> problem, each name once and lowest first, and name -> level.

    Raises:
        DeclarationError: there is something else in the list, or nothing.
        GraphError: two problems have one name.
    """
    if isinstance(problems, Problem) or not isinstance(problems, Sequence):
        raise DeclarationError(
            "Engine(problems=...) must be a list of mlo.Problem, lowest level first, got "
            f"{type(problems).__name__}; write [{getattr(problems, 'name', 'problem')}]"
        )
    named: dict[str, Problem] = {}
    levels: dict[str, int] = {}
    for level, entry in enumerate(problems):
        for problem in entry if isinstance(entry, list | tuple) else [entry]:
            if not isinstance(problem, Problem):
                raise DeclarationError(
                    "Engine(problems=...) must be a list of mlo.Problem, lowest level first, with "
                    "problems of one level in a list of their own; found "
                    f"{type(problem).__name__} in it"
                )
            if problem.name in named:
                raise twice_named(problem.name)
            named[problem.name], levels[problem.name] = problem, level
    if not named:
        raise DeclarationError("Engine(problems=[]) has nothing to do; declare a Problem")
    return named, levels


def graph_nodes(
    problems: Mapping[str, Problem],
    levels: Mapping[str, int],
    streams: tuple[str, ...],
    *,
    lookahead: bool,
) -> list[Node]:
    """The problems as the graph sees them.

    Raises:
        DeclarationError: a stream has the name of a problem or a reserved one.
        ReadError: a loss reads what is neither a problem nor a stream.
        GraphError: a problem names what its loss does not read, or cuts what is constant anyway.
    """
    for stream in streams:
        if stream in problems or stream == TICK:
            raise DeclarationError(
                f"data stream '{stream}' has the name of "
                f"{'the present tick' if stream == TICK else 'a problem'}; rename the stream"
            )
    return [_node(p, problems, levels, streams, lookahead) for p in problems.values()]


def _node(
    problem: Problem,
    problems: Mapping[str, Problem],
    levels: Mapping[str, int],
    streams: tuple[str, ...],
    lookahead: bool,
) -> Node:
    begun = problem.start_reads.names if problem.start_reads else ()
    _check_reads(problem, problem.reads.names, "loss", problems, streams)
    _check_reads(problem, begun, "start=", problems, streams)
    names = dict.fromkeys((*problem.reads.names, *(r for r in begun if r != problem.name)))
    reads = tuple(r for r in names if r in problems)
    _check_names(problem, reads, levels)
    method, level = problem.hypergradient, levels[problem.name]
    start_only = frozenset(r for r in reads if r not in problem.reads.names)
    size = sum(p.numel() for p in problem.variables().values())
    recorded = "moves" in method.needs
    # A solution does not depend on where its search began.
    cut = frozenset() if recorded else start_only
    return Node(
        problem.name,
        reads,
        tuple(r for r in names if r in streams),
        frozenset(problem.constant) | cut,
        start_only,
        level,
        recorded,
        type(method).__name__,
        _retained(method, lookahead),
        method.work(size),
        size,
        method.work,
    )


def _check_reads(
    problem: Problem,
    names: Sequence[str],
    kind: str,
    problems: Mapping[str, Problem],
    streams: tuple[str, ...],
) -> None:
    known = (*problems, *streams, TICK)
    for read in names:
        if read not in known:
            raise ReadError(
                f"problem '{problem.name}': its {kind} reads '{read}', which is neither a problem "
                f"nor a data stream{nearest(read, known)} (problems: {listed(problems)}; streams: "
                f"{listed(streams)}); declare it, or give the argument a default",
                problem=problem.name,
            )


def _check_names(problem: Problem, reads: tuple[str, ...], levels: Mapping[str, int]) -> None:
    """What `constant=` and `updates_buffers=` name is read, and `constant=` cuts something."""
    for argument in ("constant", "updates_buffers"):
        for name in getattr(problem, argument):
            seen = problem.reads.names if argument == "updates_buffers" else reads
            if name not in seen or name not in reads or name == problem.name:
                raise GraphError(
                    f"problem '{problem.name}': {argument}= names '{name}', which its loss does "
                    f"not read as another problem{nearest(name, reads)} (it reads {listed(reads)})",
                    problem=problem.name,
                )
    for name in problem.constant:
        if levels[name] > levels[problem.name] and name in problem.reads.names:
            raise GraphError(
                f"problem '{problem.name}': constant= names '{name}', which is above it and a "
                "constant already; cut the route in the upper problem",
                problem=problem.name,
            )


def _retained(method: Hypergradient, lookahead: bool) -> str:
    move = "its trial move while others look at it, else its last" if lookahead else "its last move"
    if "moves" in method.needs and method.reach != 1:
        updates = "the updates of its last move"
        if method.reach is not None:
            updates = f"its last {method.reach} updates"
        return f"{updates}: parameters, optimizer state, batch and random state before each"
    if "moves" in method.needs:
        return f"{move}: parameters, batch and random state before it"
    return f"{move}: batch and random state"
