"""Problems of one level that read each other and answer to one above: an equilibrium.

The oracle knows nothing of the library: Newton's method on the stacked gradients of all lower
problems (each takes its peers as they are; what lies below it answers by dense solves with a
graph), and one dense transposed solve with their Jacobian.
"""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor

import mlo
from mlo.errors import GraphError, MethodError
from mlo.testing import check_hypergradient

from .oracles import Level, argmin, central, flat, gradient, jacobian, relative, root, unflat
from .programs import program

EXACT = {
    "dense": mlo.Dense(),
    # The spectral radius of the iteration is below 0.9 at these points: 0.9^400 is rounding.
    "neumann": mlo.Neumann(terms=400, alpha=0.1),
}
KINDS = ("quartic", "trigonometric", "quadratic")
# Problem -> what it reads besides itself, and the levels.
PROGRAMS = {
    "two players": ({"a": ("b", "x"), "b": ("a", "x"), "x": ("a", "b")}, ["ab", "x"]),
    "one of them sees the top": ({"a": ("b", "x"), "b": ("a",), "x": ("b",)}, ["ab", "x"]),
    "a ring of three": (
        {"a": ("c", "x"), "b": ("a",), "c": ("b", "x"), "x": ("a", "b", "c")},
        ["abc", "x"],
    ),
    "one above the circle": (
        {"a": ("b", "x"), "b": ("a", "x"), "c": ("a", "b"), "x": ("c",)},
        ["ab", "c", "x"],
    ),
    "one below the circle": (
        {"c": ("x",), "a": ("b", "c"), "b": ("a", "x"), "x": ("a", "b")},
        ["c", "ab", "x"],
    ),
}


def levels_of(case: str) -> tuple[list[Level], list[str]]:
    reads, levels = PROGRAMS[case]
    # Weaker pulls than elsewhere: the players must not amplify each other.
    made = program(reads, KINDS, judges=("x",), seed=3)
    return [
        dataclasses.replace(level, loss=softened(level.loss, level.name)) for level in made
    ], levels


def softened(loss, name):
    def soft(own, *read):
        if name == "x":
            return loss(own, *read)
        return loss(own, *({k: 0.4 * t for k, t in other.items()} for other in read))

    return soft


def nested(levels: list[str], problems: dict[str, mlo.Problem]) -> list:
    return [[problems[n] for n in level] for level in levels]


def engine_of(case: str, method: mlo.Hypergradient, values, **settings) -> mlo.Engine:
    made, levels = levels_of(case)
    problems = {
        level.name: mlo.Problem(
            level.name,
            params=values[level.name],
            loss=level.loss,
            reads=level.explicit,
            optimizer=lambda params: torch.optim.SGD(params, 0.1),
            hypergradient=method,
        )
        for level in made
    }
    return mlo.Engine(nested(levels, problems), **settings)


def equilibrium(case: str, x: Tensor) -> tuple[dict, Tensor, Tensor]:
    """All values with the lower problems at rest, their stacked condition, and its Jacobian."""
    made, _ = levels_of(case)
    lower = [level for level in made if level.name != "x"]
    top = made[-1]
    sizes = [flat(level.start).numel() for level in lower]

    def place(w: Tensor, x: Tensor) -> dict:
        parts = w.split(sizes)
        found = {v.name: unflat(p, v.start) for v, p in zip(lower, parts, strict=True)}
        return {**found, "x": unflat(x, top.start)}

    def conditions(w: Tensor, x: Tensor) -> Tensor:
        values = place(w, x)
        slopes = []
        for level in lower:
            own = flat(values[level.name])
            here = {**values, level.name: unflat(own, level.start)}
            slopes.append(gradient(level.at(here), own))
        return torch.cat(slopes)

    w = root(lambda w: conditions(w, x), torch.cat([flat(level.start) for level in lower]))
    return place(w, x), conditions, w


@pytest.mark.parametrize("method", EXACT)
@pytest.mark.parametrize("case", PROGRAMS)
def test_the_answer_of_a_circle_is_that_of_its_joint_system(case, method):
    made, _ = levels_of(case)
    x = flat(made[-1].start)
    values, conditions, w = equilibrium(case, x)
    loss = lambda w, x: made[-1].at(equilibrium_values(case, w, x))  # noqa: E731

    def equilibrium_values(case, w, x):
        lower = made[:-1]
        parts = w.split([flat(level.start).numel() for level in lower])
        found = {v.name: unflat(p, v.start) for v, p in zip(lower, parts, strict=True)}
        return {**found, "x": unflat(x, made[-1].start)}

    w, x = w.requires_grad_(), x.requires_grad_()
    g = conditions(w, x)
    judged = loss(w, x)
    adjoint = torch.linalg.solve(jacobian(g, w).T, gradient(judged, w))
    expected = gradient(judged, x) - jacobian(g, x).T @ adjoint
    found = engine_of(case, EXACT[method], values).hypergradient("x")
    assert relative(found, unflat(expected.detach(), made[-1].start)) < 1e-9

    def resolved(x: Tensor) -> Tensor:
        _, _, w = equilibrium(case, x)
        return loss(w, x).detach()

    slopes = unflat(central(resolved, x.detach()), made[-1].start)
    assert relative(found, slopes) < 1e-8


