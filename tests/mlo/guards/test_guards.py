"""What guards may be given, and how records of ticks that were taken back are written and read."""

from __future__ import annotations

import pytest
import torch

import mlo
from mlo.errors import ConfigurationError
from mlo.files import json_text
from mlo.gathering import infinite, read
from mlo.nonfinite import is_finite
from mlo.recorded_stage import read_stage
from mlo.stage_folder import StageFolder

from .planted import LOSS, codes, engine

WRONG = [
    ({"on_nonfinite": "skpi"}, r"Guards\(on_nonfinite=.*got 'skpi'; did you mean 'skip'\?"),
    ({"on_nonfinite": None}, r"Guards\(on_nonfinite=.*got None"),
    ({"rollback_every": 0}, r"Guards\(rollback_every=.*at least 1, got 0"),
    ({"rollback_every": 1.5}, r"Guards\(rollback_every="),
    ({"patience": -1}, r"Guards\(patience=.*at least 0, got -1"),
    ({"patience": True}, r"Guards\(patience="),
    ({"max_failed_solves": 0}, r"Guards\(max_failed_solves=.*at least 1, got 0"),
    ({"max_divergence": 0.0}, r"Guards\(max_divergence=.*positive number or None, got 0.0"),
    ({"max_divergence": float("nan")}, r"Guards\(max_divergence="),
    ({"max_divergence": True}, r"Guards\(max_divergence="),
    ({"probe": 1}, r"Guards\(probe=.*True or False, got 1"),
]


@pytest.mark.parametrize(("given", "message"), WRONG)
def test_what_guards_may_not_be_is_named(given, message):
    with pytest.raises(ConfigurationError, match=message):
        mlo.Guards(**given)


@pytest.mark.parametrize("given", ["skip", None, {"on_nonfinite": "skip"}, mlo.Guards])
def test_an_engine_takes_guards_and_nothing_else(given):
    with pytest.raises(ConfigurationError, match=r"Engine\(guards=...\) must be an mlo.Guards"):
        engine("two levels", codes("two levels", 1), guards=given)


def test_records_of_ticks_that_were_taken_back_are_written_and_read(tmp_path):
    made = engine(
        "two levels",
        codes("two levels", 3, 1, "b", LOSS),
        guards=mlo.Guards(on_nonfinite="skip"),
    )
    folder = StageFolder(tmp_path / "stage")
    folder.begin()
    seen = []

    class Watcher:
        on_tick = staticmethod(seen.append)

    made.run(3, callbacks=[mlo.callbacks.Recorder(folder.records), Watcher()])
    stage = read_stage(folder, 0, "stage", 3)
    assert (stage.damaged, stage.made, len(stage.ticks)) == (0, 3, 3)
    assert [len(t["moves"]) for t in stage.ticks] == [2, 0, 2]
    sentence = "tick 1: the loss of problem 'b' is nan; the tick was taken back"
    assert [t.get("taken_back") for t in stage.ticks] == [None, sentence, None]
    assert [r.taken_back for r in seen] == [None, sentence, None]
    assert json_text(seen[0].plain()).count("taken_back") == 0


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_what_is_finite_is_decided_exactly(dtype):
    largest = torch.finfo(dtype).max
    for bad in (float("nan"), float("inf"), -float("inf"), None):
        tensor = torch.full((5,), largest, dtype=dtype)
        if bad is not None:
            tensor[3] = bad
        others = [None, torch.zeros(0, dtype=dtype), torch.ones(2, 2, dtype=dtype)]
        sparse = tensor.to_sparse()
        for t in (tensor, sparse, tensor.requires_grad_()):
            assert is_finite([*others, t]) is (bad is None)
            assert bool(infinite([*others, t])) is (bad is not None)
    assert is_finite([None])
    assert not infinite([])


def test_values_are_read_as_they_are():
    assert read([torch.tensor(0.1), 3, torch.tensor(True), torch.tensor(7)]) == [0.1, 3.0, 1.0, 7.0]
