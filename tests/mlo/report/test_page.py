"""What the page of one run says, against the numbers put in."""

from __future__ import annotations

import csv
import json
import math
import statistics

import pytest

from mlo.errors import ConfigurationError, DataError, RunFolderError
from mlo.metrics import as_csv
from mlo.recorded import read_run
from mlo.report import write_report

from .made import (
    complete,
    distribution,
    evaluation,
    made,
    move,
    records,
    response,
    start,
    tick,
    write,
)
from .parsed import Parsed


def page(run, tmp_path):
    path = tmp_path / "page.html"
    write_report([run], path)
    return Parsed(path)


def test_every_final_number_is_in_the_table_with_mean_and_spread(tmp_path):
    run = complete(tmp_path / "run")
    found = page(run, tmp_path)
    rows = list(csv.DictReader(as_csv(run.metrics).splitlines()))
    assert len(rows) == 6
    for stage in ("first", "second"):
        values = [float(row["value"]) for row in rows if row["stage"] == stage]
        expected = [statistics.fmean(values), statistics.stdev(values), *values]
        assert found.row(f"{stage} test accuracy") == [f"{value:.4g}" for value in expected]
    assert found.tables[0][0] == ["metric", "mean", "spread", "seed 0", "seed 1", "seed 2"]


def test_a_number_that_a_seed_lacks_is_a_dash(tmp_path):
    metrics = ((0, "s", "test", "a", 1.0), (1, "s", "test", "a", 3.0), (1, "s", "test", "b", 5.0))
    lines = {0: records(), 1: records(seed=1)}
    found = page(made(tmp_path / "run", {"s": lines}, metrics=metrics), tmp_path)
    assert found.row("s test a") == ["2", "1.414", "1", "3"]
    assert found.row("s test b") == ["5", "–", "–", "5"]  # noqa: RUF001


def test_a_complete_run_says_so_and_has_all_its_charts(tmp_path):
    found = page(complete(tmp_path / "run"), tmp_path)
    assert "completed" in found.text
    assert "mlo run --resume" not in found.text
    assert "2026-01-02 03:04" in found.text
    assert "1 min 0 s" in found.text
    titles = [drawing.get("aria-label") for drawing in found.drawings]
    # Per stage: losses, norms, residuals, 3 charts of weights, what was returned, the graph.
    assert len(titles) == 1 + 2 * 8
    assert titles.count("accuracy") == 1
    norms = found.source[found.source.index("gradient norm</text>") - 20_000 :]
    assert "hypergradient of high (level 1)</text>" in norms
    assert "hypergradient of low" not in found.source


def test_the_table_of_hypergradients_names_failures(tmp_path):
    asked = [response(0.5, "diverged", products=9, solves=2), response(0.25, products=4)]
    lines = [start(), *(tick(t, move("high", 1.0, 1.0, {}, [r])) for t, r in enumerate(asked))]
    found = page(made(tmp_path / "run", {"s": {0: lines}}), tmp_path)
    assert found.row("s") == ["high", "low", "Neumann", "1.5", "6.5", "0.375", "0.5",
                              "50% diverged (failed), 50% converged"]  # fmt: skip
    assert "decrease alpha, raise the rank or add damping" in found.text


def test_no_linear_system_and_no_response_are_said(tmp_path):
    explicit = [start(), tick(0, move("high", 1.0, 1.0, {}, [response(None, "explicit")]))]
    found = page(made(tmp_path / "a", {"s": {0: explicit}}), tmp_path)
    assert "No linear system was solved, so there are no residuals." in found.text
    alone = [start(), tick(0, move("low", 1.0))]
    found = page(made(tmp_path / "b", {"s": {0: alone}}), tmp_path)
    assert "No problem differentiated through another one." in found.text
    assert "No evaluation was recorded." in found.text


