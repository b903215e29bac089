"""`check_hypergradient` on programs that are right: it passes, and says what it compared."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import mlo
from mlo.testing import Reference, check_hypergradient

from ..oracles import central
from .checked import (
    ERROR,
    LOOKAHEAD,
    LOWER,
    MIDDLE,
    NAMES,
    TICKS,
    aim,
    bowl,
    chain,
    lfm,
    moves,
    noisy_net,
    pair,
    passed,
    sgd,
    staged,
)


def adam(kind: type = torch.optim.Adam, **settings):
    """With an eps beside which its first step is more than a sign, whose derivative is nothing."""
    return lambda params: kind(params, 0.02, eps=1e-2, **settings)


OPTIMIZERS = {
    "SGD": sgd(),
    "momentum": sgd(momentum=0.9),
    "Nesterov, decaying": sgd(momentum=0.8, nesterov=True, weight_decay=0.1),
    "dampened": sgd(momentum=0.8, dampening=0.3),
    "Adam": adam(),
    "Adam, decaying": adam(weight_decay=0.1),
    "AdamW": adam(torch.optim.AdamW, weight_decay=0.1),
    "AMSGrad": adam(amsgrad=True),
}


@LOOKAHEAD
@TICKS
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_steps_of_every_known_optimizer_agree_with_their_replay(name, ticks, lookahead):
    engine = lfm(optimizer=OPTIMIZERS[name], lookahead=lookahead)
    for _ in range(ticks):
        engine.step()
    assert moves(engine).bias == 0


OPTIONS = {
    "dropout and normalization": {"net": noisy_net},
    "micro-batches": {"accumulate": 3},
    "a projection that is active": {
        "project": lambda p: {k: t.clamp(-0.3, 0.3) for k, t in p.items()}
    },
    "a smooth projection": {"project": lambda p: {k: t.sinh() for k, t in p.items()}},
    "a bound that does not bind": {"clip_norm": 1e3},
    "moves now and then": {"every": 2},
    "a warm-up": {"warmup": 2},
    "single precision": {"dtype": torch.float32},
    "half precision": {"dtype": torch.bfloat16},
    "single precision, with a state": {
        "dtype": torch.float32,
        "optimizer": adam(torch.optim.AdamW),
    },
    "all of it": {
        "net": noisy_net,
        "accumulate": 2,
        "dtype": torch.float32,
        "project": lambda p: {k: t.clamp(-0.4, 0.4) for k, t in p.items()},
        "optimizer": adam(),
    },
}


@LOOKAHEAD
@TICKS
@pytest.mark.parametrize("case", OPTIONS)
def test_options_of_a_move_are_part_of_it(case, ticks, lookahead):
    engine = lfm(lookahead=lookahead, **OPTIONS[case])
    for _ in range(ticks):
        engine.step()
    assert moves(engine).bias == 0


def test_evaluation_mode_and_frozen_parameters_are_seen_as_they_are():
    engine = lfm(net=noisy_net)
    engine.problems[LOWER].module.eval()
    assert moves(engine).bias == 0
    frozen = nn.Sequential(nn.Linear(3, 3).requires_grad_(False), nn.Tanh(), nn.Linear(3, 1))
    x = torch.randn(6, 3)
    low = mlo.Problem(
        "low",
        module=frozen,
        loss=lambda low, top: (low(x) - top["x"].sin()).square().mean(),
        optimizer=torch.optim.SGD([p for p in frozen.parameters() if p.requires_grad], 0.1),
    )
    top = mlo.Problem(
        "top",
        params={"x": torch.randn(6, 1)},
        loss=lambda low: low(x).square().sum(),
        optimizer=sgd(),
    )
    passed(mlo.Engine([low, top]), "top", Reference.MOVES)


def maml(dtype: torch.dtype = torch.float64, **options) -> mlo.Engine:
    """A learner that begins at the upper problem's numbers and makes one step on one task."""
    x, y = torch.randn(6, 3).to(dtype), torch.randn(6).to(dtype)
    low = mlo.Problem(
        "low",
        params={"w": torch.zeros(3, dtype=dtype)},
        loss=lambda low, train: (train[0] @ low["w"].tanh() - train[1]).square().mean(),
        start=lambda top: {"w": top["w"]},
        **{"optimizer": sgd(0.3, momentum=0.5, weight_decay=0.1), **options},
    )
    top = mlo.Problem(
        "top",
        params={"w": torch.tensor([0.3, -0.2, 0.6], dtype=dtype)},
        loss=lambda low, train: (train[0] @ low["w"]).square().mean() + low["w"].sum(),
        optimizer=sgd(),
    )
    return mlo.Engine([low, top], {"train": [(x, y), (y.outer(y[:3]), x[:, 0])]})


