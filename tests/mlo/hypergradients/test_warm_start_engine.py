"""Warm starts in running programs: what they save from tick to tick, and where they are kept."""

from __future__ import annotations

import copy
import dataclasses

import pytest
import torch

import mlo
from mlo import ConjugateGradient, Neumann
from mlo.solve import LinearSolution

COLD = ConjugateGradient(iterations=100, tolerance=1e-6)
WARM = dataclasses.replace(COLD, warm_start=True)


def sgd(rate):
    return lambda params: torch.optim.SGD(params, rate)


def made(size=40):
    draw = torch.Generator().manual_seed(7)
    x, y = torch.randn(80, size, generator=draw), torch.randn(80, generator=draw)
    held, wanted = torch.randn(50, size, generator=draw), torch.randn(50, generator=draw)
    return x * torch.logspace(-0.7, 0.7, size), y, held, wanted


def engine_of(method, uppers=("top",), rate=0.02):
    x, y, held, wanted = made()

    def fit(low, *tops):
        """A softened absolute error; each upper problem has the weight of its part."""
        w = torch.cat([low["w"], low["v"]])
        error = (1 + (x @ w - y).square()).sqrt().mean()
        parts = w.square().chunk(len(uppers))
        return error + sum(t["a"].exp() * p.sum() for t, p in zip(tops, parts, strict=True))

    low = mlo.Problem(
        "low",
        params={"w": torch.full((10,), 0.2), "v": torch.linspace(-0.3, 0.2, 30)},
        loss=fit,
        reads=("low", *uppers),
        optimizer=sgd(2.5 * rate),
        hypergradient=method,
    )
    tops = [
        mlo.Problem(
            name,
            params={"a": torch.tensor(-2.0 + i)},
            loss=lambda low, i=i: (
                (held @ torch.cat([low["w"], low["v"]]) - (1 - 2 * i) * wanted).square().mean()
            ),
            reads=("low",),
            optimizer=sgd(rate),
        )
        for i, name in enumerate(uppers)
    ]
    return mlo.Engine([low, tops] if len(tops) > 1 else [low, *tops])


def run(engine, ticks):
    """Products of all responses, tick by tick, and whether every one of them converged."""
    products, outcomes = [], set()
    for _ in range(ticks):
        responses = [r for m in engine.step().moves for r in m.responses]
        products.append(sum(int(r.info.products) for r in responses))
        outcomes |= {r.info.outcome for r in responses}
    assert outcomes == {mlo.Outcome.CONVERGED}
    return products


def values(engine):
    params = [p for problem in engine.problems.values() for p in problem.module.parameters()]
    return torch.cat([p.detach().reshape(-1) for p in params])


# Relative to v: what a good guess saves is its share of the digits that are asked for.
@pytest.mark.parametrize(("tolerance", "share"), [(1e-6, 0.8), (1e-3, 0.6)])
def test_a_slowly_moving_program_takes_fewer_products_to_the_same_place(tolerance, share):
    methods = (dataclasses.replace(m, tolerance=tolerance) for m in (WARM, COLD))
    warm, cold = (engine_of(m, rate=1e-3) for m in methods)
    few, many = run(warm, 20), run(cold, 20)
    assert few[0] == many[0]
    assert sum(few[1:]) < share * sum(many[1:])
    torch.testing.assert_close(values(warm), values(cold), rtol=tolerance, atol=tolerance * 1e-2)


def test_where_nothing_moves_nothing_is_left_to_do():
    engine, exact = (engine_of(m, rate=1e-14) for m in (WARM, mlo.Dense()))
    assert run(engine, 3)[1:] == [2, 2]
    found, right = (e.hypergradient("top")["a"] for e in (engine, exact))
    torch.testing.assert_close(found, right, rtol=1e-5, atol=0)


def test_a_series_with_few_terms_becomes_exact_where_nothing_moves():
    exact = engine_of(mlo.Dense(), rate=1e-14).hypergradient("top")["a"]
    errors = {}
    for warm in (True, False):
        engine = engine_of(Neumann(terms=20, alpha="auto", warm_start=warm), rate=1e-14)
        engine.run(60)
        errors[warm] = float((engine.hypergradient("top")["a"] - exact).abs() / exact.abs())
    assert errors[True] < 1e-10
    assert errors[False] > 1e-3


def test_looking_leaves_what_is_remembered_as_it_was():
    engine = engine_of(WARM)
    run(engine, 3)
    before = copy.deepcopy(engine._mover.states)
    assert before["low"] is not None
    first = engine.hypergradient("top")["a"]
    assert torch.equal(engine.hypergradient("top")["a"], first)
    after = engine._mover.states
    assert after.keys() == before.keys()
    assert all(map(torch.equal, before["low"], after["low"]))
    other = engine_of(WARM)
    run(other, 3)
    run(other, 1)
    run(engine, 1)
    assert torch.equal(values(engine), values(other))


