"""The picture of the page: conjugate gradients by iterations, and the three levels by kappa."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.audit import reference, three_levels
from benchmarks.audit.cases import ITERATIONS
from benchmarks.audit.problems import problems

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LINES = {
    "mlo-engine": ("ConjugateGradient", "o", 11),
    "torchopt": ("cg", "s", 8),
    "jaxopt": ("cg", "D", 5),
    "betty-ml": ("cg", "v", 9),
    "hypergrad": ("conjugate_gradient", "^", 5),
    "boat-torch": ("CG", "x", 8),
}
"""Library -> its conjugate gradients; marker and size, so that equal curves show both."""

NESTED = (
    ("mlo-engine", "exact", "o", 11),
    ("optimistix", "lu", "s", 8),
    ("jaxopt", "cg", "D", 5),
    ("betty-ml", "darts, darts", "v", 8),
    ("betty-ml", "neumann, darts", "^", 8),
)
"""Libraries and their methods for three levels, with marker and size."""

CURVES = {
    "exact": ("-", "exact"),
    "partial": ("--", "own second derivatives only"),
    "routes": (":", "and without the lowest level's answer"),
}


def svg(results: dict[str, Any]) -> str:
    """The picture; the same results give the same text."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context({"svg.hashsalt": "audit", "font.size": 9}):
        figure = Figure(figsize=(9.5, 3.8), layout="constrained")
        left, right = figure.subplots(1, 2)
        _iterations(left, results["rows"])
        _levels(right, results["rows"])
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None})
    # Spaces at the ends of lines come with the paths.
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines()) + "\n"


def _iterations(axes: Axes, rows: list[dict[str, Any]]) -> None:
    quadratic = problems()["quadratic"]
    whole = reference.solution(quadratic)
    right = [
        reference.value(quadratic, ("conjugate gradients", {"iterations": n})) for n in ITERATIONS
    ]
    gaps = [np.linalg.norm(value - whole) / np.linalg.norm(whole) for value in right]
    axes.plot(ITERATIONS, gaps, color="0.6", linewidth=5, alpha=0.5, label="numpy, by definition")
    for library, (method, marker, size) in LINES.items():
        found = {
            row["algorithm"][1]["iterations"]: float(row["off_solution"])
            for row in rows
            if (row["library"], row["problem"], row["method"]) == (library, "quadratic", method)
            and 0.1 not in row["settings"].values()  # at their default scale
            and "off_solution" in row
        }
        style: dict[str, Any] = {
            "marker": marker,
            "markersize": size,
            "linewidth": 0.8,
            "fillstyle": "none",
        }
        axes.plot(list(found), list(found.values()), label=library, **style)
    axes.set(yscale="log", xlabel="iterations", ylabel="relative error of the hypergradient")
    axes.set_title("conjugate gradients, 6 parameters")
    axes.legend(fontsize=7)


def _levels(axes: Axes, rows: list[dict[str, Any]]) -> None:
    kappas = np.linspace(0, 0.55, 56)
    known = [three_levels.hypergradients(three_levels.problem(2.0, k)) for k in kappas]
    for name, (dashes, label) in CURVES.items():
        axes.plot(kappas, [values[name] for values in known], dashes, color="0.5", label=label)
    for library, method, marker, size in NESTED:
        found = {
            problems()[row["problem"]]["kappa"]: float(row["hypergradient"][0])
            for row in rows
            if (row["library"], row["method"]) == (library, method)
            and row["problem"].startswith("three levels, kappa")
            and "hypergradient" in row
        }
        style: dict[str, Any] = {
            "marker": marker,
            "markersize": size,
            "linestyle": "none",
            "fillstyle": "none",
        }
        axes.plot(list(found), list(found.values()), label=f"{library} ({method})", **style)
    axes.set(xlabel="kappa", ylabel="hypergradient at x = 2")
    axes.set_title("three nested levels of one number each")
    axes.legend(fontsize=7)
