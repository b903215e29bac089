"""`mlo report`: where the page goes, and what is said about runs that are not complete."""

from __future__ import annotations

import json

import pytest

from mlo.cli import main

from .called import joined


@pytest.fixture
def runs(tiny):
    for name, seed in (("a", "0"), ("b", "1")):
        assert main(["run", "tiny", "--quiet", "--first-seed", seed, "--out", name]) == 0
    return tiny


@pytest.fixture
def written(monkeypatch):
    """What the page is made of, with a page in the place of the real one."""
    from mlo import report

    found = []

    def write_report(recorded, path):
        found.append([run.path.name for run in recorded])
        path.write_text("page")

    monkeypatch.setattr(report, "write_report", write_report)
    return found


@pytest.mark.parametrize(
    ("words", "page"),
    [
        ("report a", "a/report.html"),
        ("report a b", "comparison.html"),
        ("report a --out page.html", "page.html"),
        ("report --out page.html b a", "page.html"),
    ],
)
def test_a_page_is_written_where_it_says(runs, capsys, written, words, page):
    capsys.readouterr()
    assert main(words.split()) == 0
    assert capsys.readouterr().out == f"written to {page}\n"
    assert (runs / page).read_text() == "page"
    assert written == [[word for word in words.split() if word in {"a", "b"}]]


def test_the_real_page_is_one_of_html(runs, capsys):
    assert main(["report", "a", "b"]) == 0
    text = (runs / "comparison.html").read_text()
    assert text.lstrip().lower().startswith("<!doctype html>")
    assert "tiny" in text


def test_unfinished_runs_are_named_with_their_state(runs, capsys, written):
    state = json.loads((runs / "b/run.json").read_text())
    (runs / "b/run.json").write_text(json.dumps({**state, "status": "running"}))
    (runs / "b/seed-1/walk/done.json").unlink()
    capsys.readouterr()
    assert main(["report", "a", "b"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "written to comparison.html"
    assert lines[1:] == [
        "b: cut off: 0 of 1 stages are over; seed 1, walk: 3 of 3 ticks",
    ]


@pytest.mark.parametrize("words", ["report absent", "report a absent", "report absent --out x"])
def test_without_a_run_folder_nothing_is_written(runs, capsys, words):
    before = sorted(runs.rglob("*"))
    capsys.readouterr()
    assert main(words.split()) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "'absent/run.json'" in joined(printed.err)
    assert sorted(runs.rglob("*")) == before


def test_a_folder_for_the_page_that_is_absent_is_named(runs, capsys):
    assert main(["report", "a", "--out", "absent/page.html"]) == 2
    assert "'absent' to be a folder" in joined(capsys.readouterr().err)
