"""Minimal residuals: every iterate against SciPy and against its definition, at saddles too."""

from __future__ import annotations

import dataclasses
import functools

import pytest
import scipy.sparse.linalg
import torch

import mlo
from mlo import Minres, Outcome
from mlo.condition import Condition
from mlo.testing import check_method, forms

from .preconditioned import Given, chosen, positive, right_side
from .quadratics import answer, condition_of, joined, relative, split, symmetric

SPECTRA = {
    "definite": [0.3, 0.8, 1.7, 2.9, 4.1, 7.3, 11.0, 12.0],
    "indefinite": [1.0, 2.0, 3.0, -4.0, 5.0, -6.0, 0.5, 7.0],
    "negative": [-1.0, -2.0, -2.5, -4.0, -5.0, -7.0, -8.0],
    "as many of both": [1.0, -1.1, 2.0, -2.2, 3.0, -3.3, 4.0, -4.4],
    "clustered": [1.0, 1.0, 1.001, -3.0, -3.0, 8.0, 8.0, 0.2],
}


def scipys(matrix, v, iterations, inverse):
    found, _ = scipy.sparse.linalg.minres(
        matrix.numpy(), v.numpy(), M=inverse.numpy(), maxiter=iterations, rtol=1e-300
    )
    return torch.from_numpy(found)


@pytest.mark.parametrize("spectrum", SPECTRA)
@pytest.mark.parametrize("kind", [None, "given"])
@pytest.mark.parametrize("damping", [0.0, 0.3])
def test_every_iterate_is_that_of_scipy_and_the_best_of_its_krylov_space(spectrum, kind, damping):
    matrix, _ = symmetric(SPECTRA[spectrum], seed=3)
    n = len(matrix)
    v = right_side(n)
    inverse, preconditioner = chosen(kind, n)
    damped = matrix + damping * torch.eye(n)
    half = torch.linalg.cholesky(inverse)
    before, basis = float("inf"), torch.empty(n, 0)
    for k in range(1, n - 1):
        method = Minres(iterations=k, tolerance=0.0, damping=damping, preconditioner=preconditioner)
        found, info = answer(method, matrix, v)
        assert relative(found, scipys(damped, v, k, inverse)) < 1e-10
        # An orthonormal basis of the space, made anew and fully orthogonalized.
        new = inverse @ (v if k == 1 else damped @ basis[:, -1])
        basis, _ = torch.linalg.qr(torch.cat([basis, new[:, None]], dim=1))
        fit = torch.linalg.lstsq(half.T @ damped @ basis, half.T @ v).solution
        assert relative(found, basis @ fit) < 1e-9
        rest = v - damped @ found
        torch.testing.assert_close(info.residual, rest.norm() / v.norm(), rtol=1e-9, atol=1e-14)
        length = float((half.T @ rest).norm())
        assert length <= before * (1 + 1e-12)
        before = length
        assert int(info.products) == k + 1
        assert info.outcome is Outcome.LIMIT


@pytest.mark.parametrize(
    "eigenvalues", [[2.0] * 6, [1.0] * 5 + [-7.0] * 3, [0.5, 3.0, 3.0, -3.0, 40.0, 40.0]]
)
def test_it_is_exact_after_as_many_iterations_as_there_are_distinct_eigenvalues(eigenvalues):
    matrix, _ = symmetric(eigenvalues)
    v, distinct = right_side(len(matrix)), len(set(eigenvalues))
    found, info = answer(Minres(iterations=50, tolerance=1e-10), matrix, v)
    assert relative(found, torch.linalg.solve(matrix, v)) < 1e-10
    assert info.outcome is Outcome.CONVERGED
    assert int(info.products) == distinct + 1


def test_it_converges_at_a_saddle_where_conjugate_gradients_stop():
    matrix, _ = symmetric(torch.linspace(-3, 5, 40).add(0.03).tolist())
    v = right_side(40)
    assert answer(mlo.ConjugateGradient(iterations=200), matrix, v)[1].outcome.failed
    found, info = answer(Minres(iterations=200, tolerance=1e-9), matrix, v)
    assert info.outcome is Outcome.CONVERGED
    # The smallest eigenvalue is above 0.03.
    assert relative(found, torch.linalg.solve(matrix, v)) < 1e-6


@pytest.mark.parametrize("n", [1, 2, 4, 8, 12])
def test_the_residual_is_within_the_bound_of_the_docstring(n):
    near = torch.linspace(1, 4, 30)
    for eigenvalues, iterations, k in (
        (torch.cat([near, -near]), 2 * n, 4.0),
        (near, n, 2.0),
        (-near, n, 2.0),
    ):
        matrix, _ = symmetric(eigenvalues.tolist())
        method = Minres(iterations=iterations, tolerance=0.0)
        _, info = answer(method, matrix, right_side(len(matrix)))
        assert float(info.residual) <= 2 * ((k - 1) / (k + 1)) ** n


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
@pytest.mark.parametrize("tolerance", [1e-2, 1e-5, 1e-8])
def test_it_stops_at_the_first_iterate_whose_euclidean_residual_is_small_whatever_m_is(
    scale, tolerance
):
    matrix, _ = symmetric(torch.linspace(-2, 5, 30).add(0.05).tolist())
    v = right_side(30)
    method = Minres(iterations=300, tolerance=tolerance, preconditioner=Given(scale * positive(30)))
    _, info = answer(method, matrix, v)
    assert info.outcome is Outcome.CONVERGED
    assert float(info.residual) <= tolerance
    one_less = dataclasses.replace(method, iterations=int(info.products) - 2)
    assert answer(one_less, matrix, v)[1].outcome is Outcome.LIMIT


