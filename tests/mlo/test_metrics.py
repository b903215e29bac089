"""Final metrics: means, spreads, tables and files."""

from __future__ import annotations

import csv
import io
import json
import math
import statistics

import pytest
import rich.console

from mlo.files import json_text
from mlo.metrics import Metric, as_csv, as_table, by_key, heading, spread, summary

INF, NAN = math.inf, math.nan


def metrics(seeds, *names, value=lambda seed, name: seed + 0.5):
    return [
        Metric(seed, "stage", "test", name, value(seed, name)) for seed in seeds for name in names
    ]


def printed(table, width=80):
    console = rich.console.Console(file=io.StringIO(), width=width)
    console.print(table)
    return console.file.getvalue()


@pytest.mark.parametrize("values", [[1, 2, 4.5], [0.1] * 5, [1e200, -1e200, 3], [1e-9, 3e-9]])
def test_mean_and_spread_are_those_of_the_statistics_module(values):
    (entry,) = summary(metrics(range(len(values)), "m", value=lambda seed, name: values[seed]))
    assert entry["mean"] == pytest.approx(math.fsum(values) / len(values), rel=1e-15)
    assert entry["spread"] == spread(values) == statistics.stdev(values)


@pytest.mark.parametrize(
    ("values", "expected", "around"),
    [
        ([3.0], 3.0, None),
        ([NAN], NAN, None),
        ([NAN, 1.0], NAN, NAN),
        ([INF, 1.0], INF, NAN),
        ([INF, -INF], NAN, NAN),
        ([1.7e308, 1.7e308], 1.7e308, 0.0),
        ([1.7e308, -1.7e308], 0.0, INF),
    ],
)
def test_numbers_of_runs_that_diverged_have_a_mean_and_a_spread(values, expected, around):
    (entry,) = summary([Metric(i, "s", "e", "m", v) for i, v in enumerate(values)])
    assert entry["mean"] == pytest.approx(expected, nan_ok=True)
    assert entry["spread"] == pytest.approx(around, nan_ok=True)
    assert json.loads(json_text(entry))["seeds"].keys() == {str(i) for i in range(len(values))}
    printed(as_table([Metric(i, "s", "e", "m", v) for i, v in enumerate(values)], title="t"))


def test_the_summary_has_an_entry_for_all_that_is_measured_with_the_seeds_that_have_it():
    found = [*metrics([3, 4], "a"), Metric(4, "stage", "test", "b", 2.0)]
    first, second = summary(found)
    assert first == {
        "stage": "stage",
        "evaluation": "test",
        "metric": "a",
        "mean": 4.0,
        "spread": pytest.approx(0.5**0.5),
        "seeds": {"3": 3.5, "4": 4.5},
    }
    assert (second["seeds"], second["spread"]) == ({"4": 2.0}, None)
    assert summary([]) == []
    assert list(by_key(found)) == [("stage", "test", "a"), ("stage", "test", "b")]


def test_a_metric_of_its_evaluations_name_is_named_once():
    assert heading(("LFM", "test", "accuracy")) == "LFM test accuracy"
    assert heading(("LFM", "test", "test")) == "LFM test"


def test_the_file_reads_back_to_the_last_bit():
    odd = [0.1, NAN, INF, -INF, -0.0, 5e-324, 1e22]
    given = [Metric(i, 'a, "b"', "e\nf", "ü", value) for i, value in enumerate(odd)]
    rows = list(csv.DictReader(io.StringIO(as_csv(given), newline="")))
    found = [
        Metric(int(r["seed"]), r["stage"], r["evaluation"], r["metric"], float(r["value"]))
        for r in rows
    ]
    assert list(map(repr, found)) == list(map(repr, given))


def test_the_table_shows_mean_spread_and_seeds():
    text = printed(as_table([*metrics([0, 1, 2], "a"), Metric(1, "x", "y", "z", NAN)], title="T"))
    assert [
        line.split() for line in text.splitlines() if line.split()[:1] in (["stage"], ["x"])
    ] == [
        ["stage", "test", "a", "1.5", "1", "0.5", "1.5", "2.5"],
        ["x", "y", "z", "nan", "-", "-", "nan", "-"],
    ]
    assert "final metric mean spread seed 0 seed 1 seed 2" in " ".join(text.split())


@pytest.mark.parametrize("seeds", [1, 2, 3, 5, 6, 7, 12, 100])
@pytest.mark.parametrize("value", [0.5, -1.2345678e-5])
def test_the_table_is_readable_in_eighty_columns(seeds, value):
    found = metrics(
        range(seeds), "accuracy", "a" * 60, value=lambda seed, name: value * (1 + seed / 1000)
    )
    text = printed(as_table(found, title="final metrics"))
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text
    (row,) = [line.split() for line in text.splitlines() if " accuracy " in line]
    assert row[:3] == ["stage", "test", "accuracy"]
    around = f"{statistics.stdev([m.value for m in found[::2]]):.4g}" if seeds > 1 else "-"
    assert row[3:5] == [f"{statistics.mean(m.value for m in found[::2]):.4g}", around]
    single = [f"{m.value:.4g}" for m in found[::2]]
    assert row[5:] in (single, [])
    assert (row[5:] == []) is (f"over {seeds} seeds" in text)
    if seeds <= 2:
        assert row[5:] == single
    if seeds >= 12:
        assert row[5:] == []


def test_what_looks_like_markup_is_text():
    text = printed(as_table([Metric(0, "[red]s", "e", "m[/b]", 1.0)], title="[bold]t :smile:"))
    assert "[red]s e m[/b]" in text
    assert "[bold]t :smile:" in text


def test_a_table_of_nothing_has_no_rows():
    assert as_table([], title="t").row_count == 0
