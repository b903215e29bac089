"""`check_hypergradient`: gradcheck for whole programs."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from mlo.engine import Engine, check_mode
from mlo.errors import CheckError, DeclarationError, listed, nearest
from mlo.hypergradients import Dense, Hypergradient, OneStep, Unrolled
from mlo.problem import Problem
from mlo.sweep import Sweep
from mlo.testing.differences import Agreement, compared, difference, directions, relative
from mlo.testing.double import in_double
from mlo.testing.hypergradient_report import HypergradientCheck, Reference
from mlo.testing.losses import STEPS, LossCheck, check_losses
from mlo.testing.solving import Solver
from mlo.testing.standing import Standing
from mlo.types import Tensors
from mlo.vectors import dot, flat, norm


def check_hypergradient(
    engine: Engine,
    name: str,
    *,
    against: str | None = None,
    tolerance: float = 1e-5,
    bias: float | None = None,
    step: float | None = None,
    count: int = 8,
    residual: float = 1e-10,
    losses: bool = True,
    double: bool = True,
    seed: int = 0,
) -> HypergradientCheck:
    r"""Compare a total gradient with central differences, as `torch.autograd.gradcheck` does.

    Three kinds of mistakes are told apart, in this order: a loss that is no function of what it
    reads, a loss whose derivatives are not those of its value, and a method that does not give
    what it stands for. The last is found by giving each problem the exact rule in the place of its
    method: what is left with exact rules everywhere is an *error*, and what a problem's own method
    adds is its *bias*.

    Nothing moves: parameters, buffers, optimizers and random states are as before, whatever
    happens.

    Args:
        engine: the program, where it stands.
        name: the problem whose total gradient is checked.
        against: what it is compared with. `"moves"`: differences of its loss after the moves that
            the problems below would make from here, made again at every shifted point (the default
            where all of them differentiate recorded moves; the exact rule is `OneStep`, for moves
            of several updates `Unrolled`).
            `"solution"`: differences of the program whose lower problems are solved at every
            shifted point (the default otherwise; the exact rule is `Dense`, without damping).
        tolerance: largest relative error, over the checked directions.
        bias: largest relative bias of the methods together; `None` allows as much as `tolerance`.
        step: of the differences; `None` takes 1e-6 for moves, and less where kinks of the losses
            lie within it, and 1e-4, with differences of fourth order, for solutions.
        count: directions: all axes where there are no more, else this many random ones.
        residual: largest entry of a gradient at which a lower problem counts as solved.
        losses: check the derivatives of the losses on their own; `False` where a loss detaches
            something on purpose. A total gradient that is wrong because of it fails all the same.
        double: check in float64, whatever the engine's dtypes are.
        seed: of the random directions.

    Returns:
        Errors and biases; print it for a table.

    Raises:
        CheckError: the check failed; the message says which mistake it is, and whose.
        StationarityError: a lower problem could not be solved.
        DeclarationError: there is no such problem, or it cannot be checked in this way.
    """
    _check_settings(tolerance=tolerance, bias=bias, step=step, count=count, residual=residual)
    check_mode()
    engine._program.check_unchanged()
    reference = _reference(engine, name, against)
    if reference is Reference.MOVES:
        _check_repeats(engine, name)
    moves = reference is Reference.MOVES
    steps = (step,) if step is not None else STEPS if moves else (1e-4,)
    draw = torch.Generator().manual_seed(seed)
    with in_double(engine) if double else contextlib.nullcontext():
        standing = Standing(engine, name)
        with standing.kept():
            check = _Check(standing, reference, steps, tolerance, Solver(residual))
            loss_checks: tuple[LossCheck, ...] = ()
            if losses:
                loss_checks = check_losses(
                    standing, standing.still(), tolerance=tolerance, draw=draw
                )
            report = check.run(directions(standing.at(name), count, draw), loss_checks)
    report.judge(tolerance, tolerance if bias is None else bias)
    return report


def _check_settings(**settings: float | None) -> None:
    """Positive numbers, where they are given; `tolerance` and `bias` may be infinite."""
    for name, value in settings.items():
        if value is None:
            continue
        number = isinstance(value, int | float) and not isinstance(value, bool)
        whole = name != "count" or isinstance(value, int)
        finite = name in ("tolerance", "bias") or (number and math.isfinite(value))
        least = 0 if name == "bias" else math.ulp(0.0)
        if not (number and whole and finite and value >= least):
            kind = "a whole number of at least 1" if name == "count" else "a positive number"
            raise DeclarationError(f"check_hypergradient({name}=...) must be {kind}, got {value!r}")


def _reference(engine: Engine, name: str, against: str | None) -> Reference:
    if name not in engine.problems:
        raise DeclarationError(
            f"check_hypergradient(engine, '{name}'): no problem is called that"
            f"{nearest(name, engine.problems)} (problems: {listed(engine.problems)})"
        )
    scope = engine.graph.order(name)
    solved = [n for n in scope if "moves" not in engine.problems[n].hypergradient.needs]
    if against is None:
        return Reference.SOLUTION if solved else Reference.MOVES
    known = [reference.value for reference in Reference]
    if against not in known:
        raise DeclarationError(
            f"check_hypergradient(against=...) must be one of {listed(known)}, got {against!r}"
            f"{nearest(str(against), known)}"
        )
    if against == Reference.MOVES.value and solved:
        raise DeclarationError(
            f"check_hypergradient(engine, '{name}', against='moves'): the methods of "
            f"{listed(solved)} differentiate no recorded move; use against='solution'"
        )
    return Reference(against)


def _check_repeats(engine: Engine, name: str) -> None:
    """Moves of several updates must be differentiated through all of them."""
    for n in engine.graph.order(name):
        problem = engine.problems[n]
        reach = problem.hypergradient.reach
        if reach is not None and reach < problem.repeat:
            kind = type(problem.hypergradient).__name__
            raise DeclarationError(
                f"check_hypergradient(engine, '{name}', against='moves'): problem '{n}' has "
                f"repeat={problem.repeat}, and hypergradient={kind} differentiates {reach} of "
                "these updates, which differences of all of them cannot confirm; check it with "
                f"repeat={reach}, or with Unrolled()",
                problem=n,
            )


def _exact_move(problem: Problem) -> Hypergradient:
    """The exact derivative of a move, and of those before it since the problem began anew."""
    updates = problem.repeat * (problem.restart or 1)
    return OneStep() if updates == 1 else Unrolled(steps=updates)


class _Check:
    """One total gradient, by exact rules, by the program's own, and by differences."""

    def __init__(
        self,
        standing: Standing,
        reference: Reference,
        steps: Sequence[float],
        good: float,
        solver: Solver,
    ) -> None:
        self.standing = standing
        self.reference = reference
        self.steps = steps
        self.good = good
        self.solver = solver
        self.nested = standing.graph.nested
        self.groups = standing.graph.groups(standing.name)
        problems = standing.given.problems
        self.methods = {n: problems[n].hypergradient for group in self.groups for n in group}
        self.exact = self._exact()

    def _exact(self) -> dict[str, Hypergradient]:
        """The exact rule for everybody who answers; by it, more may than before."""
        standing = self.standing
        solved = self.reference is Reference.SOLUTION
        rules: dict[str, Hypergradient] = {}
        while missing := set(standing.graph.scope(standing.name)) - set(rules):
            for n in missing:
                problem = standing.given.problems[n]
                rules[n] = Dense(tolerance=1e-9, limit=10**9) if solved else _exact_move(problem)
            try:
                standing.use(rules, "exact")
            except DeclarationError as error:
                kind = " and ".join(sorted({type(rule).__name__ for rule in rules.values()}))
                raise DeclarationError(
                    f"check_hypergradient(engine, '{standing.name}'): the exact rule, "
                    f"{kind} with nested='exact', cannot serve in this program, so there is "
                    f"nothing to compare with: {error}",
                    problem=error.problem,
                ) from error
        return rules

    def run(self, along: list[Tensors], losses: tuple[LossCheck, ...]) -> HypergradientCheck:
        """Take all three along the given directions."""
        standing, name = self.standing, self.standing.name
        standing.use(self.exact, "exact")
        self._settle()
        exact = self._exact_gradient()
        agreements = [self._agreement(exact, along)]
        length = norm(exact)
        if length > 0:  # the direction in which least is lost to rounding
            agreements.append(self._agreement(exact, [tuple(g / length for g in exact)]))
        biases = self._biases(flat(exact))
        standing.use({}, self.nested)
        return HypergradientCheck(
            problem=name,
            reference=self.reference,
            directions=len(along),
            error=max(agreement.error for agreement in agreements),
            resolution=min(agreement.resolution for agreement in agreements),
            bias=relative(flat(self._gradient()), flat(exact)),
            biases=biases,
            methods={
                " and ".join(group): type(self.methods[group[0]]).__name__ for group in self.groups
            },
            losses=losses,
            clipped=tuple(n for n in self.methods if standing.given.problems[n].clip_norm),
            cut=tuple(n for n in standing.involved if standing.given.problems[n].constant),
        )

    def _agreement(self, exact: Tensors, along: list[Tensors]) -> Agreement:
        """The exact rules against differences along the given directions."""
        standing = self.standing
        start = {n: standing.at(n) for n in standing.graph.names}

        def slopes(step: float) -> Tensor:
            return torch.stack([self._difference(d, start, step) for d in along])

        products = torch.stack([dot(exact, d) for d in along])
        size = float(self._value().abs())
        return compared(products, slopes, size, self.steps, self.good)

    def _biases(self, exact: Tensor) -> dict[str, float]:
        """What the engine's option brings in, and what each method does alone."""
        standing = self.standing
        biases = {}
        standing.use(self.exact, self.nested)
        nested = flat(self._gradient())
        if any(standing.graph.scope(n) for n in self.exact):
            biases[f"nested={self.nested}"] = relative(nested, exact)
        for group in self.groups:
            own = {n: self.methods[n] for n in group}
            try:
                standing.use({**self.exact, **own}, self.nested)
            except DeclarationError:  # it serves among the others' methods only
                biases[" and ".join(group)] = math.nan
                continue
            same = all(own[n] == self.exact[n] for n in group)
            bias = 0.0 if same else relative(flat(self._gradient()), nested)
            biases[" and ".join(group)] = bias
        return biases

    def _settle(self) -> None:
        if self.reference is Reference.SOLUTION:
            self.solver.solve(self.standing, self.standing.name)

    def _value(self) -> Tensor:
        return self.standing.evaluate(self._sweep()).value

    def _sweep(self) -> Sweep:
        moves = self.reference is Reference.MOVES
        return self.standing.moved() if moves else self.standing.still()

    def _gradient(self) -> Tensors:
        return self.standing.gradient(self._sweep())

    def _exact_gradient(self) -> Tensors:
        """The total gradient by exact rules, which must have worked."""
        sweep = self._sweep()
        gradient = self.standing.gradient(sweep)
        for response in sweep.responses:
            if response.info.outcome.failed:
                raise CheckError(
                    f"nothing to compare with: problem '{response.problem}': the exact rule, "
                    f"{response.method}, fails here: {response.info.outcome.value}",
                    problem=response.problem,
                )
        return gradient

    def _difference(self, direction: Tensors, start: Mapping[str, Tensors], step: float) -> Tensor:
        """Along one direction; everybody begins from `start`, and ends there."""
        standing, name = self.standing, self.standing.name

        def value_at(x: Tensors) -> Tensor:
            for n, values in start.items():
                standing.write(n, values)
            standing.write(name, x)
            self._settle()
            return self._value()

        try:
            near = difference(value_at, start[name], direction, step)
            if self.reference is Reference.MOVES:
                return near
            far = difference(value_at, start[name], direction, 2 * step)
            return (4 * near - far) / 3
        finally:
            for n, values in start.items():
                standing.write(n, values)
