"""What was looked for in betty-ml, on two levels."""

from __future__ import annotations

import math

import numpy as np

from benchmarks.audit.cases import RATE
from benchmarks.audit.claims import (
    ROUNDING,
    SMALL,
    Finding,
    Measured,
    Rows,
    listed,
    raises,
    stale_but_first,
    with_old_residual,
    word,
)
from benchmarks.audit.problems import problems
from benchmarks.audit.reference import distance, value

BETTY = "betty-ml"
DEFAULT = "`darts` (the default)"


def _stale(rows: Rows) -> Measured:
    offs = [rows.off(BETTY, "quadratic", "cg", cg_iterations=n) for n in (1, 2, 3, 6, 12)]
    last = rows.found(BETTY, "quadratic", "cg", cg_iterations=12)
    gap = distance(last, with_old_residual(12))
    words = listed("off after 1, 2, 3, 6, 12 iterations", offs)
    return f"{words}; equal to that formula to {gap:.0e}", stale_but_first(offs) and gap < ROUNDING


def _scale(rows: Rows) -> Measured:
    ns = (1, 3, 6, 12)
    offs = [rows.off(BETTY, "quadratic", "cg", cg_iterations=n, cg_alpha=0.1) for n in ns]
    plain = rows.off(BETTY, "quadratic", "cg", cg_iterations=6)
    holds = offs[2] > 1.1 * plain and offs[3] > offs[2]
    return listed("off after 1, 3, 6, 12 iterations", offs), holds


def _breakdown(rows: Rows) -> Measured:
    first = rows.found(BETTY, "answered", "cg", cg_iterations=6)
    second = rows.found(BETTY, "one curvature", "cg", cg_iterations=20)
    words = f"right-hand side 0: {word(first)}; H = 2 I, 20 iterations: {word(second)}"
    return words, bool(np.isnan(first).all() and np.isnan(second).all())


def _series(rows: Rows) -> Measured:
    both = [
        rows.off(BETTY, "quadratic", "neumann", neumann_iterations=n, neumann_alpha=RATE)
        for n in (10, 100)
    ]
    return listed("off after 10, 100 iterations", both), max(both) < ROUNDING


def _divergence(rows: Rows) -> Measured:
    row = rows.answered(BETTY, "quadratic", "neumann", neumann_iterations=20)
    off = float(row["off_solution"])
    silent = not row["warnings"]
    said = "no warning" if silent else "a warning"
    return f"{off:.1e} of the solution off after 20 iterations, {said}", off > 1e3 and silent


def _rate(rows: Rows) -> Measured:
    gaps = []
    for method in ("darts", "sama"):
        found = rows.found(BETTY, "quadratic", method, rate=RATE)
        bare = value(problems()["quadratic"], ("scaled", {"rate": 1.0}))
        gaps.append(distance(found, bare))
    words = f"equal to B^T v to {max(gaps):.0e} at a learning rate of {RATE}"
    return words, max(gaps) < ROUNDING


def _detached(rows: Rows) -> Measured:
    off = rows.off(BETTY, "detached", "darts")
    return f"{off:.2f} off; it sees the detached use of w", off > SMALL


def _aliased(rows: Rows) -> Measured:
    found = rows.found(BETTY, "two vectors", "darts")
    first, second = np.split(found, 2)
    exact = np.split(value(problems()["two vectors"], ("scaled", {"rate": 1.0})), 2)[0]
    offs = [distance(part, exact) for part in (first, second)]
    words = f"the first is {offs[0]:.0e} off, the second {offs[1]:.0e}; both should be equal"
    return words, offs[0] < ROUNDING and offs[1] > 1e3


def _nans(rows: Rows) -> Measured:
    moved = rows.answered(BETTY, "nan above", "darts")["moved"]
    gone = math.isnan(float(moved))
    return f"the lower parameters are {'NaN' if gone else 'intact'} after one step", gone


def _masks(rows: Rows) -> Measured:
    off = rows.off(BETTY, "dropout", "darts")
    return f"{off:.0f} times the size of the answer off", off > 10


FINDINGS = (
    Finding(BETTY, "`cg` turns into a direction made of the old residual", _stale),
    Finding(BETTY, "`cg` with `cg_alpha` = 0.1 scales the step, not the residual", _scale),
    Finding(BETTY, "`cg` has no test for breakdown", _breakdown),
    Finding(BETTY, "`neumann` is the series", _series, good=True),
    Finding(BETTY, "`neumann` at its default scale diverges silently at H = 10.2", _divergence),
    Finding(BETTY, "`darts` and `sama` leave the learning rate out", _rate),
    Finding(BETTY, f"{DEFAULT} differentiates through `.detach()`", _detached),
    Finding(BETTY, f"{DEFAULT} divides gradients in place that share storage", _aliased),
    Finding(
        BETTY,
        f"{DEFAULT} fails where a gradient is an expanded view",
        raises("RuntimeError", BETTY, "summed below", "darts"),
    ),
    Finding(BETTY, f"{DEFAULT} lets a NaN from above into the lower parameters", _nans),
    Finding(BETTY, f"{DEFAULT} draws another dropout mask on either side", _masks),
    Finding(
        BETTY,
        "AdamW cannot be used",
        raises("TypeError", BETTY, "quadratic", "darts", rate=RATE, optimizer="AdamW"),
    ),
    Finding(
        BETTY,
        "A frozen parameter cannot be used",
        raises("RuntimeError", BETTY, "frozen", "darts"),
    ),
)