def test_players_that_anticipate_one_below_answer_together():
    """low answers to both; each player knows that, and takes the other as it is."""
    curve = torch.tensor([[2.0, 0.3], [0.3, 1.5]])

    def low(low, a, b):
        w = low["w"]
        pull = a["w"] + 0.5 * torch.sin(b["w"])
        return 0.5 * w @ curve @ w + 0.1 * (w**4).sum() - w @ pull

    def player(own, low, top, sign):
        return (own["w"] - sign * top["w"]).square().sum() + 0.5 * (low["w"] - sign).square().sum()

    def judge(a, b, low):
        return (a["w"] * b["w"]).sum() + low["w"].square().sum()

    def low_at(a: Tensor, b: Tensor) -> Tensor:
        return argmin(lambda w: low({"w": w}, {"w": a}, {"w": b}), torch.zeros(2))

    def conditions(w: Tensor, x: Tensor) -> Tensor:
        a, b = w[:2].clone(), w[2:].clone()
        if not w.requires_grad:
            a, b = a.requires_grad_(), b.requires_grad_()
        solved = low_at(a, b)
        top = {"w": x}
        return torch.cat(
            [
                gradient(player({"w": a}, {"w": solved}, top, 1.0), a),
                gradient(player({"w": b}, {"w": solved}, top, -1.0), b),
            ]
        )

    def loss(w: Tensor, x: Tensor) -> Tensor:
        a, b = w[:2], w[2:]
        return judge({"w": a}, {"w": b}, {"w": low_at(a, b)})

    def at_rest(x: Tensor) -> Tensor:
        return root(lambda w: conditions(w, x), torch.zeros(4), tolerance=1e-11)

    x = torch.tensor([0.4, -0.7])
    w = at_rest(x)
    sgd = lambda params: torch.optim.SGD(params, 0.1)  # noqa: E731
    make = lambda name, value, loss, reads: mlo.Problem(  # noqa: E731
        name,
        params={"w": value},
        loss=loss,
        reads=reads,
        optimizer=sgd,
        hypergradient=mlo.Dense(),
    )
    engine = mlo.Engine(
        [
            make("low", low_at(w[:2], w[2:]).detach(), low, ("low", "a", "b")),
            [
                make("a", w[:2], lambda *read: player(*read, 1.0), ("a", "low", "top")),
                make("b", w[2:], lambda *read: player(*read, -1.0), ("b", "low", "top")),
            ],
            make("top", x, judge, ("a", "b", "low")),
        ]
    )
    assert engine.graph.groups("top") == (("a", "b"), ("low",))
    assert {engine.graph.kind(n) for n in "ab"} == {"anticipating"}
    slopes = central(lambda x: loss(at_rest(x), x).detach(), x)
    assert relative(engine.hypergradient("top"), {"w": slopes}) < 1e-8


def test_a_circle_is_one_record():
    made, _ = levels_of("two players")
    values, *_ = equilibrium("two players", flat(made[-1].start))
    engine = engine_of("two players", mlo.Dense(), values)
    (record,) = engine.step().moves[-1].responses
    assert (record.problem, record.method, record.solves) == ("a and b", "Dense", 1)
    assert record.info.outcome is mlo.Outcome.CONVERGED


def test_a_circle_passes_the_check_of_hypergradients():
    made, _ = levels_of("a ring of three")
    values = {level.name: level.start for level in made}
    found = check_hypergradient(engine_of("a ring of three", mlo.Dense(), values), "x")
    assert list(found.biases) == ["a and b and c"]
    # The players take turns to a gradient of 1e-10 each, and differences divide by 1e-4.
    assert found.error < 1e-5


CONJUGATE = mlo.ConjugateGradient()


@pytest.mark.parametrize(
    ("methods", "message"),
    [
        ({"a": CONJUGATE, "b": CONJUGATE}, "which ConjugateGradient takes to be symmetric"),
        ({"a": mlo.Dense(), "b": mlo.Neumann()}, "must have the same hypergradient="),
    ],
)
def test_what_cannot_solve_a_circle_is_refused(methods, message):
    made, levels = levels_of("two players")
    problems = {
        level.name: mlo.Problem(
            level.name,
            params=level.start,
            loss=level.loss,
            reads=level.explicit,
            optimizer=lambda params: torch.optim.SGD(params, 0.1),
            hypergradient=methods.get(level.name),
        )
        for level in made
    }
    with pytest.raises(MethodError, match=f"'a', 'b' on one level.*{message}.*Dense or Neumann"):
        mlo.Engine(nested(levels, problems))


def simple(name, *reads, method=None):
    def loss(*given):
        return sum(other["w"].square().sum() for other in given)

    return mlo.Problem(
        name,
        params={"w": torch.ones(1)},
        loss=loss,
        reads=(name, *reads),
        optimizer=lambda params: torch.optim.SGD(params, 0.1),
        hypergradient=method or mlo.Dense(),
    )


def test_a_circle_below_an_anticipating_problem_is_refused():
    a, b = simple("a", "b", "mid"), simple("b", "a", "mid")
    mid, top = simple("mid", "a", "b", "top"), simple("top", "mid")
    with pytest.raises(MethodError, match="which 'mid' anticipates"):
        mlo.Engine([[a, b], mid, top])
    # Its own moves are fine, and so is the partial answer.
    mlo.Engine([[a, b], simple("mid", "a", "b")]).step()
    mlo.Engine([[a, b], mid, top], nested="partial").step()


def test_a_circle_across_levels_is_refused():
    # two reads what lies below and follows one, which reads two.
    one, two = simple("one", "two", "top"), simple("two", "under", "top")
    under, top = simple("under", "one"), simple("top", "one", "two")
    with pytest.raises(GraphError, match="'under', 'one', 'two' are on several levels"):
        mlo.Engine([under, [one, two], top])
