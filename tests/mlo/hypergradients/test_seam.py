"""Methods of one's own: what they return, what they need, and the state that they keep."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable

import pytest
import torch

import mlo
from mlo.errors import MethodError
from mlo.hypergradients import registry
from mlo.vectors import negative, times

from ..oracles import engine_of, relative, starts
from ..programs import program
from .quadratics import answer, symmetric


@pytest.fixture(autouse=True)
def _registry_as_before(monkeypatch):
    monkeypatch.setattr(registry, "_METHODS", dict(registry._METHODS))


@dataclasses.dataclass(frozen=True)
class Identity(mlo.Hypergradient):
    """A whole method: the Hessian taken to be the identity over `scale`."""

    scale: float = 1.0

    def vjp(self, condition, cotangent, state):
        u = times(cotangent, (self.scale,) * len(cotangent))
        return mlo.Result(negative(condition.mixed_vjp(u)), state)


@dataclasses.dataclass(frozen=True)
class Richardson(mlo.Implicit):
    """A whole implicit method: only the linear solver is its own."""

    steps: int = 100
    length: float = 0.1

    def solve(self, condition, cotangent):
        u = cotangent
        for _ in range(self.steps):
            hu = condition.hvp(u)
            rest = zip(u, cotangent, hu, strict=True)
            u = tuple(x + self.length * (v - h) for x, v, h in rest)
        return mlo.LinearSolution(u)


@pytest.mark.parametrize("cls", [Identity, Richardson])
def test_a_method_takes_less_than_twenty_lines(cls):
    assert len(inspect.getsource(cls).splitlines()) < 20


@pytest.mark.parametrize(
    ("method", "same"),
    [
        (Identity(scale=0.3), mlo.Neumann(terms=1, alpha=0.3)),
        (Richardson(steps=600, length=0.2), mlo.Dense()),
    ],
)
def test_a_method_of_ones_own_answers_in_a_program(method, same):
    levels = program({"low": ("top",), "top": ("low",)}, ["quartic"])
    found = engine_of(levels, starts(levels), method).hypergradient("top")
    assert relative(found, engine_of(levels, starts(levels), same).hypergradient("top")) < 1e-10


@dataclasses.dataclass(frozen=True)
class Answering(mlo.Hypergradient):
    """Answers with whatever the function makes of the condition."""

    function: Callable[..., object]
    needs: frozenset[str] = frozenset()

    def vjp(self, condition, cotangent, state):
        return self.function(condition, cotangent)


@dataclasses.dataclass(frozen=True)
class Solving(mlo.Implicit):
    """Solves by whatever the function makes of the right-hand side."""

    function: Callable[..., object]

    def solve(self, condition, cotangent):
        return self.function(cotangent)


def asked(method):
    """The hypergradient through `low`, whose parameters are two numbers; `top` has two tensors."""
    levels = program({"low": ("top",), "top": ("low",)}, ["quartic"])
    return engine_of(levels, starts(levels), method).hypergradient("top")


def result(*grads):
    return lambda condition, cotangent: mlo.Result(tuple(grads))


ANSWERS = {
    "too few": result(None),
    "too many": result(None, None, None),
    "another shape": result(torch.zeros(2), None),
    "swapped": lambda condition, v: mlo.Result(
        tuple(torch.zeros_like(c) for c in condition.context[::-1])
    ),
    "numbers": result(0.0, 0.0),
    "nothing at all": lambda condition, v: mlo.Result(None),
    "no Result": lambda condition, v: tuple(torch.zeros_like(c) for c in condition.context),
    "None": lambda condition, v: None,
}


@pytest.mark.parametrize("case", ANSWERS)
def test_an_answer_that_does_not_fit_the_context_is_named_with_what_is_expected(case):
    with pytest.raises(MethodError, match=r"'low'.*Answering, vjp\(\).*Result.*\[\(1, 2\), \(\)\]"):
        asked(Answering(ANSWERS[case]))


SOLUTIONS = {
    "too few": lambda v: mlo.LinearSolution(()),
    "too many": lambda v: mlo.LinearSolution((*v, *v)),
    "another shape": lambda v: mlo.LinearSolution(tuple(x[None] for x in v)),
    "numbers": lambda v: mlo.LinearSolution((0.0,) * len(v)),
    "holes": lambda v: mlo.LinearSolution((None,) * len(v)),
    "nothing at all": lambda v: mlo.LinearSolution(None),
    "no LinearSolution": lambda v: v,
    "None": lambda v: None,
}


@pytest.mark.parametrize("case", SOLUTIONS)
def test_a_solution_that_does_not_fit_is_named_with_what_is_expected(case):
    with pytest.raises(MethodError, match=r"'low'.*Solving, solve\(\).*LinearSolution.*\[\(2,\)\]"):
        asked(Solving(SOLUTIONS[case]))


UNDECLARED = {
    "update_vjp": (
        lambda c, v: c.update_vjp(v),
        r"derivative of the update.*\{\"moves\", \"optimizer\"\}",
    ),
    "move_context_gradient": (
        lambda c, v: c.move_context_gradient(),
        r"gradient at the move.*\{\"moves\", \"context_gradient\"\}",
    ),
}


@pytest.mark.parametrize("needs", [set(), {"moves"}])
@pytest.mark.parametrize("product", UNDECLARED)
def test_a_product_whose_need_was_not_declared_is_named_with_what_to_declare(product, needs):
    function, message = UNDECLARED[product]
    with pytest.raises(MethodError, match=rf"'low'.*{message}"):
        asked(Answering(function, frozenset(needs)))


def test_an_unknown_need_is_answered_by_the_nearest_when_the_engine_is_built():
    levels = program({"low": ("top",), "top": ("low",)}, ["quartic"])
    method = Answering(result(None, None), frozenset({"move"}))
    with pytest.raises(
        MethodError, match=r"'low'.*Answering.*'move'.*did you mean 'moves'.*known: 'a"
    ):
        engine_of(levels, starts(levels), method)


def test_an_implicit_method_of_ones_own_is_judged_by_its_measured_residual():
    hessian, v = symmetric([1.0, 2.0, 3.0, 4.0])[0], torch.randn(4)
    assert answer(Richardson(steps=300), hessian, v)[1].outcome is mlo.Outcome.CONVERGED
    assert answer(Richardson(steps=3), hessian, v)[1].outcome is mlo.Outcome.LIMIT
    assert answer(Richardson(length=2.0), hessian, v)[1].outcome is mlo.Outcome.DIVERGED


@dataclasses.dataclass(frozen=True)
class Remembering(mlo.Hypergradient):
    """Counts, in its state, how it was called."""

    log: list

    def init(self, condition):
        self.log.append("init")
        return {"moves": torch.zeros(()), "calls": torch.zeros(())}

    def observe(self, condition, state):
        self.log.append("observe")
        return {**state, "moves": state["moves"] + 1}

    def vjp(self, condition, cotangent, state):
        self.log.append(("vjp", int(state["moves"]), int(state["calls"])))
        grads = negative(condition.mixed_vjp(times(cotangent, (0.1,) * len(cotangent))))
        return mlo.Result(grads, {**state, "calls": state["calls"] + 1})


ORDER = {
    # A lower move is seen before the upper differentiates, or after it did.
    False: ["init", "observe", ("vjp", 1, 0), "observe", ("vjp", 2, 1), "observe", ("vjp", 3, 2)],
    True: ["init", ("vjp", 0, 0), "observe", ("vjp", 1, 1), "observe", ("vjp", 2, 2), "observe"],
}


@pytest.mark.parametrize("lookahead", [False, True])
def test_a_state_begins_once_sees_every_real_move_and_is_replaced_by_every_call(lookahead):
    method = Remembering([])
    levels = program({"low": ("top",), "top": ("low",)}, ["quartic"])
    engine = engine_of(levels, starts(levels), method, lookahead=lookahead)
    for _ in range(3):
        engine.step()
    assert method.log == ORDER[lookahead]


@pytest.mark.parametrize("lookahead", [False, True])
def test_looking_at_a_hypergradient_changes_no_state(lookahead):
    method = Remembering([])
    levels = program({"low": ("top",), "top": ("low",)}, ["quartic"])
    engine = engine_of(levels, starts(levels), method, lookahead=lookahead)
    first, again = engine.hypergradient("top"), engine.hypergradient("top")
    assert method.log == ["init", ("vjp", 0, 0)] * 2
    assert relative(first, again) == 0.0


def test_every_problem_has_a_state_of_its_own():
    logs = {"a": [], "b": []}
    levels = program({"a": ("top",), "b": ("a",), "top": ("b",)}, ["quartic"])
    methods = {n: Remembering(log) for n, log in logs.items()}
    engine = engine_of(levels, starts(levels), {**methods, "top": mlo.OneStep()}, lookahead=True)
    engine.step()
    engine.step()
    assert logs["a"] == logs["b"] == ["init", ("vjp", 0, 0), "observe", ("vjp", 1, 1), "observe"]


@dataclasses.dataclass(frozen=True)
class Warm(mlo.Implicit):
    """Remembers a gradient, as a warm start would, and solves exactly."""

    seen: list

    def init(self, condition):
        self.seen.append((torch.is_grad_enabled(), condition.gradient()))
        return self.seen[-1][1]

    def vjp(self, condition, cotangent, state):
        answer = super().vjp(condition, cotangent, state)
        return dataclasses.replace(answer, state=state)

    def solve(self, condition, cotangent):
        return mlo.Dense().solve(condition, cotangent)


CHAIN = {
    "below a staged problem": {"low": ("top",), "top": ("low",)},
    "below an anticipating problem": {"low": ("mid",), "mid": ("low", "top"), "top": ("mid",)},
}


@pytest.mark.parametrize("steps", [0, 2])
@pytest.mark.parametrize("lookahead", [False, True])
@pytest.mark.parametrize("case", CHAIN)
def test_a_state_begins_without_gradients_and_holds_no_graph(case, lookahead, steps):
    method = Warm([])
    levels = program(CHAIN[case], ["quadratic"])
    methods = {"low": method, "mid": mlo.Dense()}
    engine = engine_of(levels, starts(levels), methods, lookahead=lookahead)
    for _ in range(steps):
        engine.step()
    engine.hypergradient("top")
    assert method.seen
    for enabled, state in method.seen:
        assert not enabled
        assert all(t.grad_fn is None and not t.requires_grad for t in state)


MISDECLARED = {
    "a reach of nothing": ({"reach": 0}, r"'low'.*Odd, reach must be a whole number.*got 0"),
    "a reach that is no number": ({"reach": "all"}, r"'low'.*reach must be.*got 'all'"),
    "needs that are a text": (
        {"needs": "moves"},
        r"'low'.*needs must be a set.*got the text 'moves'",
    ),
}


@pytest.mark.parametrize("case", MISDECLARED)
def test_what_a_method_declares_of_itself_is_checked(case):
    declared, message = MISDECLARED[case]
    method = type("Odd", (mlo.Direct,), declared)()
    levels = program({"low": ("top",), "top": ("low",)}, ["quadratic"])
    with pytest.raises(MethodError, match=message):
        engine_of(levels, starts(levels), method)


class Misshapen(mlo.Direct):
    """Says that it began somewhere else altogether."""

    def vjp(self, condition, cotangent, state):
        grads = super().vjp(condition, cotangent, state).grads
        return mlo.Result(grads, start=(torch.ones(7),))


def test_where_a_method_says_it_began_is_checked():
    levels = program({"low": ("top",), "top": ("low", "top")}, ["quadratic"])
    with pytest.raises(MethodError, match=r"'low'.*Misshapen, Result\.start must be"):
        engine_of(levels, starts(levels), Misshapen()).hypergradient("top")
