"""What the options for anticipating problems leave out, and what a nested hypergradient costs."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlo.graph import DependencyGraph

NESTED = {
    "exact": "nothing is left out",
    "projected": "the answers that an anticipating problem reads count as linear; third-order "
    "terms are left out",
    "partial": "an anticipating problem answers as if those below it did not answer to it",
}
"""Options for the response of an anticipating problem, and what each leaves out."""

Group = tuple[str, ...]
"""One problem, or several that answer together."""


def solves(graph: DependencyGraph, name: str) -> dict[Group, int]:
    """Solves that one total gradient of `name` takes, about, group by group.

    One for each group of its scope. A product with the condition of an anticipating problem takes
    a tangent and an adjoint solve for each group of its own scope, so costs multiply with depth:
    with K products a solve, a chain of L levels takes about K (2 K)^(L - 2) at the lowest.
    """
    found: dict[Group, int] = {}
    for group in graph.groups(name):
        found[group] = found.get(group, 0) + 1
        inner = 1 if graph.nested == "partial" else 2 * (work_of(graph, group) or 1)
        for member in group:
            for below, count in solves(graph, member).items():
                found[below] = found.get(below, 0) + inner * count
    return found


def products(graph: DependencyGraph, name: str) -> int | None:
    """Products with the conditions of staged problems that one total gradient of `name` takes.

    At most, for up to four levels: iterative solvers may stop earlier. About, for more (five take
    1.2 times as many). `None` where a method does not say. Third derivatives are not counted.
    """
    try:
        return sum(_response(graph, group) for group in graph.groups(name))
    except _Unknown:
        return None


def depth(graph: DependencyGraph, name: str) -> int:
    """How many levels of responses lie below `name`, one answering through the other."""
    return max((1 + depth(graph, n) for n in graph.order(name)), default=0)


class _Unknown(Exception):  # noqa: N818  (it never leaves this file)
    """A method does not say how much it works."""


def _response(graph: DependencyGraph, group: Group) -> int:
    """One response: the condition's gradient with its graph, and one solve."""
    return _linearization(graph, group) + _solve(graph, group)


def _linearization(graph: DependencyGraph, group: Group) -> int:
    """A gradient that will be differentiated: the responses in it are made twice over."""
    if graph.nested == "partial":
        return sum(_response(graph, below) for below in _below(graph, group))
    total = 0
    for below in _below(graph, group):
        again = _linearization(graph, below) + _solve(graph, below) + 2 * _product(graph, below)
        total += _response(graph, below) + (again if _below(graph, below) else 1)
    return total


def _solve(graph: DependencyGraph, group: Group) -> int:
    work = work_of(graph, group)
    if work is None:
        raise _Unknown
    return work * _product(graph, group) if graph.nested != "partial" else _partial(graph, group)


def _partial(graph: DependencyGraph, group: Group) -> int:
    """With `partial` a product does not reach those below."""
    return 0 if _below(graph, group) else work_of(graph, group) or 0


def _product(graph: DependencyGraph, group: Group) -> int:
    """A tangent and an adjoint solve for each group below, and its third derivatives."""
    below = _below(graph, group)
    third = 4 if graph.nested == "exact" else 0
    nested = sum(third * _product(graph, b) for b in below if _below(graph, b))
    return nested + 2 * sum(_solve(graph, b) for b in below) if below else 1


def _below(graph: DependencyGraph, group: Group) -> list[Group]:
    """The groups that answer to a member."""
    return list(dict.fromkeys(g for member in group for g in graph.groups(member)))


def work_of(graph: DependencyGraph, group: Group) -> int | None:
    """Products of one solve of a group; together they have the parameters of all."""
    nodes = [graph.nodes[name] for name in group]
    if len(nodes) == 1:
        return nodes[0].work
    joint = nodes[0].joint_work
    return None if joint is None else joint(sum(node.size for node in nodes))