@TICKS
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"optimizer": lambda params: torch.optim.AdamW(params, 0.1)},
        {"hypergradient": mlo.FiniteDifference(radius=1e-5)},
        {"project": lambda p: {"w": p["w"].tanh()}},
        {"dtype": torch.float32},
    ],
)
def test_a_problem_that_begins_anew_is_followed_through_its_start(options, ticks):
    engine = maml(**options)
    for _ in range(ticks):
        engine.step()
    passed(engine, "top", Reference.MOVES)


@LOOKAHEAD
@TICKS
def test_problems_on_one_level_move_at_once(lookahead, ticks):
    def problem(name, loss, start):
        params = {"w": torch.tensor(start)}
        return mlo.Problem(name, params=params, loss=loss, optimizer=sgd(momentum=0.5))

    one = problem("one", lambda one, two, top: (one["w"] - two["w"] * top["w"]).pow(4).sum(), [0.5])
    two = problem("two", lambda two, one, top: (two["w"] * one["w"] - top["w"]).pow(2).sum(), [0.8])
    top = problem("top", lambda one, two: (one["w"] - two["w"].sin()).square().sum(), [1.5])
    engine = mlo.Engine([[one, two], top], lookahead=lookahead)
    for _ in range(ticks):
        engine.step()
    assert passed(engine, "top", Reference.MOVES).bias == 0


def test_finite_differences_are_exact_but_for_a_bias_that_is_measured():
    found = moves(lfm(mlo.FiniteDifference(radius=0.01)), bias=1e-3)
    assert 0 < found.biases[MIDDLE] < 1e-3
    assert found.error < ERROR
    rough = moves(lfm(mlo.FiniteDifference(radius=1.0)), bias=1.0)
    # The error of a central difference grows with the square of the radius, 100 times 100.
    assert 1e3 * found.biases[MIDDLE] < rough.biases[MIDDLE] < 1e5 * found.biases[MIDDLE]


EXACT = {
    "Dense": mlo.Dense(),
    "ConjugateGradient": mlo.ConjugateGradient(iterations=40, tolerance=1e-12),
    "Neumann": mlo.Neumann(terms=300, alpha=0.15),
}


@pytest.mark.parametrize("method", EXACT)
@TICKS
def test_solutions_agree_with_the_program_solved_again(method, ticks):
    engine = pair(bowl, aim, EXACT[method])
    for _ in range(ticks):
        engine.step()
    found = passed(engine, "top", Reference.SOLUTION)
    assert found.bias < 1e-9
    assert found.methods == {"low": method}


def test_the_total_gradient_that_is_checked_is_that_of_the_re_solved_program():
    """What the check calls a solution, found by plain differences of plain minimization."""
    engine = pair(bowl, aim, mlo.Dense())
    check_hypergradient(engine, "top")
    start = engine.problems["top"].module["x"].detach()

    def reduced(x):
        w = x.clone().requires_grad_()
        for _ in range(30):
            slope = torch.autograd.grad(bowl({"w": w}, {"x": x}), w, create_graph=True)[0]
            rows = [torch.autograd.grad(s, w, retain_graph=True)[0] for s in slope]
            w = (w - torch.linalg.solve(torch.stack(rows), slope)).detach().requires_grad_()
        return aim({"w": w.detach()}, {"x": x})

    with torch.no_grad():
        solved = engine.problems["low"].module["w"]
    # Where the check solved, the engine's own answer is the slope; it has put everything back.
    at = start.clone().requires_grad_()
    assert not torch.allclose(solved, at)
    expected = central(lambda x: reduced(x).detach(), start)
    _solve(engine, start)
    found = engine.hypergradient("top")["x"]
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-8)


