"""The architect's gradient in LFM on search networks of DARTS against its formulas, written out."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

import mlo
from problems.lfm.validator import Validator
from problems.nas.architect import Architect
from problems.nas.architecture import Architecture
from problems.nas.programs.lfm import lfm_problems
from problems.nas.settings import ArchitectSettings
from problems.nas.space import CellSpace

from .by_hand import HEAVY, data, encoder, error, leaves, losses, received, stepped, supernet
from .lfm_by_hand import Point, weights

EXACT = 1e-8
DIFFERENCE = 1e-9
LARGE, SMALL = data(16, 16, 16), data(8, 7, 8)
FREE = ArchitectSettings(clip_norm=None)


def engine_of(method=None, *, nodes=1, lookahead=True, constant=()):
    """Weights spread out, so that no path is too small to be seen."""
    channels = 4 if nodes == 4 else 2
    learner, relearner = (supernet(nodes, seed, channels) for seed in (0, 1))
    torch.manual_seed(2)
    architecture = Architecture(CellSpace.darts(nodes=nodes), scale=0.5)
    top = Validator(encoder(), coefficients=30, temperature=1.0, normalize=False)
    with torch.no_grad():
        top.coefficients.add_(0.3 * torch.randn_like(top.coefficients))
    problems = lfm_problems(
        learner,
        relearner,
        Architect(architecture, top),
        ticks=20,
        training=HEAVY,
        settings=FREE,
        hypergradient=method,
        constant=constant,
    )
    drawn = LARGE if nodes == 4 else SMALL
    return mlo.Engine(problems, drawn, lookahead=lookahead, dry_run=False)


def handed(engine):
    """What the architect is handed in a tick."""
    with received(engine.problems["architect"]) as seen:
        engine.step()
    return seen


def warm_up(engine, drawn, steps=1):
    """Plain training of both networks, so that they have learned and their momentum is not zero."""
    mixing = engine.problems["architect"].module.architecture()
    mixing = {k: w.detach() for k, w in mixing.items()}
    for name in ("learner", "relearner"):
        problem = engine.problems[name]
        for x, labels, _ in drawn["train"][1 : 1 + steps]:
            problem.optimizer.zero_grad()
            F.cross_entropy(problem.module(x, mixing), labels).backward()
            problem.optimizer.step()
        problem.optimizer.zero_grad()


def test_all_gradients_on_the_space_of_darts_are_full_differentiation():
    """Four nodes, both alphas, encoder and coefficients, each to its own norm."""
    engine = engine_of(nodes=4)
    warm_up(engine, LARGE)
    want = Point(engine).unrolled(LARGE["train"][0], LARGE["valid"][0]).gradient()
    names = {"architecture.alpha_normal", "architecture.alpha_reduce", "validator.coefficients"}
    assert names < want.keys()
    assert visible(error, engine.hypergradient("architect"), want) < EXACT


@pytest.mark.parametrize(("lookahead", "constant"), [(False, ()), (True, ()), (True, ("learner",))])
def test_every_tick_is_full_differentiation_with_and_without_the_path_into_stage_1(
    lookahead, constant
):
    engine = engine_of(lookahead=lookahead, constant=constant)
    for tick in range(2):
        terms = Point(engine).unrolled(SMALL["train"][tick], SMALL["valid"][tick])
        cut, full = terms.gradient(without=("stage1",)), terms.gradient()
        found = handed(engine)
        assert visible(error, found, cut if constant else full) < EXACT
        assert gap(cut, full) > 1e-7
        assert visible(error, found, full if constant else cut) > 1e-7


def test_the_mistakes_depend_on_the_architecture_directly_too():
    """Without du/dA, as in the authors' code, the gradient is another one."""
    engine = engine_of()
    terms = Point(engine).unrolled(SMALL["train"][0], SMALL["valid"][0])
    omitted = terms.gradient(without=("mistakes",))
    assert gap(omitted, terms.gradient()) > 1e-5
    found = handed(engine)
    assert visible(error, found, omitted) > 1e-5
    assert visible(error, found, terms.gradient()) < EXACT


@pytest.mark.parametrize("lookahead", [False, True])
def test_differences_are_the_formula_written_out(lookahead):
    engine = engine_of(mlo.FiniteDifference(radius=0.01), lookahead=lookahead)
    for tick in range(2 if lookahead else 1):
        pair = SMALL["train"][tick], SMALL["valid"][tick]
        want = Point(engine).by_difference(*pair).gradient()
        assert visible(error, handed(engine), want) < DIFFERENCE


def test_the_networks_move_by_the_architecture_of_the_tick():
    """With lookahead: A first, then both networks, all three with the new one."""
    engine = engine_of()
    point = Point(engine)
    learner, relearner, architect = engine.problems.values()
    train, valid = SMALL["train"][0], SMALL["valid"][0]
    expected = {}

    def moved(record):
        if record.problem != "architect":
            return
        top = leaves(architect.module.validator)
        alphas = leaves(architect.module.architecture)
        w1 = stepped(learner, point.w1, losses(learner.module, point.w1, alphas, train).mean())
        u = losses(learner.module, w1, alphas, valid)
        a = weights(architect.module.validator, top, train, valid, u)
        loss = (a * losses(relearner.module, point.w2, alphas, train)).mean()
        expected["w1"], expected["w2"] = w1, stepped(relearner, point.w2, loss)

    engine.step(moved)
    assert error(leaves(learner.module), expected["w1"]) < EXACT
    assert error(leaves(relearner.module), expected["w2"]) < EXACT


def gap(one, other):
    """The largest relative difference in the architecture."""
    keys = [k for k in one if k.startswith("architecture")]
    return error({k: one[k] for k in keys}, {k: other[k] for k in keys})


def visible(measure, found, want):
    """`measure` over all that has a gradient: a bias before batch normalization has none."""
    silent = [k for k, g in want.items() if float(g.norm()) < 1e-13]
    assert all(float(found[k].norm()) < 1e-13 for k in silent)
    assert all(".bias" in k for k in silent)
    return measure(*({k: v for k, v in each.items() if k not in silent} for each in (found, want)))
