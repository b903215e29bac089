"""Problems on one level: constants to each other, moving at once from where all of them stood."""

from __future__ import annotations

import pytest
import torch

import mlo

from .oracles import central, flat, gradient, jacobian, relative, stacked_answer, starts, unflat
from .programs import program

KINDS = ("quartic", "trigonometric", "quadratic")
RATE, MOMENTUM = 0.05, 0.9
# Formulas that agree differ by rounding, some ticks long.
TOLERANCE = 1e-11
LOOKAHEAD = pytest.mark.parametrize("lookahead", [False, True], ids=["after moves", "look-ahead"])
MUTUAL = {"a": ["b", "top"], "b": ["a", "top"], "top": ["a", "b"]}
SHARED = {"low": ["one", "two"], "one": ["low", "two"], "two": ["low", "one"]}
FOUR = {"a": ["b", "c"], "b": ["a", "c", "d"], "c": ["a", "b", "d"], "d": ["b", "c"]}
UNANSWERED = {"a": [], "b": ["a", "top"], "top": ["a", "b"]}
PEERS, UPPERS, BOTH = [["a", "b"], "top"], ["low", ["one", "two"]], [["a", "b"], ["c", "d"]]


def engine_of(table, nest, method=None, *, kinds=KINDS, settings=None, constant=None, **engine):
    """The levels of a table in the library, nested as `nest` nests their names."""
    levels = program(table, kinds, constant=constant)

    def problem(name):
        level = next(found for found in levels if found.name == name)
        return mlo.Problem(
            name,
            params=level.start,
            loss=level.loss,
            reads=level.explicit,
            constant=level.constant,
            optimizer=lambda params: torch.optim.SGD(params, RATE, momentum=MOMENTUM),
            hypergradient=method.get(name) if isinstance(method, dict) else method,
            **(settings or {}).get(name, {}),
        )

    nested = [[problem(n) for n in e] if isinstance(e, list) else problem(e) for e in nest]
    return mlo.Engine(nested, **engine), levels


class Loop:
    """Two levels by hand: all of a level move from where all of it stood.

    `due` maps a problem to the ticks in which it moves, all where it is not named.
    """

    def __init__(self, levels, nest, *, lookahead, dense=False, due=None, repeat=None):
        self.level = {level.name: level for level in levels}
        self.low, self.high = ([e] if isinstance(e, str) else e for e in nest)
        self.at, self.speed = starts(levels), {}
        self.lookahead, self.dense = lookahead, dense
        self.due, self.repeat = due or {}, repeat or {}
        self.records = {}

    def slope(self, name, env):
        own = flat(env[name])
        own = own if own.requires_grad else own.requires_grad_()
        env = {**env, name: unflat(own, self.at[name])}
        return gradient(self.level[name].at(env), own)

    def moves(self, name, tick):
        return name not in self.due or tick in self.due[name]

    def step(self, name, own, slope, speed):
        speed = slope if speed is None else MOMENTUM * speed + slope
        return unflat(flat(own) - RATE * speed, self.at[name]), speed

    def lower(self, tick, uppers):
        """Where the lower problems get, their speeds, and what is recorded of their last step."""
        moved, speeds, records = {}, {}, {}
        for name in self.low:
            if not self.moves(name, tick):
                continue
            own, speed = self.at[name], self.speed.get(name)
            for _ in range(self.repeat.get(name, 1)):
                env = {**self.at, **uppers, name: own}
                records[name] = (env, speed)
                own, speed = self.step(name, own, self.slope(name, env).detach(), speed)
            moved[name], speeds[name] = own, speed
        return moved, speeds, records

    def answer(self, name, env, records):
        """The total gradient of an upper problem."""
        leaves = {n: flat(env[n]).requires_grad_() for n in (*self.low, name)}
        given = {**env, **{n: unflat(x, self.at[n]) for n, x in leaves.items()}}
        value = self.level[name].at(given)
        total = gradient(value, leaves[name], graph=False)
        for low in self.low:
            v = gradient(value, leaves[low], graph=False)
            where, speed = (env, None) if self.dense else records[low]
            x = flat(where[name]).requires_grad_()
            there = {**where, name: unflat(x, self.at[name])}
            if self.dense:
                own = flat(where[low]).requires_grad_()
                here = {**there, low: unflat(own, self.at[low])}
                slope = gradient(self.level[low].at(here), own)
                total = total - jacobian(slope, x).T @ torch.linalg.solve(jacobian(slope, own), v)
            else:
                new, _ = self.step(low, where[low], self.slope(low, there), speed)
                total = total + gradient(flat(new) @ v.detach(), x, graph=False)
        return total.detach()

    def tick(self, tick):
        stood = dict(self.at)
        if not self.lookahead:
            self.commit(*self.lower(tick, {}))
        new = {}
        for name in (n for n in self.high if self.moves(n, tick)):
            own, speed = stood[name], self.speed.get(name)
            for _ in range(self.repeat.get(name, 1)):
                env, records = {**self.at, name: own}, self.records
                if self.lookahead:
                    moved, _, tried = self.lower(tick, {name: own})
                    env, records = {**env, **moved}, {**records, **tried}
                own, speed = self.step(name, own, self.answer(name, env, records), speed)
            new[name] = (own, speed)
        for name, (own, speed) in new.items():
            self.at[name], self.speed[name] = own, speed
        if self.lookahead:
            self.commit(*self.lower(tick, {}))

    def commit(self, moved, speeds, records):
        self.at.update(moved)
        self.speed.update(speeds)
        self.records.update(records)


