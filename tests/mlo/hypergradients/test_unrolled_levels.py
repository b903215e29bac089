"""`Unrolled` among other problems: one reads another's response, or anticipates it."""

from __future__ import annotations

import pytest
import torch

import mlo
from mlo.errors import MethodError

from ..oracles import relative
from .hand_loops import Update, groups_of, standing, walk
from .steps import OPTIMIZERS
from .unrolling import leaves

TOLERANCE = 1e-10
LOOKAHEAD = pytest.mark.parametrize("lookahead", [False, True], ids=["after moves", "look-ahead"])
DRAWN = torch.Generator().manual_seed(21)
A, B, C, D = (torch.randn(4, 4, generator=DRAWN, dtype=torch.float64) / 3 for _ in range(4))
START = {k: torch.randn(4, generator=DRAWN, dtype=torch.float64) for k in ("l", "r", "m", "w", "x")}


def sgd(rate):
    return lambda params: torch.optim.SGD(params, rate)


def problem(name, key, loss, make, method=None, **settings):
    return mlo.Problem(
        name,
        params={key: START[key]},
        loss=loss,
        optimizer=make,
        hypergradient=method,
        **settings,
    )


def learn(learner, top):
    return (torch.tanh(A @ learner["l"]) - top["x"]).square().sum() + learner["l"].pow(4).sum()


def relearn(relearner, learner, top):
    r, x, answer = relearner["r"], top["x"], torch.sin(B @ learner["l"])
    return (x.exp() * (r - answer).square()).sum() + 0.1 * r.pow(4).sum()


def validate(relearner, learner, top):
    return (C @ relearner["r"] - 1).square().sum() + (D @ learner["l"]).cos().sum() + top["x"].sum()


def merged(loss):
    """The same loss of its own parameters and one mapping of all others."""
    return lambda own, others, batch: loss(own, others, others)


@LOOKAHEAD
@pytest.mark.parametrize("steps", [3, 100])
@pytest.mark.parametrize("name", ["dampened", "amsgrad"])
def test_one_that_reads_anothers_response_passes_its_cotangent_on(name, steps, lookahead):
    """Learner, relearner, validator: the updates of the two lower ones, three a tick, by hand."""
    make, rule = OPTIMIZERS[name]
    learner = problem("learner", "l", learn, make, mlo.Unrolled(steps), repeat=3)
    relearner = problem("relearner", "r", relearn, make, mlo.Unrolled(steps), repeat=3)
    top = problem("top", "x", validate, sgd(0.03))
    engine = mlo.Engine([learner, relearner, top], lookahead=lookahead)
    seen = {"learner": [], "relearner": []}
    for _ in range(3):
        before = standing(top)
        engine.step()
        x = standing(top) if lookahead else before
        seen["learner"] += [Update([None], x, groups_of(learner))] * 3
        others = {**x, **standing(learner)}
        seen["relearner"] += [Update([None], others, groups_of(relearner))] * 3
    leaf = leaves(standing(top))

    def led(problem, key, loss, others):
        updates = list(seen[problem.name])
        if lookahead:  # three more on trial, against everybody as they then are
            now = {k: t.detach() for k, t in others.items()}
            updates += [Update([None], now, groups_of(problem))] * 3
        last = min(steps, len(updates))
        return walk({key: START[key]}, others, updates, rule, last=last, fits=loss)

    first = led(learner, "l", lambda own, top, _: learn(own, top), leaf)
    second = led(relearner, "r", merged(relearn), {**leaf, **first})
    (expected,) = torch.autograd.grad(validate(second, first, leaf), [leaf["x"]])
    found, responses = engine.total_gradient("top")
    assert relative(found, {"x": expected}) < TOLERANCE
    assert all(r.info.outcome is mlo.Outcome.EXPLICIT for r in responses)


ALL = mlo.Unrolled(steps=100)


@pytest.mark.parametrize(
    ("methods", "same", "repeat"),
    [
        ((mlo.ForwardMode(), ALL), (ALL, ALL), 3),
        ((ALL, mlo.ForwardMode()), (ALL, ALL), 3),
        ((mlo.ForwardMode(), mlo.ForwardMode()), (ALL, ALL), 3),
        ((mlo.Unrolled(1), mlo.OneStep()), (mlo.OneStep(), mlo.OneStep()), 3),
        ((mlo.Unrolled(), mlo.ConjugateGradient()), (mlo.OneStep(), mlo.ConjugateGradient()), 1),
        ((mlo.ConjugateGradient(), mlo.Unrolled()), (mlo.ConjugateGradient(), mlo.OneStep()), 1),
    ],
)
def test_it_stands_beside_other_methods(methods, same, repeat):
    answers = []
    for lower, upper in (methods, same):
        learner = problem("learner", "l", learn, sgd(0.05), lower, repeat=repeat)
        relearner = problem("relearner", "r", relearn, sgd(0.05), upper, repeat=repeat)
        engine = mlo.Engine([learner, relearner, problem("top", "x", validate, sgd(0.03))])
        engine.step()
        engine.step()
        answers.append(engine.total_gradient("top")[0])
    assert relative(*answers) < TOLERANCE