@pytest.mark.parametrize(
    "method", [WARM, Neumann(600, "auto", preconditioner="diagonal", warm_start=True)]
)
def test_two_uppers_that_ask_one_problem_get_their_own_answers(method):
    engine, exact = (engine_of(m, ("one", "two")) for m in (method, mlo.Dense()))
    for _ in range(3):
        for name in ("one", "two"):
            found, right = (e.hypergradient(name)["a"] for e in (engine, exact))
            torch.testing.assert_close(found, right, rtol=1e-4, atol=1e-7)
        engine.step()
        exact.step()


@pytest.mark.parametrize("nested", ["exact", "projected", "partial"])
def test_below_an_anticipating_problem_the_answers_are_right(nested):
    def engine(method):
        draw = torch.Generator().manual_seed(2)
        pull = torch.randn(6, 4, generator=draw)

        def third(z, y, x):
            return (z["w"].cosh().sum()) - z["w"] @ pull @ y["w"] * (1 + 0.1 * x["w"].sum())

        def second(y, z, x):
            return 2 * y["w"].square().sum() + (z["w"] - 1).square().sum() * x["w"].cos().sum() / 4

        z = mlo.Problem(
            "z",
            params={"w": torch.linspace(-0.1, 0.2, 6)},
            loss=third,
            optimizer=sgd(0.05),
            hypergradient=method,
        )
        y = mlo.Problem(
            "y",
            params={"w": torch.linspace(-0.1, 0.2, 4)},
            loss=second,
            optimizer=sgd(0.02),
            hypergradient=method,
        )
        x = mlo.Problem(
            "x",
            params={"w": torch.linspace(0.1, 0.5, 3)},
            loss=lambda y, z: (y["w"] - 0.5).square().sum() + z["w"].sum(),
            optimizer=sgd(0.02),
        )
        return mlo.Engine([z, y, x], nested=nested)

    exact = engine(mlo.Dense())
    method = dataclasses.replace(WARM, tolerance=1e-12)
    engines = [engine(method), engine(dataclasses.replace(method, preconditioner="diagonal"))]
    for _ in range(4):
        right = exact.hypergradient("x")["w"]
        for each in engines:
            torch.testing.assert_close(each.hypergradient("x")["w"], right, rtol=1e-8, atol=1e-10)
            run(each, 1)
        exact.step()


@dataclasses.dataclass(frozen=True)
class Counting(mlo.Implicit):
    """Remembers how often it was asked, by the hook that `Implicit` has for that."""

    def init(self, condition):
        return 0

    def solve(self, condition, cotangent):
        return mlo.Dense().solve(condition, cotangent)

    def solve_with_state(self, condition, cotangent, state):
        return self.solve(condition, cotangent), state + 1


def test_an_implicit_method_of_ones_own_may_remember_something():
    engine = engine_of(Counting())
    run(engine, 3)
    assert engine._mover.states["low"] == 3
    engine.hypergradient("top")
    assert engine._mover.states["low"] == 3


@dataclasses.dataclass(frozen=True)
class Descent(mlo.hypergradients.Iterative):
    """A whole iterative method: preconditioned Richardson with a fixed step."""

    steps: int = 4000
    preconditioner: str | None = None
    warm_start: bool = False
    tolerance: float = 1e-3

    def iterate(self, condition, rest, *, apply, target):
        u, count = tuple(0 * r for r in rest), 0
        for count in range(self.steps):  # noqa: B007
            if sum(r.square().sum() for r in rest) <= target**2:
                break
            step = tuple(0.1 * s for s in apply(rest))
            u = tuple(a + s for a, s in zip(u, step, strict=True))
            rest = tuple(r - h for r, h in zip(rest, condition.hvp(step), strict=True))
        return LinearSolution(u, mlo.Info(products=count))


@pytest.mark.parametrize("preconditioner", [None, "diagonal"])
def test_an_iterative_method_of_ones_own_writes_its_iteration_alone(preconditioner):
    exact, products = engine_of(mlo.Dense()), {}
    for warm in (False, True):
        engine = engine_of(Descent(preconditioner=preconditioner, warm_start=warm))
        products[warm] = sum(run(engine, 6))
    assert products[True] < products[False]
    exact.run(6)
    found, right = (e.hypergradient("top")["a"] for e in (engine, exact))
    torch.testing.assert_close(found, right, rtol=3e-3, atol=0)
