"""The recipe on small networks: what it returns, and what makes its comparison a fair one."""

from __future__ import annotations

import contextlib
import itertools
import math

import pytest
import torch
import torch.nn.functional as F

import mlo
from mlo.configuration import configure
from mlo.errors import ConfigurationError, DeclarationError
from mlo.recipe import Job
from problems.datasets import load_digits, stream
from problems.lfm import experiment, programs, task
from problems.lfm.config import ReweightingConfig
from problems.lfm.evaluation import training_weights
from problems.lfm.experiment import run_repetition
from problems.lfm.programs import lfm_engine, plain_engine
from problems.lfm.recipe import recipe
from problems.lfm.task import make_task, part_seed
from problems.models import conv_classifier

NETWORKS = ("plain", "plain+val", "learner", "relearner")
SMALL = {"seeds": 2, "ticks": 8, "width": 4, "features": 8, "evaluations": 4}


@pytest.fixture(autouse=True)
def float32(float64):
    torch.set_default_dtype(torch.float32)  # the precision of the images


def config(**settings) -> ReweightingConfig:
    return ReweightingConfig(**{**SMALL, **settings})


def results(**settings):
    return recipe.run(config(**settings), Job("test", quiet=True))


def repeat(settings, seed=0):
    return run_repetition(settings, seed, lambda run: ())


@pytest.fixture
def engines(monkeypatch):
    """The engines of the repetitions that the test makes."""
    made = []

    def keeping(make):
        def kept(*args):
            made.append(make(*args))
            return made[-1]

        return kept

    for make in (plain_engine, lfm_engine):
        monkeypatch.setattr(experiment, make.__name__, keeping(make))
    return made


def states(engines):
    """Copies of all parameters and buffers."""
    return {
        (run, name, key): value.clone()
        for run, engine in enumerate(engines)
        for name, problem in engine.problems.items()
        for key, value in problem.module.state_dict().items()
    }


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def test_results_hold_every_seed_and_are_drawn_as_a_table():
    found = results()
    (table,) = found.tables
    headings = [column.header for column in table.columns]
    assert headings == ["seed", *NETWORKS, "a clean", "a corrupted"]
    assert table.row_count == 4
    assert [seed["seed"] for seed in found.numbers["seeds"]] == [0, 1]
    for seed in found.numbers["seeds"]:
        size = len(make_task(config(), seed["seed"]).test[1])
        for network in NETWORKS:
            ticks, values = zip(*seed["curves"][network], strict=True)
            assert ticks == (2, 4, 6, 8)
            counts = [value * size for value in values]
            assert counts == pytest.approx([round(count) for count in counts], abs=1e-9)
        assert 0 < seed["weight"]["clean"] < 1


@pytest.mark.parametrize(
    "settings", [{"noise": "none"}, {"rate": 0.0}, {"noise": "none", "imbalance": 0.1}]
)
def test_without_noise_there_are_no_weight_columns(settings):
    found = results(seeds=1, ticks=2, **settings)
    assert [column.header for column in found.tables[0].columns] == ["seed", *NETWORKS]
    assert found.numbers["mean"]["weight"] == found.numbers["seeds"][0]["weight"] == {}


def test_a_run_in_which_every_label_is_wrong_ends_with_results():
    found = results(ticks=1, rate=1.0)
    assert set(found.numbers["mean"]["accuracy"]) == set(NETWORKS)


def test_a_run_in_which_some_seeds_have_no_wrong_label_ends_with_results():
    settings = {"ticks": 1, "rate": 8e-4, "seeds": 6}
    wrong = [bool(make_task(config(**settings), seed).corrupted.any()) for seed in range(6)]
    assert any(wrong)
    assert not all(wrong)
    found = results(**settings)
    assert set(found.numbers["mean"]["accuracy"]) == set(NETWORKS)


def test_a_run_that_diverges_ends_with_results_that_say_so():
    found = results(learning_rate=1e12)
    assert math.isnan(found.numbers["mean"]["weight"]["clean"])


def test_the_first_seed_moves_the_range_of_seeds_and_nothing_else():
    three, two = results(ticks=4, seeds=3), results(ticks=4, seeds=2, first_seed=1)
    assert two.numbers["seeds"] == three.numbers["seeds"][1:]
    assert list(config(seeds=2, first_seed=1).seed_range) == [1, 2]


@pytest.mark.parametrize("fails", [False, True])
def test_the_run_has_the_threads_that_are_asked_for_and_gives_them_back(monkeypatch, fails):
    seen, before = [], torch.get_num_threads()

    def repetition(*args):
        seen.append(torch.get_num_threads())
        if fails:
            raise KeyboardInterrupt
        return run_repetition(*args)

    monkeypatch.setattr("problems.lfm.recipe.run_repetition", repetition)
    for number in (2, 1, 3):
        with pytest.raises(KeyboardInterrupt) if fails else contextlib.nullcontext():
            results(ticks=1, seeds=1, evaluations=1, threads=number)
        assert torch.get_num_threads() == before
    assert seen == [2, 1, 3]


