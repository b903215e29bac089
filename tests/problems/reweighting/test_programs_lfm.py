"""LFM with an offset, weights of mean one and a constant learner, differentiated in full."""

from __future__ import annotations

from typing import NamedTuple

import pytest
import torch
from torch import nn

import mlo
from problems.lfm import Settings, Validator, lfm_problems
from problems.models import conv_encoder

from .by_hand import (
    CASES,
    TICKS,
    TOLERANCE,
    TRAIN_SIZE,
    VALID_SIZE,
    Case,
    call,
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


class Options(NamedTuple):
    """What the validator may be told."""

    offset: float = 0.0
    unit_mean: bool = False
    key: str = "example"
    with_b: bool = True
    constant: tuple[str, ...] = ()
    normalize: bool = True


OPTIONS = {
    "paper": Options(normalize=False),
    "offset": Options(offset=-1.7),
    "unit-mean-slots": Options(unit_mean=True, key="slot"),
    "both": Options(offset=0.9, unit_mean=True),
    "constant-learner": Options(constant=("learner",)),
    "constant-learner-both": Options(-2.0, True, "slot", constant=("learner",)),
    "without-b": Options(offset=-0.5, with_b=False, constant=("learner",)),
}
SHAPES = {name: CASES[name] for name in ("mlp", "conv-clipped-nesterov", "mlp-momentum-unit-mean")}

RATES = {"encoder": 1.0, "coefficients": 3.0, "stage1_weights": 7.0}


def engine_of(case, options):
    learner, relearner = (network(case.network, case.classes, seed) for seed in (0, 1))
    torch.manual_seed(2)
    if case.network == "conv":
        encoder: nn.Module = conv_encoder(width=3, features=6, batch_norm=True)
    else:
        encoder = nn.Sequential(nn.Flatten(), nn.Linear(16, 5), nn.Tanh())
    top = Validator(
        encoder,
        coefficients=VALID_SIZE if options.key == "example" else case.m,
        keyed_by=options.key,
        temperature=0.4,
        normalize=options.normalize,
        stage1_weights=TRAIN_SIZE if options.with_b else None,
        offset=options.offset,
        unit_mean=options.unit_mean,
    )
    with torch.no_grad():
        top.coefficients.add_(torch.randn_like(top.coefficients))
    problems = lfm_problems(
        learner,
        relearner,
        top,
        ticks=10,
        training=case.training,
        settings=Settings(
            optimizer="sgd",
            momentum=0,
            schedule="constant",
            encoder_rate=RATES["encoder"],
            coefficient_rate=RATES["coefficients"],
            stage1_rate=RATES["stage1_weights"],
        ),
        constant=options.constant,
    )
    return mlo.Engine(problems, data(case), lookahead=True)


def stage1(top, net, params, train):
    b = top["stage1_weights"][train[2]] if "stage1_weights" in top else 1.0
    return (b * losses(net, params, train)).mean()


def weights_of(options, validator, top, batches, mistakes):
    """a_i = sigmoid( c + sum_j r_j x_ij z_ij u_j ), pair by pair."""
    train, valid = batches
    inner = {k.removeprefix("encoder."): p for k, p in top.items() if k.startswith("encoder.")}
    features, others = (call(validator.encoder, inner, batch[0]) for batch in (train, valid))
    if options.normalize:
        features, others = (
            e / e.square().sum(1, keepdim=True).sqrt().clamp(min=1e-12) for e in (features, others)
        )
    r = top["coefficients"]
    scores = []
    for feature, label in zip(features, train[1], strict=True):
        powers = torch.exp((others * feature).sum(1) / 0.4)
        terms = []
        for j, (index, other) in enumerate(zip(valid[2], valid[1], strict=True)):
            if label == other:
                key = int(index) if options.key == "example" else j
                terms.append(r[key] * powers[j] / powers.sum() * mistakes[j])
        scores.append(sum(terms) + torch.tensor(options.offset))
    a = 1 / (1 + torch.exp(-torch.stack(scores)))
    return a * len(a) / a.sum() if options.unit_mean else a


def stage2(a, net, params, train):
    return (a * losses(net, params, train)).mean()


def by_hand(engine, options, batches):
    learner, relearner, validator = engine.problems.values()
    train, valid = batches
    top = leaves(validator.module)
    w1 = leaves(learner.module)
    w1 = stepped(learner, w1, stage1(top, learner.module, w1, train))
    mistakes = losses(learner.module, w1, valid)
    if options.constant:
        mistakes = mistakes.detach()
    w2 = leaves(relearner.module)
    a = weights_of(options, validator.module, top, batches, mistakes)
    w2 = stepped(relearner, w2, stage2(a, relearner.module, w2, train))
    return derivative(mean_loss(relearner.module, w2, valid), top)


def moves_by_hand(engine, options, batches, moved):
    """The real moves of the two networks after the validator has moved."""
    learner, relearner, validator = engine.problems.values()
    train, valid = batches
    w1, w2 = leaves(learner.module), leaves(relearner.module)
    w1 = stepped(learner, w1, stage1(moved, learner.module, w1, train))
    mistakes = losses(learner.module, w1, valid)
    a = weights_of(options, validator.module, moved, batches, mistakes)
    return w1, stepped(relearner, w2, stage2(a, relearner.module, w2, train))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", OPTIONS)
def test_gradients_and_moves_are_those_of_the_three_stages(name, shape):
    case, options = SHAPES[shape], OPTIONS[name]
    engine, drawn = engine_of(case, options), data(case)
    learner, relearner, validator = engine.problems.values()
    for tick in range(TICKS - 1):
        shown = max(tick - 1, 0)
        want = by_hand(engine, options, (drawn["train"][shown], drawn["valid"][shown]))
        assert error(engine.hypergradient("validator"), want) < TOLERANCE
        pair = drawn["train"][tick], drawn["valid"][tick]
        want = by_hand(engine, options, pair)
        _check_size(want, options)
        moved = {
            key: p - RATES[key.partition(".")[0]] * want[key]
            for key, p in parameters(validator.module).items()
        }
        real = moves_by_hand(engine, options, pair, moved)
        with received(validator) as seen:
            engine.step()
        assert error(seen, want) < TOLERANCE
        assert error(parameters(validator.module), moved) < TOLERANCE
        assert error(parameters(learner.module), real[0]) < TOLERANCE
        assert error(parameters(relearner.module), real[1]) < TOLERANCE


def _check_size(want, options):
    """What depends on something is not zero, and only what depends on nothing is."""
    for key, value in want.items():
        if key == "stage1_weights" and options.constant:
            assert not value.any()
        else:
            assert value.norm() > 1e-10, key


@pytest.mark.parametrize("shape", SHAPES)
def test_a_constant_learner_changes_only_what_went_through_its_mistakes(shape):
    free, cut = (
        engine_of(SHAPES[shape], Options(offset=-1.0, constant=constant)).hypergradient("validator")
        for constant in ((), ("learner",))
    )
    assert free["stage1_weights"].norm() > 1e-10
    assert not cut["stage1_weights"].any()
    for key in free.keys() - {"stage1_weights"}:
        assert torch.equal(free[key], cut[key]) or error({key: cut[key]}, {key: free[key]}) < 1e-12


def test_the_offset_moves_the_weight_of_what_resembles_no_mistake():
    case = Case("mlp", 4, 3, 2, CASES["mlp"].training)
    train, valid = data(case)["train"][0], data(case)["valid"][0]
    valid = valid[0], torch.full((3,), 7), valid[2]
    for offset in (-2.0, 0.0, 1.5):
        validator = engine_of(case, Options(offset=offset)).problems["validator"].module
        a = validator(train, valid, torch.ones(3))
        torch.testing.assert_close(a, torch.full((4,), 1 / (1 + torch.e**-offset)))