def _solve(engine: mlo.Engine, x: torch.Tensor) -> None:
    w = x.clone().requires_grad_()
    optimizer = torch.optim.LBFGS([w], max_iter=500, tolerance_grad=1e-14, tolerance_change=0)

    def closure():
        optimizer.zero_grad()
        loss = bowl({"w": w}, {"x": x})
        loss.backward()
        return loss

    for _ in range(5):
        optimizer.step(closure)
    with torch.no_grad():
        engine.problems["low"].module["w"].copy_(w)


def ridge(method, dtype=torch.float64) -> mlo.Engine:
    a, b = torch.randn(10, 3).to(dtype), torch.randn(10).to(dtype)
    return pair(
        lambda low, top, t: (
            (t[0] @ low["w"] - t[1]).square().sum() + (top["x"].exp() * low["w"] ** 2).sum()
        ),
        lambda low, t: (t[0][:4] @ low["w"] + 1).square().sum(),
        method,
        low={"w": torch.zeros(3, dtype=dtype)},
        top={"x": torch.tensor([0.1, -0.5, 0.3], dtype=dtype)},
        data={"t": [(a, b)]},
    )


def logistic(method, dtype=torch.float64) -> mlo.Engine:
    x, labels = torch.randn(12, 4).to(dtype), torch.randint(0, 3, (12,))
    net = nn.Linear(4, 3).to(dtype)

    def fit(low, top, t):
        weighted = top["x"].sigmoid() * F.cross_entropy(low(t[0]), t[1], reduction="none")
        return weighted.mean() + 0.1 * sum(p.square().sum() for p in low.parameters())

    low = mlo.Problem(
        "low",
        module=net,
        loss=fit,
        optimizer=torch.optim.SGD(net.parameters(), 0.1),
        hypergradient=method,
    )
    top = mlo.Problem(
        "top",
        params={"x": torch.randn(12).to(dtype)},
        loss=lambda low, t: F.cross_entropy(low(t[0].flip(0)), t[1]),
        optimizer=sgd(),
    )
    return mlo.Engine([low, top], {"t": [(x, labels)]})


@pytest.mark.parametrize("make", [ridge, logistic])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("method", ["Dense", "ConjugateGradient"])
def test_regression_is_solved_from_where_it_stands(method, dtype, make):
    engine = make(EXACT[method], dtype)
    before = [p.detach().clone() for p in engine.problems["low"].module.parameters()]
    assert passed(engine, "top", Reference.SOLUTION).bias < ERROR
    for p, stood in zip(engine.problems["low"].module.parameters(), before, strict=True):
        assert torch.equal(p, stood)


def test_a_large_problem_is_solved_without_a_matrix():
    def fit(low, top):
        return (low["w"] - top["x"].sum()).square().sum() + 0.1 * (low["w"] ** 4).sum()

    engine = pair(
        fit,
        lambda low: (low["w"] - 1).square().mean(),
        mlo.ConjugateGradient(iterations=30, tolerance=1e-10),
        low={"w": torch.randn(450)},
    )
    passed(engine, "top", Reference.SOLUTION)


NESTED = {
    "Dense": {"z": mlo.Dense(), "y": mlo.Dense()},
    "ConjugateGradient": dict.fromkeys("zy", mlo.ConjugateGradient(20, 1e-12)),
    "Neumann": {"z": mlo.Neumann(200, 0.2), "y": mlo.Neumann(200, 0.1)},
}


