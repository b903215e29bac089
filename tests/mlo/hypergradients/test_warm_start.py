"""Starting from the adjoint that was found last: the guess, what is remembered, what it saves."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from mlo import ConjugateGradient, Neumann, Outcome
from mlo.hypergradients import Diagonal
from mlo.testing import Verdict, check_method, lfm_shaped, quadratic

from .preconditioned import fixed, textbook
from .quadratics import condition_of, joined, relative, split, symmetric

EIGENVALUES = torch.linspace(1.0, 30.0, 40).tolist()
COLD = ConjugateGradient(iterations=200, tolerance=1e-11)
WARM = dataclasses.replace(COLD, warm_start=True)


def ask(method, hessian, v, state=None):
    """The adjoint, how it was found, and what is remembered."""
    with torch.no_grad():
        result = method.vjp(condition_of(hessian), split(v), state)
    return joined(result.grads), result.info, result.state


def test_a_warm_start_begins_with_nothing_and_costs_nothing_then():
    hessian, _ = symmetric(EIGENVALUES)
    with torch.no_grad():
        assert WARM.init(condition_of(hessian)) is None
    v = torch.randn(40)
    (cold, info, nothing), (warm, same, state) = ask(COLD, hessian, v), ask(WARM, hessian, v)
    assert torch.equal(cold, warm)
    assert nothing is None
    assert int(info.products) == int(same.products)
    assert isinstance(state, tuple)
    assert torch.equal(joined(state), warm)
    assert [t.shape for t in state] == [t.shape for t in split(v)]
    assert not any(t.requires_grad for t in state)


@pytest.mark.parametrize("scale", [1.0, 3.0, -1e-4])
def test_a_multiple_of_the_same_question_takes_no_iteration(scale):
    hessian, _ = symmetric(EIGENVALUES)
    v = torch.randn(40)
    found, _, state = ask(WARM, hessian, v)
    method = dataclasses.replace(WARM, tolerance=1e-9)
    again, info, state = ask(method, hessian, scale * v, state)
    assert relative(again, scale * found) < 1e-10
    # The product of the first rest, and that of the last.
    assert int(info.products) == 2
    assert info.outcome is Outcome.CONVERGED
    assert torch.equal(joined(state), again)


@pytest.mark.parametrize("damping", [0.0, 2.5])
@pytest.mark.parametrize("preconditioned", [False, True])
@pytest.mark.parametrize("iterations", [1, 4])
def test_the_guess_is_the_multiple_with_the_smallest_rest(iterations, preconditioned, damping):
    (hessian, _), (m, _) = symmetric(EIGENVALUES), symmetric(EIGENVALUES[::-1], seed=5)
    last, v = torch.randn(40), torch.randn(40)
    v = v + hessian @ last
    method = ConjugateGradient(
        iterations=iterations,
        tolerance=0.0,
        damping=damping,
        preconditioner=fixed(m) if preconditioned else None,
        warm_start=True,
    )
    found, info, _ = ask(method, hessian, v, split(last))
    a = hessian.numpy() + damping * np.eye(40)
    inverse = np.linalg.inv(m.numpy()) if preconditioned else np.eye(40)
    # The least squares in the norm of M^{-1}, by a factor of it.
    factor = np.linalg.cholesky(inverse).T
    (t,), *_ = np.linalg.lstsq((factor @ a @ last.numpy())[:, None], factor @ v.numpy())
    expected = textbook(a, v.numpy(), inverse, iterations, x=t * last.numpy())
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-10, atol=1e-12)
    assert int(info.products) == iterations + 2
    residual = np.linalg.norm(v.numpy() - a @ expected) / np.linalg.norm(v.numpy())
    assert float(info.residual) == pytest.approx(residual, rel=1e-9)


@pytest.mark.parametrize("kind", ["unrelated", "no better than zero", "zeros", "overflowing"])
def test_after_a_jump_it_is_as_good_as_cold_for_one_product_more(kind):
    hessian, vectors = symmetric(EIGENVALUES)
    v = vectors.sum(1) if kind == "unrelated" else vectors[:, :20].sum(1)
    last = {
        "unrelated": torch.randn(40),
        "no better than zero": vectors[:, 20:].sum(1),
        "zeros": torch.zeros(40),
        "overflowing": torch.full((40,), 1e308),
    }[kind]
    cold, before, _ = ask(COLD, hessian, v)
    found, info, _ = ask(WARM, hessian, v, split(last))
    assert relative(found, cold) < 1e-9
    assert info.outcome is Outcome.CONVERGED
    # Where the guess is used, rounding may cost one more.
    more = 2 if kind == "unrelated" else 1
    assert int(info.products) <= int(before.products) + more


def test_what_is_not_finite_is_never_remembered():
    hessian, _ = symmetric(EIGENVALUES)
    v, bad = torch.randn(40), torch.randn(40)
    bad[3] = float("nan")
    _, info, state = ask(WARM, hessian, bad)
    assert info.outcome is Outcome.NONFINITE
    assert torch.equal(joined(state), torch.zeros(40))
    found, _, state = ask(WARM, hessian, v, state)
    _, info, kept = ask(WARM, hessian, bad, state)
    assert info.outcome is Outcome.NONFINITE
    assert torch.equal(joined(kept), found)
    broken = hessian.clone()
    broken[0, 0] = float("nan")
    for method in (WARM, Neumann(alpha=0.01, warm_start=True)):
        _, info, kept = ask(method, broken, v, state)
        assert info.outcome is Outcome.NONFINITE
        assert joined(kept).isfinite().all()


def test_zero_is_answered_by_zero_whatever_is_remembered():
    hessian, _ = symmetric(EIGENVALUES)
    for method in (WARM, Neumann(alpha="auto", warm_start=True)):
        found, info, state = ask(method, hessian, torch.zeros(40), split(torch.randn(40)))
        assert torch.equal(found, torch.zeros(40))
        assert info.outcome is Outcome.ZERO
        assert torch.equal(joined(state), torch.zeros(40))


def test_it_works_in_single_precision():
    hessian, _ = symmetric(EIGENVALUES)
    v, method = torch.randn(40), dataclasses.replace(WARM, tolerance=1e-5)
    state = None
    for k in range(3):
        found, info, state = ask(method, hessian.float(), (v + 0.01 * k).float(), state)
        assert found.dtype is state[0].dtype is torch.float32
        assert info.outcome is Outcome.CONVERGED


@pytest.mark.parametrize("settings", [{"alpha": 0.04}, {"alpha": "auto"}, {"preconditioner": "M"}])
def test_a_series_goes_on_where_it_stopped(settings):
    """Richardson's iteration: the rest falls at least by the same factor in every call."""
    hessian, vectors = symmetric(torch.linspace(6.0, 30.0, 40).tolist())
    v, exact = vectors.sum(1), torch.linalg.solve(hessian, vectors.sum(1))
    b = 0.04 * torch.eye(40)
    if "preconditioner" in settings:
        m, _ = symmetric(torch.linspace(1.0, 2.0, 40).tolist(), seed=5)
        settings = {"preconditioner": fixed(m), "alpha": 0.04}
        b = 0.04 * torch.linalg.inv(m)
    method = Neumann(terms=6, warm_start=True, **settings)
    if method.alpha == "auto":
        one, *_ = ask(dataclasses.replace(method, terms=1), hessian, v)
        b = float((one / v).mean()) * torch.eye(40)
    factor = torch.linalg.eigvals(torch.eye(40) - b @ hessian).abs().max() ** 6
    state, size = None, (v @ b @ v).sqrt()
    for call in range(60):
        found, info, state = ask(method, hessian, v, state)
        rest = v - hessian @ found
        now = (rest @ b @ rest).sqrt()
        assert now <= factor * size + 1e-13
        size = now
        extra = 10 if method.alpha == "auto" else 0
        assert int(info.products) == 6 + extra + (call > 0)
    assert relative(found, exact) < 1e-10
    assert info.outcome is Outcome.CONVERGED