@pytest.mark.parametrize(
    ("status", "words"),
    [
        ("running", "Cut off: 0 of 2 stages are over; seed 0, a: 12 of 12 ticks."),
        ("failed", "Failed (LossError: <b>no</b>): 0 of 2 stages are over"),
        ("interrupted", "Interrupted (LossError: <b>no</b>): 0 of 2 stages are over"),
    ],
)
def test_an_unfinished_run_says_how_far_it_is_and_how_to_go_on(tmp_path, status, words):
    folder = tmp_path / "a run"
    reason = "" if status == "running" else "LossError: <b>no</b>"
    stages = {"a": {0: records()}, "b": {}}
    found = page(made(folder, stages, status=status, reason=reason, done=False), tmp_path)
    assert words in found.text
    assert f"mlo run --resume '{folder}'" in found.text
    # 12 ticks of half a second, 8 evaluations of a quarter.
    assert ("8.0 s of recorded ticks" in found.text) == (status == "running")


def test_a_run_that_is_still_going_is_not_to_be_resumed(tmp_path):
    from mlo.run_lock import locked

    made(tmp_path / "run", {"a": {0: records()}}, status="running", done=False)
    lock = locked(tmp_path / "run")
    found = page(read_run(tmp_path / "run"), tmp_path)
    lock.release()
    assert "Running: 0 of 1 stages are over" in found.text
    assert "--resume" not in found.text


@pytest.mark.parametrize("lines", [{}, {0: []}, {0: [start()]}], ids=["none", "empty", "start"])
def test_a_run_without_a_tick_has_a_page(tmp_path, lines):
    found = page(made(tmp_path / "run", {"s": lines}, status="running", done=False), tmp_path)
    assert "No tick was recorded." in found.text
    assert "No stage is over that has final metrics." in found.text


def test_losses_that_are_not_finite_are_gaps_and_counted(tmp_path):
    bad = {2: math.nan, 5: math.inf, 7: -math.inf}
    lines = [start(), *(tick(t, move("low", bad.get(t, 1.0 + t))) for t in range(9))]
    lines.append(evaluation(8, "test", {"accuracy": math.nan}))
    metrics = ((0, "s", "test", "accuracy", math.nan),)
    found = page(made(tmp_path / "run", {"s": {0: lines}}, metrics=metrics), tmp_path)
    assert "3 values are NaN or infinite: a gap." in found.text
    assert "1 value is NaN or infinite: a gap." in found.text
    assert found.row("s test accuracy")[0] == "nan"


def test_seeds_that_share_no_evaluation_have_a_page(tmp_path):
    spread = {"good": distribution([p / 100 for p in range(101)])}
    lines = {s: [start(), evaluation(s, "w", {"good": 0.5}, spread)] for s in (0, 1)}
    found = page(made(tmp_path / "run", {"s": lines}), tmp_path)
    assert "s: w, good" in [drawing.get("aria-label") for drawing in found.drawings]


def test_damaged_lines_are_counted(tmp_path):
    made(tmp_path / "run", {"s": {0: records()}})
    path = tmp_path / "run" / "seed-0" / "s" / "records.jsonl"
    path.write_text(path.read_text()[:-20])
    found = page(read_run(tmp_path / "run"), tmp_path)
    assert "seed 0, s: 1 line could not be read" in found.text


def test_markup_in_names_and_settings_stays_text(tmp_path):
    evil = '<script>alert("&amp;")</script>'
    drawing = json.loads(json.dumps(start()["drawing"]).replace("low", "l<o>&w$x$"))
    lines = [
        {**start(drawing), "graph": evil},
        tick(0, move("l<o>&w$x$", 1.0, 1.0, {evil: 2.0})),
        evaluation(0, evil, {evil: 1.0}),
    ]
    metrics = ((0, "s", evil, evil, 1.0),)
    run = made(tmp_path / "run", {"s": {0: lines}}, recipe=evil, config={evil: evil},
               metrics=metrics)  # fmt: skip
    found = page(run, tmp_path)
    assert "script" not in found.tags
    assert found.row(evil) == [evil]
    assert found.row(f"s {evil}")[0] == "1"
    assert f"recipe {evil} cannot be loaded" in found.text
    assert "l<o>&w$x$" in "".join(found.words)


