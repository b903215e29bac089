"""Runs written for TensorBoard, read back with its own reader and compared with their records."""

from __future__ import annotations

import math
import sys
import threading

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import mlo
from mlo.callbacks import TensorBoard
from mlo.errors import ConfigurationError


def engine(curvature=1.0, scale=1.0, breaks=None):
    """Two levels; the upper one moves every other tick, the lower one twice a tick."""

    def lower(lower, upper, tick):
        if tick == breaks:
            raise RuntimeError("out of memory")
        w = lower["w"]
        value = 0.5 * curvature * w.square().sum() - (w * (1 + upper["c"])).sum()
        metrics = {"each": w.detach() * scale, "largest": w.detach().max() * scale, "fixed": 2.5}
        return value * scale, metrics

    def upper(lower, upper):
        return (lower["w"] - 3.0).square().sum() + 0.1 * upper["c"].square().sum()

    def problem(name, key, loss, **options):
        start = {key: torch.tensor([0.5, -0.25, 1.5])}
        return mlo.Problem(
            name,
            params=start,
            loss=loss,
            optimizer=lambda params: torch.optim.SGD(params, 0.1),
            **options,
        )

    return mlo.Engine(
        [
            problem("lower", "w", lower, hypergradient=mlo.ConjugateGradient(), repeat=2),
            problem("upper", "c", upper, every=2),
        ],
        guards=mlo.Guards(on_nonfinite="ignore"),
    )


def size(lower):
    return {"norm": lower["w"].norm(), "first": lower["w"][0].item()}


class Records(mlo.Callback):
    """Keeps everything, the ticks of a run that breaks among it."""

    def __init__(self):
        self.ticks, self.evaluations = [], []

    def on_tick(self, record):
        self.ticks.append(record)

    def on_evaluation(self, record):
        self.evaluations.append(record)


def read(folder):
    return EventAccumulator(str(folder), size_guidance={"scalars": 0, "histograms": 0}).Reload()


def scalars(folder):
    """(tag, step) -> value, each of which was written once."""
    events = read(folder)
    found = {}
    for tag in events.Tags()["scalars"]:
        for event in events.Scalars(tag):
            assert (tag, event.step) not in found
            found[tag, event.step] = event.value
    return found


def expected(records, every, evaluation="size"):
    """The same from the records of the run."""
    values = {}
    for record in records.ticks:
        if record.tick % every:
            continue
        values["seconds/tick", record.tick] = record.seconds
        for move in record.moves:  # later moves of a problem replace earlier ones
            of = move.problem
            for kind in ("loss", "gradient_norm", "learning_rate"):
                values[f"{kind}/{of}", record.tick] = float(getattr(move, kind))
            for name, value in move.metrics.items():
                if name != "each":
                    values[f"metrics/{of}/{name}", record.tick] = float(value)
            for response in move.responses:
                plain = response.info.plain()
                through = f"{of}/{response.problem}"
                values[f"residual/{through}", record.tick] = plain["residual"]
                values[f"products/{through}", record.tick] = plain["products"]
                fine = plain["outcome"] in ("explicit", "zero", "converged", "limit")
                values[f"failed/{through}", record.tick] = float(not fine)
    for record in records.evaluations:
        for name, value in record.metrics.items():
            values[f"{evaluation}/{name}", record.tick] = value
    return values


def text(folder, tag):
    events = read(folder).Tensors(f"{tag}/text_summary")
    return [(e.step, e.tensor_proto.string_val[0].decode()) for e in events]


