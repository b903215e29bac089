"""Runs read back from their folders: finished, going on, cut off, and damaged in every way."""

from __future__ import annotations

import json
import math
import random
import shutil

import pytest
import torch

import mlo
from mlo.errors import DataError, RunFolderError
from mlo.recorded import read_run
from mlo.run_folder import RunFolder

from .staged import Config, Staged, begun, run


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    path = tmp_path_factory.mktemp("finished") / "run"
    torch.set_default_dtype(torch.float64)
    recipe, config = Staged(), Config(seeds=2, first_seed=3)
    folder = begun(path, recipe, config)
    for name in ("weights", "Accuracy of 2"):
        folder.plot(name).write_bytes(b"")
    return path, run(folder, recipe, config)


@pytest.fixture
def copy(finished, tmp_path):
    return shutil.copytree(finished[0], tmp_path / "copy")


def test_a_finished_run_is_read_as_it_was_made(finished):
    path, metrics = finished
    found = read_run(str(path))
    assert (found.path, found.recipe, found.complete, found.active) == (path, "staged", True, False)
    assert found.status == "completed"
    assert found.progress == "6 of 6 stages are over"
    assert found.metrics == metrics
    assert found.config == {"seeds": 2, "first_seed": 3, "threads": None, "steps": 3}
    assert found.versions["torch"] == torch.__version__
    assert found.versions["mlo-engine"] == mlo.__version__
    assert [plot.name for plot in found.plots] == ["accuracy-of-2.png", "weights.png"]
    names = [("first", 3), ("go on", 3), ("third", 1)]
    assert [(s.seed, s.name, s.planned) for s in found.stages] == [
        (seed, *name) for seed in (3, 4) for name in names
    ]
    for stage in found.stages:
        assert (stage.done, stage.made, stage.damaged) == (True, stage.planned, 0)
        assert [tick["tick"] for tick in stage.ticks] == list(range(stage.planned))
        assert [e["tick"] for e in stage.evaluations] == ([1, 2] if stage.planned == 3 else [0])
        assert stage.start["problems"] == ["net"]
        (problem,) = stage.start["drawing"]["problems"]
        assert (problem["name"], problem["streams"]) == ("net", ["batch"])
        last = stage.evaluations[-1]["metrics"]
        assert {m.name: m.value for m in stage.metrics} == last
        vector = stage.evaluations[-1]["distributions"]["vector"]
        assert (vector["count"], vector["mean"]) == (7, last["vector"])


def test_results_hold_the_summary_of_the_metrics(finished):
    path, metrics = finished
    results = json.loads((path / "results.json").read_text())
    assert results["recipe"] == "staged"
    assert [entry["stage"] for entry in results["metrics"]] == [
        stage for stage in ("first", "go on", "third") for _ in range(2)
    ]
    for entry in results["metrics"]:
        values = [
            m.value
            for m in metrics
            if m.key == (entry["stage"], entry["evaluation"], entry["metric"])
        ]
        assert list(entry["seeds"]) == ["3", "4"]
        assert list(entry["seeds"].values()) == values
        half = abs(values[0] - values[1]) / 2
        assert entry["mean"] == pytest.approx(sum(values) / 2)
        assert entry["spread"] == pytest.approx(half * 2**0.5)


def test_a_run_that_has_begun_is_read_as_running_and_as_cut_off_without_its_process(tmp_path):
    path, recipe, config = tmp_path / "run", Staged(), Config(seeds=2)
    with begun(path, recipe, config):
        found = read_run(path)
        assert found.status == "running: 0 of 6 stages are over"
        assert (found.active, found.complete, found.stages, found.metrics) == (True, False, (), [])
    assert read_run(path).status == "cut off: 0 of 6 stages are over"
    (path / "seed-0" / "first").mkdir(parents=True)
    (stage,) = read_run(path).stages
    assert (stage.start, stage.made, stage.done, stage.metrics) == (None, 0, False, ())


