"""The truths of the closed forms, against answers that owe nothing to their formulas."""

from __future__ import annotations

import math
import subprocess
import sys

import pytest
import torch

import mlo
from mlo.errors import ConfigurationError
from mlo.testing import (
    chain,
    closed_forms,
    diamond,
    lfm_shaped,
    logistic,
    quadratic,
    ridge,
    saddle,
    trilevel,
)

from .. import oracles
from ..oracles import argmin, flat, gradient, jacobian, relative, unflat

STAGED = {
    "quadratic": quadratic(),
    "quadratic, other settings": quadratic(size=6, condition=30.0, scale=2.0, seed=5),
    "ill-conditioned": quadratic(condition=1e4),
    "ridge": ridge(seed=1),
    "ridge, per coordinate": ridge(per_coordinate=True, size=6),
    "logistic": logistic(seed=3),
    "lfm-shaped": lfm_shaped(),
    "lfm-shaped, far from quadratic": lfm_shaped(seed=2, quartic=1.0),
    "a chain of one": chain(1),
    "chain": chain(4, seed=2),
    "diamond": diamond(1),
    "diamonds": diamond(3),
    "saddle": saddle(),
}
NESTED = {
    "depth 3": quadratic(3),
    "depth 4": quadratic(4, size=2, seed=4),
    "quartic": trilevel(),
    "far from quadratic": trilevel(seed=3, quartic=1.0),
}
ALL = {**STAGED, **NESTED}


def levels_of(form, *, away):
    """The same program for the oracles."""
    return [
        oracles.Level(n.name, n.loss, dict(n.start if away else n.solution), explicit=n.reads)
        for n in form.levels
    ]


def values_of(form, *, away):
    return oracles.starts(levels_of(form, away=away))


# Two exact calculations differ by the rounding of a solve: 1e-16 times the condition number.
def rounding(form):
    return 1e-13 * max(form.condition, 10.0)


@pytest.mark.parametrize("name", STAGED)
def test_a_staged_truth_is_that_of_a_dense_solve_of_the_program_solved_anew(name):
    form = STAGED[name]
    levels = levels_of(form, away=True)
    values = oracles.solved(levels, values_of(form, away=True), oracles.below(levels, form.upper))
    expected = oracles.stacked_answer(levels, values, form.upper)
    # The root is found to a residual of 1e-12, which the condition number amplifies.
    assert relative(form.truth, expected) < 1e-11 * max(form.condition, 10.0)
    for level in form.levels:
        assert relative(level.solution, values[level.name]) < 1e-11 * form.condition


@pytest.mark.parametrize("name", ["quadratic", "ridge, per coordinate", "logistic", "lfm-shaped"])
def test_a_staged_truth_is_that_of_central_differences_of_the_program_solved_anew(name):
    form = STAGED[name]
    levels = levels_of(form, away=False)
    expected = oracles.resolved_answer(levels, values_of(form, away=False), form.upper)
    assert relative(form.truth, expected) < 1e-8


def solved_below(levels, k, values):
    """The values with the levels below k at their nested solutions, with a graph."""
    if k == 0:
        return values
    own = levels[k - 1]

    def at(w):
        return solved_below(levels, k - 1, {**values, own.name: unflat(w, own.start)})

    return at(argmin(lambda w: own.at(at(w)), flat(own.start)))


@pytest.mark.parametrize("name", ["quadratic", *NESTED])
def test_a_nested_truth_is_that_of_newton_steps_inside_newton_steps(name):
    form = ALL[name]
    levels = levels_of(form, away=True)
    x = flat(levels[-1].start).requires_grad_()
    values = {**values_of(form, away=True), form.upper: unflat(x, levels[-1].start)}
    loss = levels[-1].at(solved_below(levels, len(levels) - 1, values))
    assert relative(form.truth, unflat(gradient(loss, x).detach(), levels[-1].start)) < 1e-11


@pytest.mark.parametrize("name", ALL)
def test_the_engine_finds_the_truth_by_written_out_hessians(name):
    form = ALL[name]
    found = form.engine(mlo.Dense()).hypergradient(form.upper)
    assert relative(found, form.truth) < rounding(form)


def stepped_by_torch(levels, values, rate):
    """Every lower problem one step of torch's own SGD further, lowest first."""
    values = {name: dict(own) for name, own in values.items()}
    for level in levels[:-1]:
        own = {k: t.detach().clone().requires_grad_() for k, t in values[level.name].items()}
        optimizer = torch.optim.SGD(list(own.values()), rate)
        level.at({**values, level.name: own}).backward()
        optimizer.step()
        values[level.name] = {k: t.detach() for k, t in own.items()}
    return values


