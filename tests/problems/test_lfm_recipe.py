"""The recipe on small networks: what it returns, and what makes its comparison a fair one."""

from __future__ import annotations

import contextlib
import itertools
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mlo.configuration import configure
from mlo.errors import ConfigurationError, DeclarationError, NonfiniteError
from mlo.metrics import Metric, by_key
from mlo.recipe import Carry
from problems.datasets import stream
from problems.datasets.task import part_seed
from problems.lfm import programs
from problems.lfm import recipe as recipes
from problems.lfm.config import ReweightingConfig
from problems.lfm.programs import lfm_engine, plain_engine
from problems.lfm.recipe import recipe
from problems.lfm.report import NETWORKS, WEIGHTS
from problems.lfm.task import make_task
from problems.models import conv_classifier

from . import small_lfm
from .small_lfm import accuracies, config, final_weights, metrics, repeat, same, states, table

engines, float32 = small_lfm.engines, small_lfm.float32


def test_every_seed_has_its_metrics_and_they_are_drawn_as_a_table():
    found = metrics()
    assert {m.seed for m in found} == {0, 1}
    assert by_key(found).keys() == {*NETWORKS.values(), *WEIGHTS.values()}
    columns = table({}, found)
    assert list(columns) == ["seed", *NETWORKS, *WEIGHTS]
    assert columns["seed"] == ["0", "1", "mean", "spread"]
    for heading, key in {**NETWORKS, **WEIGHTS}.items():
        first, second = by_key(found)[key].values()
        values = [first, second, (first + second) / 2, abs(first - second) / 2**0.5]
        scale, digits = (100, 1) if heading in NETWORKS else (1, 3)
        shown = [float(cell) for cell in columns[heading]]
        assert shown == pytest.approx([scale * v for v in values], abs=0.6 * 10**-digits)
    for seed in (0, 1):
        size = len(make_task(config(), seed).test[1])
        counts = [m.value * size for m in found if m.name == "accuracy" and m.seed == seed]
        assert counts == pytest.approx([round(count) for count in counts], abs=1e-9)
        assert 0 < by_key(found)[WEIGHTS["a clean"]][seed] < 1


def test_accuracies_are_taken_along_the_run_and_after_the_last_tick():
    for ticks, evaluations, expected in ((8, 4, (2, 4, 6, 8)), (7, 3, (3, 6, 7)), (2, 20, (1, 2))):
        done = repeat(config(ticks=ticks, evaluations=evaluations))
        for curve in accuracies(done).values():
            assert tuple(tick for tick, _ in curve) == expected
        weighed = [e.tick + 1 for e in done["LFM"][1].evaluations if e.name == "weights"]
        assert tuple(weighed) == expected


@pytest.mark.parametrize(
    "settings", [{"noise": "none"}, {"rate": 0.0}, {"noise": "none", "imbalance": 0.1}]
)
def test_without_noise_there_are_no_weight_columns(settings):
    settings = {"seeds": 1, "ticks": 2, **settings}
    found = metrics(**settings)
    assert list(table(settings, found)) == ["seed", *NETWORKS]
    assert WEIGHTS["a corrupted"] not in by_key(found)


def test_a_run_in_which_every_label_is_wrong_ends_with_results():
    settings = {"ticks": 1, "rate": 1.0}
    found = metrics(**settings)
    assert set(table(settings, found)) == {"seed", *NETWORKS}
    assert {m.value for m in found if m.name == "corrupted"}


def test_a_run_in_which_some_seeds_have_no_wrong_label_ends_with_results():
    settings = {"ticks": 1, "rate": 8e-4, "seeds": 6}
    wrong = [int(make_task(config(**settings), seed).corrupted.sum()) for seed in range(6)]
    assert 0 in wrong
    assert 1 in wrong, "one wrong label alone is a number, not a distribution"
    found = metrics(**settings)
    shown = table(settings, found)["a corrupted"]
    assert [cell == "-" for cell in shown[:6]] == [number == 0 for number in wrong]
    assert "-" not in shown[6:]
    assert {m.seed for m in found if m.name == "corrupted"} == {s for s in range(6) if wrong[s]}


