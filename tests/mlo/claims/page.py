"""docs/proven.md, from fresh measurements.

Only what is the same on every machine is written: one digit of errors and bounds, and nothing of
what is below `FLOOR`, where rounding is.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from mlo.records import Outcome

from .claims import ALL, DAMPING, FORMS, NESTED, RADIUS, RATE, REACH, SEEDS, STOP, TERMS, TICKS
from .convergence import SWEEPS
from .hard import AT_SADDLES, AT_SINGULAR, INDEFINITE, RIGHT_AT_SADDLES, SINGULAR, outcomes
from .measured import LOST, worst
from .narrow import DTYPES, PROBLEMS, allowed_narrow, claimed
from .narrow import SEEDS as NARROW_SEEDS

PATH = Path(__file__).parents[3] / "docs" / "proven.md"
FLOOR = 1e-7

GROUPS = (
    ("Dense", "CG", "CG, n = 3", "Minres", "Minres, n = 3"),
    ("Neumann", "Neumann, auto", "Nystrom"),
    ("OneStep", "FD, central", "FD, forward", "Sama"),
    (f"Unrolled, {REACH}", "ForwardMode", "Direct"),
)

HEAD = """# What is proven

Every method on every closed form that it claims. The tests write this page from fresh
measurements, and compare it with them in every run: `MLO_WRITE_DOCS=1 pytest
tests/mlo/claims/test_page.py` writes it anew.

## Errors and bounds

A cell is *error / bound*. Errors are relative to the response: 1 is that of leaving it out. The
bound is what the theory of the method allows, and rounding ({lost:.0f} units of float64 a product,
times the condition number). *exact*: error and bound are below {floor}. Each number is the largest
of {draws} draws, of which every one is within its bound; a dash is no claim.

Learning rate and `alpha` are {rate}; `Neumann(terms={terms})`; CG and Minres stop at a residual of
{stop}, or after 20 iterations, or 3 (*n = 3*); `Nystrom(rank=20, damping={damping})` is of full
rank; the radius of differences (FD: `FiniteDifference`) is {radius}. Methods that solve stand at
the solution. Those that differentiate recorded moves have made {ticks} of them from elsewhere, and
answer with the derivative of the last one, of the last {reach} (`Unrolled`) or of all
(`ForwardMode`); their errors are against that derivative. What a solver answers that was stopped
early, or damped, is compared with a textbook's answer as well, and agrees to rounding.
"""

HARD = """## Hessians that are indefinite or singular

One problem whose Hessian has the eigenvalues {0} or {1}. *right* is the answer of the
implicit function theorem, which holds at a saddle too. A singular Hessian has no answer: *limit*
goes with a residual above the tolerance. `Nystrom` solves the damped system, which is regular.
Methods that differentiate recorded moves solve nothing, and are exact on both.
"""

CONVERGENCE = """## Convergence

Systems of 8 unknowns with eigenvalues from 1/30 to 1 (Nystrom: 10, from 1e-4; d its damping, e the
norm of H - H_k); differences on the lfm-shaped form. Errors are relative to that of the answer
zero, in the norm that the law is about. *share* is the largest part of its law that an error takes
at any setting: 1.0 for an equality. Every setting in between is tested.
"""

NARROW = """## Float32 and bfloat16

What rounding may do, relative to the response: one unit of the dtype a product, times the condition
number, the largest of {0} draws of {1}.
Every error is within it, against what the method answers in exact numbers. Differences take their
default radius, and their bias is included. `FiniteDifference(scheme="forward")` claims no bfloat16:
its bias at a radius of 1 may exceed the response, and `check=True` says so.
"""


def _number(value: float) -> str:
    """One digit."""
    if value < FLOOR:
        return "exact"
    digit = f"{value:.0e}"
    mantissa, exponent = digit.split("e")
    return f"{float(digit):g}" if -3 <= int(exponent) <= 1 else f"{mantissa}e{int(exponent)}"


SETTINGS = {
    "lost": LOST,
    "floor": _number(FLOOR),
    "draws": len(SEEDS),
    "rate": RATE,
    "terms": TERMS,
    "stop": f"1e{round(np.log10(STOP))}",
    "damping": DAMPING,
    "radius": RADIUS,
    "ticks": TICKS,
    "reach": REACH,
}


def page() -> str:
    """The whole page."""
    low, bad = (", ".join(f"{mu:g}" for mu in spectrum) for spectrum in (INDEFINITE, SINGULAR))
    names = ", ".join(PROBLEMS)
    parts = [
        HEAD.format(**SETTINGS),
        theories(),
        *map(errors, GROUPS),
        HARD.format(low, bad),
        hard(),
        CONVERGENCE,
        convergence(),
        NARROW.format(len(NARROW_SEEDS), names),
        narrow_table(),
    ]
    return "\n".join(parts)


def theories() -> str:
    """What bounds each method, of each pair of settings once."""
    words = {claim.words: claim.label for claim in reversed(ALL.values())}
    rows = [(label, text) for text, label in reversed(words.items())]
    return table(("method", "what its bound is, at most"), rows)


def errors(labels: Sequence[str]) -> str:
    """Problems by methods."""
    rows = [(problem, *(_cell(label, problem) for label in labels)) for problem in FORMS]
    return table(("problem", *labels), rows)


def hard() -> str:
    """The outcomes that are expected, where all that were met are among them."""
    rows = []
    for label in AT_SINGULAR:
        assert outcomes(label, SINGULAR) <= AT_SINGULAR[label]
        at = "right" if label in RIGHT_AT_SADDLES else _words({AT_SADDLES[label]})
        rows.append((label, at, _words(AT_SINGULAR[label])))
    return table(("method", "indefinite", "singular"), rows)


def convergence() -> str:
    rows = []
    for sweep in SWEEPS:
        draws = [sweep.points(seed) for seed in SEEDS]
        ends = draws[0][0].knob, draws[0][-1].knob
        knob = f"{sweep.knob} = {_knob(ends[0])} to {_knob(ends[1])}"
        if sweep.rounded:
            rows.append((sweep.label, knob, sweep.law, "within", "-"))
            continue
        first, last = (_number(max(points[i].error for points in draws)) for i in (0, -1))
        share = max(point.share for points in draws for point in points)
        rows.append((sweep.label, knob, sweep.law, f"{first} to {last}", f"{share:.1f}"))
    return table(("method", "knob", "law", "error", "share"), rows)


def narrow_table() -> str:
    rows = []
    for label in claimed():
        limits = [allowed_narrow(label, dtype) for dtype in DTYPES.values()]
        rows.append((label, *map(_number, limits)))
    return table(("method", *DTYPES), rows)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Markdown with columns of one width."""
    lines = [list(head), *map(list, rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    lines.insert(1, ["-" * width for width in widths])
    made = (
        "| " + " | ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)) + " |"
        for line in lines
    )
    return "\n".join(made) + "\n"


def _cell(label: str, problem: str) -> str:
    if problem not in ALL[label].problems():
        assert problem in NESTED
        return "-"
    error, bound = worst(label, problem)
    if bound < FLOOR:
        return "exact"
    return f"{_number(error)} / {_number(bound)}"


def _words(found: set[Outcome]) -> str:
    return " or ".join(sorted(outcome.name.lower().replace("_", " ") for outcome in found))


def _knob(value: float) -> str:
    return f"{value:g}" if value < 1e4 else f"1e{round(np.log10(value))}"
