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

    About, and at most: iterative solvers may stop earlier. `None` where a method does not say.
    """
    total = 0
    for group, count in solves(graph, name).items():
        work = work_of(graph, group)
        if work is None:
            return None
        total += 0 if any(graph.scope(member) for member in group) else count * work
    return total


def work_of(graph: DependencyGraph, group: Group) -> int | None:
    """Products of one solve of a group; together they have the parameters of all."""
    nodes = [graph.nodes[name] for name in group]
    if len(nodes) == 1:
        return nodes[0].work
    joint = nodes[0].joint_work
    return None if joint is None else joint(sum(node.size for node in nodes))
