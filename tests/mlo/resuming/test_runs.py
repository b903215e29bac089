"""Runs that save their states: cut off anywhere, they go on as if nothing had happened."""

from __future__ import annotations

import json
import os
import signal
import threading

import pytest
import torch

import mlo
from mlo.callbacks import EarlyStopping, KeepBest, Recorder, TensorBoard
from mlo.errors import (
    CheckpointError,
    ConfigurationError,
    DeclarationError,
    Interrupted,
    ResumeWarning,
)
from mlo.plain import copied, differences

from .programs import engine
from .test_exact import BASE

CHOSEN = {**BASE, "method": "one step"}
pytestmark = pytest.mark.filterwarnings("ignore::mlo.errors.HypergradientWarning")


def norm(a):
    return {"norm": sum(p.norm() for p in a.parameters()), "vector": a[0].weight[0]}


def timeless(lines):
    return [{**json.loads(line), "seconds": 0} for line in lines.splitlines()]


class Cut(mlo.Callback):
    """Raises, or sends a signal, at one moment."""

    def __init__(self, tick, act=ZeroDivisionError, hook="on_tick"):
        self.tick, self.act, self.done = tick, act, False
        setattr(self, hook, self.cut)

    def cut(self, record):
        if record.tick == self.tick and not self.done:
            self.done = True
            if isinstance(self.act, signal.Signals):
                os.kill(os.getpid(), self.act)
            else:
                raise self.act("on purpose")


def watched(folder, resume):
    made = engine(CHOSEN)
    callbacks = [
        Recorder(folder / "records.jsonl", every=2, resume=resume),
        EarlyStopping("a", "norm", patience=50),
        KeepBest("a", "norm", modules={"a": made.problems["a"].module}),
    ]
    return made, callbacks


def run(folder, *more, resume=True, every=1, ticks=9, epochs=None):
    folder.mkdir(exist_ok=True)
    made, callbacks = watched(folder, resume)
    result = made.run(
        None if epochs else ticks,
        epochs=epochs,
        callbacks=[*callbacks, *more],
        evaluate={"a": (norm, 4)},
        checkpoints=mlo.Checkpoints(folder / "states", every=every, keep=2),
        resume=resume,
    )
    states = {"engine": made.state_dict(), "stopping": callbacks[1].state_dict()}
    states["best"] = callbacks[2].state_dict()
    return result, timeless((folder / "records.jsonl").read_text()), without_times(states)


def without_times(value):
    if isinstance(value, dict):
        return {k: without_times(v) for k, v in value.items() if k != "seconds"}
    return value


def evaluations(result):
    return [{**e.plain(), "seconds": 0} for e in result.evaluations]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    torch.set_default_dtype(torch.float64)
    return run(tmp_path_factory.mktemp("undisturbed"), resume=False)


def compare(found, expected):
    result, records, states = found
    assert result.status is mlo.Status.COMPLETED
    assert result.ticks == 9
    assert evaluations(result) == evaluations(expected[0])
    assert records == expected[1]
    assert list(differences(expected[2], states)) == []


MOMENTS = [
    *((tick, hook) for tick in (0, 3, 8) for hook in ("on_tick", "on_move")),
    *((tick, "on_checkpoint") for tick in (2, 8)),
    *((tick, "on_evaluation") for tick in (3, 8)),
]


@pytest.mark.parametrize("every", [1, 3])
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_run_that_fails_goes_on_to_the_same_end(tmp_path, undisturbed, moment, every):
    with pytest.raises(ZeroDivisionError):
        run(tmp_path, Cut(moment[0], hook=moment[1]), every=every)
    compare(run(tmp_path, every=every), undisturbed)


def test_it_may_be_cut_off_again_and_again(tmp_path, undisturbed):
    for tick in (1, 1, 4, 5, 8):
        with pytest.raises(ZeroDivisionError):
            run(tmp_path, Cut(tick), every=2)
    compare(run(tmp_path), undisturbed)


def test_a_run_that_is_over_is_not_made_again(tmp_path, undisturbed):
    compare(run(tmp_path, resume=False), undisturbed)
    before = sorted((tmp_path / "states").iterdir())

    class Forbidden(mlo.Callback):
        def on_move(self, record):
            raise AssertionError("nothing is left to do")

    compare(run(tmp_path, Forbidden()), undisturbed)
    assert sorted((tmp_path / "states").iterdir()) == before


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("hook", ["on_move", "on_tick"])
def test_a_signal_waits_for_the_end_of_the_tick(tmp_path, undisturbed, number, hook):
    handlers = signal.getsignal(number)
    ends = []

    class End(mlo.Callback):
        def on_end(self, result):
            ends.append((result.status, result.ticks))

    with pytest.raises(Interrupted) as caught:
        run(tmp_path, Cut(4, number, hook), End(), every=100)
    assert caught.value.signal == number
    assert f"stopped by {number.name} after 5 of 9 ticks; the state is saved" in str(caught.value)
    assert "resume=True" in str(caught.value)
    assert ends == [(mlo.Status.INTERRUPTED, 5)]
    assert signal.getsignal(number) is handlers
    assert [p.name for p in (tmp_path / "states").glob("*.pt")] == ["tick-0000000004.pt"]
    compare(run(tmp_path), undisturbed)