@pytest.mark.parametrize("eigenvalues", [[1.0, 2.0, 3.0, 4.0], [0.0] * 4, [1.0, -1.0, 0.0, 2.0]])
def test_a_zero_right_hand_side_is_answered_by_zero(eigenvalues):
    found, info = answer(Minres(), symmetric(eigenvalues)[0], torch.zeros(4))
    assert torch.equal(found, torch.zeros(4))
    assert info.outcome is Outcome.ZERO
    assert int(info.products) == 1


@pytest.mark.parametrize("where", ["right-hand side", "Hessian"])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_not_finite_is_named(where, bad):
    matrix, v = torch.eye(4), torch.ones(4)
    (v if where == "right-hand side" else matrix[1])[1] = bad
    found, info = answer(Minres(), matrix, v)
    assert info.outcome is Outcome.NONFINITE
    assert not found.isfinite().all()


def test_no_number_is_read_on_the_way():
    """Tensors without data: whoever looks at a value fails."""
    matrix = torch.eye(5, device="meta")

    def objective(w, c):
        return 0.5 * joined(w) @ matrix @ joined(w) - joined(w) @ joined(c)

    point = tuple(t.to("meta") for t in split(torch.ones(5)))
    with torch.no_grad():
        condition = Condition(objective, point, point, problem="low", learning_rate=(0.1,) * 3)
        result = Minres(iterations=4, damping=0.1).vjp(condition, point, None)
    assert [g.shape for g in result.grads] == [t.shape for t in point]
    with pytest.raises(RuntimeError, match="meta"):
        bool(result.info.code == 0)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 0.1)])
def test_it_works_in_lower_precision(dtype, tolerance):
    matrix, _ = symmetric([1.0, 2.0, -3.0, 4.0, -5.0])
    matrix, v = matrix.to(dtype), right_side(5).to(dtype)
    found, info = answer(Minres(tolerance=tolerance), matrix, v)
    assert found.dtype is dtype
    exact = torch.linalg.solve(matrix.double(), v.double())
    assert relative(found.double(), exact) < 5 * tolerance
    assert info.outcome is Outcome.CONVERGED


def test_a_warm_start_takes_up_the_last_adjoint():
    matrix, _ = symmetric([*torch.linspace(-3, -1, 10), *torch.linspace(1, 5, 20)])
    method = Minres(iterations=300, tolerance=1e-6, warm_start=True)
    state, products = None, []
    for shift in (0.0, 1e-4, 2e-4):
        v = right_side(30) + shift * right_side(30, seed=2)
        with torch.no_grad():
            result = method.vjp(condition_of(matrix), split(v), state)
        state = result.state
        products.append(int(result.info.products))
        assert result.info.outcome is Outcome.CONVERGED
        assert relative(joined(result.grads), torch.linalg.solve(matrix, v)) < 1e-5
    assert max(products[1:]) < products[0] - 4


@pytest.mark.parametrize("preconditioner", [None, "diagonal"])
def test_it_keeps_what_check_method_asks_for(preconditioner):
    method = Minres(iterations=60, tolerance=1e-9, preconditioner=preconditioner)
    report = check_method(method)
    verdicts = {row.problem: row.verdict.name for row in report.rows}
    assert verdicts.pop("singular Hessian") == "FAILED"
    assert set(verdicts.values()) == {"EXACT"}
    assert check_method(Minres(iterations=2))


def test_it_is_differentiated_below_an_anticipating_problem():
    form = forms.trilevel(condition=10.0)
    engine = form.engine(Minres(iterations=50, tolerance=1e-11))
    found = engine.hypergradient("top")["x"]
    assert relative(found, form.truth["x"]) < 1e-8


def test_a_solution_answers_by_it():
    matrix, _ = symmetric([1.0, -2.0, 3.0])
    c = torch.tensor([0.3, -0.2, 0.5], requires_grad=True)
    w = torch.linalg.solve(matrix, c.detach().exp())
    solved = mlo.solution(w, lambda w, c: 0.5 * w @ matrix @ w - w @ c.exp(), c, Minres())
    (found,) = torch.autograd.grad(solved.square().sum(), c)
    expected = torch.linalg.solve(matrix, 2 * w) * c.detach().exp()
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("settings", [{}, {"preconditioner": "diagonal"}, {"warm_start": True}])
def test_it_takes_no_more_products_than_it_says(settings):
    matrix, _ = symmetric(SPECTRA["indefinite"])
    method = Minres(iterations=5, tolerance=0.0, **settings)
    with torch.no_grad():
        condition = functools.partial(condition_of, matrix)
        first = method.vjp(condition(), split(right_side(8)), None)
        second = method.vjp(condition(), split(right_side(8, seed=4)), first.state)
    assert int(first.info.products) <= method.work(8)
    assert int(second.info.products) == method.work(8)


@pytest.mark.parametrize(
    "settings",
    [{"iterations": 0}, {"tolerance": -1e-3}, {"damping": float("nan")}, {"warm_start": 1}],
)
def test_a_setting_out_of_range_is_named(settings):
    (name,) = settings
    with pytest.raises(mlo.errors.ConfigurationError, match=rf"Minres\({name}=\.\.\.\)"):
        Minres(**settings)
    with pytest.raises(mlo.errors.ConfigurationError, match="preconditioner='diagnal'"):
        Minres(preconditioner="diagnal")
