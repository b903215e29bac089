"""Records of runs in a file: complete, readable by any JSON reader, and never lost."""

from __future__ import annotations

import json
import math
import types

import pytest
import torch

import mlo
from mlo.callbacks import Recorder, recorder
from mlo.errors import ConfigurationError


@pytest.fixture
def clock(monkeypatch):
    """A clock that moves only where a test moves it."""
    time = types.SimpleNamespace(now=100.0)
    time.monotonic = lambda: time.now
    monkeypatch.setattr(recorder, "time", time)
    return time


def engine(scale=None):
    def loss(point, tick):
        if tick == 4 and scale == "fail":
            raise RuntimeError("out of memory")
        factor = scale if isinstance(scale, float) else 0.5
        # The metric shares its memory with the parameter, which moves before it is written.
        return factor * point["x"].square().sum(), {"x": point["x"].detach()}

    def optimizer(params):
        return torch.optim.SGD(params, 0.25)

    start = {"x": torch.tensor([1.0, -2.0])}
    problem = mlo.Problem("point", params=start, loss=loss, optimizer=optimizer)
    return mlo.Engine([problem], guards=mlo.Guards(on_nonfinite="ignore"))


def norm(point):
    return point["x"].norm()


def lines(path):
    def strict(word):
        raise AssertionError(f"{word} is not JSON")

    text = path.read_text()
    assert text.endswith("\n")
    return [json.loads(line, parse_constant=strict) for line in text.splitlines()]


def test_every_record_of_a_run_is_a_line_with_its_numbers(tmp_path):
    path = tmp_path / "records.jsonl"
    made = engine()
    result = made.run(4, callbacks=[Recorder(path)], evaluate={"norm": (norm, 2)})
    found = lines(path)
    kinds = ["start", "tick", "tick", "evaluation", "tick", "tick", "evaluation", "end"]
    assert [line["kind"] for line in found] == kinds
    assert found[0]["ticks"] == 4
    assert found[0]["problems"] == ["point"]
    assert found[0]["graph"] == str(made.graph)
    (problem,) = found[0]["drawing"]["problems"]
    assert (problem["name"], problem["level"], problem["kind"]) == ("point", 0, "plain")
    for n, tick in enumerate(line for line in found if line["kind"] == "tick"):
        (move,) = tick["moves"]
        x = [0.75**n, -2 * 0.75**n]  # each step multiplies by 1 - 0.25
        assert (tick["tick"], move["problem"], move["learning_rate"]) == (n, "point", 0.25)
        assert move["loss"] == pytest.approx(0.5 * math.hypot(*x) ** 2, rel=1e-12)
        assert move["gradient_norm"] == pytest.approx(math.hypot(*x), rel=1e-12)
        assert move["metrics"]["x"] == pytest.approx(x, rel=1e-12)
        assert move["responses"] == []
    assert found[3]["metrics"] == {"norm": pytest.approx(0.75**2 * 5**0.5, rel=1e-12)}
    assert (found[3]["name"], found[3]["tick"], found[3]["distributions"]) == ("norm", 1, {})
    end = {"kind": "end", "status": "completed", "ticks": 4, "seconds": result.seconds}
    health = {"point": {"moves": 4, "outcomes": {}, "growth": None, "taken_back": 0}}
    assert found[-1] == {**end, "reason": "all 4 ticks were made", "health": health}


def test_a_loss_that_is_the_parameter_itself_is_recorded_as_it_was_before_the_move():
    def optimizer(params):
        return torch.optim.SGD(params, 0.25)

    start = {"x": torch.tensor(1.0)}
    problem = mlo.Problem("point", params=start, loss=lambda point: point["x"], optimizer=optimizer)
    assert mlo.Engine([problem]).step().losses == {"point": 1.0}


def test_every_nth_tick_and_the_last_one_are_written(tmp_path):
    path = tmp_path / "records.jsonl"
    evaluate = {"norm": (norm, 1)}
    engine().run(8, callbacks=[Recorder(path, every=3)], evaluate=evaluate)
    found = lines(path)
    assert [line["tick"] for line in found if line["kind"] == "tick"] == [0, 3, 6, 7]
    assert sum(line["kind"] == "evaluation" for line in found) == 8
    assert [line["kind"] for line in found][-2:] == ["tick", "end"]


def test_numbers_that_json_lacks_become_words_that_float_reads(tmp_path):
    path = tmp_path / "records.jsonl"
    engine(math.inf).run(3, callbacks=[Recorder(path)])
    moves = [line["moves"][0] for line in lines(path) if line["kind"] == "tick"]
    # x - 0.25 inf x: infinities of the other sign, then the difference of two infinities.
    assert [move["loss"] for move in moves] == ["inf", "inf", "nan"]
    assert moves[1]["gradient_norm"] == "inf"
    assert moves[2]["metrics"]["x"] == ["nan", "nan"]
    assert float(moves[0]["loss"]) == math.inf
    assert math.isnan(float(moves[2]["loss"]))


def test_records_are_on_the_disk_within_a_second(tmp_path, clock):
    path = tmp_path / "records.jsonl"
    seen = []

    class Look(mlo.Callback):
        def on_tick(self, record):
            seen.append(len(lines(path)))
            clock.now += 0.4

    engine().run(7, callbacks=[Recorder(path), Look()])
    # The start at once; then whenever a second has passed since the last writing.
    assert seen == [1, 1, 1, 5, 5, 5, 8]
    assert len(lines(path)) == 9


@pytest.mark.parametrize("every", [1, 3])
def test_a_run_that_fails_is_recorded_up_to_the_failure_with_its_reason(tmp_path, clock, every):
    path = tmp_path / "records.jsonl"
    made = engine("fail")
    with pytest.raises(RuntimeError, match="memory"):
        made.run(9, callbacks=[Recorder(path, every=every)])
    found = lines(path)
    assert [line["tick"] for line in found[1:-1]] == ([0, 1, 2, 3] if every == 1 else [0, 3])
    assert (found[-1]["status"], found[-1]["ticks"]) == ("failed", 4)
    assert found[-1]["reason"] == "RuntimeError: out of memory"


def test_several_runs_follow_each_other_in_one_file(tmp_path):
    path = tmp_path / "records.jsonl"
    watch, made = Recorder(path), engine()
    for _ in range(2):
        made.run(2, callbacks=[watch])
    kinds = [line["kind"] for line in lines(path)]
    assert kinds == ["start", "tick", "tick", "end"] * 2
    ticks = [line["tick"] for line in lines(path) if line["kind"] == "tick"]
    assert ticks == [0, 1, 2, 3]


def test_a_file_that_exists_is_refused_and_stays_as_it_was(tmp_path):
    path = tmp_path / "records.jsonl"
    late = Recorder(path)
    path.write_text("old")
    made = engine()
    for use in (lambda: Recorder(path), lambda: made.run(1, callbacks=[late])):
        with pytest.raises(ConfigurationError, match="does not exist yet") as caught:
            use()
        assert str(path) in str(caught.value)
    assert path.read_text() == "old"
    assert made.tick == 0


def test_a_folder_that_is_missing_is_named(tmp_path):
    path = tmp_path / "absent" / "records.jsonl"
    made = engine()
    with pytest.raises(ConfigurationError, match="existing folder") as caught:
        made.run(1, callbacks=[Recorder(path)])
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("every", [0, -1])
def test_every_must_be_positive(tmp_path, every):
    with pytest.raises(ConfigurationError, match=rf"Recorder\(every=...\).*got {every}"):
        Recorder(tmp_path / "records.jsonl", every=every)
    assert not list(tmp_path.iterdir())
