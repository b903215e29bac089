"""How the cost of a hypergradient grows with the graph."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

import mlo


def diamonds(count: int, repeats: int) -> dict[str, Any]:
    """A row of diamonds: 2 ** count paths from the lowest problem to the top."""
    evaluations = 0

    def loss() -> Callable[..., Tensor]:
        def of(*read: nn.ParameterDict) -> Tensor:
            nonlocal evaluations
            evaluations += 1
            own, others = read[0]["w"], [r["w"] for r in read[1:]]
            return 0.5 * (own - torch.tanh(torch.stack(others).sum(0))).square().sum()

        return of

    reads: dict[str, list[str]] = {"n0": ["top"]}
    for i in range(count):
        reads[f"l{i}"], reads[f"r{i}"] = [f"n{i}"], [f"n{i}"]
        reads[f"n{i + 1}"] = [f"l{i}", f"r{i}"]
    problems = [_scalar(name, loss(), (name, *others)) for name, others in reads.items()]
    problems.append(_scalar("top", lambda node: node["w"].square().sum(), (f"n{count}",)))
    engine = mlo.Engine(problems, dry_run=False)
    engine.hypergradient("top")
    evaluations, seconds = 0, []
    for _ in range(repeats):
        started = time.perf_counter()
        engine.hypergradient("top")
        seconds.append(time.perf_counter() - started)
    return {
        "diamonds": count,
        "paths": 2**count,
        "seconds": statistics.median(seconds),
        "loss evaluations": evaluations // repeats,
    }


def _scalar(name: str, loss: Callable[..., Tensor], reads: tuple[str, ...]) -> mlo.Problem:
    return mlo.Problem(
        name,
        params={"w": torch.full((4,), 0.3)},
        loss=loss,
        reads=reads,
        optimizer=lambda params: torch.optim.SGD(params, 0.5),
    )