@pytest.mark.parametrize("rate", [0.1, 0.3])
@pytest.mark.parametrize("name", STAGED)
def test_one_step_is_that_of_central_differences_of_steps_of_torch(name, rate):
    form = STAGED[name]
    levels, values = levels_of(form, away=True), values_of(form, away=True)

    def reduced(x):
        at = {**values, form.upper: unflat(x, values[form.upper])}
        return levels[-1].at(stepped_by_torch(levels, at, rate))

    x = flat(values[form.upper])
    expected = unflat(oracles.central(reduced, x), values[form.upper])
    assert relative(form.one_step(rate), expected) < 1e-9


@pytest.mark.parametrize("name", STAGED)
def test_the_engine_stands_away_from_the_solution_where_one_step_is_taken(name):
    form = STAGED[name]
    engine = form.engine(mlo.OneStep(), rate=0.2, away=True)
    assert relative(engine.hypergradient(form.upper), form.one_step(0.2)) < 1e-13
    assert relative(form.one_step(0.2), form.truth) > 1e-2


@pytest.mark.parametrize("name", STAGED)
def test_the_direct_part_is_what_is_left_without_responses(name):
    form = STAGED[name]
    solved = form.engine(mlo.Direct()).hypergradient(form.upper)
    assert relative(form.direct(), solved) < 1e-14
    away = form.engine(mlo.OneStep(), rate=0.2, away=True)
    values = values_of(form, away=True)
    moved = stepped_by_torch(levels_of(form, away=True), values, 0.2)
    x = flat(values[form.upper]).requires_grad_()
    upper = levels_of(form, away=True)[-1]
    partial = gradient(upper.at({**moved, form.upper: unflat(x, upper.start)}), x)
    assert relative(form.direct(0.2), unflat(partial.detach(), upper.start)) < 1e-13
    assert relative(form.direct(0.2), away.hypergradient(form.upper)) > 1e-3


@pytest.mark.parametrize("name", NESTED)
def test_middle_levels_anticipate_and_a_partial_answer_is_wrong(name):
    form = NESTED[name]
    engine = form.engine(mlo.Dense())
    kinds = [engine.graph.kind(level.name) for level in form.levels]
    assert kinds == ["staged", *["anticipating"] * (len(form.levels) - 2), "upper"]
    assert form.nested
    # What one gets by taking the middle level for a solution of its partial gradient.
    levels = levels_of(form, away=False)
    partial = oracles.stacked_answer(levels, values_of(form, away=False), form.upper)
    assert relative(partial, form.truth) > 1e-2


@pytest.mark.parametrize("seed", range(8))
def test_the_middle_level_stands_at_a_minimum(seed):
    """Not only at a stationary point: its total Hessian is positive definite."""
    form = trilevel(seed=seed)
    levels, values = levels_of(form, away=False), values_of(form, away=False)
    middle = levels[1]
    y = flat(middle.start).requires_grad_()
    at = solved_below(levels, 1, {**values, "middle": unflat(y, middle.start)})
    slope = gradient(middle.at(at), y)
    assert slope.detach().abs().max() < 1e-12
    assert torch.linalg.eigvalsh(jacobian(slope, y)).min() > 0.1


@pytest.mark.parametrize("name", STAGED)
def test_a_staged_form_is_staged(name):
    form = STAGED[name]
    graph = form.engine(mlo.OneStep()).graph
    assert {graph.kind(level.name) for level in form.levels[:-1]} == {"staged"}
    assert not form.nested


@pytest.mark.parametrize("condition", [1.0, 10.0, 1e6])
def test_the_condition_number_of_a_quadratic_is_a_setting(condition):
    form = quadratic(condition=condition)
    level = levels_of(form, away=False)[0]
    w = flat(level.start).requires_grad_()
    values = values_of(form, away=False)
    loss = level.at({**values, level.name: unflat(w, level.start)})
    hessian = jacobian(gradient(loss, w), w)
    values = torch.linalg.eigvalsh(hessian)
    assert math.isclose(float(values[-1] / values[0]), condition, rel_tol=1e-9)
    assert math.isclose(form.condition, condition, rel_tol=1e-9)
    if condition == 1.0:
        assert torch.equal(hessian, torch.eye(len(w)))


@pytest.mark.parametrize("name", ["quadratic", "ill-conditioned", "ridge", "logistic"])
def test_the_sensitivity_is_the_error_of_the_worst_residual(name):
    """u solves H u = v - r, so the answer is off by (dg/dx)^T H^{-1} r, at worst by its norm."""
    form = STAGED[name]
    low, top = levels_of(form, away=False)
    values = values_of(form, away=False)
    w, x = flat(low.start).requires_grad_(), flat(top.start).requires_grad_()
    at = {low.name: unflat(w, low.start), top.name: unflat(x, top.start)}
    slope = gradient(low.at(at), w)
    response = torch.linalg.solve(jacobian(slope, w), jacobian(slope, x))
    v = gradient(top.at({**values, low.name: at[low.name]}), w)
    size = (flat(form.truth) - flat(form.direct())).norm()
    worst = torch.linalg.matrix_norm(response, 2) * v.norm() / size
    assert math.isclose(form.sensitivity, float(worst.detach()), rel_tol=1e-9)


