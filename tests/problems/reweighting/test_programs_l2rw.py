"""L2RW against algorithm 1 of the paper, tick by tick, with everything written by hand."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn

import mlo
from mlo.errors import MloError
from problems.reweighting.programs import l2rw_problems
from problems.reweighting.programs.l2rw import normalized
from problems.training import Training

from .by_hand import (
    CASES,
    HEAVY,
    PLAIN,
    TICKS,
    TOLERANCE,
    data,
    derivative,
    error,
    leaves,
    losses,
    mean_loss,
    network,
    parameters,
    received,
    stepped,
)

NAMES = [name for name, case in CASES.items() if not case.unit_mean]


def problems_of(case, **options):
    net = network(case.network, case.classes)
    return l2rw_problems(net, case.training, batch_size=case.n, ticks=10, **options)


def engine_of(case):
    return mlo.Engine(problems_of(case), data(case), lookahead=True)


def by_hand(classifier, epsilon, train, valid):
    """The derivative of the validation loss after the step that `epsilon` makes."""
    params = leaves(classifier.module)
    upper = {"epsilon": epsilon.detach().clone().requires_grad_()}
    loss = (upper["epsilon"] * losses(classifier.module, params, train)).sum()
    new = stepped(classifier, params, loss)
    return derivative(mean_loss(classifier.module, new, valid), upper)


def ticked(classifier, train, valid):
    """One iteration of the algorithm: eps = 0, w~ = max(-grad, 0), w = w~ / (sum + delta)."""
    gradient = by_hand(classifier, torch.zeros(len(train[1])), train, valid)["epsilon"]
    cut = [max(-float(g), 0.0) for g in gradient]
    total = sum(cut)
    weights = torch.tensor([w / (total + (1.0 if total == 0 else 0.0)) for w in cut])
    params = leaves(classifier.module)
    loss = (weights * losses(classifier.module, params, train)).sum()
    return gradient, weights, stepped(classifier, params, loss)


@pytest.mark.parametrize("name", NAMES)
def test_every_tick_is_an_iteration_of_the_algorithm(name):
    case = CASES[name]
    engine, drawn = engine_of(case), data(case)
    classifier, upper = engine.problems["classifier"], engine.problems["weights"]
    cut = kept = 0
    for tick in range(TICKS):
        train, valid = drawn["train"][tick], drawn["valid"][tick]
        gradient, weights, real = ticked(classifier, train, valid)
        with received(upper) as seen:
            engine.step()
        assert error(seen, {"epsilon": gradient}) < TOLERANCE
        assert error(parameters(upper.module), {"epsilon": weights}) < TOLERANCE
        assert error(parameters(classifier.module), real) < TOLERANCE
        cut, kept = cut + int((weights == 0).sum()), kept + int((weights > 0).sum())
    if case.n > 1:
        assert cut > 0
        assert kept > 0


@pytest.mark.parametrize("name", NAMES)
def test_the_gradient_between_ticks_is_the_one_where_the_weights_stand(name):
    case = CASES[name]
    engine, drawn = engine_of(case), data(case)
    epsilon = engine.problems["weights"].module["epsilon"]
    for tick in range(3):
        shown = max(tick - 1, 0)
        want = by_hand(
            engine.problems["classifier"], epsilon, drawn["train"][shown], drawn["valid"][shown]
        )
        assert error(engine.hypergradient("weights"), want) < TOLERANCE
        engine.step()


def judged_backwards(training):
    """One input, of class 0 in training and of class 1 in validation: each example does harm."""
    net = nn.Linear(3, 2)
    nn.init.constant_(net.weight, 0.1)
    x = torch.tensor([[0.5, 1.0, 2.0]]).expand(4, 3)
    batch = [(x, torch.full((4,), label), torch.arange(4)) for label in (0, 1)]
    problems = l2rw_problems(net, training, batch_size=4, ticks=10)
    streams = {"train": [batch[0]], "valid": [batch[1]]}
    return mlo.Engine(problems, streams, lookahead=True), batch


def test_where_all_are_cut_nothing_but_decay_and_momentum_moves_the_classifier():
    engine, (train, valid) = judged_backwards(HEAVY)
    classifier, upper = engine.problems["classifier"], engine.problems["weights"]
    for _ in range(3):
        gradient, weights, real = ticked(classifier, train, valid)
        assert bool((gradient > 0).all())
        before = parameters(classifier.module)
        engine.step()
        assert upper.module["epsilon"].tolist() == [0.0] * 4 == weights.tolist()
        assert error(parameters(classifier.module), real) < TOLERANCE
        after = parameters(classifier.module)
        # Decay alone turns no parameter: all shrink by one factor.
        shares = after["weight"] / before["weight"]
        torch.testing.assert_close(shares, shares[:1, :1].expand_as(shares))
        assert 0.99 < float(shares[0, 0]) < 1


def test_where_all_are_cut_without_decay_and_momentum_nothing_moves():
    engine, _ = judged_backwards(PLAIN)
    before = parameters(engine.problems["classifier"].module)
    engine.run(ticks=3)
    after = parameters(engine.problems["classifier"].module)
    assert all(torch.equal(after[key], value) for key, value in before.items())


@pytest.mark.parametrize("rate", [1e-6, 1e3])
def test_the_scale_of_the_step_of_the_weights_cancels(rate):
    case = CASES["conv-clipped-nesterov"]
    usual, other = problems_of(case), problems_of(case)
    other[1].optimizer.param_groups[0]["lr"] = rate
    ends = []
    for problems in (usual, other):
        engine = mlo.Engine(problems, data(case), lookahead=True)
        engine.run(ticks=3)
        ends.append(parameters(engine.problems["classifier"].module))
    assert error(ends[1], ends[0]) < TOLERANCE


def test_the_rate_of_the_classifier_cancels_in_the_weights():
    case = CASES["mlp"]
    found = []
    for rate in (1e-9, 1e-3):
        engine = engine_of(case._replace(training=Training(learning_rate=rate, momentum=0)))
        engine.problems["classifier"].optimizer.param_groups[0]["weight_decay"] = 0.0
        engine.step()
        found.append(engine.problems["weights"].module["epsilon"].detach().clone())
    torch.testing.assert_close(found[0], found[1], rtol=1e-9, atol=0)


def test_weights_are_cut_and_sum_to_one_or_are_all_zero():
    for values in itertools.product([-2.0, -0.0, 0.0, 1e-300, 3.0], repeat=3):
        found = normalized({"epsilon": torch.tensor(values)})["epsilon"].tolist()
        cut = [max(value, 0.0) for value in values]
        want = [value / (sum(cut) or 1.0) for value in cut]
        assert found == pytest.approx(want, rel=1e-14, abs=0)


def test_the_projection_is_differentiable_and_never_nan():
    for values in ([1.0, -1.0, 2.0], [-1.0, -2.0, 0.0]):
        epsilon = torch.tensor(values, requires_grad=True)
        total = (normalized({"epsilon": epsilon})["epsilon"] * torch.arange(3.0)).sum()
        (slope,) = torch.autograd.grad(total, epsilon)
        assert bool(slope.isfinite().all())
    epsilon = torch.tensor([1.0, -1.0, 2.0], requires_grad=True)
    assert torch.autograd.gradcheck(lambda e: normalized({"epsilon": e})["epsilon"], epsilon)


def test_a_batch_of_one_is_not_weighed_as_if_it_were_a_whole_one():
    case = CASES["mlp"]
    streams = data(case) | {"train": data(case._replace(n=1))["train"]}
    with pytest.raises(MloError):
        mlo.Engine(problems_of(case), streams, lookahead=True).step()