def check_run(table, nest, *, lookahead, method=None, kinds=KINDS, tolerance=TOLERANCE, **timing):
    engine, levels = engine_of(
        table, nest, method, kinds=kinds, settings=timing.get("settings"), lookahead=lookahead
    )
    dense = isinstance(method, mlo.Dense)
    hand = Loop(levels, nest, lookahead=lookahead, dense=dense, **timing.get("loop", {}))
    for tick in range(6):
        hand.tick(tick)
        engine.step()
        for name, problem in engine.problems.items():
            found = {k: p.detach() for k, p in problem.module.named_parameters()}
            want = {k: t.detach() for k, t in hand.at[name].items()}
            torch.testing.assert_close(found, want, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(
    ("table", "nest"),
    [
        (MUTUAL, PEERS),
        (SHARED, UPPERS),
        (FOUR, BOTH),
        (UNANSWERED, PEERS),
        ({**UNANSWERED, "a": ["b"]}, PEERS),
    ],
    ids=["two below", "two above", "two and two", "one reads nothing", "one reads nothing above"],
)
@LOOKAHEAD
def test_a_run_equals_the_loop_in_which_all_of_a_level_move_at_once(table, nest, lookahead):
    check_run(table, nest, lookahead=lookahead)


@LOOKAHEAD
def test_two_uppers_share_what_is_below_them_by_an_implicit_method_too(lookahead):
    check_run(SHARED, UPPERS, lookahead=lookahead, method=mlo.Dense())


@pytest.mark.parametrize("scheme", ["central", "forward"])
@pytest.mark.parametrize(("table", "nest"), [(MUTUAL, PEERS), (FOUR, BOTH)])
@LOOKAHEAD
def test_finite_differences_take_the_same_part_of_the_step(table, nest, scheme, lookahead):
    """Exact where gradients are linear, but for rounding over the radius."""
    method = mlo.FiniteDifference(radius=1e-2, scheme=scheme)
    kinds = ("quadratic",)
    check_run(table, nest, lookahead=lookahead, method=method, kinds=kinds, tolerance=1e-10)


TIMES = {
    "repeat": (
        {"a": {"repeat": 2}, "b": {"repeat": 3}, "c": {"repeat": 2}},
        {"repeat": {"a": 2, "b": 3, "c": 2}},
    ),
    "every": (
        {"b": {"every": 2}, "d": {"every": 3}, "c": {"warmup": 1}},
        {"due": {"b": (1, 3, 5), "d": (5,), "c": (1, 2, 3, 4, 5)}},
    ),
    "all": (
        {
            "a": {"every": 2},
            "b": {"repeat": 2},
            "c": {"warmup": 2, "repeat": 2},
            "d": {"warmup": 2},
        },
        {
            "due": {"a": (1, 3, 5), "c": (2, 3, 4, 5), "d": (2, 3, 4, 5)},
            "repeat": {"b": 2, "c": 2},
        },
    ),
}


@pytest.mark.parametrize("name", TIMES)
@LOOKAHEAD
def test_those_of_a_level_may_move_at_different_times(name, lookahead):
    settings, loop = TIMES[name]
    check_run(FOUR, BOTH, lookahead=lookahead, settings=settings, loop=loop)


def test_one_step_through_both_is_the_derivative_of_their_simultaneous_step():
    """Three levels: the third reads both, and one of them answers through it alone."""
    table = {**MUTUAL, "mid": ["a", "b", "top"], "top": ["mid", "a"]}
    table = {n: table[n] for n in ("a", "b", "mid", "top")}
    engine, levels = engine_of(table, [["a", "b"], "mid", "top"])
    at = starts(levels)
    level = {one.name: one for one in levels}
    x = flat(at["top"]).requires_grad_()
    env = {**at, "top": unflat(x, at["top"])}

    def moved(name, env):
        own = flat(env[name])
        own = own if own.requires_grad else own.requires_grad_()
        here = {**env, name: unflat(own, at[name])}
        return unflat(own - RATE * gradient(level[name].at(here), own), at[name])

    env = {**env, "a": moved("a", env), "b": moved("b", env)}
    env["mid"] = moved("mid", env)
    want = unflat(gradient(level["top"].at(env), x).detach(), at["top"])
    assert relative(engine.hypergradient("top"), want) < 1e-13


ONE_WAY = {"a": ["b", "top"], "b": ["top"], "top": ["a"]}
OTHER_WAY = {"a": ["top"], "b": ["a"], "top": ["b"]}
THREE = {"a": ["b"], "b": ["c", "top"], "c": ["top"], "top": ["a", "c"]}


@pytest.mark.parametrize(
    "method", [mlo.Dense(), mlo.ConjugateGradient(100, 1e-14)], ids=["Dense", "CG"]
)
@pytest.mark.parametrize(
    ("table", "nest"),
    [(ONE_WAY, PEERS), (OTHER_WAY, PEERS), (THREE, [["a", "b", "c"], "top"])],
    ids=["the second answers to the first", "the first to the second", "a row"],
)
def test_implicit_methods_follow_one_way_reads_of_a_level(table, nest, method):
    """Against the dense implicit function theorem on the stacked system."""
    engine, levels = engine_of(table, nest, method)
    want = stacked_answer(levels, starts(levels), "top")
    assert relative(engine.hypergradient("top"), want) < 1e-11


def test_an_implicit_problem_follows_one_of_its_level_that_moves():
    method = {"a": mlo.Dense(), "b": mlo.OneStep()}
    engine, levels = engine_of(MUTUAL, PEERS, method)
    engine.step()
    at, level = starts(levels), {one.name: one for one in levels}
    now = {n: dict(p.module.named_parameters()) for n, p in engine.problems.items()}
    now = {n: {k: t.detach() for k, t in own.items()} for n, own in now.items()}
    a, b, x = (flat(now[n]).requires_grad_() for n in ("a", "b", "top"))
    env = {n: unflat(w, at[n]) for n, w in zip(("a", "b", "top"), (a, b, x), strict=True)}
    value, slope = level["top"].at(env), gradient(level["a"].at(env), a)
    u = torch.linalg.solve(jacobian(slope, a), gradient(value, a, graph=False))
    b_bar = gradient(value, b, graph=False) - jacobian(slope, b).T @ u
    want = gradient(value, x, graph=False) - jacobian(slope, x).T @ u
    own, then = flat(at["b"]).requires_grad_(), flat(at["top"]).requires_grad_()
    there = {"a": at["a"], "b": unflat(own, at["b"]), "top": unflat(then, at["top"])}
    move = own - RATE * gradient(level["b"].at(there), own)
    want = want + gradient(move @ b_bar.detach(), then, graph=False)
    assert relative(engine.hypergradient("top"), unflat(want.detach(), at["top"])) < 1e-12


@pytest.mark.parametrize("names", [["one"], ["one", "two"]], ids=["one alone", "two"])
def test_one_step_serves_those_that_read_each_other_through_one_below(names):
    """Each moves by its total gradient, the other counts as it stood: dx'/dtop of both."""
    table = {"low": names, **{n: ["low", "top"] for n in names}, "top": names}
    method = {"low": mlo.Dense(), **{n: mlo.OneStep() for n in names}}
    engine, levels = engine_of(table, ["low", names, "top"], method)
    start, level = starts(levels), {one.name: one for one in levels}
    x = flat(start["top"])

    def reduced(x):
        at, new = {**start, "top": unflat(x, start["top"])}, {}
        for name in names:
            others = [level[n] for n in (*names, "top") if n != name]
            slope = stacked_answer([level["low"], level[name], *others], at, name)
            new[name] = unflat(flat(at[name]) - RATE * flat(slope), at[name])
        return level["top"].at({**at, **new}).detach()

    want = unflat(central(reduced, x), start["top"])
    assert relative(engine.hypergradient("top"), want) < 1e-9
