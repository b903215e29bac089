"""The data of one repetition: disjoint, corrupted as asked for, and drawn by its seed alone."""

from __future__ import annotations

import pytest
import torch

from mlo.errors import ConfigurationError, DataError
from problems.datasets import DataSet
from problems.datasets.corruption import corrupt
from problems.datasets.imbalance import long_tail, long_tail_counts
from problems.datasets.splits import balanced_split
from problems.datasets.task import check_batch, draw_task, part_generator, part_seed
from problems.datasets.transitions import transition_matrix

RATE = 0.4
WRONG = {"none": 0.0, "uniform": None, "flip": RATE, "flip2": RATE, "hierarchical": RATE}
"""Expected share of wrong labels; that of uniform noise is RATE (K - 1) / K."""

TOTALS = {
    (10, 0.005): 11177,
    (10, 0.01): 12380,
    (10, 0.02): 13967,
    (10, 0.05): 16989,
    (10, 0.1): 20391,
    (100, 0.005): 9304,
    (100, 0.01): 10626,
    (100, 0.02): 12354,
    (100, 0.05): 15594,
    (100, 0.1): 19183,
}
"""Classes and factor -> training examples that the published long-tailed sets have."""


def numbered(per_class, classes, *, tested=0, superclasses=None, seed=5):
    """A set whose inputs are their own positions; those of its test part go on from there."""
    order = torch.randperm(per_class * classes, generator=torch.Generator().manual_seed(seed))
    labels = (torch.arange(per_class * classes) % classes)[order]
    x = torch.arange(len(labels) + tested).unsqueeze(1)
    test = (x[len(labels) :], torch.arange(tested) % classes) if tested else None
    return DataSet(
        "numbered", "numbers", "f", (x[: len(labels)], labels), test, classes, superclasses
    )


def drawn(data, seed, **settings):
    usual = {
        "noise": "flip",
        "rate": RATE,
        "imbalance": None,
        "validation_per_class": 7,
        "test_fraction": 0.25,
    }
    return draw_task(data, seed, **{**usual, **settings})


def places(task):
    return [part[0].flatten().tolist() for part in (task.train, task.valid, task.test)]


def right_labels(data):
    parts = [data.train[1]] if data.test is None else [data.train[1], data.test[1]]
    return torch.cat(parts)


def same(one, other):
    tensors = [
        [*task.train, *task.valid, *task.test, task.corrupted, task.transition]
        for task in (one, other)
    ]
    return all(map(torch.equal, *tensors))


@pytest.mark.parametrize("held", [None, 9])
@pytest.mark.parametrize("tested", [0, 60])
@pytest.mark.parametrize("noise", WRONG)
def test_the_parts_are_disjoint_and_only_labels_of_the_training_part_are_wrong(noise, tested, held):
    classes = 6
    data = numbered(200, classes, tested=tested, superclasses=torch.tensor([0, 1, 0, 1, 1, 0]))
    labels = right_labels(data)
    for seed in range(6):
        for imbalance in (None, 0.1):
            task = drawn(data, seed, noise=noise, held_per_class=held, imbalance=imbalance)
            train, valid, test = places(task)
            together = train + valid + test
            assert len(set(together)) == len(together)
            assert torch.equal(task.valid[1], labels[valid])
            assert torch.equal(task.test[1], labels[test])
            assert task.valid[1].bincount().tolist() == [7] * classes
            assert torch.equal(task.corrupted, task.train[1] != labels[train])
            assert task.counts == task.train[1].bincount(minlength=classes).tolist()
            cut = 0 if tested else 50  # of each class, for test
            left = 200 - 7 - cut - (held or 0)
            sizes = [left] * classes if imbalance is None else long_tail_counts(left, 6, imbalance)
            assert labels[train].bincount().tolist() == sizes
            if held is not None:
                assert task.test[1].bincount().tolist() == [held] * classes
                assert max(test) < len(data.train[1])
            elif tested:
                assert test == list(range(1200, 1260))
            else:
                assert task.test[1].bincount().tolist() == [50] * classes


