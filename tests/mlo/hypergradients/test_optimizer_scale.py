"""`OptimizerDiagonal`: the scale of the optimizer's own steps, and where it can be had."""

from __future__ import annotations

import pytest
import torch

import mlo
from mlo import ConjugateGradient, Neumann
from mlo.errors import MethodError
from mlo.hypergradients import OptimizerDiagonal
from mlo.second_moments import scale_of


def low_loss(low, top):
    a, b = low["a"].reshape(-1), low["b"]
    w = torch.cat([a, b])
    curvature = torch.logspace(-1, 3, len(w), dtype=torch.float64)
    return 0.5 * (curvature * w * w).sum() - w @ top["x"] + 0.02 * (w[1:] * w[:-1]).sum()


def top_loss(low):
    return (low["a"].sum() - 1).square() + (low["b"] - 1.0).square().sum()


def engine_of(method, optimizer, size=6, **settings):
    params = {"a": torch.full((1, 2), 0.4), "b": torch.linspace(-1, 1, size - 2)}
    low = mlo.Problem("low", params=params, loss=low_loss, optimizer=optimizer, **settings)
    low = low.answering_by(method)
    sgd = lambda params: torch.optim.SGD(params, 1e-3)  # noqa: E731
    top = mlo.Problem("top", params={"x": torch.linspace(0, 1, size)}, loss=top_loss, optimizer=sgd)
    return mlo.Engine([low, top])


ADAM = {"lr": 1e-2, "betas": (0.8, 0.9), "eps": 1e-3}
OPTIMIZERS = {
    "Adam": lambda p: torch.optim.Adam(p, **ADAM),
    "AMSGrad": lambda p: torch.optim.Adam(p, **ADAM, amsgrad=True),
    "AdamW": lambda p: torch.optim.AdamW(p, **ADAM, weight_decay=0.0),
    "RMSprop": lambda p: torch.optim.RMSprop(p, 1e-2, alpha=0.9, eps=1e-3),
    "centered": lambda p: torch.optim.RMSprop(p, 1e-2, alpha=0.9, eps=1e-3, centered=True),
}


def expected(kind, gradients):
    """The scale from the gradients so far, in the words of the papers."""
    second = first = largest = torch.zeros_like(gradients[0])
    for g in gradients:
        second, first = 0.9 * second + 0.1 * g * g, 0.9 * first + 0.1 * g
        largest = torch.maximum(largest, second)
    if kind == "RMSprop":
        return second.sqrt() + 1e-3
    if kind == "centered":
        return (second - first**2).clamp(min=0).sqrt() + 1e-3
    moment = largest if kind == "AMSGrad" else second
    return (moment / (1 - 0.9 ** len(gradients))).sqrt() + 1e-3


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_the_scale_is_that_of_the_papers(kind):
    draw = torch.Generator().manual_seed(1)
    p = torch.nn.Parameter(torch.zeros(2, 3))
    still = torch.nn.Parameter(torch.zeros(2))
    optimizer = OPTIMIZERS[kind]([p, still])
    assert all(torch.equal(s, torch.ones_like(s)) for s in scale_of(optimizer, [p, still]))
    gradients = []
    for k in range(5):
        # The largest come first, so that AMSGrad differs from Adam.
        gradients.append(torch.randn(2, 3, generator=draw) / (k + 1))
        p.grad = gradients[-1].clone()
        optimizer.step()
        moved, unmoved = scale_of(optimizer, [p, still])
        torch.testing.assert_close(moved, expected(kind, gradients), rtol=1e-12, atol=1e-14)
        assert torch.equal(unmoved, torch.ones(2))
        assert not moved.requires_grad


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_it_changes_the_way_and_not_the_answer(kind):
    method = ConjugateGradient(iterations=200, tolerance=1e-12, preconditioner="optimizer")
    engine, exact = (engine_of(m, OPTIMIZERS[kind]) for m in (method, mlo.Dense()))
    for _ in range(4):
        found, right = engine.hypergradient("top")["x"], exact.hypergradient("top")["x"]
        torch.testing.assert_close(found, right, rtol=1e-8, atol=1e-12)
        engine.step()
        exact.step()