def test_settings_that_differ_from_the_defaults_are_in_bold(tmp_path):
    config = {"ticks": 77, "noise": "flip", "new_one": [1, None, True]}
    run = made(tmp_path / "run", {"s": {0: []}}, recipe="lfm-reweighting", config=config)
    found = page(run, tmp_path)
    assert found.row("ticks")[:2] == ["77", "400"]
    assert found.row("noise")[:2] == ["flip", "flip"]
    assert found.row("new_one")[0] == "1, none, true"
    place = next(i for i, table in enumerate(found.tables) if table[3][:1] == ["ticks"])
    bold = {found.tables[t][r][0] for t, r in found.bold if t == place}
    assert bold == {"seeds", "ticks"}  # the recipe repeats three times by default


def test_a_page_needs_nothing_but_itself(tmp_path):
    found = page(complete(tmp_path / "run"), tmp_path)
    assert all(link.startswith(("#", "data:")) for link in found.links)
    assert not {"script", "iframe", "object", "img"} & set(found.tags)
    assert "@import" not in found.source
    assert "http" not in found.source.replace("http://www.w3.org/2000/svg", "")
    anchors = {link[1:] for link in found.links if link.startswith("#")}
    assert anchors <= set(found.ids)


def test_a_long_run_of_many_seeds_has_a_small_page(tmp_path):
    ticks = (tick(t, move("low", 1 + t % 7), move("high", 2 + t % 5)) for t in range(3000))
    lines = [start(), *ticks]
    run = made(tmp_path / "run", {"s": dict.fromkeys(range(12), lines)})
    path = tmp_path / "page.html"
    write_report([run], path)
    assert path.stat().st_size < 700_000
    assert "Each point is the mean of" in Parsed(path).text


def test_a_report_replaces_a_report_and_nothing_else(tmp_path):
    run, path = complete(tmp_path / "run", seeds=1), tmp_path / "page.html"
    write_report([run], path)
    first = path.read_text()
    write_report([run], path)
    assert path.read_text() == first
    path.write_text("my thesis")
    with pytest.raises(RunFolderError, match="found another file"):
        write_report([run], path)
    assert path.read_text() == "my thesis"
    with pytest.raises(RunFolderError, match="cannot write"):
        write_report([run], tmp_path)
    with pytest.raises(RunFolderError, match="cannot write"):
        write_report([run], tmp_path / "absent" / "page.html")
    with pytest.raises(ConfigurationError, match="at least one run"):
        write_report([], tmp_path / "new.html")


def test_without_matplotlib_the_error_says_what_to_install(tmp_path, monkeypatch):
    run = complete(tmp_path / "run", seeds=1)
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    with pytest.raises(DataError, match=r"pip install 'mlo-engine\[plots\]'"):
        write_report([run], tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()


def test_odd_versions_and_times_do_not_stop_a_report(tmp_path):
    made(tmp_path / "run", {"s": {0: records()}})
    write(tmp_path / "run" / "versions.json", {})
    state = json.loads((tmp_path / "run" / "run.json").read_text())
    write(tmp_path / "run" / "run.json", {**state, "started": "long ago"})
    assert "long ago" in page(read_run(tmp_path / "run"), tmp_path).text


def test_infinities_of_both_signs_have_a_mean_on_pages_of_one_run_and_of_several(tmp_path):
    values = ((0, math.inf), (1, -math.inf))
    metrics = tuple((seed, "first", "test", "accuracy", value) for seed, value in values)
    run = made(tmp_path / "run", {"first": {0: records(), 1: records()}}, metrics=metrics)
    row = page(run, tmp_path).tables[0][1]
    assert row[1:3] == ["nan", "nan"]
    write_report([run, run], tmp_path / "both.html")
    assert "nan ± nan (2)" in Parsed(tmp_path / "both.html").source