@pytest.mark.parametrize("every", [1, 3])
@pytest.mark.parametrize("curvature", [1.0, -1.0])
def test_every_value_of_a_run_is_read_back_as_it_was_recorded(tmp_path, every, curvature):
    folder, records = tmp_path / "deep" / "events", Records()
    made = engine(curvature)
    result = made.run(
        8, callbacks=[TensorBoard(folder, every=every), records], evaluate={"size": (size, 2)}
    )
    found, right = scalars(folder), expected(records, every)
    assert found == pytest.approx(right, rel=1e-6, abs=1e-37)
    assert {step for tag, step in found if tag == "size/norm"} == {1, 3, 5, 7}
    assert {step for tag, step in found if tag == "loss/lower"} == set(range(0, 8, every))
    upper = {3} if every == 3 else {1, 3, 5, 7}
    assert {step for tag, step in found if tag == "loss/upper"} == upper
    failed = {found["failed/upper/lower", step] for step in upper}
    assert failed == {float(curvature < 0)}
    ((step, graph),) = text(folder, "graph")
    assert step == 0
    assert [line[4:] for line in graph.splitlines()] == str(made.graph).splitlines()
    assert text(folder, "end") == [(7, f"    completed, 8 ticks: {result.reason}")]


def test_vectors_are_histograms_of_all_their_entries(tmp_path):
    records = Records()
    engine().run(4, callbacks=[TensorBoard(tmp_path), records])
    events = read(tmp_path).Histograms("metrics/lower/each")
    assert [event.step for event in events] == [0, 1, 2, 3]
    for event, record in zip(events, records.ticks, strict=True):
        values = next(m for m in reversed(record.moves) if m.problem == "lower").metrics["each"]
        histogram = event.histogram_value
        assert histogram.num == 3
        assert histogram.min == pytest.approx(float(values.min()))
        assert histogram.max == pytest.approx(float(values.max()))
        assert histogram.sum == pytest.approx(float(values.sum()))
        assert histogram.sum_squares == pytest.approx(float(values.square().sum()))


@pytest.mark.parametrize("scale", [math.nan, math.inf])
def test_numbers_that_are_none_are_written_as_they_are(tmp_path, scale):
    records = Records()
    engine(scale=scale).run(
        3, callbacks=[TensorBoard(tmp_path), records], evaluate={"size": (size, 1)}
    )
    right = expected(records, 1)
    assert any(not math.isfinite(value) for value in right.values())
    assert scalars(tmp_path) == pytest.approx(right, rel=1e-6, abs=1e-37, nan_ok=True)
    assert read(tmp_path).Tags()["histograms"] == []


def test_of_a_vector_with_some_finite_entries_these_are_drawn_whatever_its_type(tmp_path):
    def loss(point):
        x = point["x"].square().sum()
        mixed = torch.tensor([[1.0, math.nan], [math.inf, 3.0]])
        whole = torch.tensor([1, 2, 3])
        half = torch.tensor([2.0**40, 1.0], dtype=torch.bfloat16)
        return x, {
            "mixed": mixed,
            "whole": whole,
            "half": half,
            "none": torch.zeros(0),
            "big": 1e300,
        }

    problem = mlo.Problem(
        "point",
        params={"x": torch.ones(1)},
        loss=loss,
        optimizer=lambda params: torch.optim.SGD(params, 0.1),
    )
    mlo.Engine([problem]).run(1, callbacks=[TensorBoard(tmp_path)])
    events = read(tmp_path)
    sums = {
        tag: (event.histogram_value.num, event.histogram_value.sum)
        for tag in events.Tags()["histograms"]
        for event in events.Histograms(tag)
    }
    at = "metrics/point"
    assert sums == {
        f"{at}/mixed": (2, 4.0),
        f"{at}/whole": (3, 6.0),
        f"{at}/half": (2, 2.0**40 + 1),
    }
    assert scalars(tmp_path)[f"{at}/big", 0] == math.inf  # events hold single precision


