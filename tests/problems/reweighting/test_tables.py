"""Tables of `reweighting`: the right numbers in few enough columns."""

from __future__ import annotations

import io
import math
import statistics

import pytest
from rich.console import Console

from mlo.metrics import Metric
from problems.reweighting.tables import tables

from .handed import STAGES


def accuracy(stage: str, seed: int) -> float:
    return 0.5 + 0.01 * STAGES.index(stage) + 0.003 * (seed % 10) ** 2


def measured(seeds, *, worst=True, weights=("clean", "corrupted")):
    """Final metrics in the recipe's form; the relearner is a tenth better."""
    for seed in seeds:
        for stage in STAGES:
            of = accuracy(stage, seed)
            names = {"lfm": ("learner", "relearner"), "ensemble": ("members",)}
            for network in names.get(stage, ("classifier",)):
                value = of + 0.1 * (network == "relearner")
                yield Metric(seed, stage, network, "accuracy", value)
                yield Metric(seed, stage, network, "loss", 2.0)
                if worst:
                    yield Metric(seed, stage, network, "worst class", value / 2)
            if stage in ("l2rw", "lfm"):
                for kind in weights:
                    factor = 1 if kind == "clean" else 0.25
                    yield Metric(seed, stage, "weights", kind, of * factor)


def cells(table) -> dict[str, list[str]]:
    """First cell of a row -> the others, as they stand in the table."""
    columns = [[str(cell) for cell in column.cells] for column in table.columns]
    return {row[0]: list(row[1:]) for row in zip(*columns, strict=True)}


def headings(table) -> list[str]:
    return [str(column.header).replace("\n", " ") for column in table.columns]


def printed(table) -> str:
    text = io.StringIO()
    Console(file=text, width=80).print(table)
    return text.getvalue()


def test_a_row_for_each_network_with_mean_spread_worst_class_and_weights():
    first, second = tables("digits", list(measured(range(3))))
    assert headings(first)[1:] == [
        "accuracy %",
        "spread %",
        "worst class %",
        "weight clean",
        "weight corrupted",
    ]
    rows = cells(first)
    assert list(rows) == [*STAGES[:-1], "lfm learner", "lfm relearner"]
    for name, row in rows.items():
        stage = name.split(" ")[0]
        of = [accuracy(stage, seed) + 0.1 * (name == "lfm relearner") for seed in range(3)]
        mean, spread = statistics.mean(of), statistics.stdev(of)
        assert row[:3] == [f"{100 * mean:.2f}", f"{100 * spread:.2f}", f"{50 * mean:.2f}"]
        weight = statistics.mean(accuracy(stage, seed) for seed in range(3))
        some = stage in ("l2rw", "lfm")
        assert row[3:] == ([f"{weight:.3f}", f"{weight / 4:.3f}"] if some else ["-", "-"])
    assert "3 seeds" in printed(first)
    assert headings(second)[1:] == ["seed 0", "seed 1", "seed 2"]
    assert cells(second)["l2rw"] == [f"{100 * accuracy('l2rw', seed):.2f}" for seed in range(3)]


def test_columns_that_would_be_empty_are_left_out():
    (first, _) = tables("digits", list(measured(range(2), worst=False, weights=("clean",))))
    assert headings(first)[1:] == ["accuracy %", "spread %", "weight clean"]
    (first, _) = tables("digits", list(measured(range(2), weights=())))
    assert headings(first)[1:] == ["accuracy %", "spread %", "worst class %"]
    assert tables("digits", []) == []


def test_one_seed_has_no_spread_and_no_table_of_its_own():
    (only,) = tables("digits", list(measured([4])))
    assert {row[1] for row in cells(only).values()} == {"-"}
    assert cells(only)["plain"][0] == f"{100 * accuracy('plain', 4):.2f}"


@pytest.mark.parametrize("seeds", [2, 5])
def test_both_tables_fit_80_columns_with_nothing_broken(seeds):
    drawn = tables("CIFAR-10 (JPEG copy), flip 0.4", list(measured(range(100, 100 + seeds))))
    assert len(drawn) == 2
    for table in drawn:
        lines = printed(table).splitlines()
        assert max(map(len, lines)) <= 80
        # Each row on a line of its own, and nothing cut off.
        assert all(any(line.split()[:1] == [s] for line in lines) for s in STAGES)
        assert all(word in printed(table) for name in headings(table) for word in name.split())
        assert "…" not in printed(table)


def test_beyond_five_seeds_there_are_means_only():
    (only,) = tables("digits", list(measured(range(6))))
    assert "6 seeds" in printed(only)


def test_a_seed_that_a_network_lacks_is_a_dash_and_nan_stays_nan():
    metrics = [m for m in measured(range(2)) if (m.seed, m.stage) != (1, "focal")]
    metrics.append(Metric(1, "focal", "classifier", "worst class", math.nan))
    first, second = tables("digits", metrics)
    assert cells(second)["focal"] == [f"{100 * accuracy('focal', 0):.2f}", "-"]
    assert cells(first)["focal"][1:3] == ["-", "nan"]


def test_titles_and_names_are_no_markup():
    first, _ = tables(
        "[red]digits", [Metric(s, "a[b]", "classifier", "accuracy", 1) for s in (0, 1)]
    )
    assert "[red]digits" in printed(first)
    assert "a[b]" in printed(first)
