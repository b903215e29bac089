"""What was looked for in the other libraries, on two levels."""

from __future__ import annotations

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
from benchmarks.audit.reference import distance, solution, value

HYPERGRAD, BOAT, TORCHOPT = "hypergrad", "boat-torch", "torchopt"


def _stale(rows: Rows) -> Measured:
    offs = [
        rows.off(HYPERGRAD, "quadratic", "conjugate_gradient", num_iters=n, lr=1.0)
        for n in (1, 2, 3, 6, 12)
    ]
    last = rows.found(HYPERGRAD, "quadratic", "conjugate_gradient", num_iters=12, lr=1.0)
    gap = distance(last, with_old_residual(12))
    worse = rows.off(HYPERGRAD, "quadratic", "conjugate_gradient", num_iters=12, lr=0.1)
    words = listed("off after 1, 2, 3, 6, 12 iterations", offs)
    words = f"{words}; equal to that formula to {gap:.0e}; {worse:.1f} after 12 with `lr` = 0.1"
    return words, stale_but_first(offs) and gap < ROUNDING


def _zero(rows: Rows) -> Measured:
    found = rows.found(HYPERGRAD, "answered", "conjugate_gradient", num_iters=6, lr=1.0)
    return f"right-hand side 0: {word(found)}", bool(np.isnan(found).all())


def _sound(rows: Rows) -> Measured:
    series = rows.off(HYPERGRAD, "quadratic", "neumann", num_iters=100, lr=RATE)
    low = rows.off(HYPERGRAD, "quadratic", "nystrom", rank=6, rho=0.001)
    return f"off by {series:.0e} and {low:.0e}", max(series, low) < ROUNDING


def _previous(rows: Rows) -> Measured:
    sizes = ("one parameter", "one curvature", "two parameters")
    offs = [rows.off(BOAT, problem, "CG", k=6, rate=RATE) for problem in sizes]
    offs.append(rows.off(BOAT, "quadratic", "CG", k=6, rate=RATE))
    whole = listed("off for 1 parameter, H = 2 I, 2, 6 parameters", offs)
    five = rows.off(BOAT, "quadratic", "CG", k=5, rate=RATE)
    before = value(problems()["quadratic"], ("conjugate gradients", {"iterations": 5}))
    gap = distance(rows.found(BOAT, "quadratic", "CG", k=6, rate=RATE), before)
    words = f"{whole}; the last is that after 5 iterations to {gap:.0e}"
    return words, min(offs) > SMALL and max(five, gap) < ROUNDING


def _boat_sound(rows: Rows) -> Measured:
    series = rows.off(BOAT, "quadratic", "NS", k=100, rate=RATE)
    settings = {"from": "start", "rate": RATE, "steps": 300}
    unrolled = rows.off(BOAT, "quadratic", "RAD", **settings)
    return f"off by {series:.0e} and {unrolled:.0e}", max(series, unrolled) < ROUNDING


def _truncated(rows: Rows) -> Measured:
    ratios, proper, gaps = [], [], []
    for tracked in (20, 10, 5):
        settings = {"from": "start", "rate": RATE, "steps": 300}
        row = rows.answered(BOAT, "quadratic", "RGT+RAD", truncate=300 - tracked, **settings)
        given = np.array([float(x) for x in row["hypergradient"]])
        cause = _warmed_up(300 - tracked, tracked)
        gaps.append(distance(given, cause))
        right = value(problems()["quadratic"], (row["algorithm"][0], row["algorithm"][1]))
        whole = solution(problems()["quadratic"])
        ratios.append(float(np.linalg.norm(given) / np.linalg.norm(right)))
        proper.append(distance(right, whole))
    first = listed("norm over that of the truncated derivative, 20, 10, 5 steps", ratios)
    words = f"{first}; truncation itself costs {', '.join(f'{p:.2g}' for p in proper)}"
    words = f"{words}; equal to the sum described below to {max(gaps):.0e}"
    return words, min(ratios) > 1.5 and max(gaps) < ROUNDING


def _undefined(rows: Rows) -> Measured:
    off = rows.off(BOAT, "quadratic", "IGA", rate=RATE)
    return f"{off:.0e} off", off > 1e3


