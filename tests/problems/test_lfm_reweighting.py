"""The declared program against the three stages differentiated by hand, in float64."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch.func import functional_call

import mlo
from mlo.errors import ConfigurationError
from problems.lfm import Settings, Validator, lfm_problems, plain_problems
from problems.models import conv_classifier, conv_encoder
from problems.training import Training

N, M, CLASSES = 12, 9, 3
TRAINING = Training(learning_rate=0.1)
SETTINGS = Settings(encoder_rate=1e-2, coefficient_rate=1e-1, stage1_rate=1e-1)


@pytest.fixture(autouse=True)
def _float64():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def batch(size: int, seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(size, 1, 8, 8, dtype=torch.float64, generator=generator)
    return x, torch.arange(size) % CLASSES, torch.randperm(size, generator=generator)


TRAIN, VALID = batch(N, 0), batch(M, 1)


def modules(*, with_b: bool, batch_norm: bool = False):
    torch.manual_seed(0)
    sizes = {"width": 4, "features": 16, "batch_norm": batch_norm}
    learner, relearner = (conv_classifier(CLASSES, **sizes) for _ in range(2))
    top = Validator(conv_encoder(**sizes), coefficients=M, stage1_weights=N if with_b else None)
    return learner, relearner, top


def engine_of(learner, relearner, top, **options) -> mlo.Engine:
    problems = lfm_problems(learner, relearner, top, ticks=5, training=TRAINING, settings=SETTINGS)
    return mlo.Engine(problems, data={"train": [TRAIN], "valid": [VALID]}, **options)


def sgd_step(network, loss_of) -> dict[str, torch.Tensor]:
    """One differentiable SGD step from the live parameters; no momentum has gathered yet."""
    start = dict(network.named_parameters())
    grads = torch.autograd.grad(loss_of(start), list(start.values()), create_graph=True)
    decay = TRAINING.weight_decay
    return {
        name: p - TRAINING.learning_rate * (g + decay * p)
        for (name, p), g in zip(start.items(), grads, strict=True)
    }


def hypergradient_by_hand(learner, relearner, top) -> dict[str, torch.Tensor]:
    def losses(network, params):
        return F.cross_entropy(
            functional_call(network, params, TRAIN[0]), TRAIN[1], reduction="none"
        )

    b = 1.0 if top.stage1_weights is None else top.stage1_weights[TRAIN[2]]
    w1 = sgd_step(learner, lambda params: (b * losses(learner, params)).mean())
    u = F.cross_entropy(functional_call(learner, w1, VALID[0]), VALID[1], reduction="none")
    a = top(TRAIN, VALID, u)
    w2 = sgd_step(relearner, lambda params: (a * losses(relearner, params)).mean())
    outer = F.cross_entropy(functional_call(relearner, w2, VALID[0]), VALID[1])
    names, variables = zip(*top.named_parameters(), strict=True)
    return dict(zip(names, torch.autograd.grad(outer, variables), strict=True))


@pytest.mark.parametrize("with_b", [False, True], ids=["fixed-b", "learned-b"])
def test_the_validators_gradient_is_that_of_the_unrolled_stages(with_b):
    parts = modules(with_b=with_b)
    expected = hypergradient_by_hand(*parts)
    found = engine_of(*parts, lookahead=True).hypergradient("validator")
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert value.abs().max() > 1e-8, name
        torch.testing.assert_close(found[name], value, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("with_b", [False, True], ids=["fixed-b", "learned-b"])
@pytest.mark.parametrize("lookahead", [False, True])
def test_all_three_problems_move(with_b, lookahead):
    parts = modules(with_b=with_b)
    before = [[p.detach().clone() for p in part.parameters()] for part in parts]
    engine_of(*parts, lookahead=lookahead).run(ticks=2)
    for part, old in zip(parts, before, strict=True):
        assert all(not torch.equal(p, q) for p, q in zip(part.parameters(), old, strict=True))


def test_running_statistics_follow_the_real_moves_only():
    parts = modules(with_b=False, batch_norm=True)
    engine_of(*parts, lookahead=True).run(ticks=3)
    learner, relearner, top = (
        {int(m.num_batches_tracked) for m in part.modules() if isinstance(m, torch.nn.BatchNorm2d)}
        for part in parts
    )
    # The encoder sees a training and a validation batch in each real move of the relearner.
    assert (learner, relearner, top) == ({3}, {3}, {6})


def test_the_validator_may_move_less_often():
    learner, relearner, top = modules(with_b=False)
    settings = Settings(every=2)
    problems = lfm_problems(learner, relearner, top, ticks=4, settings=settings)
    data = {"train": [TRAIN], "valid": [VALID]}
    engine = mlo.Engine(problems, data=data, lookahead=True)
    before = top.coefficients.detach().clone()
    engine.run(ticks=1)
    assert torch.equal(top.coefficients, before)
    engine.run(ticks=1)
    assert not torch.equal(top.coefficients, before)


def test_plain_training_is_the_learner_without_the_rest():
    plain, other = modules(with_b=False)[0], modules(with_b=False)
    problems = plain_problems(plain, ticks=5, training=TRAINING)
    mlo.Engine(problems, data={"train": [TRAIN]}).run(ticks=3)
    engine_of(*other, lookahead=True).run(ticks=3)
    for p, q in zip(plain.parameters(), other[0].parameters(), strict=True):
        assert torch.equal(p, q)


@pytest.mark.parametrize(("ticks", "every"), [(0, 1), (3, 4)])
def test_a_run_too_short_to_move_is_refused(ticks, every):
    with pytest.raises(ConfigurationError, match="ticks: expected at least one move"):
        lfm_problems(*modules(with_b=False), ticks=ticks, settings=Settings(every=every))
