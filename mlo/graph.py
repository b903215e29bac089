"""The dependency graph: who reads whom, who answers to whom, and in which order.

No tensor is touched here. The vocabulary: i *reads* j where the loss of i names j (edge j -> i);
i reads j *through its response* where j depends on i's parameters, directly or through others,
and as a *constant* otherwise.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

import networkx as nx

from mlo.errors import DeclarationError, listed, nearest
from mlo.graph_checks import check_graph, twice_named
from mlo.nesting import NESTED, products

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Node:
    """One problem as the graph sees it.

    Attributes:
        name: the problem's name.
        reads: the problems that its loss names, itself included where it does.
        streams: the data streams that its loss names.
        constant: what it reads without following its response.
        start_only: what only its start reads, and not its loss.
        level: levels count from 0; by default the place in the list.
        recorded: whether its response is that of its recorded move; those of one level move at
            once, so it contains the answer of none of them.
        method: how its response is computed, for drawings.
        retained: what is kept of it for those above, for drawings.
        work: products that one vector-Jacobian product of its response takes, at most.
        size: how many parameters it has.
        joint_work: `work` as a function of their number, for problems that answer together.
    """

    name: str
    reads: tuple[str, ...]
    streams: tuple[str, ...] = ()
    constant: frozenset[str] = frozenset()
    start_only: frozenset[str] = frozenset()
    level: int | None = None
    recorded: bool = False
    method: str = ""
    retained: str = ""
    work: int | None = None
    size: int = 0
    joint_work: Callable[[int], int | None] | None = None


def _remembered(method: Callable[[DependencyGraph, str], T]) -> Callable[[DependencyGraph, str], T]:
    """Find the answer for each name once; it is kept with the graph and goes with it."""

    @functools.wraps(method)
    def remembering(self: DependencyGraph, name: str) -> T:
        memory = self._memory.setdefault(method.__name__, {})
        if name not in memory:
            memory[name] = method(self, name)
        answer: T = memory[name]
        return answer

    return remembering


class DependencyGraph:
    """Reads between problems, and what follows from them.

    Args:
        nodes: the problems, lowest first.
        nested: what of the response of an anticipating problem is kept (see `NESTED`).

    Raises:
        DeclarationError: there is no such option.
        GraphError: a problem stands alone among several, answers to nobody, or is named twice.
    """

    def __init__(self, nodes: Iterable[Node], *, nested: str = "exact") -> None:
        if nested not in NESTED:
            raise DeclarationError(
                f"Engine(nested=...) must be one of {listed(NESTED)}, got {nested!r}"
                f"{nearest(str(nested), NESTED)}"
            )
        self.nested = nested
        self._memory: dict[str, dict[str, Any]] = {}
        given = list(nodes)
        self.nodes = {node.name: node for node in given}
        twice = [node.name for node in given if self.nodes[node.name] is not node]
        if twice:
            raise twice_named(twice[0])
        self.level = {
            name: place if node.level is None else node.level
            for place, (name, node) in enumerate(self.nodes.items())
        }
        self._live = {
            name: tuple(
                r
                for r in node.reads
                if r != name and r not in node.constant and r not in self._at_once(name)
            )
            for name, node in self.nodes.items()
        }
        reads = {name: node.reads for name, node in self.nodes.items()}
        self._edges, self._live_edges = _reading(reads), _reading(self._live)
        check_graph(self)

    @property
    def names(self) -> tuple[str, ...]:
        """All problems, lowest first."""
        return tuple(self.nodes)

    @_remembered
    def scope(self, name: str) -> frozenset[str]:
        """The problems below `name` that it reads, at any remove, and that depend on it.

        These, and no others, respond to its parameters; every path runs below `name`.
        """
        below = self._live_edges.subgraph([*self._lower(name), name])
        depends = nx.descendants(below, name)
        return frozenset(nx.ancestors(below.subgraph([*depends, name]), name))

    @_remembered
    def support(self, name: str) -> tuple[str, ...]:
        """The problems below `name` that it reads at any remove, by any route; lowest first."""
        reached = nx.ancestors(self._edges.subgraph([*self._lower(name), name]), name)
        return tuple(n for n in self.nodes if n in reached)

    @_remembered
    def context(self, name: str) -> tuple[str, ...]:
        """What the condition of `name` depends on: read by it or by its scope, and outside both."""
        inside = self.scope(name) | {name}
        read = {r for member in inside for r in self._live[member]}
        return tuple(n for n in self.nodes if n in read - inside - self._at_once(name))

    @_remembered
    def surroundings(self, name: str) -> tuple[str, ...]:
        """All problems whose values the total gradient of `name` depends on."""
        inside = self.scope(name) | {name}
        seen = self.scope(name).union(*(self.nodes[member].reads for member in inside))
        return tuple(n for n in self.nodes if n in seen)

    @_remembered
    def carrying(self, name: str) -> frozenset[str]:
        """The part of its context that a hypergradient through `name` may have to reach."""
        uppers = [upper for upper in self.nodes if name in self.scope(upper)]
        reached = frozenset(uppers).union(*(self.scope(upper) for upper in uppers))
        return reached.intersection(self.context(name))

    @_remembered
    def groups(self, name: str) -> tuple[tuple[str, ...], ...]:
        """The scope of `name`, each problem after those in its context.

        Problems that are in each other's contexts answer together, in one group.
        """
        scope, place = self.scope(name), list(self.nodes).index
        among: nx.DiGraph[str] = nx.DiGraph()
        among.add_nodes_from(n for n in self.nodes if n in scope)
        among.add_edges_from((c, n) for n in among.nodes for c in self.context(n) if c in scope)
        joined = nx.condensation(among)
        members = {c: tuple(sorted(joined.nodes[c]["members"], key=place)) for c in joined}
        first = {c: place(names[0]) for c, names in members.items()}
        order = nx.lexicographical_topological_sort(joined, key=first.__getitem__)
        return tuple(members[c] for c in order)

    @_remembered
    def order(self, name: str) -> tuple[str, ...]:
        """The same problem by problem."""
        return tuple(n for group in self.groups(name) for n in group)

    @functools.cached_property
    def responding(self) -> tuple[str, ...]:
        """Problems that somebody above differentiates through, lowest first."""
        scopes = frozenset[str]().union(*(self.scope(n) for n in self.nodes))
        return tuple(n for n in self.nodes if n in scopes)

    def anticipates(self, name: str) -> bool:
        """Whether `name` responds to others and has problems that respond to it."""
        return name in self.responding and bool(self.scope(name))

    def kind(self, name: str) -> str:
        """Its kind: `staged`, `anticipating`, `upper` or `plain`; see `mlo.drawing.MEANING`."""
        if name in self.responding:
            return "anticipating" if self.scope(name) else "staged"
        return "upper" if self.scope(name) else "plain"

    def products(self, name: str) -> int | None:
        """Products with the conditions of staged problems that one total gradient takes, at most.

        A product costs about two gradient evaluations. `None` where a method does not say.
        """
        return products(self, name)

    def to_networkx(self) -> nx.DiGraph[str]:
        """A `DiGraph` with an edge j -> i where i reads j, marked `response` or not."""
        graph: nx.DiGraph[str] = nx.DiGraph()
        for name, node in self.nodes.items():
            graph.add_node(name, level=self.level[name], kind=self.kind(name), streams=node.streams)
        for name, node in self.nodes.items():
            for read in node.reads:
                if read != name:
                    graph.add_edge(read, name, response=self.responds(read, name))
        return graph

    def responds(self, read: str, reader: str) -> bool:
        """Whether `reader` reads `read` through its response."""
        return reader in self.through(read, reader)

    def through(self, read: str, reader: str) -> tuple[str, ...]:
        """The problems whose hypergradient runs along the edge `read` -> `reader`."""
        if read not in self._live[reader]:
            return ()
        scopes = {upper: self.scope(upper) for upper in self.nodes}
        return tuple(
            upper
            for upper, scope in scopes.items()
            if read in scope and (reader == upper or reader in scope)
        )

    def __str__(self) -> str:
        """Levels from the highest down, with what each reads and how."""
        from mlo.drawing import as_text

        return as_text(self)

    def to_mermaid(self) -> str:
        """The graph as a Mermaid flow chart."""
        from mlo.drawing import as_mermaid

        return as_mermaid(self)

    def plain(self) -> dict[str, Any]:
        """The graph as plain values, ready for JSON: problems, and who reads whom."""
        from mlo.drawing import as_plain

        return as_plain(self)

    def peers(self, name: str) -> tuple[str, ...]:
        """The other problems on its level."""
        return tuple(n for n in self.nodes if self.level[n] == self.level[name] and n != name)

    def _at_once(self, name: str) -> frozenset[str]:
        """The peers whose answer the recorded move of `name` cannot contain."""
        return frozenset(self.peers(name) if self.nodes[name].recorded else ())

    def _lower(self, name: str) -> list[str]:
        return [n for n in self.nodes if self.level[n] < self.level[name]]


def _reading(reads: Mapping[str, Iterable[str]]) -> nx.DiGraph[str]:
    """Edges j -> i where i reads j."""
    graph: nx.DiGraph[str] = nx.DiGraph()
    graph.add_nodes_from(reads)
    graph.add_edges_from((j, i) for i, others in reads.items() for j in others if j != i)
    return graph
