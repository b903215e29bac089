"""`mlo.solution`: a minimizer found by whatever means, attached to what it was solved for."""

from __future__ import annotations

import collections

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call

import mlo

from .oracles import argmin, gradient, root
from .solved import (
    EXACT,
    METHOD,
    METHODS,
    X,
    Y,
    curved,
    curved_solution,
    fresh,
    ridge,
    ridge_context,
    ridge_solution,
    slope,
)


@METHOD
def test_derivatives_of_a_ridge_regression_are_those_of_its_closed_form(method):
    c = ridge_context()
    exact = ridge_solution(c)
    w = mlo.solution(exact, ridge, c, method)
    assert torch.equal(w, exact)
    found = torch.autograd.grad(slope(w), list(c.values()))
    expected = torch.autograd.grad(slope(exact), list(c.values()))
    torch.testing.assert_close(found, expected, **EXACT)


@METHOD
def test_second_derivatives_of_a_ridge_regression_are_those_of_its_closed_form(method):
    c = ridge_context()

    def twice(w):
        first = torch.autograd.grad(slope(w), c["log"], create_graph=True)[0]
        # Only one tensor of the context was asked for above; the other must not be forgotten.
        return torch.autograd.grad(first.square().sum(), list(c.values()))

    exact = ridge_solution(c)
    found = twice(mlo.solution(exact, ridge, c, method))
    torch.testing.assert_close(found, twice(exact), **EXACT)


@pytest.mark.parametrize("method", [METHODS["Dense"], METHODS["ConjugateGradient"]])
@pytest.mark.parametrize("check", [torch.autograd.gradcheck, torch.autograd.gradgradcheck])
def test_a_resolved_problem_passes_gradcheck(check, method):
    def solved(*c):
        return mlo.solution(curved_solution(*c), curved, c, method)

    # Differences at 1e-6 of a solution that is good to 1e-12 are good to 1e-6.
    assert check(solved, fresh(), atol=1e-5, rtol=1e-4)


def test_a_resolved_problem_has_right_third_derivatives():
    c = fresh()

    def thrice(w):
        out = slope(w)
        for _ in range(3):
            grads = torch.autograd.grad(out, c, create_graph=True)
            out = sum(g.square().sum() for g in grads)
        return out.detach()

    expected = thrice(argmin(lambda w: curved(w, c), torch.zeros(3), steps=3))
    found = thrice(mlo.solution(curved_solution(*c), curved, c, mlo.Dense()))
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=0)


# kappa -> d F1 / dx at x = 2 of three levels of one number each, by differences of the program
# solved anew; at kappa = 0 by hand.
TABLE = {0.0: 0.400000, 0.05: 0.246277, 0.5: 0.880125}


@pytest.mark.parametrize("method", [METHODS["Dense"], METHODS["ConjugateGradient"]])
@pytest.mark.parametrize("kappa", TABLE)
def test_solutions_nest_to_an_exact_program_of_three_levels(kappa, method):
    def lowest(z, c):
        x, y = c
        return (z**2 / 2 + kappa / 4 * z**4 - z * (2 * y + x)).sum()

    def solve_z(x, y):
        def residual(z):
            return z + kappa * z**3 - (2 * y + x).detach()

        return root(residual, torch.zeros(1))

    def answer(x, y):
        return mlo.solution(solve_z(x, y), lowest, (x, y), method, name="lowest")

    def middle(y, x):
        return ((y - x) ** 2 / 2 + answer(x, y) ** 2 / 2).sum()

    x = torch.tensor([2.0], requires_grad=True)
    y = root(lambda y: gradient(middle(y, x.detach()), y), torch.zeros(1))
    y = mlo.solution(y, middle, x, method, name="middle")
    top = ((y - 1) ** 2 / 2 + (answer(x, y) - 1) ** 2 / 2).sum()
    (found,) = torch.autograd.grad(top, x)
    assert float(found) == pytest.approx(TABLE[kappa], abs=1e-6)


