"""The results of the study as rows of text, for the terminal and for its page."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.table import Table

from problems.nas.genotype import MacroGenotype, read_genotype
from problems.nas.study.plan import BUDGET, RATES
from problems.nas.study.trial import accuracy_of
from problems.publishing import Numbers
from problems.tables import Rows, as_table, mean_and_error, with_error

Result = Mapping[str, Any]


def accuracies(result: Result) -> list[float]:
    """Test accuracy of every seed, in %."""
    return [100 * accuracy_of(run) for run in result["runs"]]


def accuracy_rows(numbers: Numbers) -> Rows:
    """Every method: test accuracy, the difference to the first one seed by seed, and sizes."""
    first = accuracies(_of(numbers, BUDGET))
    means = (mean_and_error(accuracies(result))[0] for result in numbers["results"])
    best = max((mean for mean in means if not math.isnan(mean)), default=math.nan)
    heads = ["method", "test accuracy in %", f"{BUDGET} less this", "parameters", "search, s"]
    rows = [heads]
    for result in numbers["results"]:
        found = accuracies(result)
        text = with_error(found)
        gaps = [a - b for a, b in zip(first, found, strict=True)]
        rows.append(
            [
                result["method"],
                f"**{text}**" if mean_and_error(found)[0] == best else text,
                "" if result["method"] == BUDGET else with_error(gaps),
                _mean(run["parameters"] for run in result["runs"] if "parameters" in run),
                _search_seconds(result),
            ]
        )
    return rows


def seed_rows(numbers: Numbers) -> Rows:
    """The accuracy of each seed."""
    heads = ["method", *(f"seed {seed}" for seed in numbers["seeds"])]
    return [heads, *([r["method"], *(f"{a:.1f}" for a in accuracies(r))] for r in _all(numbers))]


def choice_rows(numbers: Numbers) -> Rows:
    """How often each operation was chosen for a layer, over all seeds."""
    counted = {r["method"]: _choices(r["runs"]) for r in _all(numbers)}
    names = sorted({name for counts in counted.values() for name in counts})
    heads = ["method", *names]
    return [heads, *([m, *(str(c[name] or "") for name in names)] for m, c in counted.items())]


def genotype_rows(numbers: Numbers) -> Rows:
    """What each search found."""
    rows = [["method", "seed", "layers", "accuracy in %"]]
    for result in _all(numbers):
        for seed, run in zip(numbers["seeds"], result["runs"], strict=True):
            layers = ", ".join(_layers(run))
            rows.append([result["method"], str(seed), layers, f"{100 * accuracy_of(run):.1f}"])
    return rows


def tuned_rows(numbers: Numbers) -> Rows:
    """Held-out accuracy of each rate that was tried; the chosen one is bold."""
    rows = [["method", *(f"rate {rate:g}" for rate in RATES)]]
    for entry in numbers["tuned"]:
        cells = [
            f"**{100 * a:.1f}**" if rate == entry["rate"] else f"{100 * a:.1f}"
            for rate, a in zip(RATES, map(float, entry["accuracies"]), strict=True)
        ]
        rows.append([entry["method"], *cells])
    return rows


def compute_rows(numbers: Numbers) -> Rows:
    """What the searches computed."""
    rows = [["method", "ticks", "10^9 operations a tick", "10^9 operations"]]
    for name, cost in numbers["operations_of_a_tick"].items():
        ticks = numbers["search_ticks"][name]
        rows.append([name, str(ticks), f"{cost / 1e9:.2f}", f"{ticks * cost / 1e9:.0f}"])
    for result in _all(numbers):
        tried = [run["tried"] for run in result["runs"] if "tried" in run]
        if tried:
            count = statistics.mean(len(t["ticks"]) for t in tried)
            ticks = statistics.mean(sum(t["ticks"]) for t in tried)
            cost = statistics.mean(t["operations"] for t in tried)
            name = f"{result['method']} ({count:.0f} candidates)"
            rows.append([name, f"{ticks:.0f}", f"{cost / ticks / 1e9:.2f}", f"{cost / 1e9:.0f}"])
    return rows


def tables(numbers: Numbers) -> list[Table]:
    """The tables for the terminal."""
    return [
        as_table("what the searches found, trained from scratch", accuracy_rows(numbers)),
        as_table("accuracy in % of each seed", seed_rows(numbers)),
    ]


def notes(numbers: Numbers) -> list[str]:
    """What the tables do not say."""
    return [
        f"means and standard errors over {len(numbers['seeds'])} seeds; the architecture's rate "
        f"was chosen on {len(numbers['tuning_seeds'])} others, on the share of the training set "
        "that architectures are judged on.",
        "All searches compute as much as that of LFM, in floating-point operations.",
    ]


def _all(numbers: Numbers) -> Sequence[Result]:
    found: Sequence[Result] = numbers["results"]
    return found


def _of(numbers: Numbers, method: str) -> Result:
    (found,) = (r for r in _all(numbers) if r["method"] == method)
    return found


def _layers(run: Mapping[str, Any]) -> tuple[str, ...]:
    if "genotype" not in run:
        return ("failed",)
    genotype = read_genotype(run["genotype"])
    return genotype.layers if isinstance(genotype, MacroGenotype) else ()


def _choices(runs: Sequence[Mapping[str, Any]]) -> Counter[str]:
    return Counter(name for run in runs for name in _layers(run))


def _mean(values: Iterable[float]) -> str:
    found = list(values)
    return f"{statistics.mean(found):,.0f}" if found else ""


def _search_seconds(result: Result) -> str:
    return _mean(
        seconds
        for run in result["runs"]
        for stage, seconds in run.get("seconds", {}).items()
        if stage.endswith("search")
    )
