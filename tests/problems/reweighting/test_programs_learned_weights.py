"""Learned weights of examples against full differentiation through the step."""

from __future__ import annotations

import pytest
import torch

import mlo
from problems.reweighting.programs import LearnedWeightsSettings, learned_problems
from problems.reweighting.programs.learned_weights import ExampleWeights

from .by_hand import (
    CASES,
    TICKS,
    TOLERANCE,
    TRAIN_SIZE,
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


def engine_of(case):
    net = network(case.network, case.classes)
    weights = ExampleWeights(TRAIN_SIZE, initial=0.3)
    settings = LearnedWeightsSettings(
        optimizer="sgd", momentum=0, schedule="constant", rate=50.0, unit_mean=case.unit_mean
    )
    problems = learned_problems(net, weights, case.training, settings, ticks=10)
    return mlo.Engine(problems, data(case), lookahead=True)


def weighted(case, net, params, upper, train):
    weights = torch.stack([1 / (1 + torch.exp(-upper["logits"][int(i)])) for i in train[2]])
    if case.unit_mean:
        weights = weights * case.n / weights.sum()
    return (weights * losses(net, params, train)).sum() / case.n


def by_hand(engine, case, train, valid):
    classifier, upper = engine.problems["classifier"], leaves(engine.problems["weights"].module)
    params = leaves(classifier.module)
    new = stepped(classifier, params, weighted(case, classifier.module, params, upper, train))
    return derivative(mean_loss(classifier.module, new, valid), upper)


@pytest.mark.parametrize("name", CASES)
def test_gradients_and_moves_are_those_of_the_step(name):
    case = CASES[name]
    engine, drawn = engine_of(case), data(case)
    classifier, upper = engine.problems["classifier"], engine.problems["weights"]
    for tick in range(TICKS):
        shown = max(tick - 1, 0)
        want = by_hand(engine, case, drawn["train"][shown], drawn["valid"][shown])
        assert error(engine.hypergradient("weights"), want) < TOLERANCE
        train, valid = drawn["train"][tick], drawn["valid"][tick]
        want = by_hand(engine, case, train, valid)
        others = torch.ones(TRAIN_SIZE, dtype=torch.bool)
        others[train[2]] = False
        assert not want["logits"][others].any()
        assert bool(want["logits"][train[2]].all())
        params = leaves(classifier.module)
        moved = {k: p - 50.0 * want[k] for k, p in parameters(upper.module).items()}
        real = stepped(classifier, params, weighted(case, classifier.module, params, moved, train))
        with received(upper) as seen:
            engine.step()
        assert error(seen, want) < TOLERANCE
        assert error(parameters(upper.module), moved) < TOLERANCE
        assert error(parameters(classifier.module), real) < TOLERANCE


def test_weights_are_the_sigmoids_at_the_index_and_may_repeat():
    weights = ExampleWeights(5, initial=-1.0)
    assert weights.logits.tolist() == [-1.0] * 5
    with torch.no_grad():
        weights.logits.copy_(torch.arange(5.0))
    index = torch.tensor([4, 0, 4])
    want = 1 / (1 + torch.exp(-torch.tensor([4.0, 0.0, 4.0])))
    torch.testing.assert_close(weights(index), want)
    (slope,) = torch.autograd.grad(weights(index).sum(), weights.logits)
    assert float(slope[4]) == pytest.approx(2 * float(want[0] * (1 - want[0])))
    assert slope[1:4].tolist() == [0.0] * 3


def test_the_recorded_weight_is_the_mean_before_division():
    case = CASES["mlp-momentum-unit-mean"]
    engine = engine_of(case)
    record = engine.step()
    (metric,) = [move.metrics["weight"] for move in record.moves if move.problem == "classifier"]
    logits = engine.problems["weights"].module.logits.detach()
    assert float(metric) == pytest.approx(
        float(torch.sigmoid(logits[data(case)["train"][0][2]]).mean()), rel=1e-12
    )