def test_on_curvatures_that_differ_it_saves_iterations():
    counts = {}
    for name in (None, "optimizer"):
        method = ConjugateGradient(iterations=200, tolerance=1e-4, preconditioner=name)
        engine = engine_of(method, OPTIMIZERS["Adam"], size=60)
        moves = [m for _ in range(10) for m in engine.step().moves if m.problem == "top"]
        counts[name] = sum(int(m.responses[0].info.products) for m in moves)
    assert 2 * counts["optimizer"] < counts[None]


def test_it_applies_the_scale_as_it_is_and_not_its_root_or_inverse():
    seen = {}

    class Spy(OptimizerDiagonal):
        def prepare(self, condition, damping):
            ready = super().prepare(condition, damping)
            seen["applied"] = ready.apply(tuple(torch.ones_like(p) for p in condition.params))
            seen["scale"] = condition.optimizer_scale()
            return ready

    engine = engine_of(ConjugateGradient(preconditioner=Spy(floor=1e-9)), OPTIMIZERS["Adam"])
    engine.step()
    optimizer = engine.problems["low"].optimizer
    params = [p for group in optimizer.param_groups for p in group["params"]]
    engine.hypergradient("top")
    for one, scale, p in zip(seen["applied"], seen["scale"], params, strict=True):
        second = optimizer.state[p]["exp_avg_sq"] / (1 - 0.9)
        torch.testing.assert_close(scale, second.sqrt() + 1e-3)
        torch.testing.assert_close(one, 1 / (second.sqrt() + 1e-3))


def test_with_the_learning_rate_the_series_takes_the_steps_of_adam():
    engine = engine_of(Neumann(terms=1, preconditioner="optimizer"), OPTIMIZERS["Adam"])
    engine.step()
    found = engine.hypergradient("top")["x"]
    optimizer, low = engine.problems["low"].optimizer, engine.problems["low"].module
    params = list(low.parameters())
    scale = torch.cat([s.reshape(-1) for s in scale_of(optimizer, params)])
    scale = torch.maximum(scale, 1e-3 * scale.mean())
    w = torch.cat([p.detach().reshape(-1) for p in params]).requires_grad_()
    (v,) = torch.autograd.grad(top_loss({"a": w[:2].reshape(1, 2), "b": w[2:]}), w)
    # -(dg/dc)^T u is u, since the loss holds -w^T x.
    torch.testing.assert_close(found, 1e-2 * v / scale, rtol=1e-12, atol=0)


@pytest.mark.parametrize("method", [ConjugateGradient, Neumann])
def test_an_optimizer_without_second_moments_is_refused_when_the_engine_is_built(method):
    sgd = lambda params: torch.optim.SGD(params, 0.1)  # noqa: E731
    with pytest.raises(MethodError, match=r"'low'.*second moments.*Adam, AdamW, RMSprop.*SGD"):
        engine_of(method(preconditioner=OptimizerDiagonal()), sgd)


def test_what_the_method_has_not_declared_is_not_offered():
    class Undeclared(OptimizerDiagonal):
        needs = frozenset()

    engine = engine_of(ConjugateGradient(preconditioner=Undeclared()), OPTIMIZERS["Adam"])
    with pytest.raises(MethodError, match="second_moments"):
        engine.hypergradient("top")


def test_players_that_read_each_other_offer_the_scales_of_all():
    def player(own, other, top):
        pull = top["x"].sum() - 0.5 * other["w"].sum()
        return 3 * own["w"].square().sum() - own["w"].sum() * pull

    def engine(method):
        adam = OPTIMIZERS["Adam"]
        a = mlo.Problem(
            "a",
            params={"w": torch.ones(2)},
            loss=player,
            reads=("a", "b", "top"),
            optimizer=adam,
            hypergradient=method,
        )
        b = mlo.Problem(
            "b",
            params={"w": torch.ones(3)},
            loss=player,
            reads=("b", "a", "top"),
            optimizer=adam,
            hypergradient=method,
        )
        top = mlo.Problem(
            "top",
            params={"x": torch.ones(2)},
            loss=lambda a, b: (a["w"].sum() - b["w"].sum() + 1).square() + b["w"][0],
            optimizer=lambda p: torch.optim.SGD(p, 1e-2),
        )
        made = mlo.Engine([[a, b], top])
        made.step()
        return made.hypergradient("top")["x"]

    for preconditioner in ("optimizer", "diagonal"):
        method = Neumann(terms=300, alpha="auto", preconditioner=preconditioner)
        torch.testing.assert_close(engine(method), engine(mlo.Dense()), rtol=1e-6, atol=1e-9)