def test_a_second_signal_does_not_wait(tmp_path, undisturbed):
    class Twice(mlo.Callback):
        def on_move(self, record):
            if record.tick == 4:
                os.kill(os.getpid(), signal.SIGINT)
                os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted, match="second SIGTERM, in the middle of a tick"):
        run(tmp_path, Twice(), every=3)
    assert [p.name for p in (tmp_path / "states").glob("*.pt")] == ["tick-0000000002.pt"]
    compare(run(tmp_path), undisturbed)


def test_a_signal_in_the_last_tick_is_heard_when_the_run_has_ended(tmp_path, undisturbed):
    ends = []

    class End(mlo.Callback):
        def on_end(self, result):
            ends.append((result.status, result.ticks))

    with pytest.raises(KeyboardInterrupt) as caught:
        run(tmp_path, Cut(8, signal.SIGINT), End())
    assert type(caught.value) is KeyboardInterrupt  # Python's own, from after the run
    assert ends == [(mlo.Status.COMPLETED, 9)]
    compare(run(tmp_path), undisturbed)


def test_a_signal_that_was_ignored_stays_ignored(tmp_path, undisturbed):
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        compare(run(tmp_path, Cut(4, signal.SIGINT)), undisturbed)
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_run_that_was_cut_off_where_it_is_to_end_now_ends(tmp_path):
    with pytest.raises(ZeroDivisionError):
        run(tmp_path, Cut(6))
    result = run(tmp_path, ticks=6)[0]
    assert (result.status, result.ticks) == (mlo.Status.COMPLETED, 6)


def test_a_run_that_is_refused_changes_nothing(tmp_path):
    run(tmp_path, ticks=6)
    before = (tmp_path / "records.jsonl").read_bytes()
    made, callbacks = watched(tmp_path, resume=True)
    state = copied(made.state_dict())
    states = mlo.Checkpoints(tmp_path / "states")
    with pytest.raises(DeclarationError, match="has made 6 ticks already"):
        made.run(5, callbacks=callbacks, checkpoints=states, resume=True)

    class Refusing(EarlyStopping):
        def load_state_dict(self, state):
            raise RuntimeError("on purpose")

    callbacks[1] = Refusing("a", "norm")
    callbacks[1].__class__.__name__ = "EarlyStopping"
    with pytest.raises(RuntimeError, match="on purpose"):
        made.run(8, callbacks=callbacks, checkpoints=states, resume=True)
    assert list(differences(state, made.state_dict())) == []
    assert (tmp_path / "records.jsonl").read_bytes() == before


@pytest.mark.parametrize("hook", ["on_move", "evaluation"])
def test_states_are_taken_between_ticks_only(tmp_path, hook):
    made = engine(CHOSEN)
    saving = mlo.Callback()
    evaluate = {}
    if hook == "on_move":
        saving.on_move = lambda record: made.save(tmp_path / "state.pt")
    else:
        evaluate = {"a": (lambda a: made.save(tmp_path / "state.pt") or 0.0, 1)}
    with pytest.raises(CheckpointError, match="in the middle of a"):
        made.run(2, callbacks=[saving], evaluate=evaluate)
    assert not (tmp_path / "state.pt").exists()
    made.step()
    made.save(tmp_path / "state.pt")


def test_a_tick_that_fails_after_a_signal_counts_as_interrupted(tmp_path, undisturbed):
    class Both(mlo.Callback):
        def on_move(self, record):
            if record.tick == 4:
                os.kill(os.getpid(), signal.SIGTERM)
                raise RuntimeError("a worker has gone")

    with pytest.raises(Interrupted, match="could not be finished"):
        run(tmp_path, Both(), every=2)
    compare(run(tmp_path), undisturbed)


def test_without_states_a_signal_does_what_it_did():
    made = engine(CHOSEN)
    with pytest.raises(KeyboardInterrupt) as caught:
        made.run(9, callbacks=[Cut(4, signal.SIGINT)])
    assert not isinstance(caught.value, Interrupted)


def test_a_run_in_another_thread_saves_and_goes_on_too(tmp_path, undisturbed):
    found = []
    thread = threading.Thread(target=lambda: found.append(run(tmp_path)))
    torch.set_default_dtype(torch.float64)
    thread.start()
    thread.join()
    compare(found[0], undisturbed)


def test_epochs_count_from_where_the_run_began(tmp_path):
    expected = run(tmp_path / "whole", epochs=2, resume=False)
    ticks = expected[0].ticks
    with pytest.raises(ZeroDivisionError):
        run(tmp_path / "cut", Cut(ticks - 2), epochs=2)
    found = run(tmp_path / "cut", epochs=2)
    assert found[0].ticks == ticks
    assert found[1] == expected[1]
    assert list(differences(expected[2], found[2])) == []
    with pytest.raises(DeclarationError, match="the run began with epochs=2"):
        run(tmp_path / "cut", epochs=3)