@pytest.mark.parametrize(
    ("setting", "value"), [("threads", 0), ("threads", 1.5), ("first_seed", -1), ("device", "gpu")]
)
def test_a_setting_that_cannot_serve_is_named(setting, value):
    with pytest.raises(ConfigurationError, match=rf"lfm: a setting does not fit:\s+{setting}: "):
        configure(ReweightingConfig, {setting: value}, title="lfm")


DATA = {
    "flip": {},
    "uniform": {"noise": "uniform"},
    "no noise": {"noise": "none"},
    "imbalance": {"imbalance": 0.1},
    "imbalance, uniform": {"imbalance": 0.02, "noise": "uniform", "rate": 0.6},
    "few for validation": {"validation_per_class": 2, "valid_batch": 20},
}


@pytest.mark.parametrize("settings", DATA.values(), ids=DATA)
def test_the_three_sets_are_disjoint_and_only_training_labels_are_wrong(monkeypatch, settings):
    x, labels = load_digits()
    # Every image holds its own position, so that the parts tell which images they took.
    numbered = torch.arange(len(x), dtype=torch.float32).reshape(-1, 1, 1, 1).expand_as(x)
    monkeypatch.setattr(task, "load_digits", lambda: (numbered, labels))
    chosen = config(**settings)
    for seed in range(5):
        data = make_task(chosen, seed)
        index = [part[0][:, 0, 0, 0].long() for part in (data.train, data.valid, data.test)]
        taken = torch.cat(index)
        assert len(taken.unique()) == len(taken)
        assert (len(taken) == len(x)) is (chosen.imbalance is None)
        assert torch.equal(data.valid[1], labels[index[1]])
        assert torch.equal(data.test[1], labels[index[2]])
        assert set(data.valid[1].bincount().tolist()) == {chosen.validation_per_class}
        right = labels[index[0]]
        assert torch.equal(data.corrupted, data.train[1] != right)
        expected = {"none": 0.0, "flip": chosen.rate, "uniform": 0.9 * chosen.rate}[chosen.noise]
        deviation = (expected * (1 - expected) / len(right)) ** 0.5
        assert abs(data.corrupted.double().mean() - expected) <= 4 * deviation
        if chosen.imbalance is not None:
            sizes = right.bincount()
            tail = [int(int(sizes[0]) * chosen.imbalance ** (k / 9)) for k in range(10)]
            assert sizes.tolist() == tail


def test_a_seed_decides_the_data_and_another_seed_draws_others():
    first, again, other = (make_task(config(), seed) for seed in (3, 3, 4))
    pairs = list(zip(first, again, strict=True))
    assert all(torch.equal(a[0], b[0]) and torch.equal(a[1], b[1]) for a, b in pairs)
    assert not torch.equal(first.test[0], other.test[0])


def plain_by_hand(chosen, seed, data):
    """Plain training in a dozen lines of PyTorch."""
    torch.manual_seed(part_seed(seed, "classifier"))
    network = conv_classifier(
        10, width=chosen.width, features=chosen.features, batch_norm=chosen.batch_norm
    )
    start = {key: value.clone() for key, value in network.state_dict().items()}
    rates = {"lr": 0.05, "momentum": 0.9, "weight_decay": 5e-4}
    optimizer = torch.optim.SGD(network.parameters(), **rates)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, chosen.ticks)
    order = torch.Generator().manual_seed(part_seed(seed, "train"))
    loader = stream(*data.train, batch_size=chosen.train_batch, generator=order)
    epochs = itertools.chain.from_iterable(itertools.repeat(loader))
    for x, labels, _ in itertools.islice(epochs, chosen.ticks):
        optimizer.zero_grad()
        F.cross_entropy(network(x), labels).backward()
        optimizer.step()
        schedule.step()
    return start, network.state_dict()


@pytest.mark.parametrize("seed", [0, 5])
@pytest.mark.parametrize("settings", [{}, {"batch_norm": True}, {"imbalance": 0.2}])
def test_plain_and_lfm_start_alike_and_the_learner_is_plain_training_bit_for_bit(seed, settings):
    chosen = config(ticks=15, **settings)  # more than an epoch
    data = make_task(chosen, seed)
    start, end = plain_by_hand(chosen, seed, data)
    plain, lfm = plain_engine(chosen, seed, data.train), lfm_engine(chosen, seed, data)
    learners = [engine.problems["learner"].module for engine in (plain, lfm)]
    relearner = lfm.problems["relearner"].module
    assert all(same(start, network.state_dict()) for network in (*learners, relearner))
    for engine in (plain, lfm):
        engine.run(chosen.ticks)
    assert all(same(end, network.state_dict()) for network in learners)
    assert not same(end, relearner.state_dict())


