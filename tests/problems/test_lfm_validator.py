from __future__ import annotations

import pytest
import torch
from torch import nn

from mlo.configuration import configure
from mlo.errors import ConfigurationError, DataError
from problems.evaluation import accuracy
from problems.lfm.evaluation import training_weights
from problems.lfm.settings import Settings
from problems.lfm.validator import Validator
from problems.lfm.weights import example_weights, label_similarity, mistakes, visual_similarity
from problems.models import conv_classifier, conv_encoder
from problems.training import Training

N, M = 6, 5


def batch(size: int, seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(size, 1, 8, 8, generator=generator)
    return x, torch.arange(size) % 3, torch.randperm(size, generator=generator)


def validator(**options) -> Validator:
    options = {"coefficients": M, **options}
    return Validator(conv_encoder(width=2, features=4), **options)


def test_a_validator_weighs_by_the_formula():
    torch.manual_seed(0)
    top = validator(temperature=0.5, normalize=False)
    with torch.no_grad():
        top.coefficients.copy_(torch.arange(1.0, M + 1))
    train, valid, u = batch(N, 0), batch(M, 1), torch.rand(M)
    x = visual_similarity(top.encoder(train[0]), top.encoder(valid[0]), temperature=0.5)
    # Coefficient j is j + 1 and belongs to example j of the set, wherever the batch holds it.
    expected = example_weights(valid[2] + 1.0, x, label_similarity(train[1], valid[1]), u)
    torch.testing.assert_close(top(train, valid, u), expected)


def test_coefficients_belong_to_examples_or_to_slots():
    index = torch.tensor([3, 0])
    for key, expected in (("example", [3.0, 0.0]), ("slot", [0.0, 1.0])):
        top = validator(keyed_by=key)
        with torch.no_grad():
            top.coefficients.copy_(torch.arange(M))
        assert top.coefficients_of(index).tolist() == expected


def test_a_batch_with_more_slots_than_coefficients_is_refused():
    with pytest.raises(DataError, match=f"at most {M} validation examples"):
        validator(keyed_by="slot").coefficients_of(torch.arange(M + 1))


def test_stage1_weights_belong_to_training_examples():
    top = validator(stage1_weights=N, initial_stage1_weight=1.1)
    torch.testing.assert_close(top.stage1_weights_of(torch.tensor([5, 0])), torch.full((2,), 1.1))
    with pytest.raises(ConfigurationError, match="stage1_weights: expected the number"):
        validator().stage1_weights_of(torch.tensor([0]))


@pytest.mark.parametrize(
    ("option", "value"),
    [("keyed_by", "batch"), ("coefficients", 0), ("temperature", 0.0), ("stage1_weights", 0)],
)
def test_validator_refuses_what_it_cannot_use(option, value):
    with pytest.raises(ConfigurationError, match=f"{option}: expected"):
        validator(**{option: value})


@pytest.mark.parametrize(
    ("section", "option", "value"),
    [
        (Training, "learning_rate", -0.1),
        (Training, "momentum", -0.1),
        (Training, "weight_decay", -0.1),
        (Training, "milestones", [0.5, 0.5]),
        (Training, "milestones", [1.0]),
        (Settings, "stage1_rate", -0.1),
        (Settings, "every", 0),
    ],
)
def test_settings_refuse_what_no_optimizer_can_use(section, option, value):
    with pytest.raises(ConfigurationError, match=f"{option}: expected"):
        configure(section, {option: value}, title="rates")


@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("size", [8, 13, 32])
def test_networks_take_small_images_of_any_size(size, batch_norm):
    images = torch.rand(4, 3, size, size)
    options = {"channels": 3, "width": 2, "features": 5, "batch_norm": batch_norm}
    assert conv_classifier(7, **options)(images).shape == (4, 7)
    features = conv_encoder(**options)(images)
    assert features.shape == (4, 5)
    assert (features >= 0).all()
    buffers = list(conv_encoder(**options).buffers())
    assert bool(buffers) == batch_norm


def test_networks_refuse_sizes_that_are_none():
    with pytest.raises(ConfigurationError, match="width: expected at least 1"):
        conv_encoder(width=0)
    with pytest.raises(ConfigurationError, match="classes: expected at least 2"):
        conv_classifier(1)


class Known(nn.Module):
    """Predicts the class that the first pixel names."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.one_hot(x[:, 0].long(), 3).float()


def test_accuracy_counts_right_predictions_and_restores_the_mode():
    network = Known().train()
    x = torch.tensor([[0.0], [1.0], [2.0], [2.0]])
    assert accuracy(network, x, torch.tensor([0, 1, 2, 1])) == 0.75
    assert network.training


@pytest.mark.parametrize("key", ["example", "slot"])
def test_training_weights_cover_the_training_set_and_change_nothing(key):
    torch.manual_seed(0)
    learner = conv_classifier(3, width=2, batch_norm=True)
    options = {"coefficients": M if key == "example" else M - 2, "keyed_by": key}
    top = Validator(conv_encoder(width=2, batch_norm=True), **options)
    before = {**learner.state_dict(prefix="l."), **top.state_dict()}
    before = {name: value.clone() for name, value in before.items()}
    train, valid = batch(N, 0)[:2], batch(M, 1)[:2]
    weights = training_weights(top, learner, train, valid)
    assert weights.shape == (N,)
    assert not weights.requires_grad
    assert learner.training
    assert top.training
    after = {**learner.state_dict(prefix="l."), **top.state_dict()}
    assert all(torch.equal(after[name], value) for name, value in before.items())

    held = len(top.coefficients)
    u = mistakes(learner.eval()(valid[0][:held]), valid[1][:held])
    indexed = (valid[0][:held], valid[1][:held], torch.arange(held))
    torch.testing.assert_close(weights, top.eval()((*train, torch.arange(N)), indexed, u).detach())