@pytest.mark.parametrize("noise", WRONG)
def test_labels_become_wrong_at_the_rates_of_the_recorded_matrix(noise):
    classes = 10
    superclasses = torch.tensor([0, 0, 1, 1, 1, 2, 2, 2, 2, 0])
    data = numbered(3000, classes, superclasses=superclasses, tested=10)
    labels = right_labels(data)
    for seed in (0, 3):
        task = drawn(data, seed, noise=noise)
        before = labels[task.train[0][:, 0]]
        pairs = torch.zeros(classes, classes)
        pairs.index_put_((before, task.train[1]), torch.ones(len(before)), accumulate=True)
        found = pairs / pairs.sum(1, keepdim=True)
        assert task.transition.dtype == torch.float64
        deviation = (task.transition * (1 - task.transition) / 2993).sqrt()
        assert ((found - task.transition).abs() <= 5 * deviation).all()
        expected = RATE * 9 / 10 if noise == "uniform" else WRONG[noise]
        assert task.corrupted.double().mean().item() == pytest.approx(expected, abs=0.012)
        assert (expected == 0) is not task.corrupted.any().item()
        aims = ((task.transition > 0) & ~torch.eye(classes, dtype=torch.bool)).sum(1).tolist()
        related = [int((superclasses == s).sum()) - 1 for s in superclasses.tolist()]
        assert aims == {"none": [0] * 10, "uniform": [9] * 10, "flip": [1] * 10}.get(
            noise, [2] * 10 if noise == "flip2" else related
        )
        if noise == "hierarchical":
            assert torch.equal(superclasses[before], superclasses[task.train[1]])


def test_the_rate_says_nothing_where_there_is_no_noise():
    data = numbered(50, 3)
    task = drawn(data, 0, noise="none", rate=1.0)
    assert torch.equal(task.transition, torch.eye(3))
    assert not task.corrupted.any()


@pytest.mark.parametrize("rate", [0.0, 1.0])
def test_the_ends_of_the_rate_leave_all_labels_right_or_wrong(rate):
    task = drawn(numbered(60, 5), 1, rate=rate, noise="flip2")
    assert task.corrupted.double().mean().item() == rate