def test_a_run_that_diverges_ends_with_results_that_say_so():
    settings = {"learning_rate": 1e12, "on_nonfinite": "ignore"}
    found = metrics(**settings)
    assert all(math.isnan(m.value) for m in found if m.name == "clean")
    assert set(table(settings, found)["a clean"]) == {"nan"}


def test_a_run_that_diverges_is_stopped_at_the_problem_where_it_does():
    with pytest.raises(NonfiniteError, match="problem 'learner'") as caught:
        metrics(learning_rate=1e12)
    assert caught.value.problem == "learner"


def test_the_table_of_a_run_that_is_half_done_leaves_out_what_is_missing():
    found = [Metric(0, "plain", "learner", "accuracy", 0.5)]
    columns = table({}, found)
    assert columns["plain"] == ["50.0", "50.0", "-"]
    assert columns["relearner"] == ["-", "-", "-"]


def test_the_first_seed_moves_the_range_of_seeds_and_nothing_else():
    three, two = metrics(ticks=4, seeds=3), metrics(ticks=4, seeds=2, first_seed=1)
    assert two == [metric for metric in three if metric.seed > 0]
    assert list(config(seeds=2, first_seed=1).seed_range) == [1, 2]


@pytest.mark.parametrize("fails", [False, True])
def test_the_run_has_the_threads_that_are_asked_for_and_gives_them_back(monkeypatch, fails):
    seen, before = set(), torch.get_num_threads()

    def engine(*args):
        seen.add(torch.get_num_threads())
        if fails:
            raise KeyboardInterrupt
        return lfm_engine(*args)

    monkeypatch.setattr(recipes, "lfm_engine", engine)
    for number in (2, 1, 3):
        with pytest.raises(KeyboardInterrupt) if fails else contextlib.nullcontext():
            metrics(ticks=1, seeds=1, threads=number, train_batch=10, valid_batch=10)
        assert torch.get_num_threads() == before
        assert seen == {number}
        seen.clear()


@pytest.mark.parametrize(
    ("setting", "value"), [("threads", 0), ("threads", 1.5), ("first_seed", -1), ("device", "gpu")]
)
def test_a_setting_that_cannot_serve_is_named(setting, value):
    with pytest.raises(ConfigurationError, match=rf"lfm: a setting does not fit:\s+{setting}: "):
        configure(ReweightingConfig, {setting: value}, title="lfm")


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
    plain = plain_engine(chosen, seed, data.train, data.classes)
    lfm = lfm_engine(chosen, seed, data)
    learners = [engine.problems["learner"].module for engine in (plain, lfm)]
    relearner = lfm.problems["relearner"].module
    assert all(same(start, network.state_dict()) for network in (*learners, relearner))
    for engine in (plain, lfm):
        engine.run(chosen.ticks)
    assert all(same(end, network.state_dict()) for network in learners)
    assert not same(end, relearner.state_dict())


@pytest.mark.filterwarnings("ignore:data stream .* cannot be resumed:mlo.errors.ResumeWarning")
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
    monkeypatch.setattr(recipes, "accuracy", lambda *args: next(falling))
    found = by_key(metrics(seeds=1))
    # Four looks at the one network of each of two stages, then at the two of the third in turn.
    expected = {"plain": 0.9 - 0.03, "plain+val": 0.9 - 0.07}
    expected |= {"learner": 0.9 - 0.14, "relearner": 0.9 - 0.15}
    for network, key in NETWORKS.items():
        assert found[key][0] == pytest.approx(expected[network], abs=1e-9)