def test_a_diverging_series_is_named_and_does_no_harm_later():
    hessian, vectors = symmetric(EIGENVALUES)
    v, state = vectors.sum(1), None
    bad = Neumann(terms=10, alpha=0.5, warm_start=True)
    for _ in range(5):
        _, info, state = ask(bad, hessian, v, state)
        assert info.outcome is Outcome.DIVERGED
    found, info, _ = ask(dataclasses.replace(bad, terms=2000, alpha=0.05), hessian, v, state)
    assert info.outcome is Outcome.CONVERGED
    assert relative(found, torch.linalg.solve(hessian, v)) < 1e-8


def test_a_solve_that_is_differentiated_again_neither_uses_nor_changes_what_is_remembered():
    hessian, _ = symmetric(EIGENVALUES)
    last = split(torch.full((40,), 7.0))
    v = tuple(t.requires_grad_() for t in split(torch.randn(40)))
    condition = condition_of(hessian)
    condition.attached = True
    condition.params = tuple(p.clone().requires_grad_() for p in condition.params)
    result = WARM.vjp(condition, v, last)
    assert result.state is last
    cold, info, _ = ask(COLD, hessian, joined(v).detach())
    assert torch.equal(joined(result.grads).detach(), cold)
    assert int(result.info.products) == int(info.products)


@pytest.mark.parametrize(
    "method",
    [
        ConjugateGradient(iterations=60, warm_start=True),
        ConjugateGradient(iterations=60, warm_start=True, preconditioner=Diagonal(probes=2)),
        Neumann(alpha="auto", terms=400, warm_start=True),
    ],
)
def test_it_keeps_what_check_method_asks_for(method):
    forms = [lfm_shaped(), quadratic(depth=2)]
    report = check_method(method, problems=forms)
    assert {report.verdicts[f.name] for f in forms} == {Verdict.EXACT}