def test_a_run_is_read_while_it_goes_on(tmp_path):
    seen = []

    class Look(mlo.Callback):
        def __init__(self, place):
            self.path = place.path.parents[1]

        def on_end(self, result):
            found = read_run(self.path)
            seen.append((found.status, found.stages[-1].made))

    recipe, config = Staged(), Config()
    run(begun(tmp_path / "run", recipe, config), recipe, config, Look)
    assert seen == [
        (f"running: {over} of 3 stages are over; seed 0, {name}: {made} of {made} ticks", made)
        for over, (name, made) in enumerate([("first", 3), ("go on", 3), ("third", 1)])
    ]


def test_reading_makes_nothing(copy):
    (copy / ".lock").unlink()
    before = sorted(copy.rglob("*"))
    assert not read_run(copy).active
    assert sorted(copy.rglob("*")) == before


def test_numbers_that_json_lacks_are_read_back(copy):
    done = copy / "seed-3/first/done.json"
    end = json.loads(done.read_text())
    for entry, word in zip(end["metrics"], ("nan", "-inf"), strict=True):
        entry["value"] = word
    done.write_text(json.dumps(end))
    first, second = read_run(copy).stages[0].metrics
    assert math.isnan(first.value)
    assert second.value == -math.inf


# Damage -------------------------------------------------------------------------------------------

ERRORS = (RunFolderError, DataError)


def attempt(path):
    """Read and use all of a run that may be damaged; its errors, which must be typed."""
    try:
        found = read_run(path)
        _ = found.status, found.progress, found.complete, found.recipe, found.metrics
        _ = [stage.made for stage in found.stages]
    except ERRORS as error:
        return error
    return None


@pytest.mark.parametrize("name", ["run.json", "config.json", "versions.json"])
def test_a_file_that_is_missing_or_no_object_is_named(copy, name):
    whole = (copy / name).read_text()
    for content in ("", "[]", "3", "nul", "\x00", "{" * 10**5, "[" * 10**5, '{"a": 1'):
        (copy / name).write_text(content)
        assert name in str(attempt(copy))
    (copy / name).write_bytes(b'{"recipe": "\xff"}')
    assert name in str(attempt(copy))
    (copy / name).unlink()
    assert name in str(attempt(copy))
    (copy / name).mkdir()
    assert name in str(attempt(copy))
    (copy / name).rmdir()
    (copy / name).write_text(whole)
    assert attempt(copy) is None


@pytest.mark.parametrize("name", ["run.json", "config.json", "seed-3/first/done.json"])
def test_a_file_that_was_cut_at_any_byte_is_a_typed_error(copy, name):
    data = (copy / name).read_bytes()
    for size in range(len(data.rstrip())):
        (copy / name).write_bytes(data[:size])
        assert attempt(copy) is not None, size


ODD = [None, True, -3, 2.5, "word", "", [], [1], {}, {"a": {}}, 10**30, {"": 1}, {"..": 1}]
FIELDS = {
    "run.json": ["recipe", "status", "reason", "stages", "seconds", "started"],
    "config.json": ["seeds", "first_seed"],
}


@pytest.mark.parametrize(
    ("name", "field"), [(name, field) for name, fields in FIELDS.items() for field in fields]
)
def test_a_field_that_is_missing_or_of_another_kind_is_named(copy, name, field):
    whole = json.loads((copy / name).read_text())
    kind = type(whole[field])
    for value in ODD:
        (copy / name).write_text(json.dumps({**whole, field: value}))
        error = attempt(copy)
        if type(value) is not kind and not (field == "seconds" and type(value) is int):
            assert f"'{field}'" in str(error)
    del whole[field]
    (copy / name).write_text(json.dumps(whole))
    assert f"'{field}'" in str(attempt(copy))


def test_any_damage_in_any_file_of_json_is_a_typed_error_or_none(copy):
    draw, refused = random.Random(1), 0
    names = ["run.json", "config.json", "versions.json", "seed-3/first/done.json"]
    for trial in range(400):
        path = copy / names[trial % 4]
        whole = path.read_bytes()
        data = bytearray(whole)
        for _ in range(draw.randrange(1, 4)):
            data[draw.randrange(len(data))] = draw.choice(b'{}[]",:0919-eE \x00\xff\n')
        path.write_bytes(data)
        refused += attempt(copy) is not None
        path.write_bytes(whole)
    assert 100 < refused < 400


