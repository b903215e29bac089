"""What must hold of a dependency graph."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlo.errors import GraphError, listed

if TYPE_CHECKING:
    from mlo.graph import DependencyGraph, Node


def check_graph(graph: DependencyGraph) -> None:
    """Everybody reads or is read, depends on itself, and answers in some order.

    Raises:
        GraphError: a problem does not; the message says why.
    """
    for name, node in graph.nodes.items():
        others = [n for n in graph.nodes.values() if n is not node]
        reads_others = any(r != name for r in node.reads)
        if others and not reads_others and not any(name in o.reads for o in others):
            raise GraphError(
                f"problem '{name}' neither reads another problem nor is read by one; name it "
                "in a loss, or run it in an engine of its own",
                problem=name,
            )
        if name not in node.reads and not graph.scope(name):
            raise GraphError(_unanswered(graph, node), problem=name)
        for group in graph.groups(name):
            if len({graph.level[n] for n in group}) > 1:
                raise GraphError(
                    f"problem '{name}': {listed(group)} are on several levels, depend on each "
                    "other in a circle, and all answer to it; put them on one level, or cut a "
                    "route by constant=",
                    problem=name,
                )


def twice_named(name: str) -> GraphError:
    """What to raise where two problems have one name."""
    return GraphError(
        f"two problems are called '{name}'; give each a name of its own", problem=name
    )


def _unanswered(graph: DependencyGraph, node: Node) -> str:
    below = [r for r in node.reads if graph.level[r] < graph.level[node.name]]
    found = (
        f"it reads {listed(below)} from below, but none of these reads '{node.name}' back "
        "(directly or through problems below it), or the route is cut by constant="
        if below
        else "it reads no problem below it"
    )
    begun = [n.name for n in graph.nodes.values() if node.name in n.start_only & n.constant]
    if begun:
        found += (
            f". The start of {listed(begun)} reads it, but a solution does not depend on where its "
            "search began: there choose OneStep(), which differentiates the move from the start, "
            f"or let the loss read '{node.name}' too, as implicit MAML does"
        )
    return (
        f"problem '{node.name}': its loss cannot depend on its own parameters: it does not read "
        f"itself, and {found}. Name '{node.name}' in the loss of a lower problem and that problem "
        "in this loss, and list the lower problem first"
    )
