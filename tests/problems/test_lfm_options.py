"""What the options of Learning From Mistakes mean: keys, similarity, stage-1 weights."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import mlo
from problems.datasets import stream
from problems.lfm import Settings, Validator, lfm_problems
from problems.lfm.reweighting import train_loss, weighted_train_loss
from problems.models import conv_classifier, conv_encoder

N, M, CLASSES = 30, 18, 3
NETWORK = {"width": 3, "features": 12}
# Rounding in float64: sums of a few thousand terms of about 1.
CLOSE = {"rtol": 1e-9, "atol": 1e-12}


def data(size: int, seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    x = torch.rand(size, 1, 8, 8, generator=draw, dtype=torch.float64)
    return x, torch.randint(0, CLASSES, (size,), generator=draw), torch.arange(size)


def picked(part, index):
    return tuple(field[index] for field in part)


def validator(**options) -> Validator:
    torch.manual_seed(1)
    made = Validator(conv_encoder(**NETWORK), **{"coefficients": M, **options})
    with torch.no_grad():
        made.coefficients.copy_(torch.rand(len(made.coefficients)) + 0.5)
    return made


TRAIN, VALID = data(N, 0), data(M, 1)
MISTAKES = torch.rand(M, generator=torch.Generator().manual_seed(2), dtype=torch.float64) * 3


@pytest.mark.parametrize("seed", range(3))
def test_by_slot_with_raw_products_it_is_the_formula_of_the_authors_code(seed):
    size = 7
    top = validator(coefficients=size, keyed_by="slot", temperature=1.0, normalize=False)
    draw = torch.Generator().manual_seed(seed)
    train = picked(TRAIN, torch.randperm(N, generator=draw)[:5])
    valid = picked(VALID, torch.randperm(M, generator=draw)[:size])
    logits = torch.randn(size, CLASSES, generator=draw, dtype=torch.float64)

    # A linear layer without bias over the slots of the batch, and no temperature.
    layer = nn.Linear(size, 1, bias=False)
    layer.weight.data = top.coefficients.data[None]
    powers = (top.encoder(train[0]) @ top.encoder(valid[0]).T).exp()
    x = powers / powers.sum(1, keepdim=True)
    z = (train[1][:, None] == valid[1][None]).double()
    u = -logits.log_softmax(1).gather(1, valid[1][:, None])[:, 0]
    expected = layer(x * z * u).squeeze(1).sigmoid()

    found = top(train, valid, F.cross_entropy(logits, valid[1], reduction="none"))
    torch.testing.assert_close(found, expected, **CLOSE)


def test_the_order_of_the_batches_matters_by_slot_and_not_by_example():
    order, train_order = torch.randperm(M), torch.randperm(N)
    shuffled = picked(VALID, order), MISTAKES[order]
    for key, matters in (("example", False), ("slot", True)):
        top = validator(keyed_by=key)
        weights = top(TRAIN, VALID, MISTAKES)
        again = top(TRAIN, *shuffled)
        assert torch.allclose(weights, again, **CLOSE) is not matters
        torch.testing.assert_close(top(picked(TRAIN, train_order), *shuffled), again[train_order])


@pytest.mark.parametrize("key", ["example", "slot"])
@pytest.mark.parametrize(("value", "sign"), [(0.0, 0), (1.0, 1), (-1.0, -1)])
def test_the_sign_of_the_coefficients_is_that_of_the_weights_against_one_half(key, value, sign):
    top = Validator(
        conv_encoder(**NETWORK), coefficients=M, keyed_by=key, initial_coefficient=value
    )
    weights = top(TRAIN, VALID, MISTAKES)
    # Every class is in the validation batch, so no weight is one half by default.
    assert torch.equal((weights - 0.5).sign(), torch.full_like(weights, sign))


class Times(nn.Module):
    def __init__(self, encoder, factor):
        super().__init__()
        self.encoder, self.factor = encoder, factor

    def forward(self, x):
        return self.factor * self.encoder(x)


def test_the_length_of_the_features_counts_only_in_raw_products():
    for normalize, temperature, longer in ((True, 0.1, 0.1), (False, 1.0, 49.0)):
        top = validator(normalize=normalize, temperature=temperature)
        weights = top(TRAIN, VALID, MISTAKES)
        top.encoder = Times(top.encoder, 7.0)
        if not normalize:
            assert not torch.allclose(top(TRAIN, VALID, MISTAKES), weights, rtol=1e-3)
        # Products of features seven times as long are 49 times as large.
        top.temperature = longer
        torch.testing.assert_close(top(TRAIN, VALID, MISTAKES), weights, **CLOSE)


@pytest.mark.parametrize("normalize", [True, False])
def test_a_high_temperature_counts_all_alike_and_a_low_one_the_nearest_only(normalize):
    top = validator(normalize=normalize, temperature=1e12)
    one = top.encoder(TRAIN[0]), top.encoder(VALID[0])
    features = [F.normalize(f, dim=1) for f in one] if normalize else one
    near = (features[0] @ features[1].T).argmax(1)
    same = (TRAIN[1][:, None] == VALID[1][None]).double()
    terms = same * top.coefficients * MISTAKES
    even = terms.mean(1).sigmoid()
    torch.testing.assert_close(top(TRAIN, VALID, MISTAKES), even, **CLOSE)
    top.temperature = 1e-9
    nearest = terms.gather(1, near[:, None]).squeeze(1).sigmoid()
    torch.testing.assert_close(top(TRAIN, VALID, MISTAKES), nearest, **CLOSE)


def engine(top, train, valid):
    """The program on given streams, both classifiers from one start."""
    networks = []
    for _ in range(2):
        torch.manual_seed(3)
        networks.append(conv_classifier(CLASSES, **NETWORK))
    settings = Settings(stage1_rate=0.1)
    problems = lfm_problems(*networks, top, ticks=20, settings=settings)
    return mlo.Engine(problems, data={"train": train, "valid": valid}, lookahead=True)


def shuffled(part, size, seed):
    """A stream, and the positions that its batches will hold."""

    def loader():
        return stream(*part[:2], batch_size=size, generator=torch.Generator().manual_seed(seed))

    coming = loader()  # one generator serves all epochs
    batches = [set(batch[2].tolist()) for _ in range(4) for batch in coming]
    return loader(), batches


def nonzero(tensor):
    return set(tensor.nonzero().flatten().tolist())


def test_gradients_of_keyed_quantities_are_of_the_examples_in_the_batch_and_no_others():
    train, train_batches = shuffled(TRAIN, 10, 5)
    valid, valid_batches = shuffled(VALID, 9, 6)
    made = engine(validator(stage1_weights=N), train, valid)
    for tick in range(6):
        if tick:
            made.step()
        found = made.hypergradient("validator")
        # The batch of the latest tick; before the first, the one that it will use.
        latest = max(tick - 1, 0)
        assert nonzero(found["stage1_weights"]) == train_batches[latest]
        assert nonzero(found["coefficients"]) == valid_batches[latest]
    assert len({frozenset(batch) for batch in train_batches[:5]}) == 5


def test_gradients_by_slot_are_of_all_slots_whatever_the_batch_holds():
    train, _ = shuffled(TRAIN, 10, 5)
    valid, _ = shuffled(VALID, 9, 6)
    made = engine(validator(keyed_by="slot", coefficients=9), train, valid)
    for _ in range(3):
        made.step()
        assert nonzero(made.hypergradient("validator")["coefficients"]) == set(range(9))


def test_weights_of_examples_that_were_not_drawn_stay_as_they_were():
    train, batches = shuffled(TRAIN, 6, 5)
    top = validator(stage1_weights=N)
    made = engine(top, train, [VALID])
    made.run(3)
    drawn = set().union(*batches[:3])
    assert len(drawn) == 18
    assert nonzero(top.stage1_weights.detach() - 1.0) == drawn
    made.run(2)
    assert len(nonzero(top.stage1_weights.detach() - 1.0)) == N


def test_shuffling_the_batches_shuffles_no_gradient_that_is_keyed_by_example():
    order, valid_order = torch.randperm(N), torch.randperm(M)
    batches = [[TRAIN], [VALID]]
    mixed = [[picked(TRAIN, order)], [picked(VALID, valid_order)]]
    one, other = (
        engine(validator(stage1_weights=N), *streams).hypergradient("validator")
        for streams in (batches, mixed)
    )
    for name, value in one.items():
        assert value.abs().max() > 1e-9, name
        torch.testing.assert_close(other[name], value, rtol=1e-7, atol=1e-13)


def test_shuffling_the_batch_gives_a_slot_the_gradient_of_what_it_holds():
    order = torch.randperm(M)
    tops = [validator(keyed_by="slot") for _ in range(2)]
    with torch.no_grad():
        tops[1].coefficients.copy_(tops[0].coefficients[order])
    one = engine(tops[0], [TRAIN], [VALID]).hypergradient("validator")["coefficients"]
    other = engine(tops[1], [TRAIN], [picked(VALID, order)]).hypergradient("validator")
    torch.testing.assert_close(other["coefficients"], one[order], rtol=1e-7, atol=1e-13)
    assert not torch.allclose(one[order], one, rtol=1e-2)


def test_the_gradient_of_a_stage1_weight_is_its_central_difference():
    top = validator(stage1_weights=N)
    made = engine(top, [TRAIN], [VALID])
    found = made.hypergradient("validator")["stage1_weights"]
    for index in (0, 7, N - 1):
        values = []
        for shift in (1e-2, -1e-2):
            moved = validator(stage1_weights=N)
            with torch.no_grad():
                moved.stage1_weights[index] += shift
            values.append(judged_after_both_steps(moved))
        # A shift this wide moves the loss by 1e-9 only, of which rounding leaves seven digits.
        difference = (values[0] - values[1]) / 2e-2
        assert found[index] == pytest.approx(difference, rel=1e-6)


def judged_after_both_steps(top):
    """The validator's loss after a plain SGD step of the learner, then one of the relearner."""
    networks = []
    for _ in range(2):
        torch.manual_seed(3)
        networks.append(conv_classifier(CLASSES, **NETWORK))
    learner, relearner = networks
    rates = {"lr": 0.05, "weight_decay": 5e-4}
    x, labels, index = TRAIN

    def step(network, weights):
        optimizer = torch.optim.SGD(network.parameters(), **rates)
        (weights * F.cross_entropy(network(x), labels, reduction="none")).mean().backward()
        optimizer.step()

    step(learner, top.stage1_weights.detach()[index])
    with torch.no_grad():
        u = F.cross_entropy(learner(VALID[0]), VALID[1], reduction="none")
        weights = top(TRAIN, VALID, u)
    step(relearner, weights)
    with torch.no_grad():
        return F.cross_entropy(relearner(VALID[0]), VALID[1]).item()


def test_stage1_weights_of_one_are_plain_training_and_others_weigh_their_example():
    top, network = validator(stage1_weights=N), conv_classifier(CLASSES, **NETWORK)
    order = torch.randperm(N)[:11]
    batch = picked(TRAIN, order)
    torch.testing.assert_close(
        weighted_train_loss(network, top, batch), train_loss(network, batch), **CLOSE
    )
    with torch.no_grad():
        top.stage1_weights.zero_()
        top.stage1_weights[order[4]] = 3.0
    one = F.cross_entropy(network(batch[0][4:5]), batch[1][4:5])
    torch.testing.assert_close(weighted_train_loss(network, top, batch), 3 * one / 11, **CLOSE)
