"""The results of the study as rows of text, for the terminal and for its page."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from rich.table import Table

from problems.publishing import Numbers
from problems.reweighting.study.plan import network
from problems.reweighting.study.trial import accuracy_of
from problems.tables import Rows, as_table, mean_and_error, with_error

CASE_NAMES = {"digits": "digits", "mnist1d": "MNIST-1D"}


def cases(numbers: Numbers) -> list[tuple[str, str]]:
    """Data and damage of the parts of the study."""
    return list(dict.fromkeys((r["data"], r["damage"]) for r in numbers["results"]))


def case_name(case: tuple[str, str]) -> str:
    """Data and damage in words."""
    return f"{CASE_NAMES[case[0]]}, {case[1]}"


def judged(result: Mapping[str, Any]) -> str:
    """The classifier that a result is judged by."""
    return "relearner" if result["role"] == "ablation" else network(result["name"])


def accuracies(result: Mapping[str, Any], which: str | None = None) -> list[float]:
    """Accuracy of every seed, in %."""
    name = which or judged(result)
    return [100 * accuracy_of(run, name) for run in result["runs"]]


def accuracy_rows(numbers: Numbers) -> Rows:
    """Every method: test accuracy in %, mean and standard error."""
    return _by_case(
        numbers,
        ("method", "equal compute"),
        "method",
        lambda result: with_error(accuracies(result)),
        best=lambda result: mean_and_error(accuracies(result))[0],
    )


def ablation_rows(numbers: Numbers) -> Rows:
    """LFM as tuned, its learner, and every ablation, on the seeds that all of them have."""
    seeds = len(numbers["ablation_seeds"])
    found = [r for r in numbers["results"] if r["name"] == "lfm"]
    base = [{**r, "runs": r["runs"][:seeds]} for r in found]
    learner = [{**r, "name": "learner of the same run", "which": "learner"} for r in base]
    changed = [r for r in numbers["results"] if r["role"] == "ablation"]
    return _by_case(
        {**numbers, "results": [*base, *learner, *changed]},
        ("method", "ablation"),
        "LFM",
        lambda result: with_error(accuracies(result, result.get("which"))),
    )


def weight_rows(numbers: Numbers) -> Rows:
    """What the weights are at the end: right and wrong labels, or large and small classes."""

    def cell(result: Mapping[str, Any]) -> str:
        found = [run["weights"] for run in result["runs"] if "weights" in run]
        if not found:
            return ""
        if all("area" in weights for weights in found):
            area = statistics.mean(weights["area"] for weights in found)
            right, wrong = (
                statistics.mean(w[part] / _mean(w) for w in found)
                for part in ("clean", "corrupted")
            )
            return f"{right:.2f} / {wrong:.2f}, area {area:.2f}"
        large, small = (
            statistics.mean(statistics.mean(w["classes"][part]) / _mean(w) for w in found)
            for part in (slice(0, 3), slice(-3, None))
        )
        return f"{large:.2f} / {small:.2f}"

    rows = _by_case(numbers, ("method", "ablation"), "program", cell)
    return [rows[0], *(row for row in rows[1:] if any(row[1:]))]


def similarity_rows(numbers: Numbers) -> Rows:
    """LFM's similarity at the end: share of the nearest, and of the own class."""

    def cell(result: Mapping[str, Any]) -> str:
        found = [run["similarity"] for run in result["runs"] if "similarity" in run]
        if not found:
            return ""
        return " / ".join(f"{statistics.mean(s[part] for s in found):.2f}" for part in found[0])

    rows = _by_case(numbers, ("method", "ablation"), "LFM", cell)
    return [rows[0], *(row for row in rows[1:] if any(row[1:]))]


def chosen_rows(numbers: Numbers) -> Rows:
    """The settings that were chosen, and the accuracy on held-out examples that chose them."""
    rows = [["method", *map(case_name, cases(numbers))]]
    for method in numbers["grid"]:
        row = [method]
        for case in cases(numbers):
            (entry,) = (
                e
                for e in numbers["tuned"]
                if (e["data"], e["damage"], e["method"]) == (*case, method)
            )
            row.append(f"{_settings(entry['chosen'])} ({100 * _largest(entry['accuracies']):.1f})")
        rows.append(row)
    return rows


def _largest(values: Iterable[float | str]) -> float:
    """The largest; what failed is NaN, which a file holds as a word, and so is nothing."""
    return max((found for found in map(float, values) if not math.isnan(found)), default=math.nan)


def tables(numbers: Numbers) -> list[Table]:
    """The tables for the terminal."""
    titles = {
        "test accuracy in %, mean (standard error)": accuracy_rows(numbers),
        "LFM with one change": ablation_rows(numbers),
    }
    return [as_table(title, rows) for title, rows in titles.items()]


def notes(numbers: Numbers) -> list[str]:
    """What the tables do not say."""
    costs = ", ".join(
        f"{cost:.1f} on {CASE_NAMES[data]}"
        for data, cost in numbers["relative_cost_of_lfm"].items()
    )
    return [
        f"{len(numbers['seeds'])} seeds; settings were chosen on {len(numbers['tuning_seeds'])} "
        f"others by {numbers['held_per_class']} clean held-out examples a class.",
        f"A tick of LFM takes as many floating-point operations as {costs} of plain training.",
    ]


def _by_case(
    numbers: Numbers,
    roles: Iterable[str],
    head: str,
    cell: Callable[[Mapping[str, Any]], str],
    best: Callable[[Mapping[str, Any]], float] | None = None,
) -> Rows:
    """A row for each name, a column for each case; the best of a column is bold."""
    chosen = [r for r in numbers["results"] if r["role"] in roles]
    places = {(r["name"], r["data"], r["damage"]): r for r in chosen}
    tops = {
        case: _largest(best(r) for r in chosen if (r["data"], r["damage"]) == case)
        if best
        else None
        for case in cases(numbers)
    }
    rows = [[head, *map(case_name, cases(numbers))]]
    for name in dict.fromkeys(r["name"] for r in chosen):
        row = [name]
        for case in cases(numbers):
            result = places[name, *case]
            text = cell(result)
            row.append(f"**{text}**" if best and best(result) == tops[case] else text)
        rows.append(row)
    return rows


def _mean(weights: Mapping[str, Any]) -> float:
    return max(float(weights["mean"]), 1e-300)


def _settings(own: Mapping[str, Any], section: str = "") -> str:
    """Settings as they are typed; the section `training` goes without saying."""
    prefix = "" if section in ("", "training") else f"{section}."
    return ", ".join(
        _settings(value, name) if isinstance(value, Mapping) else f"{prefix}{name} {_plain(value)}"
        for name, value in own.items()
    )


def _plain(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else json.dumps(value)
