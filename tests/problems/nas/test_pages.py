"""Pages whose numbers are committed say what their results say."""

from __future__ import annotations

import json

import pytest

from problems.nas.benchmarks import cost_page
from problems.nas.study import publish
from problems.publishing import with_tables

PAGES = {
    "costs": (cost_page.PAGE, cost_page.RESULTS, cost_page.TABLES),
    "study": (publish.PAGE, publish.RESULTS, publish.TABLES),
}


@pytest.mark.parametrize("name", PAGES)
def test_the_tables_of_a_page_are_those_of_its_results(name):
    page, results, tables = PAGES[name]
    text = page.read_text(encoding="utf-8")
    assert with_tables(str(page), text, tables, json.loads(results.read_text())) == text


def test_full_size_steps_take_the_fewest_passes():
    ticks = json.loads(cost_page.RESULTS.read_text())["ticks"]
    assert len(ticks) == 9
    assert all(tick["passes"] == tick["least"] for tick in ticks)
    for tick in ticks:
        if tick["program"] == "lfm" and not tick["lookahead"]:
            encoder = tick["passes"]["encoder"]
            assert (encoder["forward"], encoder["backward"], encoder["double"]) == (2, 2, 0)