# A series of series is slow, and the same after some ticks as before.
@pytest.mark.parametrize(
    ("methods", "ticks"), [(m, t) for m in NESTED for t in (0, 3) if (m, t) != ("Neumann", 3)]
)
def test_nested_levels_are_solved_again_at_every_level(methods, ticks):
    engine = chain(NESTED[methods])
    for _ in range(ticks):
        engine.step()
    found = passed(engine, "x", Reference.SOLUTION)
    assert found.bias < ERROR
    assert set(found.biases) == {"nested=exact", "z", "y"}
    assert passed(engine, "y", Reference.SOLUTION).bias < ERROR


def test_all_axes_are_taken_where_they_are_few_and_random_directions_elsewhere():
    assert passed(pair(bowl, aim), "top", Reference.MOVES).directions == 3
    assert passed(pair(bowl, aim), "top", Reference.MOVES, count=2).directions == 2
    assert moves(lfm(), count=5).directions == 5
    one, two = (moves(lfm(mlo.FiniteDifference()), seed=seed, bias=1.0) for seed in (0, 1))
    assert one.biases == two.biases  # of the whole vector, not of directions
    assert one.resolution != two.resolution
    assert moves(lfm(mlo.FiniteDifference()), seed=0, bias=1.0) == one


def test_the_reference_may_be_chosen():
    assert passed(pair(bowl, aim), "top", Reference.MOVES, against="moves").bias == 0
    found = passed(pair(bowl, aim), "top", Reference.SOLUTION, against="solution", bias=1.0)
    assert found.bias > 0.1  # one step is no solution
    mixed = staged({"a": mlo.Dense(), "b": mlo.OneStep()})
    found = passed(mixed, "top", Reference.SOLUTION, bias=1.0)
    assert found.biases["a"] == 0 < found.biases["b"]


def test_a_problem_to_which_nobody_answers_is_checked_on_its_own_loss():
    found = passed(pair(bowl, aim), "low", Reference.MOVES)
    assert (found.bias, dict(found.biases), dict(found.methods)) == (0, {}, {})


def test_the_result_is_a_table_that_fits_eighty_columns():
    found = moves(lfm(mlo.FiniteDifference(radius=0.01)), bias=1e-3)
    lines = str(found).splitlines()
    assert lines[0] == "upper: total gradient against moves, 8 directions"
    assert max(map(len, lines)) <= 80
    for name in NAMES:
        assert any(line.split()[0] == name for line in lines), name
    assert f"{MIDDLE} by FiniteDifference" in str(found)
    assert f"{found.biases[MIDDLE]:.1e}" in str(found)


def test_names_that_are_long_fit_the_table_too():
    long = "an_uncommonly_long_name_for_a_problem_that_somebody_may_well_choose"
    low = mlo.Problem(
        long,
        params={"w": torch.tensor([0.5])},
        loss=lambda own, top: (own["w"] - top["x"]).square().sum(),
        reads=(long, "top"),
        optimizer=sgd(),
        hypergradient=mlo.ConjugateGradient(),
    )
    top = mlo.Problem(
        "top",
        params={"x": torch.tensor([1.5])},
        loss=lambda own: own["w"].square().sum(),
        reads=(long,),
        optimizer=sgd(),
    )
    engine = mlo.Engine([low, top])
    found = check_hypergradient(engine, "top")
    assert max(map(len, str(found).splitlines())) <= 80


def test_a_loss_may_differentiate_inside():
    """A gradient penalty: right, and evaluated by the engine without complaint."""

    def penal(low, top):
        x = torch.ones(3, requires_grad=True)
        (slope,) = torch.autograd.grad((low["w"] * x.sin()).sum(), x, create_graph=True)
        return (slope - top["x"]).square().sum() + low["w"].square().sum()

    engine = pair(penal, aim)
    assert engine.hypergradient("top")["x"].isfinite().all()
    passed(engine, "top", Reference.MOVES)


def test_it_works_where_gradients_are_switched_off():
    with torch.no_grad():
        assert moves(lfm()).bias == 0
        assert passed(pair(bowl, aim, mlo.Dense()), "top", Reference.SOLUTION).bias == 0
