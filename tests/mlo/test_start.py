"""Problems that begin anew: what their moves are, and derivatives through where they begin."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest
import torch
from torch import nn

import mlo

# Formulas that agree differ by rounding, amplified by a few ticks and by Adam's small roots.
TOLERANCE = 1e-11
# A central difference at 1e-3 of a function of order one leaves 1e-16 / 1e-3, and some ticks.
DIFFERENCED = 1e-9
LOOKAHEAD = pytest.mark.parametrize("lookahead", [False, True], ids=["after moves", "look-ahead"])
ETA, OUTER = 0.1, 0.3


def sgd(rate=ETA, **settings):
    return lambda params: torch.optim.SGD(params, rate, **settings)


def batches(n, seed, size=6):
    draw = torch.Generator().manual_seed(seed)
    return [
        (torch.randn(size, 3, generator=draw), torch.randn(size, generator=draw)) for _ in range(n)
    ]


def fit(net, train):
    x, y = train
    errors = x @ net["a"] + net["b"] - y
    return errors.square().mean() + 0.1 * torch.cos(net["a"]).sum()


def judge(net, valid):
    x, y = valid
    return (x @ net["a"] + net["b"] - y).square().mean() + torch.sin(net["a"]).sum()


def clamped(params):
    return {"a": params["a"].clamp(-0.2, 0.4)}


@dataclasses.dataclass
class Case:
    """One MAML-like program; both the engine and the hand loop call its functions."""

    optimizer: Callable = dataclasses.field(default_factory=sgd)
    rule: dict = dataclasses.field(default_factory=dict)
    kind: str = "sgd"
    clip: float | None = None
    project: Callable | None = None
    accumulate: int = 1
    start: Callable = lambda meta: {k: meta[k] for k in "ab"}
    inner: Callable = fit
    outer: Callable = judge
    method: mlo.Hypergradient | None = None

    def values(self):
        draw = torch.Generator().manual_seed(3)
        return {
            name: {
                "a": torch.randn(3, generator=draw),
                "b": torch.randn((), generator=draw),
            }
            for name in ("net", "meta", "other")
        }

    def data(self):
        return {"train": batches(6, 1), "valid": batches(6, 2), "hint": batches(6, 3)}

    def engine(self, **settings):
        at = self.values()
        net = mlo.Problem(
            "net",
            params=at["net"],
            loss=self.inner,
            optimizer=self.optimizer,
            start=self.start,
            clip_norm=self.clip,
            project=self.project,
            accumulate=self.accumulate,
            hypergradient=self.method,
        )
        other = mlo.Problem(
            "other",
            params=at["other"],
            loss=lambda other: other["a"].square().sum(),
            optimizer=sgd(),
        )
        meta = mlo.Problem("meta", params=at["meta"], loss=self.outer, optimizer=sgd(OUTER))
        names = [
            n for p in (net, meta) for n in p.reads.names + getattr(p.start_reads, "names", ())
        ]
        problems = [other, net, meta] if "other" in names else [net, meta]
        return mlo.Engine(
            problems, {k: v for k, v in self.data().items() if k in names}, **settings
        )

    def moved(self, own, gradient):
        """The first step of a new optimizer as its documentation writes it, with a graph."""
        r = self.rule
        lr, decay, sign = r.get("lr", ETA), r.get("weight_decay", 0.0), r.get("sign", 1)
        if self.clip is not None:
            size = torch.stack([g.detach().square().sum() for g in gradient.values()]).sum().sqrt()
            factor = torch.clamp(self.clip / (size + 1e-6), max=1.0)
            gradient = {k: factor * g for k, g in gradient.items()}
        coupled, decoupled = (0.0, decay) if self.kind == "adamw" else (decay, 0.0)
        new = {}
        for k, w in own.items():
            g = sign * gradient[k] + coupled * w
            if self.kind == "sgd":
                update = g + r["momentum"] * g if r.get("nesterov") else g
            else:  # both corrected averages of one gradient are that of the gradient itself
                update = g / (g.square().sqrt() + r["eps"])
            new[k] = w * (1 - lr * decoupled) - lr * update
        return {**new, **self.project(new)} if self.project else new

    def by_hand(self, ticks, *, lookahead=False):
        """Where everybody is after each tick."""
        at, data, path = self.values(), self.data(), []

        def adapt(meta, tick):
            at_first = tick * self.accumulate % 6
            train = [data["train"][at_first + j] for j in range(self.accumulate)]
            given = {**at, "meta": meta, "hint": data["hint"][at_first], "tick": tick}
            begun = call(self.start, given)  # and copies, so that each is a tensor of its own
            begun = {k: 1 * begun[k] if begun[k].requires_grad else leaf_of(begun)[k] for k in "ab"}
            losses = [call(self.inner, {**given, "net": begun, "train": batch}) for batch in train]
            loss = sum(losses) / len(losses)
            slope = torch.autograd.grad(loss, [*begun.values()], create_graph=True)
            return self.moved(begun, dict(zip(begun, slope, strict=True)))

        for tick in range(ticks):
            at["other"] = {"a": 0.8 * at["other"]["a"], "b": at["other"]["b"]}
            leaf = {k: t.clone().requires_grad_() for k, t in at["meta"].items()}
            tried = adapt(leaf, tick)
            if not lookahead:
                at["net"] = {k: t.detach() for k, t in tried.items()}
            given = {**at, "valid": data["valid"][tick % 6]}
            loss = call(self.outer, {**given, "net": tried, "meta": leaf})
            slope = derivative(loss, [*leaf.values()])
            at["meta"] = {
                k: t.detach() - OUTER * g for (k, t), g in zip(leaf.items(), slope, strict=True)
            }
            later = None
            if lookahead:
                at["net"] = {k: t.detach() for k, t in adapt(leaf_of(at["meta"]), tick).items()}
            else:  # from where meta is now through the move that was made before
                now, own = leaf_of(at["meta"]), leaf_of(at["net"])
                loss = call(self.outer, {**given, "net": own, "meta": now})
                *v, a, b = derivative(loss, [*own.values(), *now.values()])
                routes = derivative([tried[k] for k in own], [*leaf.values()], v)
                later = {"a": a + routes[0], "b": b + routes[1]}
            path.append({**{n: leaf_of(at[n]) for n in ("net", "meta")}, "later": later})
        return path


def leaf_of(tensors):
    return {k: t.clone().requires_grad_() for k, t in tensors.items()}


def derivative(outputs, inputs, v=None):
    found = torch.autograd.grad(outputs, inputs, v, allow_unused=True, retain_graph=True)
    return [torch.zeros_like(x) if g is None else g for g, x in zip(found, inputs, strict=True)]


def call(function, given):
    return function(**{n: given[n] for n in mlo.reads.declared_reads(function, owner="").names})


def check_run(case, *, lookahead=False, ticks=4, tolerance=TOLERANCE, **settings):
    torch.manual_seed(11)
    path = case.by_hand(ticks, lookahead=lookahead)
    engine = case.engine(lookahead=lookahead, **settings)
    torch.manual_seed(11)
    for want in path:
        engine.step()
        found = {n: dict(engine.problems[n].module.named_parameters()) for n in ("net", "meta")}
        found["later"] = None if lookahead else engine.hypergradient("meta")
        for name in want:
            torch.testing.assert_close(found[name], want[name], rtol=tolerance, atol=tolerance)


def rule(**settings):
    return {k: v for k, v in settings.items() if k != "maximize"} | {
        "sign": -1 if settings.get("maximize") else 1
    }


def case_of(kind, **settings):
    lr = settings.pop("lr", ETA)
    made = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[kind]
    return {
        "optimizer": lambda params: made(params, lr, **settings),
        "kind": kind,
        "rule": rule(lr=lr, **settings),
    }


OPTIMIZERS = {
    "SGD": case_of("sgd"),
    "SGD, momentum": case_of("sgd", momentum=0.9, dampening=0.3, weight_decay=0.2),
    "SGD, Nesterov": case_of("sgd", momentum=0.9, nesterov=True, weight_decay=0.2),
    "SGD, maximize": case_of("sgd", lr=0.02, momentum=0.9, weight_decay=0.2, maximize=True),
    "Adam": case_of("adam", eps=0.3, weight_decay=0.2),
    "Adam, maximize": case_of(
        "adam", lr=0.02, eps=0.3, weight_decay=0.2, maximize=True, amsgrad=True
    ),
    "AdamW": case_of("adamw", eps=0.3, weight_decay=0.2),
    "AdamW, maximize": case_of("adamw", lr=0.02, eps=0.3, weight_decay=0.2, maximize=True),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("clip", [None, 0.5], ids=["", "clipped"])
@LOOKAHEAD
def test_maml_is_differentiated_through_any_optimizer_it_knows(name, clip, lookahead):
    check_run(Case(**OPTIMIZERS[name], clip=clip), lookahead=lookahead)


def drawn(meta):
    return {"a": meta["a"] * (1 + torch.rand(3)), "b": meta["b"] + torch.randn(())}


def helped(net, meta, other, hint, tick):
    x, y = hint
    a = (
        meta["a"] * (1 + 0.1 * tick)
        + 0.5 * net["a"].square()
        + other["a"] * (x[0] * meta["b"]).sin()
    )
    return {"b": other["b"] * meta["b"] + net["b"] * y.mean() * meta["a"].sum(), "a": a}


def weighed(net, meta, train):
    x, y = train
    errors = (x @ net["a"] + net["b"] - y).square()
    size = (net["a"] + meta["a"]).pow(4).sum()
    return (meta["a"].sigmoid()[0] * errors).mean() + 0.01 * meta["b"].exp() * size


def masked(net, train):
    x, y = train
    kept = nn.functional.dropout(x @ net["a"] + net["b"], 0.5)
    return (kept - y).square().mean() + 0.1 * net["a"].pow(3).sum()


def beside(net, meta, valid):
    return judge(net, valid) + 0.1 * meta["a"].square().sum() + (meta["b"] * net["b"]).sin()


PROGRAMS = {
    "a projection": {"project": clamped},
    "random numbers": {"start": drawn, "inner": masked},
    "others, a stream, the tick and itself": {"start": helped},
    "a loss that reads it too": {"inner": weighed, "outer": beside},
    "all of these": {"start": helped, "inner": weighed, "outer": beside, "project": clamped},
    "a start that leads nowhere else": {
        "start": lambda meta: {"a": torch.zeros(3), "b": meta["b"]}
    },
}


@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.parametrize("accumulate", [1, 3])
@pytest.mark.parametrize("retain", [True, False], ids=["graph kept", "recomputed"])
@LOOKAHEAD
def test_a_start_may_read_whatever_a_loss_may(name, accumulate, retain, lookahead):
    settings = {**OPTIMIZERS["SGD, Nesterov"], **PROGRAMS[name]}
    check_run(Case(**settings, accumulate=accumulate), lookahead=lookahead, retain=retain)


def straight(net, meta, train):
    """Quadratic in the parameters and linear in what it reads: its differences are exact."""
    x, y = train
    errors = (x @ net["a"] + net["b"] - y).square()
    pull = meta["a"] @ net["a"] + meta["b"].sin() * net["b"]
    return errors.mean() + 0.3 * net["a"].square().sum() + pull


@pytest.mark.parametrize("scheme", ["central", "forward"])
@pytest.mark.parametrize("name", ["SGD, Nesterov", "Adam", "AdamW"])
@pytest.mark.parametrize("accumulate", [1, 3])
@LOOKAHEAD
def test_finite_differences_follow_the_start_too(scheme, name, accumulate, lookahead):
    method = mlo.FiniteDifference(radius=1e-3, scheme=scheme)
    settings = {**OPTIMIZERS[name], "start": helped, "inner": straight, "method": method}
    case = Case(**settings, accumulate=accumulate, project=clamped, clip=2.0)
    check_run(case, lookahead=lookahead, tolerance=DIFFERENCED)