@pytest.mark.parametrize("method", [METHODS["Dense"], METHODS["ConjugateGradient"]])
def test_three_nested_levels_of_vectors_agree_with_newton_steps_that_carry_a_graph(method):
    draw = torch.Generator().manual_seed(5)
    a, b = (torch.randn(n, m, generator=draw) / 2 for n, m in ((3, 2), (2, 2)))

    def lowest(z, c):
        x, y = c
        # Its Hessian depends on both levels above by itself, not only through z.
        bend = (1 + x.square().sum() + y.square().sum()) * z.square().sum()
        return bend / 2 + 0.1 * (z**4).sum() - z @ (a @ y) - z.sum() * x.sum()

    def middle(z, x, y):
        return (y - b @ x).square().sum() + 0.5 * (z - 1).square().sum() + 0.1 * (y**4).sum()

    def by_newton(x):
        def z_of(y):
            return argmin(lambda z: lowest(z, (x, y)), torch.zeros(3))

        y = argmin(lambda y: middle(z_of(y), x, y), torch.zeros(2))
        return y, z_of(y)

    def by_solution(x, y_star):
        def answer(y, x):
            z = argmin(lambda z: lowest(z, (x.detach(), y.detach())), torch.zeros(3), steps=0)
            return mlo.solution(z, lowest, (x, y), method)

        y = mlo.solution(y_star, lambda y, x: middle(answer(y, x), x, y), x, method)
        return y, answer(y, x)

    def judged(y, z):
        return (y + 1).square().sum() + torch.sin(z).sum()

    x = torch.tensor([0.6, -0.4], requires_grad=True)
    y, z = by_newton(x)
    (expected,) = torch.autograd.grad(judged(y, z), x)
    (found,) = torch.autograd.grad(judged(*by_solution(x, y.detach())), x)
    # Newton's method stops at 1e-12; its error enters multiplied by condition numbers below 100.
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-10)


Pair = collections.namedtuple("Pair", "first second")
# params in a structure -> w
STRUCTURES = {
    "a tensor": (lambda w: w, lambda t: t),
    "a list": (lambda w: [w[:1], w[1:]], torch.cat),
    "a tuple": (lambda w: (w[0], w[1:]), lambda t: torch.cat([t[0][None], t[1]])),
    "a named tuple": (lambda w: Pair(w[:2], w[2:]), lambda t: torch.cat([t.first, t.second])),
    "a dict": (lambda w: {"b": w[:2], "a": w[2:]}, lambda t: torch.cat([t["b"], t["a"]])),
    "nested": (
        lambda w: {"a": [w[:1], (w[1:2],)], "b": {"c": w[2:]}},
        lambda t: torch.cat([t["a"][0], t["a"][1][0], t["b"]["c"]]),
    ),
}


@METHOD
@pytest.mark.parametrize("structure", STRUCTURES)
def test_params_of_any_structure_come_back_in_it(structure, method):
    packed, unpacked = STRUCTURES[structure]
    c = ridge_context()
    exact = ridge_solution(c)
    seen = []

    def loss(params, context):
        seen.append(type(params))
        return ridge(unpacked(params), context)

    given = packed(exact)
    found = mlo.solution(given, loss, c, method)
    assert type(found) is type(given)
    if isinstance(given, dict):
        assert list(found) == list(given)
    assert torch.equal(unpacked(found), exact)
    grads = torch.autograd.grad(slope(unpacked(found)), list(c.values()))
    expected = torch.autograd.grad(slope(exact), list(c.values()))
    torch.testing.assert_close(grads, expected, **EXACT)
    assert set(seen) == {type(given)}