def target(m, x):
    return torch.tanh(A @ m) + x * torch.sin(B @ m)


def low_loss(low, mid, top):
    return 0.5 * (low["w"] - target(mid["m"], top["x"])).square().sum()


def mid_loss(mid, low, top):
    m, w, x = mid["m"], low["w"], top["x"]
    return (C @ w - x).square().sum() + (x.exp() * m.square()).sum() + (m * w).sin().sum()


def top_loss(top, mid, low):
    return (D @ mid["m"] - 1).square().sum() + low["w"].pow(3).sum() + top["x"].square().sum()


def three(make, method, below, nested, **settings):
    """The lowest is solved by one step of SGD, from wherever it stands."""
    low = problem("low", "w", low_loss, sgd(1.0), below)
    mid = problem("mid", "m", mid_loss, make, method, repeat=2, **settings)
    top = problem("top", "x", top_loss, sgd(0.01))
    return mlo.Engine([low, mid, top], nested=nested), low, mid, top


def anticipating(w_now, own, x):
    """The loss of `mid`, and with it the response of `low`, which follows m and x from `w_now`."""
    moved = target(own["m"], x)
    return mid_loss(own, {"w": w_now + moved - moved.detach()}, {"x": x})


def shortened(own, top, w_now):
    """The total gradient, of which only what `low` does not answer to m in has derivatives."""
    (total,) = torch.autograd.grad(anticipating(w_now, own, top["x"]), [own["m"]])
    moved = target(own["m"].detach(), top["x"])
    loss = mid_loss(own, {"w": w_now + moved - moved.detach()}, top)
    (partial,) = torch.autograd.grad(loss, [own["m"]], create_graph=True)
    return [total.detach() + partial - partial.detach()]


@pytest.mark.parametrize("nested", ["exact", "projected", "partial"])
@pytest.mark.parametrize("steps", [1, 2, 5])
@pytest.mark.parametrize("name", ["dampened", "amsgrad", "adamw"])
def test_at_an_anticipating_problem_the_responses_below_are_those_of_then(name, steps, nested):
    make, rule = OPTIMIZERS[name]
    below = mlo.Dense() if steps == 2 else mlo.Neumann(terms=1, alpha=1.0)
    engine, low, mid, top = three(make, mlo.Unrolled(steps), below, nested)
    updates = []
    for _ in range(3):
        x = standing(top)
        engine.step()
        update = Update([standing(low)["w"]], x, groups_of(mid))
        updates += [update, update]
    leaf = leaves(standing(top))

    def fits(own, top, w):
        return anticipating(w, own, top["x"])

    slope = shortened if nested == "partial" else None
    m = walk({"m": START["m"]}, leaf, updates, rule, last=steps, fits=fits, slope=slope)
    moved = target(m["m"], leaf["x"])
    w = {"w": standing(low)["w"] + moved - moved.detach()}
    (expected,) = torch.autograd.grad(top_loss(leaf, m, w), [leaf["x"]])
    found, responses = engine.total_gradient("top")
    assert {r.problem: r.info.outcome.failed for r in responses} == {"mid": False, "low": False}
    residual = next(r.info.residual for r in responses if r.problem == "mid")
    assert residual < 1e-12
    if nested != "projected":  # which leaves out a part of the second derivative
        assert relative(found, {"x": expected}) < TOLERANCE


def test_below_an_anticipating_problem_it_is_refused():
    with pytest.raises(MethodError, match=r"'low'.*Unrolled"):
        three(sgd(0.1), mlo.Neumann(), mlo.Unrolled(), "exact")


def test_tangents_are_not_carried_at_an_anticipating_problem():
    with pytest.raises(MethodError, match=r"'mid'.*ForwardMode.*low"):
        three(sgd(0.1), mlo.ForwardMode(), mlo.Dense(), "exact")


@pytest.mark.parametrize("nested", ["exact", "projected", "partial"])
@pytest.mark.parametrize("name", ["nesterov", "amsgrad"])
def test_one_step_is_one_step_in_every_kind_of_nesting(name, nested):
    answers = []
    for method in (mlo.Unrolled(steps=1), mlo.OneStep()):
        engine, *_ = three(OPTIMIZERS[name][0], method, mlo.Dense(), nested)
        engine.step()
        engine.step()
        answers.append(engine.hypergradient("top"))
    assert relative(*answers) < 1e-12
