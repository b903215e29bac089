"""What networks and runs are judged by: in parts as in one, and as numpy has it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from problems import evaluation
from problems.evaluation import accuracy, class_accuracy, confusion, predict
from problems.lfm import Validator, training_weights
from problems.lfm import evaluation as lfm_evaluation
from problems.lfm.evaluation import similarity_summary

N, M, PIXELS, CLASSES = 23, 9, 5, 4


@pytest.fixture(params=[1, 4, 23, 2048])
def chunk(request, monkeypatch):
    monkeypatch.setattr(evaluation, "CHUNK", request.param)
    monkeypatch.setattr(lfm_evaluation, "CHUNK", request.param)
    return request.param


def examples(size, seed):
    draw = torch.Generator().manual_seed(seed)
    x = torch.randn(size, PIXELS, generator=draw)
    return x, torch.randint(0, CLASSES, (size,), generator=draw)


def network(out, seed=0):
    """Batch statistics and dropout would show a forgotten evaluation mode."""
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Linear(PIXELS, 6), nn.BatchNorm1d(6), nn.Dropout(0.5), nn.Linear(6, out))
    net(torch.randn(40, PIXELS) * 2 + 1)  # running statistics that are not those of the start
    return net


def prepare(x):
    return 0.5 * x - 0.1


def by_hand(net, x):
    """The layers of `network` in evaluation mode."""
    first, norm, _, last = net
    w, b, v, c = (p.detach().numpy() for p in (*first.parameters(), *last.parameters()))
    hidden = x.numpy() @ w.T + b
    mean, variance = norm.running_mean.numpy(), norm.running_var.numpy()
    hidden = (hidden - mean) / np.sqrt(variance + norm.eps)
    return (hidden * norm.weight.detach().numpy() + norm.bias.detach().numpy()) @ v.T + c


def losses_by_hand(logits, labels):
    shifted = logits - logits.max(1, keepdims=True)
    chances = np.exp(shifted) / np.exp(shifted).sum(1, keepdims=True)
    return -np.log(chances[np.arange(len(labels)), labels.numpy()])


def similarity_by_hand(validator, train, valid):
    e, f = by_hand(validator.encoder, train[0]), by_hand(validator.encoder, valid[0])
    if validator.normalize:
        e, f = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in (e, f))
    x = np.exp(e @ f.T / validator.temperature)
    return x / x.sum(1, keepdims=True), train[1].numpy()[:, None] == valid[1].numpy()[None, :]


def validator_of(**options):
    made = Validator(network(3, seed=1), coefficients=options.pop("coefficients", M), **options)
    with torch.no_grad():
        made.coefficients.copy_(torch.linspace(-1, 2, len(made.coefficients)))
    return made


@pytest.mark.parametrize("prepared", [None, prepare])
def test_predictions_in_parts_are_those_of_evaluation_mode(chunk, prepared):
    net, (x, labels) = network(CLASSES), examples(N, 3)
    net.train()
    net[2].eval()  # a mode of its own, which is left to it
    found = predict(net, x, prepared)
    expected = by_hand(net, prepare(x) if prepared else x)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-12, atol=1e-12)
    assert not found.requires_grad
    assert [net.training, net[1].training, net[2].training] == [True, True, False]
    right = (expected.argmax(1) == labels.numpy()).mean()
    assert accuracy(net, x, labels, prepared) == pytest.approx(right, abs=1e-15)
    assert 0 < right < 1


def test_a_confusion_matrix_counts_right_classes_in_rows():
    logits = torch.eye(3)[[0, 0, 1, 2, 2, 1]]
    counts = confusion(logits, torch.tensor([0, 0, 0, 1, 1, 1]))
    assert counts.tolist() == [[2, 1, 0], [0, 1, 2], [0, 0, 0]]
    assert counts.dtype == torch.int64
    shares = class_accuracy(counts)
    assert shares[:2].tolist() == [2 / 3, 1 / 3]
    assert shares[2].isnan()


def test_class_accuracy_is_the_mean_over_the_examples_of_each_class():
    logits, labels = torch.randn(200, 5), torch.randint(0, 4, (200,))
    counts = confusion(logits, labels)
    guessed = logits.argmax(1).numpy()
    expected = [(guessed[labels.numpy() == k] == k).mean() for k in range(4)]
    shares = class_accuracy(counts)
    np.testing.assert_allclose(shares[:4].numpy(), expected, rtol=1e-15)
    assert shares.isnan().tolist() == [False] * 4 + [True]
    assert counts.sum().item() == 200


OPTIONS = {
    "cosine": {"temperature": 0.5},
    "products": {"temperature": 2.0, "normalize": False},
    "offset, unit mean": {"offset": -0.7, "unit_mean": True},
    "slots": {"keyed_by": "slot", "coefficients": 5},
}


@pytest.mark.parametrize("prepared", [None, prepare])
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_training_weights_are_those_of_the_formula_over_the_whole_sets(chunk, options, prepared):
    validator, learner = validator_of(**options), network(CLASSES, seed=2)
    train, valid = examples(N, 4), examples(M, 5)
    validator.train()
    found = training_weights(validator, learner, train, valid, prepared)
    if prepared:
        train, valid = (prepare(train[0]), train[1]), (prepare(valid[0]), valid[1])
    size = len(validator.coefficients)
    valid = valid[0][:size], valid[1][:size]
    u = losses_by_hand(by_hand(learner, valid[0]), valid[1])
    x, z = similarity_by_hand(validator, train, valid)
    total = (x * z) @ (validator.coefficients.detach().numpy() * u)
    expected = 1 / (1 + np.exp(-total - options.get("offset", 0.0)))
    if options.get("unit_mean"):
        expected /= expected.mean()
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-12)
    assert not found.requires_grad
    assert validator.training
    assert validator.encoder[1].training
    assert learner.training
    assert found.std() > 1e-3  # the case tells weights apart


@pytest.mark.parametrize("prepared", [None, prepare])
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_similarities_are_summed_up_over_the_whole_sets(chunk, options, prepared):
    validator, train, valid = validator_of(**options), examples(N, 6), examples(M, 7)
    validator.train()
    found = similarity_summary(validator, train, valid, prepared)
    if prepared:
        train, valid = (prepare(train[0]), train[1]), (prepare(valid[0]), valid[1])
    x, z = similarity_by_hand(validator, train, valid)
    np.testing.assert_allclose(x.sum(1), 1, rtol=1e-14)
    expected = {"nearest": x.max(1).mean(), "same class": (x * z).sum(1).mean()}
    assert found == pytest.approx(expected, rel=1e-12)
    assert 1 / M < found["nearest"] < 1
    assert 0 < found["same class"] < 1
    assert validator.training


def test_similarity_is_one_where_there_is_one_neighbour_or_one_class():
    validator = validator_of()
    train, (x, _) = examples(N, 6), examples(M, 7)
    one = similarity_summary(validator, train, (x[:1], train[1][:1]))
    assert one["nearest"] == pytest.approx(1, rel=1e-14)
    assert one["same class"] == pytest.approx((train[1] == train[1][0]).double().mean().item())
    alike = torch.zeros(N, dtype=torch.int64), torch.zeros(M, dtype=torch.int64)
    found = similarity_summary(validator, (train[0], alike[0]), (x, alike[1]))
    assert found["same class"] == pytest.approx(1, rel=1e-14)
    apart = similarity_summary(validator, (train[0], alike[0]), (x, alike[1] + 1))
    assert apart["same class"] == 0
    assert apart["nearest"] == found["nearest"]
