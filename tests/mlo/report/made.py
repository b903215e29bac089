"""Run folders as a run leaves them, written here by hand, with any numbers."""

from __future__ import annotations

import json
import math
import pathlib

from mlo.recorded import RecordedRun, read_run

DRAWING = {
    "problems": [
        {"name": "low", "level": 0, "kind": "staged", "method": "Neumann", "streams": ["train"]},
        {"name": "high", "level": 1, "kind": "upper", "method": None, "streams": []},
    ],
    "edges": [
        {"read": "low", "by": "high", "response": True},
        {"read": "high", "by": "low", "response": False},
    ],
}
VERSIONS = {
    "mlo-engine": "0.1.0",
    "torch": "2.9",
    "platform": "a machine",
    "cpu_count": 2,
    "devices": ["cpu"],
}


def word(value):
    """A float as a record holds it."""
    return value if math.isfinite(value) else str(value)


def start(drawing=DRAWING):
    return {
        "kind": "start",
        "ticks": 3,
        "problems": ["low", "high"],
        "graph": "level 1  high",
        "drawing": drawing,
    }


def move(problem, loss, norm=1.0, metrics=None, responses=()):
    return {
        "problem": problem,
        "loss": word(loss),
        "gradient_norm": word(norm),
        "learning_rate": 0.1,
        "metrics": metrics or {},
        "responses": list(responses),
    }


def response(residual=0.1, outcome="converged", products=3, solves=1):
    return {
        "problem": "low",
        "method": "Neumann",
        "solves": solves,
        "products": products,
        "residual": None if residual is None else word(residual),
        "outcome": outcome,
    }


def tick(number, *moves):
    return {"kind": "tick", "tick": number, "seconds": 0.5, "moves": list(moves)}


def evaluation(number, name, metrics, distributions=None):
    return {
        "kind": "evaluation",
        "tick": number,
        "name": name,
        "seconds": 0.25,
        "metrics": {k: word(v) for k, v in metrics.items()},
        "distributions": distributions or {},
    }


def distribution(percentiles, count=100):
    numbers = [word(p) for p in percentiles]
    return {"count": count, "mean": sum(percentiles) / len(percentiles), "percentiles": numbers}


def records(ticks=12, seed=0, responses=True):
    """A start, ticks of two problems, an evaluation every third tick, and an end."""
    lines = [start()]
    for t in range(ticks):
        asked = [response(0.5 ** (t + seed + 1))] if responses else []
        lines.append(
            tick(
                t,
                move("low", 2.0 / (t + 1) + seed),
                move("high", 1.0 + seed, 0.1**t, {"gain": t}, asked),
            )
        )
        if t % 3 == 2:
            spread = distribution([p * (seed + 1) / 100 for p in range(101)])
            lines.append(evaluation(t, "test", {"accuracy": t / ticks + seed / 10}))
            lines.append(evaluation(t, "weights", {"good": 0.5}, {"good": spread}))
    return [*lines, {"kind": "end"}]


def made(
    path: pathlib.Path,
    stages: dict,
    *,
    status: str = "completed",
    reason: str = "all stages were run",
    config: dict | None = None,
    recipe: str = "made",
    metrics: tuple = (),
    done: bool = True,
) -> RecordedRun:
    """Write a run folder and read it.

    Args:
        path: the folder.
        stages: stage -> seed -> lines of its records.
        metrics: (seed, stage, evaluation, name, value) of the stages that are over.
        done: whether all stages that have records are over.
    """
    seeds = max((len(of) for of in stages.values()), default=1)
    path.mkdir(parents=True)
    state = {
        "recipe": recipe,
        "stages": dict.fromkeys(stages, 12),
        "status": status,
        "reason": reason,
        "started": "2026-01-02T03:04:05+00:00",
        "ended": None if status == "running" else "2026-01-02T03:05:05+00:00",
        "seconds": 0 if status == "running" else 60.0,
    }
    write(path / "run.json", state)
    write(path / "config.json", {"seeds": seeds, "first_seed": 0, **(config or {})})
    write(path / "versions.json", VERSIONS)
    for stage, of in stages.items():
        for seed, lines in of.items():
            folder = path / f"seed-{seed}" / stage.lower().replace(" ", "-")
            folder.mkdir(parents=True)
            text = "".join(json.dumps(line) + "\n" for line in lines)
            (folder / "records.jsonl").write_text(text)
            own = [m for m in metrics if m[:2] == (seed, stage)]
            names = ("seed", "stage", "evaluation", "name", "value")
            plain = [dict(zip(names, (*m[:4], word(m[4])), strict=True)) for m in own]
            if done:
                write(folder / "done.json", {"metrics": plain})
    return read_run(path)


def complete(path: pathlib.Path, seeds: int = 3, **more) -> RecordedRun:
    """A complete run of two stages."""
    stages = {name: {s: records(seed=s) for s in range(seeds)} for name in ("first", "second")}
    metrics = tuple(
        (s, name, "test", "accuracy", 0.123456 + s / 7 + place)
        for s in range(seeds)
        for place, name in enumerate(stages)
    )
    return made(path, stages, metrics=metrics, **more)


def write(path, value):
    path.write_text(json.dumps(value))
