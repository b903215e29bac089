"""What is asked of which library, and which algorithm each setting names."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

from benchmarks.audit.reference import Reference

EXACT: Reference = ("exact", {})
KAPPAS = (0.0, 0.05, 0.5)
ITERATIONS = (1, 2, 3, 4, 5, 6, 12)
"""Of conjugate gradients; 6 are enough for 6 parameters."""

RATE = 0.15
"""Step of series and unrolled steps; the curvatures of `quadratic` allow up to 2 / 10.2."""


@dataclasses.dataclass(frozen=True)
class Case:
    """One question to one library.

    Attributes:
        library: name of its distribution.
        problem: name in `benchmarks.audit.problems`.
        method: what the library's script makes of it.
        settings: as the library calls them.
        algorithm: what these settings are the name of; the hypergradient itself by default.
    """

    library: str
    problem: str
    method: str
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)
    algorithm: Reference = EXACT

    @property
    def id(self) -> str:
        """What the row is called; unique."""
        return row_id(self.library, self.problem, self.method, **self.settings)


def row_id(library: str, problem: str, method: str, /, **settings: Any) -> str:
    """``library: problem: method(settings)``."""
    return f"{library}: {problem}: {method}({words(settings)})"


def words(settings: dict[str, Any]) -> str:
    """Settings as one would write arguments."""
    return ", ".join(f"{name}={value}" for name, value in settings.items())


def cases() -> tuple[Case, ...]:
    """All of them, library by library."""
    parts = (_mlo, _betty, _boat, _hypergrad, _torchopt, _higher, _jaxopt, _optimistix)
    return tuple(case for part in parts for case in part())


def _cg(iterations: int) -> Reference:
    return ("conjugate gradients", {"iterations": iterations})


def _series(terms: int, alpha: float) -> Reference:
    return ("neumann", {"terms": terms, "alpha": alpha})


def _scaled(rate: float) -> Reference:
    return ("scaled", {"rate": rate})


def _steps(optimizer: str, steps: int, rate: float, tracked: int | None = None) -> Reference:
    return (
        "unrolled",
        {"optimizer": optimizer, "steps": steps, "rate": rate, "tracked": tracked},
    )


Ask: TypeAlias = Callable[..., Case]


def _mlo() -> Iterator[Case]:
    def ask(problem: str, method: str, algorithm: Reference = EXACT, **settings: Any) -> Case:
        return Case("mlo-engine", problem, method, settings, algorithm)

    yield from _mlo_solvers(ask)
    yield from _mlo_moves(ask)
    for problem in ("one curvature", "answered", "frozen", "two vectors", "nan above"):
        yield ask(problem, "ConjugateGradient", _cg(20), iterations=20)
    for problem in ("one parameter", "two parameters"):
        yield ask(problem, "ConjugateGradient", _cg(6), iterations=6)
    for problem in ("two vectors", "summed below", "summed above", "nan above"):
        yield ask(problem, "FiniteDifference", _scaled(RATE), rate=RATE)
    yield ask("curved", "ConjugateGradient", tolerance=1e-12)
    yield ask("curved", "Dense")
    for kappa in KAPPAS:
        for mode in ("exact", "projected", "partial"):
            yield ask(f"three levels, kappa {kappa:g}", mode, (mode, {}))
    yield ask("three levels, trained", "exact", steps=3, ticks=4)


def _mlo_solvers(ask: Ask) -> Iterator[Case]:
    for n in ITERATIONS:
        yield ask("quadratic", "ConjugateGradient", _cg(n), iterations=n)
    yield ask("quadratic", "Neumann", _series(10, RATE), terms=10, alpha=RATE)
    yield ask("quadratic", "Neumann", _series(100, RATE), terms=100, alpha=RATE)
    yield ask("quadratic", "Neumann", _series(20, 1.0), terms=20, alpha=1.0)
    yield ask("quadratic", "Neumann", terms=400, alpha="auto")
    for n in ITERATIONS:
        least = ("krylov", {"iterations": min(n, 6), "residual": True})
        yield ask("quadratic", "Minres", least, iterations=n)
    damped = ("damped", {"damping": 0.001})
    yield ask("quadratic", "Nystrom", damped, rank=6, damping=0.001)
    yield ask("quadratic", "Dense")
    yield ask("quadratic", "Dense", damped, damping=0.001)


def _mlo_moves(ask: Ask) -> Iterator[Case]:
    start = {"from": "start", "rate": RATE}
    yield ask("quadratic", "OneStep", _scaled(RATE), rate=RATE)
    yield ask("quadratic", "OneStep", _steps("SGD", 1, RATE), **start)
    yield ask("quadratic", "OneStep", _steps("Adam", 1, RATE), optimizer="Adam", **start)
    yield ask("quadratic", "OneStep", _steps("AdamW", 1, RATE), optimizer="AdamW", **start)
    yield ask("quadratic", "FiniteDifference", _scaled(RATE), rate=RATE)
    yield ask("quadratic", "Sama", _scaled(RATE), rate=RATE)
    for optimizer in ("SGD", "Adam", "AdamW"):
        made = {"optimizer": optimizer, "updates": 5, **start}
        yield ask("quadratic", "Unrolled", _steps(optimizer, 5, RATE), steps=5, **made)
        yield ask("quadratic", "ForwardMode", _steps(optimizer, 5, RATE), **made)
    for tracked in (20, 10, 5):
        reference = _steps("SGD", 300, RATE, tracked)
        yield ask("quadratic", "Unrolled", reference, steps=tracked, updates=300, **start)
    yield ask("detached", "OneStep", _scaled(RATE), rate=RATE)
    yield ask("detached", "FiniteDifference", _scaled(RATE), rate=RATE)
    yield ask("dropout", "OneStep", _scaled(RATE), rate=RATE)
    yield ask("dropout", "FiniteDifference", _scaled(RATE), rate=RATE)


def _betty() -> Iterator[Case]:
    def ask(problem: str, method: str, algorithm: Reference = EXACT, **settings: Any) -> Case:
        return Case("betty-ml", problem, method, settings, algorithm)

    for n in ITERATIONS:
        yield ask("quadratic", "cg", _cg(n), cg_iterations=n)
    for n in (1, 3, 6, 12):
        yield ask("quadratic", "cg", _cg(n), cg_iterations=n, cg_alpha=0.1)
    for n in (10, 100):  # the sum begins with one term more
        series = _series(n + 1, RATE)
        yield ask("quadratic", "neumann", series, neumann_iterations=n, neumann_alpha=RATE)
    yield ask("quadratic", "neumann", _series(21, 1.0), neumann_iterations=20)
    yield ask("quadratic", "darts", _scaled(RATE), rate=RATE)
    yield ask("quadratic", "sama", _scaled(RATE), rate=RATE)
    yield ask("quadratic", "darts", _scaled(RATE), rate=RATE, optimizer="AdamW")
    yield ask("detached", "darts", _scaled(1.0))
    yield ask("dropout", "darts", _scaled(1.0))
    yield ask("one curvature", "cg", _cg(20), cg_iterations=20)
    yield ask("answered", "cg", _cg(6), cg_iterations=6)
    yield ask("frozen", "darts", _scaled(1.0))
    yield ask("two vectors", "darts", _scaled(1.0))
    yield ask(
        "two vectors", "neumann", _series(101, RATE), neumann_iterations=100, neumann_alpha=RATE
    )
    yield ask("summed below", "darts", _scaled(1.0))
    yield ask("nan above", "darts", _scaled(1.0))
    yield ask("nan above", "neumann", _series(11, RATE), neumann_iterations=10, neumann_alpha=RATE)
    for kappa in KAPPAS:
        for methods in ("darts, darts", "neumann, darts", "neumann, neumann"):
            yield ask(f"three levels, kappa {kappa:g}", methods)
    yield ask("three levels, trained", "darts, darts", steps=3, ticks=4)


def _boat() -> Iterator[Case]:
    def ask(problem: str, method: str, algorithm: Reference = EXACT, **settings: Any) -> Case:
        return Case("boat-torch", problem, method, settings, algorithm)

    start = {"from": "start", "rate": RATE, "steps": 300}
    for n in ITERATIONS:
        yield ask("quadratic", "CG", _cg(n), k=n, rate=RATE)
    for problem in ("one curvature", "one parameter", "two parameters"):
        yield ask(problem, "CG", _cg(6), k=6, rate=RATE)
    for n in (10, 100):
        yield ask("quadratic", "NS", _series(n + 1, RATE), k=n, rate=RATE)
    yield ask("quadratic", "RAD", _steps("SGD", 300, RATE), **start)
    for tracked in (20, 10, 5):
        reference = _steps("SGD", 300, RATE, tracked)
        yield ask("quadratic", "RGT+RAD", reference, truncate=300 - tracked, **start)
    for problem in ("quadratic", "summed above"):
        yield ask(problem, "FD", _scaled(RATE), rate=RATE)
    yield ask("quadratic", "IGA", rate=RATE)
    yield ask("bookkeeping", "CG", rate=RATE, iterations=20)


def _hypergrad() -> Iterator[Case]:
    def ask(problem: str, method: str, algorithm: Reference = EXACT, **settings: Any) -> Case:
        return Case("hypergrad", problem, method, settings, algorithm)

    for n in ITERATIONS:
        yield ask("quadratic", "conjugate_gradient", _cg(n), num_iters=n, lr=1.0)
    for n in (1, 3, 6, 12):
        yield ask("quadratic", "conjugate_gradient", _cg(n), num_iters=n, lr=0.1)
    yield ask("answered", "conjugate_gradient", _cg(6), num_iters=6, lr=1.0)
    for n in (10, 100):
        yield ask("quadratic", "neumann", _series(n + 1, RATE), num_iters=n, lr=RATE)
    yield ask("quadratic", "nystrom", ("damped", {"damping": 0.001}), rank=6, rho=0.001)


def _torchopt() -> Iterator[Case]:
    def ask(problem: str, method: str, algorithm: Reference = EXACT, **settings: Any) -> Case:
        return Case("torchopt", problem, method, settings, algorithm)

    for n in ITERATIONS:
        yield ask("quadratic", "cg", _cg(n), maxiter=n, rtol=1e-12)
    for problem in ("one curvature", "one parameter", "two parameters", "answered"):
        yield ask(problem, "cg", rtol=1e-12)
    yield ask("quadratic", "normal cg", rtol=1e-12)
    yield ask("quadratic", "inverse")
    for optimizer in ("SGD", "Adam", "AdamW"):
        yield ask("quadratic", optimizer, _steps(optimizer, 5, RATE), steps=5, rate=RATE)
    for method in ("cg", "normal cg", "inverse"):
        yield ask("curved", method)
    for kappa in KAPPAS:
        yield ask(f"three levels, kappa {kappa:g}", "cg")


def _higher() -> Iterator[Case]:
    for optimizer in ("SGD", "Adam", "AdamW"):
        reference = _steps(optimizer, 5, RATE)
        yield Case("higher", "quadratic", optimizer, {"steps": 5, "rate": RATE}, reference)


def _jaxopt() -> Iterator[Case]:
    for n in ITERATIONS:
        yield Case("jaxopt", "quadratic", "cg", {"maxiter": n, "tol": 1e-12}, _cg(n))
    yield Case("jaxopt", "quadratic", "normal cg", {"tol": 1e-12})
    yield Case("jaxopt", "curved", "cg")
    for kappa in KAPPAS:
        yield Case("jaxopt", f"three levels, kappa {kappa:g}", "cg")
    yield Case("jaxopt", "three levels, kappa 0", "normal cg")


def _optimistix() -> Iterator[Case]:
    yield Case("optimistix", "quadratic", "cg")
    yield Case("optimistix", "quadratic", "lu")
    yield Case("optimistix", "curved", "lu")
    for kappa in KAPPAS:
        yield Case("optimistix", f"three levels, kappa {kappa:g}", "lu")
