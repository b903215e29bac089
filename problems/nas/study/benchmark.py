"""The benchmark `nas-study`: LFM, DARTS and searches without a supernet, at equal compute."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import rich.console
from rich.progress import Progress

from mlo.benchmark import Benchmark, BenchmarkResults
from mlo.configuration import combine
from problems.nas.study import rendering
from problems.nas.study.candidates import Candidate, random_candidates, single_candidates
from problems.nas.study.compute import given, operations, training_operations
from problems.nas.study.plan import (
    BUDGET,
    COMMON,
    DRAWN,
    PROXY_TICKS,
    RANDOM,
    RATES,
    SEARCHES,
    SINGLE,
    TUNED,
    tuned_as,
)
from problems.nas.study.trial import accuracy_of, run_trial
from problems.studying import Kept, StudySettings, Trial, best_of, counting, run_all


class Study(Benchmark[StudySettings]):
    """Chooses the architecture's rate on seeds of its own, then compares on others."""

    name = "nas-study"
    summary = "LFM against DARTS, random search and the best single operation, at equal compute."
    config = StudySettings

    def run(self, config: StudySettings, console: rich.console.Console) -> BenchmarkResults:
        """Tune, search, choose among candidates, and train what was chosen from scratch."""
        with counting(console) as progress:
            study = _Running(config, Kept(config.kept), progress)
            costs = {name: operations(own) for name, own in SEARCHES.items()}
            tuned = study.tune(costs)
            chosen = {entry["method"]: entry["rate"] for entry in tuned}
            results = study.searches(costs, chosen)
            results += study.without_supernet(costs[BUDGET] * study.ticks(BUDGET, costs))
        numbers = {
            "seeds": list(range(config.seeds)),
            "tuning_seeds": config.held_out_seeds,
            "base": COMMON,
            "operations_of_a_tick": costs,
            "search_ticks": {name: study.ticks(name, costs) for name in SEARCHES},
            "tuned": tuned,
            "results": results,
        }
        return BenchmarkResults(numbers, rendering.tables(numbers), rendering.notes(numbers))


class _Running:
    """The parts of the study, which share processes and what is kept."""

    def __init__(self, config: StudySettings, kept: Kept, progress: Progress) -> None:
        self.config, self.kept, self.progress = config, kept, progress

    def ticks(self, method: str, costs: Mapping[str, int]) -> int:
        """Ticks of a search that computes as much as that which sets the budget."""
        ticks = COMMON["search"]["ticks"] * costs[BUDGET] / costs[method]
        return max(1, round(ticks / self.config.shorten))

    def tune(self, costs: Mapping[str, int]) -> list[dict[str, Any]]:
        """For each method, the rate whose genotypes are best on the share that is held out."""
        places = [(method, rate) for method in TUNED for rate in RATES]
        seeds = self.config.held_out_seeds
        held = {"evaluation": {"on": "search"}}
        trials = [
            Trial(combine(self._search(method, rate, costs), held), seed)
            for method, rate in places
            for seed in seeds
        ]
        runs = iter(self._run("choosing the rate", trials))
        found: dict[str, list[float]] = {}
        for method, _ in places:
            values = [accuracy_of(next(runs)) for _ in seeds]
            found.setdefault(method, []).append(sum(values) / len(values))
        return [
            {"method": method, "accuracies": values, "rate": RATES[best_of(values)]}
            for method, values in found.items()
        ]

    def searches(
        self, costs: Mapping[str, int], chosen: Mapping[str, float]
    ) -> list[dict[str, Any]]:
        """Every method with a supernet, on the reported seeds."""
        trials = [
            Trial(self._search(method, chosen[tuned_as(method)], costs), seed)
            for method in SEARCHES
            for seed in range(self.config.seeds)
        ]
        runs = iter(self._run("searching and training", trials))
        return [
            {"method": method, "runs": [next(runs) for _ in range(self.config.seeds)]}
            for method in SEARCHES
        ]

    def without_supernet(self, budget: float) -> list[dict[str, Any]]:
        """Random search, the best single operation, and a random architecture."""
        groups = {
            (method, seed): found
            for seed in range(self.config.seeds)
            for method, found in {
                RANDOM: random_candidates(seed, budget, self._shorter(PROXY_TICKS)),
                SINGLE: single_candidates(budget),
            }.items()
        }
        trials = [
            Trial(self._candidate(candidate), seed)
            for (_, seed), candidates in groups.items()
            for candidate in candidates
        ]
        runs = iter(self._run("training candidates", trials))
        places, tried = [], {}
        for (method, seed), candidates in groups.items():
            values = [accuracy_of(next(runs)) for _ in candidates]
            best = candidates[best_of(values)]
            places.append((method, seed, best.genotype))
            tried[method, seed] = _told(candidates, values)
        for seed in range(self.config.seeds):
            places.append((DRAWN, seed, random_candidates(seed, 0.0)[0].genotype))
        finals = self._run(
            "training from scratch",
            [Trial(self._shortened(given(genotype)), seed) for _, seed, genotype in places],
        )
        results: dict[str, list[dict[str, Any]]] = {}
        for (method, seed, _), run in zip(places, finals, strict=True):
            told = {**run, "tried": tried[method, seed]} if (method, seed) in tried else run
            results.setdefault(method, []).append(told)
        return [{"method": method, "runs": found} for method, found in results.items()]

    def _search(self, method: str, rate: float, costs: Mapping[str, int]) -> dict[str, Any]:
        section = TUNED[tuned_as(method)]
        own = {"search": {"ticks": self.ticks(method, costs), section: {"rate": rate}}}
        return self._shortened(combine(SEARCHES[method], own))

    def _candidate(self, candidate: Candidate) -> dict[str, Any]:
        own = {"evaluation": {"on": "search", "ticks": candidate.ticks}, "evaluations": 1}
        return combine(given(candidate.genotype), own)

    def _shortened(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        return combine(
            settings, {"evaluation": {"ticks": self._shorter(COMMON["evaluation"]["ticks"])}}
        )

    def _shorter(self, ticks: int) -> int:
        return -(-ticks // self.config.shorten)

    def _run(self, what: str, trials: Sequence[Trial]) -> list[dict[str, Any]]:
        task = self.progress.add_task(what, total=len(trials))
        return list(
            run_all(
                run_trial,
                trials,
                self.kept,
                workers=self.config.workers,
                done=lambda: self.progress.advance(task),
            )
        )


def _told(candidates: Sequence[Candidate], values: Sequence[float]) -> dict[str, Any]:
    """What was tried, for the results."""
    return {
        "genotypes": [candidate.genotype for candidate in candidates],
        "ticks": [candidate.ticks for candidate in candidates],
        "accuracies": list(values),
        "operations": sum(c.ticks * training_operations(c.genotype) for c in candidates),
    }


study = Study()
"""The benchmark, as it is offered to the command line."""
