"""The low-rank inverse: against NumPy, against its error bounds, and through an engine's ticks."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

import mlo
from mlo import Nystrom, Outcome
from mlo.testing import check_method, forms

from ..oracles import engine_of, starts
from ..programs import program
from .preconditioned import right_side
from .quadratics import answer, condition_of, joined, relative, split, symmetric

INDEFINITE = [3.0, -1.0, 0.5, 7.0, -4.0, 0.2, 1.0, 2.0]


def by_numpy(matrix, rank, seed):
    """Y pinv(X'Y) Y' with Gaussian columns X: any basis of their span gives the same."""
    draw = torch.Generator().manual_seed(seed)
    tests = torch.randn(len(matrix), rank, generator=draw).numpy()
    images = matrix.numpy() @ tests
    return torch.from_numpy(images @ np.linalg.pinv(tests.T @ images) @ images.T)


def asked(method, matrix, v, state=None):
    """Everything that `vjp` returns."""
    with torch.no_grad():
        return method.vjp(condition_of(matrix), split(v), state)


def approximated(method, matrix):
    """H_k, out of the state."""
    state = asked(method, matrix, torch.ones(len(matrix), dtype=matrix.dtype)).state
    return (state["basis"] * state["values"]) @ state["basis"].T


@pytest.mark.parametrize("rank", [1, 2, 5, 7])
@pytest.mark.parametrize("seed", [0, 3])
@pytest.mark.parametrize("damping", [1e-3, 0.5])
def test_it_inverts_the_sketch_that_numpy_makes_from_the_same_draw(rank, seed, damping):
    matrix, _ = symmetric([0.1 * 2.0**k for k in range(8)], seed=2)
    v = right_side(8)
    method = Nystrom(rank=rank, damping=damping, seed=seed)
    found, info = answer(method, matrix, v)
    low = by_numpy(matrix, rank, seed)
    torch.testing.assert_close(approximated(method, matrix), low, rtol=1e-9, atol=1e-10)
    eye = torch.eye(8)
    # The sketch's rounding, divided by the damping.
    assert relative(found, torch.linalg.solve(low + damping * eye, v)) < 1e-9
    # Its error is measured on the damped system.
    rest = v - matrix @ found - damping * found
    torch.testing.assert_close(info.residual, rest.norm() / v.norm(), rtol=1e-9, atol=1e-12)
    assert int(info.products) == rank + 1
    grew = float(info.residual) > 1.0
    assert info.outcome is (Outcome.DIVERGED if grew else Outcome.LIMIT)


@pytest.mark.parametrize("damping", [1e-13, 1e-6, 0.1])
@pytest.mark.parametrize("eigenvalues", [[0.1 * 2.0**k for k in range(8)], INDEFINITE])
@pytest.mark.parametrize("rank", [8, 50])
def test_of_full_rank_it_is_the_damped_inverse(eigenvalues, damping, rank):
    matrix, _ = symmetric(eigenvalues, seed=4)
    v = right_side(8)
    found, info = answer(Nystrom(rank=rank, damping=damping), matrix, v)
    # Rounding times a condition number of up to 130.
    assert relative(found, torch.linalg.solve(matrix + damping * torch.eye(8), v)) < 1e-12
    assert info.outcome is Outcome.CONVERGED
    assert int(info.products) == 9


def test_a_rank_that_is_that_of_the_hessian_is_enough():
    matrix, _ = symmetric([5.0, 3.0, 1.0, *[0.0] * 27], seed=1)
    v = right_side(30)
    for rank in (3, 4, 12):
        found, info = answer(Nystrom(rank=rank, damping=1e-3), matrix, v)
        assert relative(found, torch.linalg.solve(matrix + 1e-3 * torch.eye(30), v)) < 1e-9
        assert info.outcome is Outcome.CONVERGED


def test_a_damping_that_cancels_an_eigenvalue_is_singular_and_near_it_is_not():
    matrix, _ = symmetric([2.0, 1.0, -0.25, 3.0])
    v = right_side(4)
    found, info = answer(Nystrom(rank=4, damping=0.25), matrix, v)
    assert found.isnan().all()
    assert info.outcome is Outcome.SINGULAR
    assert answer(Nystrom(rank=4, damping=0.25), matrix, torch.zeros(4))[1].outcome is Outcome.ZERO
    found, info = answer(Nystrom(rank=4, damping=0.25 + 1e-6), matrix, v)
    assert info.outcome is Outcome.CONVERGED
    exact = torch.linalg.solve(matrix + (0.25 + 1e-6) * torch.eye(4), v)
    assert relative(found, exact) < 1e-8


def test_a_singular_hessian_claims_nothing_where_the_damping_is_rounding():
    matrix, _ = symmetric([3.0, 2.0, 1.0, 0.0])
    _, info = answer(Nystrom(rank=4, damping=1e-15), matrix, right_side(4))
    assert info.outcome not in (Outcome.CONVERGED, Outcome.EXPLICIT, Outcome.ZERO)


@pytest.mark.parametrize("eigenvalues", [[1.0, 2.0, 3.0, 4.0], [0.0] * 4, [1.0, -1.0, 0.0, 2.0]])
def test_a_zero_right_hand_side_is_answered_by_zero(eigenvalues):
    found, info = answer(Nystrom(rank=2), symmetric(eigenvalues)[0], torch.zeros(4))
    assert torch.equal(found, torch.zeros(4))
    assert info.outcome is Outcome.ZERO


@pytest.mark.parametrize("where", ["right-hand side", "Hessian"])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_not_finite_is_named_and_its_sketch_not_used_again(where, bad):
    matrix, v = torch.eye(4), torch.ones(4)
    (v if where == "right-hand side" else matrix[1])[1] = bad
    method = Nystrom(rank=4, refresh=10)
    result = asked(method, matrix, v)
    assert result.info.outcome is Outcome.NONFINITE
    after = asked(method, torch.eye(4), torch.ones(4), result.state)
    assert after.info.outcome is Outcome.CONVERGED
    assert int(after.info.products) == (1 if where == "right-hand side" else 5)


def test_the_answer_depends_on_the_seed_and_on_no_global_random_state():
    matrix, _ = symmetric(INDEFINITE)
    v, method = right_side(8), Nystrom(rank=3)
    first, _ = answer(method, matrix, v)
    torch.manual_seed(123)
    before = torch.get_rng_state()
    again, _ = answer(method, matrix, v)
    assert torch.equal(first, again)
    assert torch.equal(torch.get_rng_state(), before)
    assert not torch.equal(first, answer(Nystrom(rank=3, seed=1), matrix, v)[0])


@pytest.mark.parametrize("refresh", [1, 2, 3])
def test_a_sketch_serves_as_many_points_as_refresh_says_and_its_age_shows(refresh):
    method, state = Nystrom(rank=8, damping=0.1, refresh=refresh), None
    v, eye = right_side(8), 0.1 * torch.eye(8)
    for point in range(7):
        matrix, _ = symmetric([k + 1.0 + 0.1 * point for k in range(8)])
        result = asked(method, matrix, v, state)
        state = result.state
        age = point % refresh
        sketched, _ = symmetric([k + 1.0 + 0.1 * (point - age) for k in range(8)])
        found = joined(result.grads)
        assert relative(found, torch.linalg.solve(sketched + eye, v)) < 1e-12
        residual = (v - (matrix + eye) @ found).norm() / v.norm()
        torch.testing.assert_close(result.info.residual, residual, rtol=1e-6, atol=1e-13)
        assert int(result.info.products) == (9 if age == 0 else 1)
        assert state["age"] == age + 1
        assert (result.info.outcome is Outcome.CONVERGED) == (age == 0)


def test_all_solves_at_a_point_share_a_sketch():
    matrix, _ = symmetric(INDEFINITE)
    method = Nystrom(rank=3)
    with torch.no_grad():
        condition = condition_of(matrix)
        first = method.vjp(condition, split(right_side(8)), None)
        second = method.vjp(condition, split(right_side(8, seed=2)), first.state)
    assert (int(first.info.products), int(second.info.products)) == (4, 1)
    assert second.state is first.state
    alone = answer(method, matrix, right_side(8, seed=2))[0]
    assert torch.equal(joined(second.grads), alone)


@pytest.mark.parametrize("refresh", [1, 2, 4])
@pytest.mark.parametrize("lookahead", [False, True])
def test_the_age_is_kept_over_the_ticks_of_an_engine(refresh, lookahead):
    levels = program({"low": ("top",), "top": ("low",)}, ["quartic"])
    method = Nystrom(rank=2, damping=1e-3, refresh=refresh)  # of two parameters
    engine = engine_of(levels, starts(levels), method, lookahead=lookahead)
    products = []
    for _ in range(6):
        moves = engine.step().moves
        products += [int(r.info.products) for m in moves for r in m.responses]
        engine.hypergradient("top")  # looking at it ages nothing
    assert products == [3 if tick % refresh == 0 else 1 for tick in range(6)]


def test_the_state_is_plain_and_survives_a_file(tmp_path):
    matrix, _ = symmetric(INDEFINITE)
    method, v = Nystrom(rank=3, refresh=5), right_side(8)
    state = asked(method, matrix, v).state
    assert {k: type(x) for k, x in state.items()} == {
        "basis": torch.Tensor,
        "values": torch.Tensor,
        "age": int,
    }
    assert not any(t.requires_grad for t in (state["basis"], state["values"]))
    torch.save(state, tmp_path / "state")
    read = torch.load(tmp_path / "state", weights_only=True)
    expected, found = (asked(method, 2.0 * matrix, v, s) for s in (state, read))
    assert torch.equal(joined(found.grads), joined(expected.grads))
    assert found.state["age"] == 2
    assert method.observe(None, state) is state


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_it_works_in_lower_precision(dtype):
    eigenvalues = [0.5 ** (k / 2) for k in range(20)]
    matrix, v = symmetric(eigenvalues)[0].to(dtype), right_side(20).to(dtype)
    exact = torch.linalg.solve(matrix.double() + 0.1 * torch.eye(20), v.double())
    tolerance = 50 * torch.finfo(dtype).eps
    found, info = answer(Nystrom(rank=20, damping=0.1, tolerance=tolerance), matrix, v)
    assert found.dtype is dtype
    # Rounding of the products times a condition number of 11.
    assert relative(found.double(), exact) < 20 * torch.finfo(dtype).eps
    assert info.outcome is Outcome.CONVERGED
    state = asked(Nystrom(rank=5), matrix, v).state
    assert state["basis"].dtype is state["values"].dtype is torch.float32
    gram = state["basis"].T @ state["basis"]
    torch.testing.assert_close(gram, torch.eye(5, dtype=torch.float32), rtol=0, atol=1e-5)


def test_it_keeps_what_check_method_asks_for():
    report = check_method(Nystrom(rank=50, damping=1e-14))
    verdicts = {row.problem: row.verdict.name for row in report.rows}
    assert verdicts.pop("singular Hessian") == "APPROXIMATE"
    assert set(verdicts.values()) == {"EXACT"}
    assert check_method(Nystrom(), biased=True)
    assert check_method(Nystrom(rank=2, damping=0.1, refresh=3), biased=True)


@pytest.mark.parametrize("refresh", [1, 5])
def test_it_is_differentiated_below_an_anticipating_problem(refresh):
    form = forms.trilevel(condition=10.0)
    methods = {"low": Nystrom(rank=5, damping=1e-12, refresh=refresh), "middle": mlo.Dense()}
    found, responses = form.engine(methods).total_gradient("top")
    assert relative(found["x"], form.truth["x"]) < 1e-9
    (low,) = (r for r in responses if r.problem == "low")
    assert low.info.outcome is Outcome.CONVERGED
    # Many solves at one point, for the parts of the context that they are asked for.
    assert low.solves > 2
    assert int(low.info.products) < low.solves * 6


def test_a_solution_answers_by_it_and_keeps_the_sketch():
    matrix, _ = symmetric([1.0, -2.0, 3.0])
    c = torch.tensor([0.3, -0.2, 0.5], requires_grad=True)
    w = torch.linalg.solve(matrix, c.detach().exp())
    products, calls = [], []

    def loss(w, c):
        calls.append(1)
        return 0.5 * w @ matrix @ w - w @ c.exp()

    @dataclasses.dataclass(frozen=True)
    class Counted(Nystrom):
        def vjp(self, condition, cotangent, state):
            result = super().vjp(condition, cotangent, state)
            products.append(int(result.info.products))
            return result

    solved = mlo.solution(w, loss, c, Counted(rank=3, damping=1e-9, refresh=2))
    for _ in range(4):
        (found,) = torch.autograd.grad(solved.square().sum(), c, retain_graph=True)
        expected = torch.linalg.solve(matrix, 2 * w) * c.detach().exp()
        torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-9)
    assert products == [4, 1, 4, 1]
    assert calls


def test_it_says_how_much_work_it_is():
    assert Nystrom(rank=10).work(1000) == 11
    assert Nystrom(rank=10).work(4) == 5


@pytest.mark.parametrize(
    "settings",
    [{"rank": 0}, {"damping": 0.0}, {"refresh": 0}, {"seed": -1}, {"tolerance": -1.0}],
)
def test_a_setting_out_of_range_is_named(settings):
    (name,) = settings
    with pytest.raises(mlo.errors.ConfigurationError, match=rf"Nystrom\({name}=\.\.\.\)"):
        Nystrom(**settings)
