"""The best value of a metric, and the two callbacks that act on it."""

from __future__ import annotations

import math
import warnings

import pytest
import torch

import mlo
from mlo.callbacks import EarlyStopping, KeepBest
from mlo.callbacks.best import Best
from mlo.errors import ConfigurationError
from mlo.records import EvaluationRecord

NAN = math.nan


def record(tick, value, name="valid"):
    return EvaluationRecord(tick, name, {"score": value, "other": -value}, 0.0)


def follow(values, mode="max", by=0.0):
    """Which of the values are improvements, and the tick of the best."""
    best = Best("valid", "score", mode)
    steps = [best.improved(record(tick, value), by=by) for tick, value in enumerate(values)]
    return steps, None if best.record is None else best.record.tick


@pytest.mark.parametrize(
    ("values", "mode", "by", "steps", "tick"),
    [
        ([1, 3, 2, 3, 4], "max", 0, [1, 1, 0, 0, 1], 4),
        ([1, 3, 0, 0, -1], "min", 0, [1, 0, 1, 0, 1], 4),
        # Small steps do not count, but their sum does, since the best stays what it was.
        ([0, 0.4, 0.8, 1.2], "max", 1.0, [1, 0, 0, 1], 3),
        ([0, -0.4, -0.8, -1.2], "min", 1.0, [1, 0, 0, 1], 3),
        ([NAN, 1, NAN, 2], "max", 0, [0, 1, 0, 1], 3),
        ([NAN, 1, NAN, 0], "min", 0, [0, 1, 0, 1], 3),
        ([NAN, NAN], "max", 0, [0, 0], None),
        ([-math.inf, 1, math.inf, math.inf], "max", 0, [1, 1, 1, 0], 2),
        ([], "max", 0, [], None),
    ],
)
def test_the_best_is_the_first_that_nothing_exceeds(values, mode, by, steps, tick):
    assert follow(values, mode, by) == (list(map(bool, steps)), tick)


def test_only_the_evaluation_in_question_is_followed():
    best = Best("valid", "score", "max")
    assert best.follows(record(0, 1.0))
    assert not best.follows(record(0, 1.0, "test"))


def test_an_unknown_metric_is_named_with_the_nearest():
    best = Best("valid", "scor", "max")
    with pytest.raises(ConfigurationError, match=r"'valid'.*got 'scor'; did you mean 'score'"):
        best.improved(record(0, 1.0))


def walk():
    """One number that falls by one in each tick: 10, 9, ... seen by the evaluation."""
    return mlo.Engine(
        [
            mlo.Problem(
                "point",
                params={"x": torch.tensor(10.0)},
                loss=lambda point: point["x"].sum(),
                optimizer=lambda params: torch.optim.SGD(params, 1.0),
            )
        ]
    )


def run(made, scores, *callbacks):
    """Run with an evaluation whose score is looked up under the value of the number."""
    evaluate = {"valid": (lambda point: {"score": scores(point["x"].item())}, 1)}
    return made.run(10, callbacks=callbacks, evaluate=evaluate)


def test_a_run_stops_when_the_metric_has_not_improved_for_a_while():
    stop = EarlyStopping("valid", "score", patience=3, mode="max")
    result = run(walk(), lambda x: -abs(x - 6), stop)
    # Best at 6, after the fourth tick; then three that are worse.
    assert (result.status, result.ticks) == (mlo.Status.STOPPED, 7)
    assert (
        result.reason == "'score' of 'valid' has not improved in 3 evaluations, since tick 3 (-0)"
    )
    assert stop.best.tick == 3


def test_a_metric_that_never_is_a_number_stops_the_run_as_well():
    result = run(walk(), lambda x: NAN, EarlyStopping("valid", "score", patience=2))
    assert (result.ticks, result.status) == (2, mlo.Status.STOPPED)
    assert "never was a number" in result.reason


def test_least_is_what_counts_as_an_improvement():
    def scores(x):
        return -0.1 * x

    assert run(walk(), scores, EarlyStopping("valid", "score", patience=2, least=0.15)).ticks == 10
    assert run(walk(), scores, EarlyStopping("valid", "score", patience=2, least=0.25)).ticks == 3


def test_the_weights_of_the_best_evaluation_are_kept_and_restored():
    made = walk()
    module = made.problems["point"].module
    keep = KeepBest("valid", "score", modules={"point": module})
    run(made, lambda x: -abs(x - 6), keep)
    assert module["x"].item() == 0.0
    assert keep.restore() == keep.best
    assert (module["x"].item(), keep.best.tick) == (6.0, 3)


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: Best("valid", "score", "maximum"), "'min' or 'max', got 'maximum'"),
        (lambda: EarlyStopping("v", "s", mode="up"), "'min' or 'max', got 'up'"),
        (lambda: EarlyStopping("v", "s", patience=0), r"patience=.*at least 1 evaluation, got 0"),
        (lambda: EarlyStopping("v", "s", least=-0.1), r"least=.*at least 0, got -0.1"),
        (lambda: EarlyStopping("v", "s", least=NAN), r"least=.*at least 0, got nan"),
        (lambda: KeepBest("v", "s", modules={}), r"modules=.*at least one module"),
        (
            lambda: KeepBest("v", "s", modules={"n": torch.nn.Linear(1, 1)}).restore(),
            "expected a finished evaluation 'v', found none",
        ),
    ],
)
def test_wrong_settings_are_named(make, expected):
    with pytest.raises(ConfigurationError, match=expected):
        make()


@pytest.mark.parametrize(
    "watch",
    [
        EarlyStopping("vaild", "score"),
        KeepBest("vaild", "score", modules={"n": torch.nn.Linear(1, 1)}),
    ],
    ids=["EarlyStopping", "KeepBest"],
)
def test_a_run_without_the_evaluation_warns_and_names_the_nearest(watch):
    with pytest.warns(UserWarning, match=r"'vaild'.*'valid'.*did you mean 'valid'"):
        run(walk(), lambda x: x, watch)


def test_a_run_that_ended_early_does_not_warn():
    class Enough(mlo.Callback):
        def on_tick(self, record):
            return mlo.Stop("enough")

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        walk().run(3, callbacks=[EarlyStopping("valid", "score"), Enough()])
