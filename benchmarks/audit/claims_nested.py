"""What was looked for where three levels are nested."""

from __future__ import annotations

from benchmarks.audit import three_levels
from benchmarks.audit.cases import KAPPAS
from benchmarks.audit.claims import (
    ROUNDING,
    SMALL,
    Finding,
    Measure,
    Measured,
    Rows,
    listed,
    raises,
)
from benchmarks.audit.problems import problems

BETTY = "betty-ml"


def _names(kappa: float) -> str:
    return f"three levels, kappa {kappa:g}"


def _silent(rows: Rows) -> Measured:
    gaps, shown = [], []
    for kappa in KAPPAS:
        found = float(rows.found(BETTY, _names(kappa), "neumann, darts")[0])
        known = three_levels.hypergradients(problems()[_names(kappa)])
        gaps.append(abs(found - known["routes"]))
        shown.append(f"{found:.4f} for {known['exact']:.4f}")
    words = "; ".join(shown) + f"; equal to the wrong formula below to {max(gaps):.0e}"
    return words, max(gaps) < 1e-5


def _trained(rows: Rows) -> Measured:
    x = float(rows.found(BETTY, "three levels, trained", "darts, darts", steps=3, ticks=4)[0])
    return f"x ends at {x:.6f}, the minimum is at 1", abs(x - 1) > SMALL


def _exact(library: str, method: str) -> Measure:
    def measure(rows: Rows) -> Measured:
        offs = [rows.off(library, _names(kappa), method) for kappa in KAPPAS]
        return listed("off at kappa 0, 0.05, 0.5", offs), max(offs) < ROUNDING

    return measure


FINDINGS = (
    Finding(BETTY, "Three levels: `darts` in the middle is silently another gradient", _silent),
    Finding(BETTY, "Three levels: training converges to another point", _trained),
    Finding(
        BETTY,
        "Three levels: `neumann` refuses to be in the middle",
        raises("AssertionError", BETTY, _names(0.0), "neumann, neumann"),
    ),
    Finding(
        "torchopt",
        "`custom_root` does not nest",
        raises("RuntimeError", "torchopt", _names(0.0), "cg"),
    ),
    Finding("jaxopt", "`custom_root` nests with `solve_cg`", _exact("jaxopt", "cg"), good=True),
    Finding(
        "jaxopt",
        "`custom_root` does not nest with `solve_normal_cg`, the default",
        raises("NotImplementedError", "jaxopt", _names(0.0), "normal cg"),
    ),
    Finding("optimistix", "`root_find` nests", _exact("optimistix", "lu"), good=True),
    Finding("mlo-engine", '`nested="exact"` is exact', _exact("mlo-engine", "exact"), good=True),
)