def _kept(rows: Rows) -> Measured:
    left = rows.found(BOAT, "bookkeeping", "CG", rate=RATE, iterations=20)[0]
    return f"{left:.0f} results left after `clear()`", left > 0


def _rewritten(rows: Rows) -> Measured:
    ratio = rows.found(BOAT, "bookkeeping", "CG", rate=RATE, iterations=20)[1]
    words = f"{ratio:.1f} times the final file written in 20 iterations"
    return words, ratio > 2


def _second(rows: Rows) -> Measured:
    wanted = solution(problems()["curved"])[1]
    shown, wrong, first = [], [], []
    for method in ("cg", "normal cg", "inverse"):
        found = rows.found(TORCHOPT, "curved", method)
        shown.append(f"{found[1]:.4f}")
        wrong.append(abs(found[1] - wanted) > SMALL)
        first.append(abs(found[0] - solution(problems()["curved"])[0]))
    words = f"{', '.join(shown)} for {wanted:.4f} by `cg`, `normal_cg`, `inv`; no error"
    return f"{words}; the first to {max(first):.0e}", all(wrong) and max(first) < ROUNDING


def _torchopt_sound(rows: Rows) -> Measured:
    offs = [rows.off(TORCHOPT, "quadratic", "cg", maxiter=n, rtol=1e-12) for n in (3, 6)]
    offs += [
        rows.off(TORCHOPT, "quadratic", name, steps=5, rate=RATE)
        for name in ("SGD", "Adam", "AdamW")
    ]
    return f"off by at most {max(offs):.0e}", max(offs) < ROUNDING


def _steps(rows: Rows) -> Measured:
    offs = [rows.off("higher", "quadratic", o, steps=5, rate=RATE) for o in ("SGD", "Adam")]
    words = f"off by {offs[0]:.0e} and {offs[1]:.0e} (it adds eps elsewhere than torch does)"
    return words, offs[0] < ROUNDING and offs[1] < 1e-5


def _warmed_up(warm: int, tracked: int) -> np.ndarray:
    """Steps with the gradient of the start, each adding B^T w to -h, then honest tracked steps."""
    data = problems()["quadratic"]
    A, B, b, x, w = (np.array(data[name]) for name in ("A", "B", "b", "x", "start"))
    far = w - warm * RATE * (A @ w - B @ x - b)
    steps = {"optimizer": "SGD", "steps": tracked, "rate": RATE}
    return value({**data, "start": far.tolist()}, ("unrolled", steps)) - warm * (B.T @ w)


FINDINGS = (
    Finding(HYPERGRAD, "`conjugate_gradient` turns by the old residual, too", _stale),
    Finding(HYPERGRAD, "`conjugate_gradient` has no test for breakdown", _zero),
    Finding(HYPERGRAD, "`neumann` and `nystrom` are what they say", _sound, good=True),
    Finding(BOAT, "`CG` returns the iterate before the one that converged", _previous),
    Finding(BOAT, "`NS` and `RAD` are what they say", _boat_sound, good=True),
    Finding(BOAT, "`RGT` adds gradients of the warm-up to the answer", _truncated),
    Finding(
        BOAT,
        "`FD` fails where a gradient is an expanded view",
        raises("RuntimeError", BOAT, "summed above", "FD", rate=RATE),
    ),
    Finding(BOAT, "`IGA` is undefined at a solution, as a method", _undefined),
    Finding(BOAT, "`ResultStore.clear()` keeps what it holds", _kept),
    Finding(BOAT, "The whole log of losses is written anew in each iteration", _rewritten),
    Finding(TORCHOPT, "The second derivative of `custom_root` is silently wrong", _second),
    Finding(
        TORCHOPT,
        "First derivatives, implicit and unrolled, are right",
        _torchopt_sound,
        good=True,
    ),
    Finding(
        "higher",
        "AdamW cannot be used",
        raises("ValueError", "higher", "quadratic", "AdamW", steps=5, rate=RATE),
    ),
    Finding("higher", "Steps of SGD and Adam are differentiated exactly", _steps, good=True),
)
