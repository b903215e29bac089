"""The benchmark `reweighting-study`: every program tuned alike, and what LFM's parts are worth."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import rich.console
from pydantic import Field
from rich.progress import Progress

from mlo.benchmark import Benchmark, BenchmarkResults
from mlo.configuration import combine
from problems.reweighting.study import rendering
from problems.reweighting.study.compute import relative_cost
from problems.reweighting.study.plan import ABLATIONS, BASE, CASES, COMMON, DAMAGE, GRID, network
from problems.reweighting.study.trial import accuracy_of, run_trial, trial_settings
from problems.studying import Kept, StudySettings, Trial, best_of, counting, run_all


class StudyConfig(StudySettings):
    """Seeds, processes, and where results are kept."""

    ablation_seeds: int = Field(3, ge=1, description="of these, those of the ablations")
    held_per_class: int = Field(10, ge=1, description="clean examples a class they are chosen by")


class Study(Benchmark[StudyConfig]):
    """Tunes every method on seeds of its own, then runs it, and LFM's ablations, on others."""

    name = "reweighting-study"
    summary = "Does learning from mistakes help? All programs tuned alike, and ablations."
    config = StudyConfig

    def run(self, config: StudyConfig, console: rich.console.Console) -> BenchmarkResults:
        """Tune, then measure."""
        kept = Kept(config.kept)
        with counting(console) as progress:
            tuned = _tune(config, kept, progress)
            costs = {data: relative_cost(data) for data in BASE}
            found = _measure(config, kept, progress, tuned, costs)
        numbers = {
            "seeds": list(range(config.seeds)),
            "ablation_seeds": list(range(min(config.ablation_seeds, config.seeds))),
            "tuning_seeds": config.held_out_seeds,
            "held_per_class": config.held_per_class,
            "base": combine(COMMON, {"data": BASE, "damage": DAMAGE}),
            "relative_cost_of_lfm": costs,
            "grid": {method: list(tried) for method, tried in GRID.items()},
            "tuned": tuned,
            "results": found,
        }
        return BenchmarkResults(numbers, rendering.tables(numbers), rendering.notes(numbers))


def _tune(config: StudyConfig, kept: Kept, progress: Progress) -> list[dict[str, Any]]:
    """The accuracy of every configuration on held-out clean examples, and the best of each."""
    seeds = config.held_out_seeds
    held = {"held_per_class": config.held_per_class}
    places = [
        (data, damage, method, own)
        for data, damage in CASES
        for method, grid in GRID.items()
        for own in grid
    ]
    trials = [
        Trial(_shortened(trial_settings(*place[:3], combine(place[3], held)), config), seed)
        for place in places
        for seed in seeds
    ]
    task = progress.add_task("choosing settings", total=len(trials))
    results = run_all(
        run_trial, trials, kept, workers=config.workers, done=lambda: progress.advance(task)
    )
    groups: dict[tuple[str, str, str], list[float]] = {}
    for data, damage, method, _ in places:
        values = [accuracy_of(next(results), network(method)) for _ in seeds]
        groups.setdefault((data, damage, method), []).append(sum(values) / len(values))
    return [
        {
            "data": data,
            "damage": damage,
            "method": method,
            "accuracies": values,
            "chosen": GRID[method][best_of(values)],
        }
        for (data, damage, method), values in groups.items()
    ]


def _measure(
    config: StudyConfig,
    kept: Kept,
    progress: Progress,
    tuned: list[dict[str, Any]],
    costs: Mapping[str, float],
) -> list[dict[str, Any]]:
    """Every method as it was tuned, and the ablations, on the reported seeds."""
    places: list[tuple[str, str, str, Any, str]] = []
    for data, damage in CASES:
        chosen: dict[str, Any] = {
            entry["method"]: entry["chosen"]
            for entry in tuned
            if (entry["data"], entry["damage"]) == (data, damage)
        }
        longer = _equal_compute(data, chosen["plain"], costs[data])
        changed = {name: combine(chosen["lfm"], own) for name, own in ABLATIONS.items()}
        roles = {"method": chosen, "equal compute": longer, "ablation": changed}
        places += [
            (data, damage, name, own, role)
            for role, group in roles.items()
            for name, own in group.items()
        ]
    seeds = {"ablation": range(min(config.ablation_seeds, config.seeds))}
    trials = [
        Trial(_shortened(trial_settings(data, damage, _runs(name, role), own), config), seed)
        for data, damage, name, own, role in places
        for seed in seeds.get(role, range(config.seeds))
    ]
    task = progress.add_task("measuring", total=len(trials))
    results = run_all(
        run_trial, trials, kept, workers=config.workers, done=lambda: progress.advance(task)
    )
    return [
        {
            "data": data,
            "damage": damage,
            "name": name,
            "role": role,
            "settings": own,
            "runs": [next(results) for _ in seeds.get(role, range(config.seeds))],
        }
        for data, damage, name, own, role in places
    ]


def _equal_compute(data: str, plain: Mapping[str, Any], cost: float) -> dict[str, dict[str, Any]]:
    """One network trained for as much computation as LFM takes, and two for half of it each."""
    ticks = BASE[data]["ticks"]
    return {
        "plain, equal compute": combine(plain, {"ticks": round(cost * ticks)}),
        "ensemble, equal compute": combine(plain, {"ticks": round(cost * ticks / 2)}),
    }


def _runs(name: str, role: str) -> str:
    return "lfm" if role == "ablation" else name


def _shortened(settings: dict[str, Any], config: StudyConfig) -> dict[str, Any]:
    return {**settings, "ticks": -(-settings["ticks"] // config.shorten)}


study = Study()