@pytest.mark.parametrize("every", [1, 3])
def test_a_run_that_breaks_is_written_up_to_there_with_its_reason(tmp_path, every):
    records = Records()
    watch, threads = TensorBoard(tmp_path, every=every), threading.active_count()
    with pytest.raises(RuntimeError, match="memory"):
        engine(breaks=5).run(9, callbacks=[watch, records], evaluate={"size": (size, 2)})
    assert len(records.ticks) == 5
    assert scalars(tmp_path) == pytest.approx(expected(records, every), rel=1e-6, abs=1e-37)
    ((step, end),) = text(tmp_path, "end")
    assert step == 4
    assert end.startswith("    failed, 5 ticks: RuntimeError: out of memory")
    assert threading.active_count() == threads  # the writer's own is gone


def test_a_second_run_continues_in_the_folder(tmp_path):
    watch, records, made = TensorBoard(tmp_path), Records(), engine()
    for _ in range(2):
        made.run(3, callbacks=[watch, records], evaluate={"size": (size, 3)})
    found = scalars(tmp_path)
    assert found == pytest.approx(expected(records, 1), rel=1e-6, abs=1e-37)
    assert {step for tag, step in found if tag == "loss/lower"} == set(range(6))
    assert [step for step, _ in text(tmp_path, "graph")] == [0, 2]
    assert [step for step, _ in text(tmp_path, "end")] == [2, 5]


def test_an_evaluation_called_as_a_group_of_the_ticks_is_kept_apart(tmp_path):
    records = Records()

    def losses(lower):
        return {"upper": 7.0, "lower": lower["w"].sum()}

    engine().run(2, callbacks=[TensorBoard(tmp_path), records], evaluate={"loss": (losses, 1)})
    right = expected(records, 1, evaluation="evaluation/loss")
    assert right["evaluation/loss/upper", 1] == 7.0
    assert scalars(tmp_path) == pytest.approx(right, rel=1e-6, abs=1e-37)


def test_nothing_is_read_from_the_device_between_the_nth_ticks(tmp_path, monkeypatch):
    reads = []
    reading = torch.Tensor.__float__

    class Look(mlo.Callback):
        def on_tick(self, record):
            monkeypatch.setattr(torch.Tensor, "__float__", counting)

    class Away(mlo.Callback):
        def on_tick(self, record):
            monkeypatch.setattr(torch.Tensor, "__float__", reading)

    def counting(tensor):
        reads.append(tick())
        return reading(tensor)

    def tick():
        return made.tick - 1

    made = engine()
    made.run(7, callbacks=[Look(), TensorBoard(tmp_path, every=3), Away()])
    assert set(reads) == {0, 3, 6}


def test_a_folder_with_other_records_is_refused_and_stays_as_it_was(tmp_path):
    late = TensorBoard(tmp_path)
    (tmp_path / "notes.txt").write_text("other files do no harm")
    old = tmp_path / "events.out.tfevents.1.host.2.0"
    old.write_text("old")
    made = engine()
    for use in (lambda: TensorBoard(tmp_path), lambda: made.run(1, callbacks=[late])):
        with pytest.raises(ConfigurationError, match="folder without records") as caught:
            use()
        assert str(tmp_path) in str(caught.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == [old.name, "notes.txt"]
    assert old.read_text() == "old"
    assert made.tick == 0


def test_a_file_in_the_place_of_the_folder_is_refused(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(ConfigurationError, match="found the file") as caught:
        TensorBoard(path)
    assert str(path) in str(caught.value)
    late = TensorBoard(path / "below")
    with pytest.raises(ConfigurationError, match="cannot write to"):
        engine().run(1, callbacks=[late])


@pytest.mark.parametrize("every", [0, -1])
def test_every_must_be_positive(tmp_path, every):
    with pytest.raises(ConfigurationError, match=rf"TensorBoard\(every=...\).*got {every}"):
        TensorBoard(tmp_path / "events", every=every)
    assert not list(tmp_path.iterdir())


def test_without_the_package_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.delitem(sys.modules, "torch.utils.tensorboard", raising=False)
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'mlo-engine\[tensorboard\]'"):
        TensorBoard(tmp_path)