def test_a_context_may_hold_anything_and_only_what_requires_grad_is_differentiated():
    data = {"x": torch.arange(6).reshape(2, 3), "name": "ridge", "power": 2, "none": None}
    c = [torch.tensor(0.5, requires_grad=True), (data, torch.ones(3))]
    seen = []

    def loss(w, context):
        scale, (held, ones) = context
        seen.append(held)
        assert (held["name"], held["none"], held["x"].dtype) == ("ridge", None, torch.int64)
        assert not ones.requires_grad
        return (scale.exp() * (w - ones) ** held["power"]).sum() - (held["x"].double() @ w).sum()

    # w = 1 + column sums / (2 exp(scale))
    exact = 1 + torch.tensor([3.0, 5.0, 7.0]) / (2 * c[0].exp())
    w = mlo.solution(exact, loss, c, mlo.Dense())
    (found,) = torch.autograd.grad(w.sum(), c[0])
    torch.testing.assert_close(found, -(exact - 1).sum().detach())
    assert seen
    assert list(seen[0]) == list(data)


def test_a_tensor_twice_in_the_context_adds_up_and_one_that_is_not_used_has_no_gradient():
    c, idle = torch.tensor([1.0, 2.0], requires_grad=True), torch.ones(2, requires_grad=True)

    def loss(w, context):
        a, b, _ = context
        return (w - 2 * a - 3 * b).square().sum()

    w = mlo.solution(5 * c, loss, (c, c, idle))
    torch.testing.assert_close(torch.autograd.grad(w.sum(), c)[0], torch.full((2,), 5.0))
    w = mlo.solution(5 * c, loss, (c, c, idle))
    assert torch.autograd.grad(w.sum(), idle, allow_unused=True) == (None,)


def test_a_start_that_is_also_the_context_is_a_constant_as_the_one_and_a_variable_as_the_other():
    """iMAML at its anchor."""
    c = torch.tensor([1.0, 2.0], requires_grad=True)
    w = mlo.solution(c, lambda w, c: (w - c).square().sum() + 0.5 * w.square().sum(), c)
    # w* = 2 c / 3 in its derivative, whatever the value.
    torch.testing.assert_close(torch.autograd.grad(w.sum(), c)[0], torch.full((2,), 2 / 3))


def test_single_precision_stays_and_is_good_to_its_rounding():
    exact_c = ridge_context()
    exact = ridge_solution(exact_c)
    expected = torch.autograd.grad(slope(exact), list(exact_c.values()))
    c = {k: t.detach().float().requires_grad_() for k, t in exact_c.items()}

    def loss(w, c):
        x = X.float()
        return (
            0.5 * (x @ w - c["target"]).square().mean() + 0.5 * (c["log"].exp() * w.square()).sum()
        )

    w = mlo.solution(exact.float(), loss, c)
    assert w.dtype == torch.float32
    found = torch.autograd.grad(slope(w), list(c.values()))
    assert {g.dtype for g in found} == {torch.float32}
    # 1e-6 is the default tolerance of the solve, 6e-8 the rounding.
    torch.testing.assert_close(found, tuple(g.float() for g in expected), rtol=1e-5, atol=1e-6)


def test_a_module_is_evaluated_by_a_functional_call():
    """Logistic regression against Newton steps that carry a graph."""
    net, labels = nn.Linear(3, 2), (Y > 0).long()
    log = torch.tensor(-1.0, requires_grad=True)

    def loss(params, log):
        fit = F.cross_entropy(functional_call(net, params, X), labels)
        return fit + log.exp() * sum(p.square().sum() for p in params.values())

    def packed(w):
        return {"weight": w[:6].reshape(2, 3), "bias": w[6:]}

    exact = argmin(lambda w: loss(packed(w), log), torch.zeros(8))
    with torch.no_grad():
        for key, p in net.named_parameters():
            p.copy_(packed(exact)[key])
    w = mlo.solution(dict(net.named_parameters()), loss, log)

    def judged(params):
        return functional_call(net, params, X[:3] + 1).square().sum()

    (found,) = torch.autograd.grad(judged(w), log)
    torch.testing.assert_close(found, torch.autograd.grad(judged(packed(exact)), log)[0], **EXACT)
    assert all(p.grad is None for p in net.parameters())