def test_accuracy_and_weights_are_those_of_the_final_networks(engines):
    chosen = config(batch_norm=True)
    done = repeat(chosen)
    curves = accuracies(done)
    data, weights = final_weights(done, chosen)
    finals = {
        "plain": engines[0].problems["learner"],
        "plain+val": engines[1].problems["learner"],
        "learner": engines[2].problems["learner"],
        "relearner": engines[2].problems["relearner"],
    }
    for name, problem in finals.items():
        with torch.no_grad():
            right = problem.module.eval()(data.test[0]).argmax(1) == data.test[1]
        assert curves[name][-1][1] == int(right.sum()) / len(right)
    last = [e for e in done["LFM"][1].evaluations if e.name == "weights"][-1]
    for name, part in (("clean", weights[~data.corrupted]), ("corrupted", weights[data.corrupted])):
        assert last.metrics[name] == pytest.approx(float(part.mean()), rel=1e-6)
        spread = last.distributions[name]
        assert spread.count == len(part)
        expected = np.percentile(part.double().numpy(), [0, 25, 50, 100])
        found = [spread.percentiles[percent] for percent in (0, 25, 50, 100)]
        assert found == pytest.approx(list(expected), rel=1e-9)


@pytest.mark.parametrize("settings", [{}, {"batch_norm": True}, {"keyed_by": "slot"}])
def test_looking_twenty_times_changes_nothing_that_is_trained(engines, settings):
    chosen = config(ticks=20, evaluations=20, stage1_weights=True, **settings)
    assert len(repeat(chosen)["LFM"][1].evaluations) == 3 * 20
    looked = states(engines)
    engines.clear()
    assert not repeat(chosen, looking=False)["LFM"][1].evaluations
    assert same(looked, states(engines))


@pytest.mark.parametrize("batch_norm", [False, True])
def test_nothing_of_the_test_set_reaches_any_weight(monkeypatch, engines, batch_norm):
    chosen = config(batch_norm=batch_norm, stage1_weights=True)
    repeat(chosen)
    before = states(engines)
    engines.clear()

    def spoiled(*args):
        data = make_task(*args)
        return data._replace(test=(100 * data.test[0].flip(0) + 3, data.test[1].roll(7)))

    monkeypatch.setattr(recipes, "make_task", spoiled)
    repeat(chosen)
    assert same(before, states(engines))


def test_stages_share_nothing_so_that_each_may_be_run_alone():
    chosen = config(seeds=1)
    alone = {}
    for stage in reversed(recipe.stages(chosen)):
        made = stage.setup(chosen, 0, Carry())
        torch.rand(3)
        alone[stage.name] = made.engine.run(stage.ticks, evaluate=made.evaluate)
    found = by_key(metrics(seeds=1))
    for (stage, evaluation, name), of in found.items():
        assert alone[stage].last(evaluation)[name] == of[0]


def test_a_setting_that_does_not_suit_the_data_is_refused_before_a_run():
    recipe.check(config())
    for settings, expected in (
        ({"train_batch": 10_000}, "train_batch: expected at most"),
        ({"hypergradient": "direct"}, r"'validator'.*Direct"),
    ):
        with pytest.raises((ConfigurationError, DeclarationError), match=expected):
            recipe.check(config(**settings))
    assert set(recipe.engine(config(), 0).problems) == {"learner", "relearner", "validator"}
    assert set(recipe.engine(config(), 0, "plain").problems) == {"learner"}


@pytest.mark.parametrize(
    "settings", [{"keyed_by": "slot"}, {"stage1_weights": True}, {"validator_every": 3}]
)
def test_options_change_the_weights_and_leave_plain_training_as_it_is(settings):
    chosen = config(), config(**settings, valid_batch=50)
    one, other = map(repeat, chosen)
    assert accuracies(one)["plain"] == accuracies(other)["plain"]
    (_, first), (_, second) = map(final_weights, (one, other), chosen)
    assert not torch.equal(first, second)
    assert first.isfinite().all()
    assert second.isfinite().all()


@pytest.mark.parametrize("seed", [10, 11])
def test_on_seeds_that_chose_no_setting_weights_tell_clean_from_corrupted(seed):
    done = repeat(ReweightingConfig(evaluations=1), seed, leaving_out=["plain+val"])
    weights = done["LFM"][1].last("weights")
    assert weights["clean"] > weights["corrupted"]
    final = {network: curve[-1][1] for network, curve in accuracies(done).items()}
    assert final["relearner"] >= final["plain"]