def test_a_singular_hessian_has_no_answer():
    form = saddle((1.0, 0.5, 0.0))
    assert flat(form.truth).isnan().all()
    assert all(t.isfinite().all() for level in form.levels for t in level.solution.values())


def test_the_engine_takes_a_method_per_problem_and_settings_of_its_own():
    form = lfm_shaped()
    methods = {"learner": mlo.Dense(), "relearner": mlo.ConjugateGradient()}
    engine = form.engine(methods, rate=0.3, lookahead=True)
    assert engine.schedule.lookahead
    for name, method in methods.items():
        assert engine.problems[name].hypergradient is method
        assert engine.problems[name].optimizer.param_groups[0]["lr"] == 0.3


@pytest.mark.parametrize("name", ["quadratic", "depth 3", "lfm-shaped"])
def test_an_upper_parameter_that_nothing_uses_has_the_gradient_zero(name):
    form = ALL[name].with_unused()
    found = form.engine(mlo.Dense()).hypergradient(form.upper)
    assert torch.equal(found["unused"], torch.zeros(3))
    assert torch.equal(form.truth["unused"], torch.zeros(3))
    assert relative(found, form.truth) < rounding(form)


def test_forms_do_not_depend_on_the_default_dtype_or_the_random_state():
    torch.set_default_dtype(torch.float32)
    torch.manual_seed(1)
    state = torch.get_rng_state()
    for form in closed_forms():
        again = {f.name: f for f in closed_forms()}[form.name]
        assert flat(form.truth).dtype == torch.float64
        assert torch.equal(flat(form.truth), flat(again.truth))
        found = form.engine(mlo.Dense()).hypergradient(form.upper)
        assert relative(found, form.truth) < rounding(form)
    assert torch.equal(torch.get_rng_state(), state)


MAKERS = [quadratic, ridge, logistic, lfm_shaped, chain, diamond, saddle, trilevel]


@pytest.mark.parametrize("make", MAKERS, ids=lambda make: make.__name__)
def test_the_dtype_is_a_setting(make):
    form, narrow = make(), make(dtype=torch.float32)
    found = narrow.engine(mlo.Dense()).hypergradient(narrow.upper)
    assert {t.dtype for t in found.values()} == {torch.float32}
    wide = {k: t.double() for k, t in found.items()}
    assert relative(wide, form.truth) < 1e-5  # 1e-7 of float32, condition numbers up to 10
    assert {t.dtype for t in narrow.truth.values()} == {torch.float32}


@pytest.mark.parametrize("make", MAKERS, ids=lambda make: make.__name__)
def test_the_device_is_a_setting(make):
    form = make(device="meta")
    tensors = [t for n in form.levels for at in (n.solution, n.start) for t in at.values()]
    assert {t.device.type for t in [*tensors, *form.truth.values()]} == {"meta"}


@pytest.mark.parametrize("make", MAKERS, ids=lambda make: make.__name__)
def test_another_seed_is_another_problem(make):
    assert relative(make(seed=1).truth, make(seed=2).truth) > 1e-2


def test_the_standard_list_has_one_of_each_kind():
    forms = closed_forms()
    names = [form.name for form in forms]
    assert len(set(names)) == len(names)
    assert [form.nested for form in forms].count(True) == 2
    assert all(form.levels[-1].name == form.upper for form in forms)
    assert max(form.condition for form in forms) == pytest.approx(1e4)
    assert str(forms[-2]) == "quadratic, depth 3: 3 problems, nested, condition 10"


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: quadratic(3).one_step(0.1), "nested"),
        (lambda: quadratic(3).direct(0.1), "nested"),
        (lambda: quadratic(1), "depth"),
        (lambda: quadratic(size=1), "size"),
        (lambda: chain(0), "length"),
        (lambda: diamond(0), "count"),
    ],
)
def test_what_cannot_be_is_a_typed_error(make, words):
    with pytest.raises(ConfigurationError, match=words):
        make()


def test_the_engine_does_not_import_its_checks_and_these_need_no_extras():
    code = (
        "import sys, mlo; assert 'mlo.testing' not in sys.modules; import mlo.testing; "
        "extras = {'sklearn', 'matplotlib', 'pytest', 'hypothesis', 'scipy'}; "
        "assert not extras & set(sys.modules), extras & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
