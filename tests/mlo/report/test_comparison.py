"""The page that compares runs."""

from __future__ import annotations

import pathlib
import statistics

import pytest

from mlo.report import write_report
from mlo.report.run_names import run_names
from mlo.report.style import PALETTE, Look

from .made import complete, made, records
from .parsed import Parsed


def page(runs, tmp_path):
    write_report(runs, tmp_path / "page.html")
    return Parsed(tmp_path / "page.html")


def test_rows_are_runs_and_columns_metrics(tmp_path):
    a, b = complete(tmp_path / "a", seeds=3), complete(tmp_path / "b", seeds=1)
    found = page([a, b], tmp_path)
    table = next(
        t for t in found.tables if t[0][1:] == ["first test accuracy", "second test accuracy"]
    )
    values = [m.value for m in a.metrics if m.stage == "first"]
    mean, spread = statistics.fmean(values), statistics.stdev(values)
    assert table[1][:2] == ["a", f"{mean:.4g} ± {spread:.2g} (3)"]
    assert table[2][:2] == ["b", "0.1235 (1)"]
    titles = [drawing.get("aria-label") for drawing in found.drawings]
    assert titles == [
        *(f"{s} {m}" for s in ("first", "second") for m in ("test accuracy", "weights good")),
        *(f"{s}: {p}" for _ in range(2) for s in ("first", "second") for p in ("low", "high")),
    ]


def test_only_what_differs_is_listed(tmp_path):
    a = complete(tmp_path / "a", config={"rate": 1, "same": 2, "only": None})
    b = complete(tmp_path / "b", config={"rate": 3, "same": 2})
    found = page([a, b], tmp_path)
    assert found.row("rate") == ["1", "3"]
    assert found.row("only") == ["none", "–"]  # noqa: RUF001
    assert not any(row[0] == "same" for table in found.tables for row in table)
    assert "All runs agree." in found.text  # on the versions


def test_runs_of_different_recipes_and_unfinished_ones_are_compared(tmp_path):
    a = complete(tmp_path / "a", recipe="one")
    b = made(tmp_path / "b", {"other": {0: records()}}, recipe="two", status="running", done=False)
    failed = {"status": "failed", "reason": "E: <i>", "done": False}
    c = made(tmp_path / "c", {"none": {0: []}}, recipe="three", **failed)
    found = page([a, b, c], tmp_path)
    assert "3 recipes" in found.text
    assert "1 of 3 runs are completed." in found.text
    overview = found.tables[0]
    assert overview[1][1:3] == ["one", "completed"]
    assert overview[2][2].startswith("cut off: 0 of 1")
    assert overview[2][-1] == f"mlo run --resume {tmp_path / 'b'}"
    assert overview[3][2] == "failed (E: <i>): 0 of 1 stages are over; seed 0, none: 0 of 12 ticks"
    assert "other: low (b only)" in [d.get("aria-label") for d in found.drawings]


def test_more_runs_than_colours_are_told_apart(tmp_path):
    count = len(PALETTE) + 3
    lines = {"s": {0: records(3)}}
    runs = [made(tmp_path / str(i) / "run", lines) for i in range(count)]
    found = page(runs, tmp_path)
    names = [row[0] for row in found.tables[0][1:]]
    assert names == [f"{i}/run" for i in range(count)]
    assert "which run has which colour" in found.text
    looks = [(Look(i).color, str(Look(i).dashes)) for i in range(2 * len(PALETTE))]
    assert len(set(looks)) == len(looks)


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["x/a", "x/b"], ["a", "b"]),
        (["x/a", "y/a", "y/b"], ["x/a", "y/a", "b"]),
        (["p/x/a", "q/x/a", "q/a"], ["p/x/a", "q/x/a", "q/a"]),
        (["x/a", "x/a"], ["/x/a", "/x/a (2)"]),
    ],
)
def test_folders_of_one_name_get_the_parents_that_tell_them_apart(paths, names):
    found = run_names([pathlib.Path("/") / path for path in paths])
    assert len(set(found)) == len(found)
    assert found == names