@pytest.mark.parametrize(
    "metrics",
    [
        3,
        "words",
        {"a": 1},
        [3],
        ["x"],
        [[]],
        [{}],
        [{"seed": 0}],
        *(
            [{"seed": 0, "stage": "s", "evaluation": "e", "name": "m", "value": 1.0, **odd}]
            for odd in (
                {"value": None},
                {"value": "word"},
                {"value": []},
                {"value": 10**400},
                {"seed": "0"},
                {"seed": True},
                {"stage": 3},
                {"name": None},
                {"more": 1},
            )
        ),
    ],
)
def test_final_metrics_that_are_damaged_are_a_data_error_that_says_what_to_do(copy, metrics):
    done = copy / "seed-4/third/done.json"
    done.write_text(json.dumps({"metrics": metrics}))
    with pytest.raises(DataError, match=r"done\.json.*Delete it to run the stage again"):
        read_run(copy)


def test_a_stage_whose_end_is_damaged_is_run_again_once_its_file_is_deleted(copy, finished):
    done = copy / "seed-4/go-on/done.json"
    done.write_text("{")
    state = json.loads((copy / "run.json").read_text())
    (copy / "run.json").write_text(json.dumps({**state, "status": "failed"}))
    recipe, config = Staged(), Config(seeds=2, first_seed=3)
    with pytest.raises(DataError, match="Delete it"):
        run(RunFolder.resume(copy), recipe, config)
    done.unlink()
    assert run(RunFolder.resume(copy), recipe, config) == finished[1]
    assert recipe.built == ["second"]


BROKEN = [
    "",
    "garbage",
    "{",
    "3",
    "null",
    "[1]",
    '"tick"',
    "{}",
    '{"kind": "tick"}',
    '{"kind": "else"}',
    '{"kind": ["tick"]}',
    '{"kind": "tick", "tick": "3", "seconds": 1.0, "moves": []}',
    '{"kind": "tick", "tick": 3, "seconds": 1.0}',
    '{"kind": "evaluation", "tick": 1, "name": "x", "metrics": 3, "distributions": {}}',
    '{"kind": "start", "ticks": 3}',
    '{"kind": "end"}',
    "[" * 10**5,
    "\x00\x00",
]


def test_lines_that_are_damaged_are_counted_and_the_others_read(copy):
    path = copy / "seed-3/first/records.jsonl"
    lines = path.read_text().splitlines()
    mixed = [*lines[:2], *BROKEN, *lines[2:]]
    path.write_bytes("\n".join(mixed).encode() + b'\n{"kind": "tick", "ti\xff')
    stage = read_run(copy).stages[0]
    assert stage.damaged == len(BROKEN) + 1
    assert [tick["tick"] for tick in stage.ticks] == [0, 1, 2]
    assert len(stage.evaluations) == 2
    assert stage.start["ticks"] == 3


def test_records_that_were_cut_at_any_byte_lack_one_line_at_most(copy):
    path = copy / "seed-3/first/records.jsonl"
    data = path.read_bytes()
    ends = {i for i, byte in enumerate(data) if byte == ord("\n")}
    for size in range(0, len(data), 37):
        path.write_bytes(data[:size])
        stage = read_run(copy).stages[0]
        whole = size == 0 or size - 1 in ends or size in ends
        assert stage.damaged == (0 if whole else 1)
        assert stage.made == len(stage.ticks)


def test_records_that_cannot_be_read_are_a_data_error(copy):
    path = copy / "seed-3/first/records.jsonl"
    path.unlink()
    path.mkdir()
    with pytest.raises(DataError, match=r"records\.jsonl"):
        read_run(copy)


@pytest.mark.parametrize("name", ["carry.pt", "seed-0", "seed-x", "seed-99999999999999999999999"])
def test_other_things_in_the_folder_do_not_matter(copy, finished, name):
    shutil.copytree(copy / "seed-3", copy / name)
    shutil.copytree(copy / "seed-3", copy / "seed-03")
    assert read_run(copy).metrics == finished[1]


def test_a_folder_that_is_none_is_named(tmp_path):
    (tmp_path / "file").touch()
    for path in (tmp_path, tmp_path / "absent", tmp_path / "file", "x" * 300):
        with pytest.raises(RunFolderError, match="give a folder that 'mlo run' made"):
            read_run(path)
