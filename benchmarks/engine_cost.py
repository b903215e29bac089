"""What the engine costs beside a hand-written loop, and how cost grows with the graph.

    python benchmarks/engine_cost.py [--repeats 15] [--out benchmarks/results/engine_cost.json]

Loops and engine run the same program from the same start, in turn, on one thread; their losses are
compared before anything is timed. Ratios are medians over the repeats, with the quartiles.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from rich import box
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.func import functional_call

import mlo
from mlo.versions import environment
from problems.lfm import Settings, Validator, lfm_problems, mistakes
from problems.models import conv_classifier, conv_encoder

Step = Callable[[], Tensor]
"""Makes one tick and returns the upper loss."""


def tiny_engine() -> Step:
    """Logistic regression with a learned decay for each feature: mostly overhead."""
    train, valid, net, log = _tiny()

    def train_loss(net: nn.Module, decay: nn.Module, train: tuple[Tensor, Tensor]) -> Tensor:
        penalty = (decay["log"].exp() * net.weight.square()).sum()
        return F.cross_entropy(net(train[0]), train[1]) + penalty

    def valid_loss(net: nn.Module, valid: tuple[Tensor, Tensor]) -> Tensor:
        return F.cross_entropy(net(valid[0]), valid[1])

    lower = mlo.Problem(
        "net", module=net, loss=train_loss, optimizer=torch.optim.SGD(net.parameters(), 0.1)
    )
    upper = mlo.Problem(
        "decay", params={"log": log}, loss=valid_loss, optimizer=lambda p: torch.optim.SGD(p, 0.1)
    )
    engine = mlo.Engine([lower, upper], {"train": [train], "valid": [valid]})
    return lambda: engine.step().moves[-1].loss


def tiny_loop() -> Step:
    """The same by hand: one step with a graph, differentiated once more."""
    train, valid, net, log = _tiny()
    weights, decay = list(net.parameters()), log.clone().requires_grad_()
    lower, upper = torch.optim.SGD(weights, 0.1), torch.optim.SGD([decay], 0.1)

    def step() -> Tensor:
        penalty = (decay.exp() * net.weight.square()).sum()
        loss = F.cross_entropy(net(train[0]), train[1]) + penalty
        grads = torch.autograd.grad(loss, weights, create_graph=True)
        moved = [
            (p - 0.1 * g).detach().requires_grad_() for p, g in zip(weights, grads, strict=True)
        ]
        judged = F.cross_entropy(F.linear(valid[0], *moved), valid[1])
        v = [0.1 * x for x in torch.autograd.grad(judged, moved)]
        decay.grad = -torch.autograd.grad(grads, decay, v)[0]
        for p, g in zip(weights, grads, strict=True):
            p.grad = g.detach()
        lower.step()
        upper.step()
        return judged.detach()

    return step


def lfm_engine() -> Step:
    """Learning From Mistakes on small convolutional networks."""
    train, valid, learner, relearner, top = _lfm()
    problems = lfm_problems(learner, relearner, top, ticks=10_000, settings=SETTINGS)
    engine = mlo.Engine(problems, {"train": [train], "valid": [valid]}, lookahead=True)
    return lambda: next(m.loss for m in engine.step().moves if m.problem == "validator")


def lfm_loop() -> Step:
    """The same by hand; the mistakes, which both uses share, are computed once."""
    train, valid, learner, relearner, top = _lfm()
    problems = {
        p.name: p for p in lfm_problems(learner, relearner, top, ticks=10_000, settings=SETTINGS)
    }
    weights = dict(relearner.named_parameters())

    def descend(name: str, grads: list[Tensor]) -> None:
        problem = problems[name]
        for p, g in zip(problem.module.parameters(), grads, strict=True):
            p.grad = g.detach()
        problem.optimizer.step()
        problem.scheduler.step()

    def relearn(u: Tensor, params: dict[str, Tensor]) -> Tensor:
        losses = F.cross_entropy(
            functional_call(relearner, params, train[0]), train[1], reduction="none"
        )
        return (top(train, valid, u) * losses).mean()

    def step() -> Tensor:
        loss = F.cross_entropy(learner(train[0]), train[1])
        descend("learner", torch.autograd.grad(loss, list(learner.parameters())))
        with torch.no_grad():
            u = mistakes(learner(valid[0]), valid[1])
        grads = torch.autograd.grad(relearn(u, weights), list(weights.values()), create_graph=True)
        group = problems["relearner"].optimizer.param_groups[0]
        moved = {}
        for (key, p), g in zip(weights.items(), grads, strict=True):
            state = problems["relearner"].optimizer.state[p]
            decayed = g.detach() + group["weight_decay"] * p.detach()
            old = state.get("momentum_buffer")
            buffer = decayed if old is None else group["momentum"] * old + decayed
            moved[key] = (p.detach() - group["lr"] * buffer).requires_grad_()
        judged = F.cross_entropy(functional_call(relearner, moved, valid[0]), valid[1])
        v = [group["lr"] * x for x in torch.autograd.grad(judged, list(moved.values()))]
        upper = torch.autograd.grad(grads, list(top.parameters()), v)
        descend("validator", [-g for g in upper])
        with torch.no_grad():
            a = top(train, valid, u)
        losses = F.cross_entropy(relearner(train[0]), train[1], reduction="none")
        descend("relearner", torch.autograd.grad((a * losses).mean(), list(weights.values())))
        return judged.detach()

    return step


SETTINGS = Settings()


def _tiny() -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor], nn.Linear, Tensor]:
    torch.manual_seed(0)
    x, y = torch.randn(128, 20), torch.randint(0, 5, (128,))
    return (x[:64], y[:64]), (x[64:], y[64:]), nn.Linear(20, 5), torch.full((20,), -2.0)


def _lfm() -> tuple[tuple[Tensor, ...], tuple[Tensor, ...], nn.Module, nn.Module, Validator]:
    torch.manual_seed(0)
    x, y = torch.rand(200, 1, 16, 16), torch.arange(200) % 10
    index = torch.arange(100)
    train, valid = (x[:100], y[:100], index), (x[100:], y[100:], index)
    learner, relearner = conv_classifier(10), conv_classifier(10)
    return train, valid, learner, relearner, Validator(conv_encoder(), coefficients=100)


def compare(engine: Callable[[], Step], loop: Callable[[], Step], ticks: int, repeats: int) -> dict:
    """Check that both give the same losses, then time them in turn."""
    ours, theirs = engine(), loop()
    gap = max(abs(float(ours()) / float(theirs()) - 1) for _ in range(5))
    seconds: dict[str, list[float]] = {"engine": [], "loop": []}
    for _ in range(repeats):
        for name, step in (("engine", ours), ("loop", theirs)):
            started = time.perf_counter()
            for _ in range(ticks):
                step()
            seconds[name].append((time.perf_counter() - started) / ticks)
    ratios = [a / b for a, b in zip(seconds["engine"], seconds["loop"], strict=True)]
    return {
        "largest relative difference of the losses": gap,
        "engine_ms": 1e3 * statistics.median(seconds["engine"]),
        "loop_ms": 1e3 * statistics.median(seconds["loop"]),
        "ratio": statistics.median(ratios),
        "quartiles": statistics.quantiles(ratios, n=4)[::2],
    }


def diamonds(count: int, repeats: int) -> dict:
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


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--out", type=pathlib.Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    cases = {
        "logistic regression, learned decay": compare(tiny_engine, tiny_loop, 200, options.repeats),
        "LFM, three small networks": compare(lfm_engine, lfm_loop, 5, options.repeats),
    }
    rows = [diamonds(count, options.repeats) for count in (5, 10, 20, 40, 80)]
    _print(cases, rows)
    if options.out is not None:
        found = {"environment": environment(), "seed": 0, "ticks": cases, "diamonds": rows}
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


def _print(cases: dict[str, dict], rows: list[dict]) -> None:
    console = Console()
    table = Table("one tick", "engine, ms", "by hand, ms", "ratio (quartiles)", box=box.SIMPLE_HEAD)
    for name, case in cases.items():
        low, high = case["quartiles"]
        ratio = f"{case['ratio']:.2f} ({low:.2f} to {high:.2f})"
        table.add_row(name, f"{case['engine_ms']:.2f}", f"{case['loop_ms']:.2f}", ratio)
    console.print(table)
    table = Table("diamonds", "paths", "loss evaluations", "seconds", box=box.SIMPLE_HEAD)
    for row in rows:
        cells = (row["diamonds"], f"{row['paths']:.1e}", row["loss evaluations"])
        table.add_row(*map(str, cells), f"{row['seconds']:.3f}")
    console.print(table)


if __name__ == "__main__":
    main()
