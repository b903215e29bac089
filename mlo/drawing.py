"""The dependency graph drawn as text and as Mermaid."""

from __future__ import annotations

from typing import Any

from mlo.graph import DependencyGraph
from mlo.nesting import NESTED, depth, solves

MEANING = {
    "staged": "staged: responds to those above; its condition is its plain gradient",
    "anticipating": "anticipating: responds to those above and reads responses to itself",
    "upper": "upper: reads responses to itself; nobody differentiates through it",
    "plain": "plain: nobody differentiates through it",
}


def as_text(graph: DependencyGraph) -> str:
    """Levels from the highest down; a response runs along ``<~``, none along ``<-``."""
    lines = []
    for name in reversed(graph.names):
        node = graph.nodes[name]
        method = f" by {node.method}" if name in graph.responding and node.method else ""
        lines.append(f"level {graph.level[name]}  {name} [{graph.kind(name)}{method}]")
        for read in node.reads:
            if read != name:
                lines.append(f"           {_arrow(graph, read, name)}")
        if node.streams:
            lines.append(f"           streams: {', '.join(node.streams)}")
        if name in graph.responding and node.retained:
            lines.append(f"           retained: {node.retained}")
        if graph.scope(name):
            lines.append(f"           costs: {_costs(graph, name)}")
    kinds = dict.fromkeys(graph.kind(n) for n in reversed(graph.names))
    legend = [*(MEANING[kind] for kind in kinds), "<~ a hypergradient runs along it, <- none does"]
    if "anticipating" in kinds:
        legend.append(f"nested={graph.nested}: {NESTED[graph.nested]}")
    return "\n".join([*lines, "", *legend])


def _costs(graph: DependencyGraph, name: str) -> str:
    each = [f"{count} of {' and '.join(group)}" for group, count in solves(graph, name).items()]
    work = graph.products(name)
    word = "at most" if depth(graph, name) <= 3 else "about"
    many = "product" if work == 1 else "products"
    bound = "products unknown" if work is None else f"{word} {work} {many}"
    return f"{bound} (responses: {', '.join(each)})"


def _arrow(graph: DependencyGraph, read: str, name: str) -> str:
    if graph.responds(read, name):
        return f"<~ {read} (response)"
    if graph.level[read] == graph.level[name] and not graph.through(read, name):
        return f"<- {read} (same level; constant)"
    if read in graph.nodes[name].start_only & graph.nodes[name].constant:
        return f"<- {read} (begins from it; constant)"
    if read in graph.nodes[name].constant:
        return f"<- {read} (response cut by constant=)"
    uppers = ", ".join(graph.through(read, name))
    if uppers:
        return f"<~ {read} (response to {uppers}; constant to {name} itself)"
    what = "upper variable" if graph.level[read] > graph.level[name] else "constant"
    begins = "; begins from it" if read in graph.nodes[name].start_only else ""
    return f"<- {read} ({what}{begins})"


def as_plain(graph: DependencyGraph) -> dict[str, Any]:
    """Problems from the lowest, and edges from what is read to who reads it.

    ::

        {"problems": [{"name", "level", "kind", "method", "streams"}],
         "edges": [{"read", "by", "response"}]}

    `method` is `None` where nobody differentiates through the problem; `response` says whether a
    hypergradient runs along the edge.
    """
    problems = [
        {
            "name": name,
            "level": graph.level[name],
            "kind": graph.kind(name),
            "method": graph.nodes[name].method if name in graph.responding else None,
            "streams": list(graph.nodes[name].streams),
        }
        for name in graph.names
    ]
    edges = [
        {"read": read, "by": name, "response": bool(graph.through(read, name))}
        for name, node in graph.nodes.items()
        for read in node.reads
        if read != name
    ]
    return {"problems": problems, "edges": edges}


def as_mermaid(graph: DependencyGraph) -> str:
    """A top-down flow chart: thick arrows where a response runs, thin ones elsewhere."""
    lines = ["flowchart BT"]
    # Prefixes, because a name may be a reserved word, or that of a problem and a stream.
    for name in graph.names:
        lines.append(f'    problem_{name}["{name}<br/>{graph.kind(name)}"]')
    for name, node in graph.nodes.items():
        for read in node.reads:
            if read != name:
                arrow = "==>" if graph.through(read, name) else "-->"
                lines.append(f"    problem_{read} {arrow} problem_{name}")
        for stream in node.streams:
            lines.append(f"    data_{stream}[({stream})] -.-> problem_{name}")
    return "\n".join(lines)
