"""Meta-Weight-Net against algorithm 1 of the paper, written by hand and differentiated in full."""

from __future__ import annotations

import pytest
import torch

import mlo
from problems.reweighting.programs import (
    MetaWeightNetSettings,
    WeightNet,
    meta_weight_net_problems,
)

from .by_hand import (
    CASES,
    CLIPPED,
    PLAIN,
    TICKS,
    TOLERANCE,
    Case,
    data,
    derivative,
    error,
    gradient_norm,
    leaves,
    losses,
    mean_loss,
    network,
    parameters,
    received,
    stepped,
)


def engine_of(case, **options):
    torch.manual_seed(5)
    net, weight_net = network(case.network, case.classes), WeightNet(hidden=7)
    settings = MetaWeightNetSettings(
        optimizer="sgd", momentum=0, schedule="constant", rate=1.0, unit_mean=case.unit_mean
    )
    problems = meta_weight_net_problems(
        net, weight_net, case.training, settings, ticks=10, **options
    )
    return mlo.Engine(problems, data(case), lookahead=True)


def weights_of(theta, found):
    """V(l) = sigmoid(w2 . relu(w1 l + b1) + b2), one example after another."""
    values = []
    for loss in found:
        hidden = (theta["0.weight"][:, 0] * loss + theta["0.bias"]).clamp(min=0)
        score = (theta["2.weight"][0] * hidden).sum() + theta["2.bias"][0]
        values.append(1 / (1 + torch.exp(-score)))
    return torch.stack(values)


def weighted(case, net, params, theta, train, *, through=False):
    found = losses(net, params, train)
    weights = weights_of(theta, found if through else found.detach())
    if case.unit_mean:
        weights = weights * case.n / weights.sum()
    return (weights * found).sum() / case.n


def by_hand(engine, case, train, valid, *, through=False):
    classifier = engine.problems["classifier"]
    params, theta = leaves(classifier.module), leaves(engine.problems["weight_net"].module)
    loss = weighted(case, classifier.module, params, theta, train, through=through)
    new = stepped(classifier, params, loss)
    return derivative(mean_loss(classifier.module, new, valid), theta)


@pytest.mark.parametrize("name", CASES)
def test_gradients_and_moves_are_those_of_the_algorithm(name):
    case = CASES[name]
    engine, drawn = engine_of(case), data(case)
    classifier, upper = engine.problems["classifier"], engine.problems["weight_net"]
    for tick in range(TICKS):
        shown = max(tick - 1, 0)
        want = by_hand(engine, case, drawn["train"][shown], drawn["valid"][shown])
        assert error(engine.hypergradient("weight_net"), want) < TOLERANCE
        train, valid = drawn["train"][tick], drawn["valid"][tick]
        want = by_hand(engine, case, train, valid)
        if not (case.unit_mean and case.n == 1):
            assert all(value.norm() > 1e-9 for value in want.values())
        theta, params = parameters(upper.module), leaves(classifier.module)
        moved = {k: p - want[k] for k, p in theta.items()}
        real = stepped(classifier, params, weighted(case, classifier.module, params, moved, train))
        with received(upper) as seen:
            engine.step()
        assert error(seen, want) < TOLERANCE
        assert error(parameters(upper.module), moved) < TOLERANCE
        assert error(parameters(classifier.module), real) < TOLERANCE


def test_the_gradients_of_these_cases_are_clipped_and_the_momentum_is_there():
    case = CASES["conv-clipped-nesterov"]
    engine = engine_of(case)
    engine.step()
    classifier = engine.problems["classifier"]
    params, theta = leaves(classifier.module), leaves(engine.problems["weight_net"].module)
    loss = weighted(case, classifier.module, params, theta, data(case)["train"][0])
    assert gradient_norm(params, loss)[1] > 2 * CLIPPED.clip_norm
    kept = [state["momentum_buffer"].norm() for state in classifier.optimizer.state.values()]
    assert len(kept) == len(params)
    assert min(kept) > 1e-6


def test_nothing_is_differentiated_through_the_loss_that_v_reads():
    case = CASES["mlp"]
    engine, drawn = engine_of(case), data(case)
    through = by_hand(engine, case, drawn["train"][0], drawn["valid"][0], through=True)
    assert error(engine.hypergradient("weight_net"), through) > 1e-3


def test_v_is_the_formula_and_its_input_is_cut():
    net = WeightNet(hidden=5)
    found = torch.rand(8).mul(4).requires_grad_()
    weights = net.weights(found)
    torch.testing.assert_close(weights, weights_of(leaves(net), found.detach()))
    assert weights.shape == (8,)
    assert weights.requires_grad
    assert torch.autograd.grad(weights.sum(), found, allow_unused=True) == (None,)


def test_the_recorded_weight_is_the_mean_before_division():
    case = Case("mlp", 6, 4, 3, PLAIN, unit_mean=True)
    engine = engine_of(case)
    record = engine.step()
    (metric,) = [move.metrics["weight"] for move in record.moves if move.problem == "classifier"]
    net, theta = network("mlp", 3), leaves(engine.problems["weight_net"].module)
    want = weights_of(theta, losses(net, leaves(net), data(case)["train"][0])).mean().detach()
    assert float(metric) == pytest.approx(float(want), rel=1e-12)