def test_all_runs_of_a_seed_see_the_same_batches_in_the_same_order(monkeypatch):
    seen = []

    class Watched:
        def __init__(self, loader):
            self.loader, self.log = loader, []
            seen.append(self.log)

        def __iter__(self):
            for batch in self.loader:
                self.log.append(batch)
                yield batch

    monkeypatch.setattr(
        programs, "stream", lambda *args, **options: Watched(stream(*args, **options))
    )
    repeat(config(ticks=15))
    plain, more, train, valid = seen
    assert len(plain) == len(more) == len(train) == len(valid) == 15
    for one, other in zip(plain, train, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    assert {len(batch[1]) for batch in valid} == {100}


def test_the_accuracy_is_the_one_after_the_last_tick_and_nothing_is_selected(monkeypatch):
    falling = itertools.count(0.9, -0.01)
    monkeypatch.setattr(experiment, "accuracy", lambda *args: next(falling))
    found = repeat(config())
    for network in NETWORKS:
        values = [value for _, value in found.curves[network]]
        assert found.accuracy[network] == values[-1] == min(values)


def test_accuracy_and_weights_are_those_of_the_final_networks(engines):
    chosen = config(batch_norm=True)
    found = repeat(chosen)
    data = make_task(chosen, 0)
    finals = {
        "plain": engines[0].problems["learner"],
        "plain+val": engines[1].problems["learner"],
        "learner": engines[2].problems["learner"],
        "relearner": engines[2].problems["relearner"],
    }
    for name, problem in finals.items():
        with torch.no_grad():
            right = problem.module.eval()(data.test[0]).argmax(1) == data.test[1]
        assert found.accuracy[name] == int(right.sum()) / len(right)
    top = engines[2].problems["validator"].module
    weights = training_weights(top, finals["learner"].module, data.train, data.valid)
    assert torch.equal(found.weights, weights)
    assert found.gap.clean == pytest.approx(float(weights[~data.corrupted].mean()), rel=1e-6)
    assert found.gap.corrupted == pytest.approx(float(weights[data.corrupted].mean()), rel=1e-6)


@pytest.mark.parametrize("batch_norm", [False, True])
def test_nothing_of_the_test_set_reaches_any_weight(monkeypatch, engines, batch_norm):
    chosen = config(batch_norm=batch_norm, stage1_weights=True)
    repeat(chosen)
    before = states(engines)
    engines.clear()

    def spoiled(*args):
        data = make_task(*args)
        return data._replace(test=(100 * data.test[0].flip(0) + 3, data.test[1].roll(7)))

    monkeypatch.setattr(experiment, "make_task", spoiled)
    repeat(chosen)
    assert same(before, states(engines))


@pytest.mark.parametrize("lookahead", [True, False])
@pytest.mark.parametrize("name", sorted(set(mlo.methods()) - {"direct"}))
def test_every_method_that_can_be_named_moves_all_problems(engines, name, lookahead):
    chosen = config(hypergradient=name, lookahead=lookahead, width=2, features=4, ticks=2, seeds=1)
    found = recipe.run(chosen, Job("test", quiet=True))
    assert all(0 <= value <= 1 for value in found.numbers["mean"]["accuracy"].values())
    before = states([lfm_engine(chosen, 0, make_task(chosen, 0))])
    after = states(engines[2:])
    moved = {key[1] for key, value in before.items() if not torch.equal(value, after[key])}
    assert moved == {"learner", "relearner", "validator"}


def test_the_method_that_answers_nothing_is_refused_with_the_reason():
    with pytest.raises(DeclarationError, match=r"'validator'.*Direct"):
        results(hypergradient="direct")


@pytest.mark.parametrize(
    "settings", [{"keyed_by": "slot"}, {"stage1_weights": True}, {"validator_every": 3}]
)
def test_options_change_the_weights_and_leave_plain_training_as_it_is(settings):
    found, other = repeat(config()), repeat(config(**settings, valid_batch=50))
    assert not torch.equal(found.weights, other.weights)
    assert found.curves["plain"] == other.curves["plain"]
    assert found.weights.isfinite().all()
    assert other.weights.isfinite().all()


@pytest.mark.parametrize("seed", [10, 11])
def test_on_seeds_that_chose_no_setting_weights_tell_clean_from_corrupted(seed):
    found = repeat(ReweightingConfig(), seed)
    assert found.gap.clean > found.gap.corrupted
    assert found.accuracy["relearner"] >= found.accuracy["plain"]
