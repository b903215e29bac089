"""Solves and responses that are differentiated themselves, against numerical differentiation."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

import mlo
from mlo.condition import Condition
from mlo.response import respond

from ..oracles import argmin, gradient, root

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
