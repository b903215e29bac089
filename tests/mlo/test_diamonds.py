"""Many diamonds in a row: paths double with each, and the cost may only add up."""

from __future__ import annotations

import time
from collections import Counter

import networkx as nx
import pytest
import torch
from torch import Tensor

import mlo

COUNT = 40
CURVATURES = (1.0, 2.0, 3.0, 4.0)


def bend(r: Tensor) -> Tensor:
    return r + 0.1 * torch.sin(r)


def left(s: Tensor) -> Tensor:
    return bend(0.55 * s)


def right(s: Tensor) -> Tensor:
    return bend(0.4 * s)


def join(a: Tensor, b: Tensor) -> Tensor:
    return bend(a + b)


def chain(x: Tensor, diamonds: int) -> dict[str, Tensor]:
    """All solutions in closed form; plain autograd gives the derivative of the last."""
    found = {"s0": bend(x)}
    for i in range(diamonds):
        s = found[f"s{i}"]
        found[f"a{i}"], found[f"b{i}"] = left(s), right(s)
        found[f"s{i + 1}"] = join(found[f"a{i}"], found[f"b{i}"])
    return found


def diamonds(
    count: int, method: mlo.Hypergradient, rate: float = 0.1, **settings: object
) -> tuple[mlo.Engine, Counter]:
    """top -> s0, then si -> ai, bi -> s(i+1) for every diamond, and the last -> top."""
    calls: Counter = Counter()
    x = torch.tensor(1.3)
    start = chain(x, count)
    # Every problem pulls its number to a function of what it reads, each with its own curvature.
    reads = {"s0": ("top", bend)}
    for i in range(count):
        reads[f"a{i}"] = (f"s{i}", left)
        reads[f"b{i}"] = (f"s{i}", right)
        reads[f"s{i + 1}"] = (f"a{i}", f"b{i}", join)

    def loss_of(name: str, target, curvature: float):
        def loss(own, *others):
            calls[name] += 1
            goal = target(*(other["w"] for other in others))
            return curvature / 2 * (own["w"] - goal) ** 2

        return loss

    def judge(last, top):
        calls["top"] += 1
        return torch.sin(2 * last["w"]) + top["w"] * last["w"]

    sgd = lambda params: torch.optim.SGD(params, rate)  # noqa: E731
    problems = [
        mlo.Problem(
            name,
            params={"w": start[name]},
            loss=loss_of(name, target, CURVATURES[i % 4]),
            reads=(name, *others),
            optimizer=sgd,
            hypergradient=method,
        )
        for i, (name, (*others, target)) in enumerate(reads.items())
    ]
    top = mlo.Problem("top", params={"w": x}, loss=judge, reads=(f"s{count}", "top"), optimizer=sgd)
    return mlo.Engine([*problems, top], **settings), calls


def expected(count: int) -> Tensor:
    x = torch.tensor(1.3).requires_grad_()
    last = chain(x, count)[f"s{count}"]
    (slope,) = torch.autograd.grad(torch.sin(2 * last) + x * last, x)
    return slope


EXACT = {
    "dense": mlo.Dense(),
    "conjugate gradients": mlo.ConjugateGradient(iterations=2, tolerance=1e-14),
    # 0.6^75 is below rounding, for the smallest curvature and the largest.
    "neumann": mlo.Neumann(terms=75, alpha=0.4),
}


def test_there_are_more_than_a_million_million_paths():
    graph = diamonds(COUNT, mlo.Dense())[0].graph
    edges = graph.to_networkx()
    edges.remove_edge("top", "s0")
    paths = {"s0": 1}
    for name in nx.topological_sort(edges):
        paths.setdefault(name, sum(paths[p] for p in edges.predecessors(name)))
    assert paths["top"] == 2**COUNT > 10**12


@pytest.mark.parametrize("method", EXACT)
def test_one_hypergradient_of_forty_diamonds_is_right_and_fast(method):
    engine, _ = diamonds(COUNT, EXACT[method])
    started = time.process_time()
    found = engine.hypergradient("top")["w"]
    seconds = time.process_time() - started
    want = expected(COUNT)
    # 121 solves in a row, each good to rounding.
    assert abs(found - want) < 1e-11 * abs(want)
    direct = chain(torch.tensor(1.3), COUNT)[f"s{COUNT}"]
    assert abs(want - direct) > 0.01, "the routes through the diamonds carry nothing"
    assert seconds < 2.0


@pytest.mark.parametrize(
    ("method", "settings", "evaluations"),
    [
        # One for the response alone.
        (mlo.Dense(), {}, 1),
        (mlo.ConjugateGradient(), {}, 1),
        (mlo.Neumann(terms=3), {}, 1),
        # The trial move's own graph serves its response.
        (mlo.OneStep(), {"lookahead": True}, 1),
        (mlo.OneStep(), {"lookahead": True, "retain": False}, 2),
        (mlo.FiniteDifference(), {"lookahead": True}, 3),
        (mlo.Dense(), {"lookahead": True}, 2),
    ],
)
def test_every_loss_is_evaluated_equally_often_however_many_diamonds(method, settings, evaluations):
    for count in (5, 10, 20, COUNT):
        engine, calls = diamonds(count, method, **settings)
        calls.clear()
        engine.hypergradient("top")
        # 3 problems a diamond, and the first.
        assert len(calls) == 3 * count + 2
        assert calls.pop("top") == 1
        assert set(calls.values()) == {evaluations}


def test_one_step_of_forty_diamonds_is_the_derivative_of_all_their_steps():
    """By look-ahead every problem steps from where it stands, on what those below stepped to."""
    engine, _ = diamonds(COUNT, mlo.OneStep(), rate=0.4, lookahead=True)
    started = time.process_time()
    found = engine.hypergradient("top")["w"]
    assert time.process_time() - started < 2.0
    x = torch.tensor(1.3).requires_grad_()
    start = {name: w.detach() for name, w in chain(x, COUNT).items()}
    curvature = {name: CURVATURES[i % 4] for i, name in enumerate(start)}

    def step(name: str, goal: Tensor) -> Tensor:
        return start[name] - 0.4 * curvature[name] * (start[name] - goal)

    s = step("s0", bend(x))
    for i in range(COUNT):
        a, b = step(f"a{i}", left(s)), step(f"b{i}", right(s))
        s = step(f"s{i + 1}", join(a, b))
    (want,) = torch.autograd.grad(torch.sin(2 * s) + x * s, x)
    assert abs(found - want) < 1e-11 * abs(want)


def test_a_whole_tick_of_forty_diamonds_moves_them_all_in_time():
    engine, calls = diamonds(COUNT, mlo.OneStep())
    calls.clear()
    started = time.process_time()
    record = engine.step()
    assert time.process_time() - started < 2.0
    assert [m.problem for m in record.moves] == list(engine.graph.names)
    assert set(calls.values()) == {1}
