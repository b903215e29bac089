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


def solves(graph: DependencyGraph, name: str) -> dict[str, int]:
    """Solves that one total gradient of `name` takes, about, problem by problem.

    One for each problem of its scope. A product with the condition of an anticipating problem takes
    a tangent and an adjoint solve for each problem of its own scope, so costs multiply with depth:
    with K products a solve, a chain of L levels takes about K (2 K)^(L - 2) at the lowest.
    """
    found: dict[str, int] = {}
    for other in graph.order(name):
        found[other] = found.get(other, 0) + 1
        inner = 1 if graph.nested == "partial" else 2 * (graph.nodes[other].work or 1)
        for below, count in solves(graph, other).items():
            found[below] = found.get(below, 0) + inner * count
    return found


def products(graph: DependencyGraph, name: str) -> int | None:
    """Products with the conditions of staged problems that one total gradient of `name` takes.

    About, and at most: iterative solvers may stop earlier. `None` where a method does not say.
    """
    total = 0
    for other, count in solves(graph, name).items():
        work = graph.nodes[other].work
        if work is None:
            return None
        total += 0 if graph.scope(other) else count * work
    return total
