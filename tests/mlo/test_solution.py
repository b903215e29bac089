"""`mlo.solution`: a minimizer found by whatever means, attached to what it was solved for."""

from __future__ import annotations

import collections
import dataclasses
import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call
from torch.utils.checkpoint import checkpoint

import mlo
from mlo import errors

from .oracles import argmin, gradient, root

METHODS = {
    "Dense": mlo.Dense(),
    # More iterations than any problem here has parameters.
    "ConjugateGradient": mlo.ConjugateGradient(iterations=40, tolerance=1e-14),
    # Curvatures lie between 0.3 and 2 / 0.12 here.
    "Neumann": mlo.Neumann(terms=2000, alpha=0.12, tolerance=1e-12),
}
METHOD = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
# What remains are rounding and, for the iterative methods, their tolerance.
EXACT = {"rtol": 1e-9, "atol": 1e-10}

X = torch.randn(8, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
Y = torch.randn(8, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


def ridge(w, c):
    """Its minimizer and all of its derivatives are known; H depends on the context itself."""
    return 0.5 * (X @ w - c["target"]).square().mean() + 0.5 * (c["log"].exp() * w.square()).sum()


def ridge_solution(c):
    """The closed form, which autograd differentiates as often as one likes."""
    normal = X.T @ X / len(X) + torch.diag(c["log"].exp())
    return torch.linalg.solve(normal, X.T @ c["target"] / len(X))


def ridge_context():
    return {
        "log": torch.tensor([0.3, -0.2, 0.5], requires_grad=True),
        "target": Y.clone().requires_grad_(),
    }


def curved(w, c):
    """Not quadratic in anything, with curvatures between 1 and 4 near its minimum."""
    pull, scale = c
    return (
        (scale.exp() * w.square()).sum()
        + 0.1 * (w**4).sum()
        + 0.3 * torch.sin(w + pull).sum()
        - (w * pull).sum()
    )


def curved_solution(*c):
    """Found without a graph."""
    fixed = tuple(t.detach() for t in c)
    return root(lambda w: gradient(curved(w, fixed), w), torch.zeros(3))


CURVED = (torch.tensor([0.4, -0.7, 1.1]).double(), torch.tensor(0.2).double())


def fresh(tensors=CURVED):
    return tuple(t.clone().requires_grad_() for t in tensors)


def slope(w):
    return torch.sin(w).sum() + w.square().sum()


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


OUT = torch.ones(2, requires_grad=True, dtype=torch.float64)
NET = nn.Linear(2, 2).double()
C = torch.tensor([1.0, 2.0], dtype=torch.float64)


class Once(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x * 2

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, g):
        return g * 2


def attention(w, c):
    q = (w * c).reshape(1, 1, 1, 2)
    return F.scaled_dot_product_attention(q, q, q).sum() + w.square().sum()


def writing(into):
    def loss(w, c):
        with torch.no_grad():
            (w if into == "params" else c[1]).mul_(2.0)
        return (w - c[0]).square().sum()

    return loss


def square(w, c):
    return (w - c).square().sum()


def stopped(use_reentrant):
    def loss(w, c):
        return checkpoint(lambda w: (w - c).square().sum(), w, use_reentrant=use_reentrant)

    return loss


# name -> (the error, what it says, the loss, its context)
IN_BACKWARD = {
    "no scalar": (errors.LossError, r"float64 tensor of shape \(2,\)", lambda w, c: w * c, C),
    "an integer": (errors.LossError, "int64 tensor", lambda w, c: w.sum().long(), C),
    "a pair": (errors.LossError, "got tuple", lambda w, c: (square(w, c), {}), C),
    "a number": (errors.LossError, "got float", lambda w, c: float(square(w, c).detach()), C),
    "nothing": (errors.LossError, "got NoneType", lambda w, c: None, C),
    "no parameter": (errors.LossError, "none of its parameters", lambda w, c: c.sum(), C),
    "detached params": (errors.LossError, "none of", lambda w, c: square(w.detach(), c), C),
    "a constant": (errors.LossError, "none of", lambda w, c: torch.zeros(()), C),
    "a leaf": (
        errors.ClosureError,
        r"shape \(2,\).*Put it in the context, or detach it",
        lambda w, c: square(w, c) + OUT.sum(),
        C,
    ),
    "a leaf as it is": (errors.ClosureError, r"shape \(\)", lambda w, c: SCALAR, C),
    "a leaf times zero": (
        errors.ClosureError,
        "not among",
        lambda w, c: square(w, c * (OUT * 0)),
        C,
    ),
    "history": (errors.ClosureError, r"shape \(2,\)", lambda w, c: square(w, HISTORY), C),
    "a module": (
        errors.ClosureError,
        r"functional_call",
        lambda w, c: square(NET(w), c),
        C,
    ),
    "another solution": (
        errors.ClosureError,
        r"shape \(2,\)",
        lambda w, c: square(w, c + mlo.solution(C, square, OUT)),
        C,
    ),
    "written params": (errors.EvaluationError, "tensors of 'params'", writing("params"), (C, C)),
    "written data": (errors.EvaluationError, "tensors of 'context'", writing("context"), (C, C)),
    "checkpointing": (errors.CheckpointingError, "checkpointing", stopped(False), C),
    "reentrant": (errors.CheckpointingError, "checkpointing", stopped(True), C),
    "attention": (errors.DoubleBackwardError, "second derivative", attention, C),
    "once": (errors.DoubleBackwardError, "once", lambda w, c: square(Once.apply(w), c), C),
}
SCALAR = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
HISTORY = OUT * 3


@pytest.mark.parametrize("graph", [False, True], ids=["first order", "with a graph"])
@pytest.mark.parametrize("case", IN_BACKWARD)
def test_a_loss_that_cannot_work_is_refused_in_backward_and_named(case, graph):
    error, words, loss, context = IN_BACKWARD[case]
    given = [t.clone() for t in (context if isinstance(context, tuple) else (context,))]
    given[0].requires_grad_()
    context = tuple(given) if isinstance(context, tuple) else given[0]
    w = mlo.solution(C, loss, context, mlo.Dense(), name="fit")
    with pytest.raises(error, match=words) as caught:
        torch.autograd.grad(w.sum(), given[0], create_graph=graph)
    assert type(caught.value) is error
    assert caught.value.problem == "fit"
    assert str(caught.value).startswith("problem 'fit': ")


def test_context_that_is_reached_by_another_way_is_found_also_with_a_graph():
    c = torch.tensor([1.0, 2.0], requires_grad=True)
    doubled = 2 * c
    w = mlo.solution(C, lambda w, c: (w - c - doubled).square().sum(), c)
    for graph in (False, True):
        with pytest.raises(errors.ClosureError):
            torch.autograd.grad(w.sum(), c, create_graph=graph, retain_graph=True)


def test_a_loss_that_is_a_parameter_depends_on_it_and_has_no_curvature():
    w = mlo.solution(torch.tensor(1.0), lambda w, c: w, OUT)
    with pytest.warns(errors.HypergradientWarning, match="negative curvature"):
        w.backward()
    assert OUT.grad is None


def test_an_error_of_the_loss_is_the_users_own_and_says_where():
    def loss(w, c):
        return w @ torch.ones(3)

    w = mlo.solution(C, loss, OUT, name="fit")
    with pytest.raises(RuntimeError) as caught:
        w.sum().backward()
    assert caught.value.__notes__ == ["in the loss of problem 'fit'"]


def test_a_method_that_answers_wrongly_is_named():
    w = mlo.solution(C, lambda w, c: square(w, c[0] + c[1]), (OUT, OUT), Broken([]))
    with pytest.raises(errors.MethodError, match=r"Broken, vjp\(\) must return"):
        w.sum().backward()


# name -> (the error, what it says, the arguments)
AT_ONCE = {
    "no loss": (errors.DeclarationError, "loss= must be a function", (C, 3.0, C)),
    "no params": (errors.DeclarationError, "holds no tensor", ({}, square, C)),
    "a number": (
        errors.DeclarationError,
        r"params\['a'\]\[0\] must be .* got float; constants",
        ({"a": [1.0]}, square, C),
    ),
    "integers": (errors.DeclarationError, "params must be .*int64", (C.long(), square, C)),
    "complex": (errors.DeclarationError, "complex128", (C.cfloat().to(torch.cdouble), square, C)),
    "a module": (errors.DeclarationError, "Linear; .*functional_call", (NET, square, C)),
    "one twice": (
        errors.DeclarationError,
        r"params\['b'\] is the same tensor as params\['a'\]",
        ({"a": C, "b": C}, square, C),
    ),
    "a module of context": (
        errors.DeclarationError,
        r"context\[1\] is a module.*named_parameters",
        (C, square, (C, NET)),
    ),
    "a class": (errors.MethodError, r"method= must be .*write Dense\(", (C, square, C, mlo.Dense)),
    "a name": (errors.MethodError, r"write Neumann\(", (C, square, C, "neumann")),
    "one step": (errors.MethodError, "'moves'.*use ConjugateG", (C, square, C, mlo.OneStep())),
    "differences": (errors.MethodError, "'optimizer'", (C, square, C, mlo.FiniteDifference())),
    "no rates": (
        errors.MethodError,
        r"Neumann needs 'learning_rate' .*Neumann\(alpha=\.\.\.\), with the step",
        (C, square, C, mlo.Neumann()),
    ),
    "too large": (errors.MethodError, r"limit=1\) allows", (C, square, C, mlo.Dense(limit=1))),
}


@pytest.mark.parametrize("grad", [True, False])
@pytest.mark.parametrize("case", AT_ONCE)
def test_arguments_that_cannot_work_are_refused_at_once(case, grad):
    error, words, arguments = AT_ONCE[case]
    with torch.set_grad_enabled(grad), pytest.raises(error, match=words) as caught:
        mlo.solution(*arguments, name="fit")
    assert type(caught.value) is error
    assert caught.value.problem == "fit"


def test_a_frozen_module_is_a_constant_of_the_context():
    frozen, c = nn.Linear(2, 2).requires_grad_(False), C.clone().requires_grad_()
    w = mlo.solution(frozen(c), lambda w, c: square(w, c[1](c[0])), (c, frozen))
    (found,) = torch.autograd.grad(w.sum(), c)
    torch.testing.assert_close(found, frozen.weight.sum(0))