def test_the_params_are_copied_and_what_made_them_is_left_out():
    c = ridge_context()
    history = torch.tensor(1.0, requires_grad=True)
    params = ridge_solution(c).detach().requires_grad_()
    w = mlo.solution({"own": params, "made": history * 2}, with_more, c, mlo.Dense())
    kept = w["own"].detach().clone()
    with torch.no_grad():
        params.add_(5.0)
    assert torch.equal(w["own"], kept)
    (w["own"].sum() + w["made"]).backward()
    assert params.grad is None
    assert history.grad is None
    expected = torch.autograd.grad(ridge_solution(c).sum(), c["log"])[0]
    torch.testing.assert_close(c["log"].grad, expected)


def with_more(params, c):
    return ridge(params["own"], c) + (params["made"] - 2).square()


def test_without_gradients_it_is_the_params_without_history():
    c = ridge_context()
    exact = ridge_solution(c)
    with torch.no_grad():
        w = mlo.solution(exact, ridge, c)
    constant = mlo.solution(exact, ridge, {k: t.detach() for k, t in c.items()})
    empty = mlo.solution(exact, lambda w, c: w.square().sum(), ())
    for found in (w, constant, empty):
        assert torch.equal(found, exact)
        assert not found.requires_grad


def test_the_loss_is_called_once_in_backward_however_many_read_the_solution():
    c, calls = ridge_context(), []

    def loss(w, c):
        calls.append(torch.is_grad_enabled())
        return ridge(w, c)

    w = mlo.solution(ridge_solution(c), loss, c)
    readers = slope(w) + torch.cos(w).sum() + w @ w
    assert calls == []
    readers.backward()
    assert calls == [True]


@pytest.mark.parametrize("change", ["log", "data"])
def test_a_context_that_is_changed_before_backward_is_refused_by_autograd(change):
    c = {"log": torch.tensor(0.1, requires_grad=True), "data": torch.ones(3)}
    w = mlo.solution(
        torch.ones(3), lambda w, c: (c["log"].exp() * (w - c["data"]).square()).sum(), c
    )
    with torch.no_grad():
        c[change].add_(1.0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        w.sum().backward()


def test_random_numbers_are_those_of_the_call_and_none_are_taken_from_the_stream():
    c = torch.tensor(0.7, requires_grad=True)
    data = torch.linspace(1, 2, 40)

    def loss(w, c):
        return (F.dropout(data) * (w - c * data).square()).sum()

    torch.manual_seed(3)
    mask = F.dropout(data)
    torch.manual_seed(3)
    w = mlo.solution(torch.ones(()), loss, c, mlo.Dense())
    after = torch.rand(2)
    torch.manual_seed(9)
    (found,) = torch.autograd.grad(w, c)
    # w* = c sum(m d) / sum(m) with the mask m that is drawn where the call was made.
    torch.testing.assert_close(found, (mask * data).sum() / mask.sum())
    nothing = torch.rand(2)
    torch.manual_seed(9)
    assert torch.equal(nothing, torch.rand(2))
    torch.manual_seed(3)
    assert torch.equal(after, torch.rand(2))


def test_random_numbers_of_nested_levels_are_replayed_as_well():
    c = torch.tensor(0.7, requires_grad=True)
    ones = torch.ones(30)

    def lower(z, c):
        return (F.dropout(ones) * (z - c[0] * c[1] * ones)).square().sum()

    def upper(w, c):
        z = mlo.solution(w.detach() * c.detach(), lower, (w, c), mlo.Dense())
        # w* = 1 / c whatever the mask below is, so long as it is the same in every pass.
        return (z - F.dropout(ones).mean()).square()

    torch.manual_seed(4)
    w = mlo.solution(torch.tensor(1.0), upper, c, mlo.Dense())
    (found,) = torch.autograd.grad(w, c)
    torch.manual_seed(4)
    drawn = F.dropout(ones).mean()
    # z = w c; (z - d)^2: g = 2 c (w c - d), dw/dc = -(2 w c - d) / c^2 at w = 1, c = 0.7
    torch.testing.assert_close(found, -(2 * 0.7 - drawn) / 0.49)
