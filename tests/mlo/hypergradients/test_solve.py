"""Solves and responses that are differentiated themselves, against numerical differentiation."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

import mlo
from mlo.condition import Condition
from mlo.response import respond

from ..oracles import Level, argmin, central, engine_of, gradient, relative, root

METHODS = {
    "dense": mlo.Dense(),
    "damped": mlo.Dense(damping=0.3),
    # Three unknowns; the tolerance is what the differences below can see.
    "conjugate gradients": mlo.ConjugateGradient(iterations=12, tolerance=1e-13),
    # The largest factor is 0.6 at these points: 0.6^60 is below rounding.
    "neumann": mlo.Neumann(terms=80, alpha=0.4),
}
MATRIX = [[2.0, 0.3, -0.4], [0.3, 1.5, 0.2], [-0.4, 0.2, 1.8]]
PULL = [[0.7, -0.2], [0.1, 0.9], [-0.5, 0.4]]


def quadratic(w: Tensor, c: Tensor) -> Tensor:
    return 0.5 * w @ torch.tensor(MATRIX) @ w - w @ torch.tensor(PULL) @ c


def quartic(w: Tensor, c: Tensor) -> Tensor:
    target = torch.tensor(PULL) @ c
    return quadratic(w, c) + 0.05 * (w**4).sum() + 0.1 * torch.sin(w * target).sum()


def condition_of(loss, w: Tensor, c: Tensor) -> Condition:
    return Condition(
        lambda params, context: loss(torch.cat(params), context[0]),
        (w[:1], w[1:]),
        (c,),
        problem="low",
        learning_rate=(0.4, 0.4),
    )


def points() -> tuple[Tensor, Tensor, Tensor]:
    draw = torch.Generator().manual_seed(5)
    return tuple((0.5 * torch.randn(n, generator=draw)).requires_grad_() for n in (3, 3, 2))


@pytest.mark.parametrize("loss", [quadratic, quartic])
@pytest.mark.parametrize("method", METHODS)
def test_a_solve_has_right_first_and_second_derivatives(method, loss):
    def solve(v: Tensor, w: Tensor, c: Tensor) -> Tensor:
        solver = METHODS[method].solve
        return torch.cat(condition_of(loss, w, c).solve(solver, (v[:1], v[1:])).adjoint)

    v, w, c = points()
    hessian = torch.autograd.functional.hessian(lambda w: loss(w, c), w)
    hessian = hessian + getattr(METHODS[method], "damping", 0.0) * torch.eye(3)
    torch.testing.assert_close(solve(v, w, c), torch.linalg.solve(hessian, v))
    assert gradcheck(solve, (v, w, c))
    assert gradgradcheck(solve, (v, w, c))


class _Site:
    """A problem that nobody below answers to."""

    def __init__(self, loss, method: mlo.Hypergradient) -> None:
        self.loss, self.method = loss, method

    def backward(self, params, context, needed, cotangent):
        condition = Condition(
            lambda w, c: self.loss(torch.cat(w), c[0]),
            params,
            context,
            problem="low",
            learning_rate=(0.4, 0.4),
        )
        return self.method.vjp(condition, cotangent, None).grads


def solution(loss, method: mlo.Hypergradient, c: Tensor) -> Tensor:
    """The minimizer at `c`, solved anew and attached by its response."""
    w = root(lambda w: gradient(loss(w, c.detach()), w), torch.zeros(3), tolerance=1e-14)
    return torch.cat(respond(_Site(loss, method), (w[:1], w[1:]), (c,)))


@pytest.mark.parametrize("loss", [quadratic, quartic])
@pytest.mark.parametrize("method", [m for m in METHODS if m != "damped"])
def test_a_response_has_right_first_and_second_derivatives(method, loss):
    *_, c = points()
    respond_at = lambda c: solution(loss, METHODS[method], c)  # noqa: E731
    assert gradcheck(respond_at, (c,))
    assert gradgradcheck(respond_at, (c,))


@pytest.mark.parametrize("method", [m for m in METHODS if m != "damped"])
def test_a_response_has_the_third_derivative_of_the_solution(method):
    *_, c = points()

    def bend(attach):
        first = gradient(torch.sin(attach(c)).sum(), c)
        second = gradient((first * torch.tensor([1.0, -2.0])).sum(), c)
        return gradient((second * torch.tensor([0.5, 1.5])).sum(), c, graph=False)

    found = bend(lambda c: solution(quartic, METHODS[method], c))
    # Two Newton steps with a graph carry derivatives up to the third.
    expected = bend(lambda c: argmin(lambda w: quartic(w, c), torch.zeros(3)))
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-11)


def test_a_response_changes_no_value_and_does_not_attach_to_nothing():
    w = torch.randn(3)
    (found,) = respond(_Site(quartic, mlo.Dense()), (w,), (torch.zeros(2),))
    assert torch.equal(found, w)
    assert not found.requires_grad
    (found,) = respond(_Site(quartic, mlo.Dense()), (w,), ())
    assert torch.equal(found, w)
    assert not found.requires_grad


# A middle level that anticipates the lowest one; kappa bends the lowest solution.
# Correct to the printed digits: central differences of the fully solved program.
TABLE = {0.0: 0.400000, 0.05: 0.246277, 0.5: 0.880125}


def nested(kappa: float) -> list[Level]:
    def lowest(z, y, x):
        z, y, x = z["z"], y["y"], x["x"]
        return z**2 / 2 + kappa / 4 * z**4 - z * (2 * y + x)

    def middle(y, x, z):
        return (y["y"] - x["x"]) ** 2 / 2 + z["z"] ** 2 / 2

    def top(y, z):
        return (y["y"] - 1) ** 2 / 2 + (z["z"] - 1) ** 2 / 2

    start = {"z": 0.1, "y": 0.1, "x": 2.0}
    losses = {"z": lowest, "y": middle, "x": top}
    return [Level(n, losses[n], {n: torch.tensor(start[n])}) for n in losses]


def answers(levels: list[Level], x: Tensor, steps: int = 2) -> tuple[Tensor, Tensor]:
    """y and z at `x`: every level minimizes with the levels below it solved."""
    lowest, middle, _ = (level.loss for level in levels)
    pack = lambda name, w: {name: w.reshape(())}  # noqa: E731

    def z_at(y: Tensor) -> Tensor:
        objective = lambda z: lowest(pack("z", z), pack("y", y), pack("x", x))  # noqa: E731
        return argmin(objective, torch.tensor([0.1]), steps)

    def reduced(y: Tensor) -> Tensor:
        return middle(pack("y", y), pack("x", x), pack("z", z_at(y)))

    y = argmin(reduced, torch.tensor([-0.4]), steps)
    return y, z_at(y)


@pytest.mark.parametrize("method", [m for m in METHODS if m in ("dense", "conjugate gradients")])
@pytest.mark.parametrize("kappa", TABLE)
def test_a_middle_level_that_anticipates_the_lowest_is_exact(kappa, method):
    levels = nested(kappa)

    def upper(x: Tensor) -> Tensor:
        y, z = answers(levels, x)
        return levels[-1].loss({"y": y}, {"z": z}).sum()

    x = torch.tensor([2.0])
    expected = {"x": central(upper, x).reshape(())}
    assert abs(float(expected["x"]) - TABLE[kappa]) < 1e-6
    y, z = (t.detach().reshape(()) for t in answers(levels, x))
    values = {"z": {"z": z}, "y": {"y": y}, "x": {"x": x.reshape(())}}
    engine = engine_of(levels, values, METHODS[method])
    assert engine.graph.kind("y") == "anticipating"
    # Fourth-order differences of the re-solved program (see `central`).
    assert relative(engine.hypergradient("x"), expected) < 1e-8
