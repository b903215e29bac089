"""Methods in `mlo.solution`: how failures show, and methods of one's own."""

from __future__ import annotations

import dataclasses
import warnings

import pytest
import torch

import mlo
from mlo import errors

from .solved import ridge, ridge_context, ridge_solution, slope


def saddle(w, c):
    return 0.5 * (w * torch.tensor([1.0, -1.0]) * w).sum() - (w * c).sum()


FAILURES = {
    "negative curvature": (mlo.ConjugateGradient(), saddle),
    "exceeds the right-hand side": (mlo.Neumann(terms=50, alpha=0.5), saddle),
    "singular": (mlo.Dense(), lambda w, c: (w[0] - c.sum()).square()),
    "NaN": (mlo.Dense(), lambda w, c: (w * c).square().sum() * torch.tensor(float("nan"))),
}


@pytest.mark.parametrize("words", FAILURES)
def test_a_solve_that_fails_warns_in_backward_and_names_how(words):
    method, loss = FAILURES[words]
    c = torch.ones(2, requires_grad=True)
    w = mlo.solution(torch.tensor([1.0, 2.0]), loss, c, method, name="fit")
    with pytest.warns(errors.HypergradientWarning, match=words) as caught:
        w.sum().backward()
    (warning,) = caught
    kind = type(method).__name__
    assert str(warning.message).startswith(f"backward through problem 'fit' by {kind}: ")


@pytest.mark.parametrize("method", [mlo.Neumann(terms=2, alpha=0.1), mlo.Direct()])
def test_stopping_at_a_limit_and_answering_nothing_are_no_failures(method):
    c = ridge_context()
    w = mlo.solution(ridge_solution(c), ridge, c, method)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        slope(w).backward()
    assert (c["log"].grad is None) == isinstance(method, mlo.Direct)


@dataclasses.dataclass(frozen=True)
class Counting(mlo.Hypergradient):
    """Jacobian-free; its state counts the calls."""

    seen: list

    def init(self, condition):
        assert not condition.attached
        return 0

    def vjp(self, condition, cotangent, state):
        self.seen.append(state)
        mixed = condition.mixed_vjp(cotangent)
        return mlo.Result(tuple(None if m is None else -m for m in mixed), state + 1)


def test_a_method_of_the_users_own_keeps_its_state_from_one_backward_to_the_next():
    c = ridge_context()
    method = Counting([])
    w = mlo.solution(ridge_solution(c), ridge, c, method)
    for _ in range(3):
        found = torch.autograd.grad(w.sum(), c["log"], retain_graph=True)[0]
        # d2f / dw dlog = diag(exp(log) w)
        torch.testing.assert_close(found, (-c["log"].exp() * w).detach())
    assert method.seen == [0, 1, 2]


def test_a_method_that_cannot_be_differentiated_is_refused_where_a_graph_is_asked_for():
    c = ridge_context()
    w = mlo.solution(ridge_solution(c), ridge, c, Counting([]))
    with pytest.raises(errors.MethodError, match=r"Counting cannot.*create_graph.*use Conj"):
        torch.autograd.grad(w.sum(), c["log"], create_graph=True)


@dataclasses.dataclass(frozen=True)
class CountingTwice(Counting):
    """Its products are differentiable, so it may say that it is."""

    differentiable: bool = True


def test_a_differentiable_method_of_the_users_own_is_differentiated_again():
    c = ridge_context()
    exact = ridge_solution(c).detach()
    w = mlo.solution(exact, ridge, c, CountingTwice([]))
    (first,) = torch.autograd.grad(w.sum(), c["log"], create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), c["log"])
    # first = -exp(log) w, and w answers by -exp(log) w again.
    scale = c["log"].detach().exp()
    torch.testing.assert_close(second, -scale * exact + scale**2 * exact)


class Broken(Counting):
    """Answers for one tensor only."""

    def vjp(self, condition, cotangent, state):
        return mlo.Result((None,))