def test_a_run_that_was_completed_can_be_made_longer(tmp_path):
    run(tmp_path / "short", ticks=4)
    longer = run(tmp_path / "short", ticks=8)
    whole = run(tmp_path / "long", ticks=8)
    assert longer[0].ticks == 8
    assert list(differences(whole[2]["engine"], longer[2]["engine"])) == []
    with pytest.raises(DeclarationError, match="has made 8 ticks already"):
        run(tmp_path / "short", ticks=7)


def test_states_of_an_earlier_run_are_not_replaced(tmp_path):
    run(tmp_path, ticks=2)
    (tmp_path / "records.jsonl").unlink()
    with pytest.raises(CheckpointError, match=r"holds the states of an earlier run.*resume=True"):
        run(tmp_path, ticks=2, resume=False)


def test_a_stop_by_a_callback_stays_the_end(tmp_path):
    class Enough(mlo.Callback):
        def on_tick(self, record):
            return mlo.Stop("enough") if record.tick == 2 else None

    first = run(tmp_path, Enough())[0]
    again = run(tmp_path)[0]
    assert (again.status, again.reason, again.ticks) == (first.status, "enough", 3)


def test_callbacks_that_come_or_go_are_named(tmp_path):
    made = engine(CHOSEN)
    states = mlo.Checkpoints(tmp_path / "states", every=1)
    stopping = EarlyStopping("a", "norm")
    evaluate = {"a": (norm, 1)}
    made.run(2, callbacks=[stopping], evaluate=evaluate, checkpoints=states)
    module = made.problems["a"].module
    with pytest.warns(ResumeWarning) as caught:
        engine(CHOSEN).run(
            3,
            callbacks=[KeepBest("a", "norm", modules={"a": module})],
            evaluate=evaluate,
            checkpoints=states,
            resume=True,
        )
    found = [str(w.message) for w in caught]
    assert found == [
        "callback KeepBest 0 begins anew: it was not there when the state was saved",
        "callback EarlyStopping 0 is gone: it was there when the state was saved",
    ]


def test_records_that_are_gone_are_missed(tmp_path):
    with pytest.raises(ZeroDivisionError):
        run(tmp_path, Cut(4))
    (tmp_path / "records.jsonl").write_text("")
    with pytest.raises(CheckpointError, match=r"expected at least \d+ bytes of records"):
        run(tmp_path)


def test_events_of_ticks_that_are_made_again_count_once(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with pytest.raises(ZeroDivisionError):
        run(tmp_path, TensorBoard(tmp_path / "events", resume=True), Cut(5), every=3)
    run(tmp_path, TensorBoard(tmp_path / "events", resume=True), every=3)
    found = EventAccumulator(str(tmp_path / "events"))
    found.Reload()
    assert [e.step for e in found.Scalars("loss/a")] == list(range(9))


def test_the_clock_decides_when_and_nothing_else(tmp_path, undisturbed, monkeypatch):
    now = [0.0]
    monkeypatch.setattr("mlo.checkpoints.time.monotonic", lambda: now[0])
    saved = []

    class Clock(mlo.Callback):
        def on_tick(self, record):
            now[0] += 10.0

        def on_checkpoint(self, record):
            saved.append(record.tick)

    made, callbacks = watched(tmp_path, resume=False)
    made.run(
        9,
        callbacks=[*callbacks, Clock()],
        evaluate={"a": (norm, 4)},
        checkpoints=mlo.Checkpoints(tmp_path / "states", seconds=25.0),
    )
    assert saved == [2, 5, 8]
    assert list(differences(undisturbed[2]["engine"], made.state_dict())) == []


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"every": 0}, "every"),
        ({"every": 1.5}, "every"),
        ({"keep": 0}, "keep"),
        ({"seconds": -1.0}, "seconds"),
        ({"seconds": float("nan")}, "seconds"),
    ],
)
def test_settings_out_of_range_are_named(tmp_path, settings, named):
    with pytest.raises(ConfigurationError, match=f"Checkpoints.{named}="):
        mlo.Checkpoints(tmp_path, **settings)


def test_resuming_needs_states():
    with pytest.raises(DeclarationError, match="needs checkpoints="):
        engine(CHOSEN).run(1, resume=True)


def test_the_newest_state_is_read_once_and_not_kept(tmp_path, undisturbed, monkeypatch):
    from mlo import checkpoint_folder

    plain, read = checkpoint_folder.load_verified, []

    def counted(file, path, map_location):
        read.append(path.name)
        return plain(file, path, map_location)

    with pytest.raises(ZeroDivisionError):
        run(tmp_path, Cut(4))
    monkeypatch.setattr(checkpoint_folder, "load_verified", counted)
    states = mlo.Checkpoints(tmp_path / "states", every=1)
    assert states.newest() is states.newest()
    made, callbacks = watched(tmp_path, resume=True)
    evaluate = {"a": (norm, 4)}
    made.run(9, callbacks=callbacks, evaluate=evaluate, checkpoints=states, resume=True)
    assert read == ["tick-0000000003.pt"]
    assert states.newest().tick == 8
    assert read == ["tick-0000000003.pt", "tick-0000000008.pt"]
    assert list(differences(undisturbed[2]["engine"], made.state_dict())) == []