@pytest.mark.parametrize(("classes", "factor"), TOTALS)
def test_long_tailed_sets_of_the_size_of_cifar_have_the_published_counts(classes, factor):
    data = numbered(50_000 // classes, classes, tested=classes)
    task = drawn(
        data, 2, noise="none", imbalance=factor, validation_per_class=10, test_fraction=0.5
    )
    largest = 50_000 // classes - 10
    expected = [int(largest * factor ** (k / (classes - 1))) for k in range(classes)]
    assert task.counts == expected
    assert len(task.train[1]) == TOTALS[classes, factor]
    assert len(task.valid[1]) == 10 * classes


@pytest.mark.parametrize("tested", [0, 60])
def test_held_out_examples_stand_for_the_test_set_which_is_not_looked_at(tested):
    data = numbered(100, 6, tested=tested)
    without = drawn(data, 4)
    task = drawn(data, 4, held_per_class=11)
    assert torch.equal(task.valid[0], without.valid[0])
    assert not set(places(without)[2]) & {place for part in places(task) for place in part}
    assert set(places(task)[0]) | set(places(task)[2]) == set(places(without)[0])
    assert not same(task, without)
    if tested:
        poison = torch.full((60, 1), -1), torch.full((60,), 10**9)
        assert same(drawn(data._replace(test=poison), 4, held_per_class=11), task)
    else:  # the examples that the test part is cut from; poison them and look again
        x, labels = data.train
        x = x.clone()
        x[places(without)[2]] = -1
        assert same(drawn(data._replace(train=(x, labels)), 4, held_per_class=11), task)


@pytest.mark.parametrize("tested", [0, 60])
def test_a_seed_decides_everything_and_the_parts_do_not_share_draws(tested):
    data = numbered(100, 6, tested=tested)
    settings = {"imbalance": 0.2, "held_per_class": 5, "noise": "flip2"}
    torch.manual_seed(1)
    one = drawn(data, 3, **settings)
    torch.manual_seed(2)
    assert same(one, drawn(data, 3, **settings))
    other = drawn(data, 4, **settings)
    for part, (first, second) in enumerate(zip(places(one), places(other), strict=True)):
        assert first != second, part
    assert not torch.equal(one.transition, other.transition)
    # Another kind of noise, or none, leaves the examples of all parts where they were.
    assert places(drawn(data, 3, **{**settings, "noise": "none"})) == places(one)
    # A further thinning or held-out part leaves the validation set as it was.
    assert places(drawn(data, 3))[1] == places(one)[1]


def test_the_seeds_of_parts_are_all_different():
    parts = ["split", "imbalance", "noise", "train", "valid", "classifier", "encoder"]
    parts += ["upper", "second", "held"]
    seeds = {part_seed(seed, part) for seed in range(50) for part in parts}
    assert len(seeds) == 50 * len(parts)
    draws = {torch.rand(1, generator=part_generator(3, part)).item() for part in parts}
    assert len(draws) == len(parts)
    with pytest.raises(ValueError):  # noqa: PT011  a mistake in the code, not in a setting
        part_seed(0, "nothing")


@pytest.mark.parametrize("seed", [0, 6])
def test_each_part_is_drawn_by_its_own_generator(seed):
    data = numbered(100, 6, tested=60)
    task = drawn(data, seed, held_per_class=11, imbalance=0.3, noise="flip2")
    labels = data.train[1]

    def generator(number):
        return torch.Generator().manual_seed(1000 * seed + number)

    valid, rest = balanced_split(labels, 7, generator(0))
    held, others = balanced_split(labels[rest], 11, generator(9))
    thinned = rest[others][long_tail(labels[rest][others], 0.3, generator=generator(1)).kept]
    assert places(task) == [thinned.tolist(), valid.tolist(), rest[held].tolist()]
    noise = generator(2)
    matrix = transition_matrix("flip2", 6, RATE, generator=noise)
    assert torch.equal(task.transition, matrix)
    assert torch.equal(task.train[1], corrupt(labels[thinned], matrix, generator=noise).labels)


def test_what_is_moved_to_a_device_is_the_same_task():
    task = drawn(numbered(50, 3), 0)
    there = task.to("meta")
    tensors = [*there.train, *there.valid, *there.test, there.corrupted]
    assert {t.device.type for t in tensors} == {"meta"}
    assert same(task, task.to("cpu"))


@pytest.mark.parametrize(
    ("settings", "error", "parts"),
    [
        ({"imbalance": 0.001}, ConfigurationError, ["imbalance: 0.001", "empty", "at least"]),
        ({"imbalance": 1.5}, ConfigurationError, ["imbalance: 1.5", "1.5"]),
        ({"validation_per_class": 100}, ConfigurationError, ["100"]),
        ({"held_per_class": 93}, ConfigurationError, ["93"]),
        ({"rate": 1.5}, ConfigurationError, ["rate", "1.5", "0 to 1"]),
        ({"noise": "hierarchical"}, ConfigurationError, ["superclasses", "cifar100"]),
        ({"noise": "flop"}, ConfigurationError, ["'flop'", "flip"]),
    ],
)
def test_settings_that_do_not_suit_the_data_are_refused(settings, error, parts):
    with pytest.raises(error) as caught:
        drawn(numbered(100, 6, tested=6), 0, **settings)
    for part in parts:
        assert part in str(caught.value)


def test_a_class_too_small_for_all_parts_is_refused():
    with pytest.raises(DataError, match="validation_per_class"):
        drawn(numbered(20, 3), 0, validation_per_class=15)


def test_a_batch_may_be_the_whole_set_and_no_more():
    check_batch("train_batch", 12, 12, 0)
    with pytest.raises(ConfigurationError) as caught:
        check_batch("train_batch", 13, 12, 7)
    for part in ("train_batch", "at most 12", "seed 7", "13", "smaller"):
        assert part in str(caught.value)
