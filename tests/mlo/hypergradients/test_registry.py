"""Methods by name, methods of other packages, and methods that remember."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import inspect

import pytest
import torch

import mlo
from mlo import plugins
from mlo.errors import ConfigurationError
from mlo.hypergradients import registry
from mlo.vectors import negative, times

from ..oracles import engine_of, relative, starts
from ..programs import program
from .quadratics import answer, symmetric

OWN = {
    "conjugate-gradient": mlo.ConjugateGradient,
    "dense": mlo.Dense,
    "direct": mlo.Direct,
    "finite-difference": mlo.FiniteDifference,
    "neumann": mlo.Neumann,
    "one-step": mlo.OneStep,
}


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
class Miscounting(mlo.Hypergradient):
    """Answers for `extra` more context tensors than there are."""

    extra: int

    def vjp(self, condition, cotangent, state):
        return mlo.Result((None,) * (len(condition.context) + self.extra), state)


@pytest.mark.parametrize("extra", [-1, 1])
def test_a_method_that_answers_for_too_few_or_too_many_tensors_is_named(extra):
    levels = program({"low": ("top",), "top": ("low",)}, ["quartic"])
    engine = engine_of(levels, starts(levels), Miscounting(extra))
    with pytest.raises(mlo.MloError, match=r"'low'.*Miscounting"):
        engine.hypergradient("top")


def test_an_implicit_method_of_ones_own_is_judged_by_its_measured_residual():
    hessian, v = symmetric([1.0, 2.0, 3.0, 4.0])[0], torch.randn(4)
    assert answer(Richardson(steps=300), hessian, v)[1].outcome is mlo.Outcome.CONVERGED
    assert answer(Richardson(steps=3), hessian, v)[1].outcome is mlo.Outcome.LIMIT
    assert answer(Richardson(length=2.0), hessian, v)[1].outcome is mlo.Outcome.DIVERGED


def test_all_methods_are_there_by_name():
    assert {name: mlo.methods()[name] for name in OWN} == OWN
    assert mlo.make_method("neumann", terms=3, alpha=0.5) == mlo.Neumann(terms=3, alpha=0.5)
    assert mlo.make_method("one-step") == mlo.OneStep()


def test_a_registered_method_is_made_by_name():
    assert mlo.register("identity")(Identity) is Identity
    assert mlo.methods()["identity"] is Identity
    assert mlo.make_method("identity", scale=2.0) == Identity(2.0)
    # Again by the same class, as after a reload: no complaint.
    mlo.register("identity")(Identity)


def test_a_name_that_is_taken_is_refused():
    with pytest.raises(ConfigurationError, match=r"'neumann' is taken by Neumann"):
        mlo.register("neumann")(Identity)
    assert mlo.methods()["neumann"] is mlo.Neumann


def test_a_class_of_the_same_name_in_another_package_is_another_class():
    other = type("Neumann", (Identity,), {"__module__": "another_package"})
    with pytest.raises(ConfigurationError, match="'neumann' is taken"):
        mlo.register("neumann")(other)
    assert mlo.methods()["neumann"] is mlo.Neumann


@pytest.mark.parametrize("thing", [mlo.Dense(), dict, lambda condition: None])
def test_only_method_classes_can_be_registered(thing):
    with pytest.raises(ConfigurationError, match=r"register\('thing'\).*mlo\.Hypergradient"):
        mlo.register("thing")(thing)


@pytest.mark.parametrize(
    ("wrong", "near"), [("neuman", "neumann"), ("one_step", "one-step"), ("zzz", None)]
)
def test_an_unknown_name_is_answered_by_the_nearest(wrong, near):
    with pytest.raises(ConfigurationError) as caught:
        mlo.make_method(wrong)
    message = str(caught.value)
    assert f"'{wrong}'" in message
    assert all(f"'{name}'" in message for name in OWN)
    assert (f"did you mean '{near}'?" in message) == (near is not None)


@pytest.mark.parametrize(
    ("name", "settings", "culprit"),
    [
        ("neumann", {"term": 3}, "term"),
        ("dense", {"damping": 0.1, "rate": 2}, "rate"),
        ("conjugate-gradient", {"iterations": 0}, "iterations"),
        ("conjugate-gradient", {"iterations": "many"}, "iterations"),
        ("neumann", {"terms": "many"}, "terms"),
        ("neumann", {"terms": 2.5}, "terms"),
        ("finite-difference", {"scheme": "backward"}, "scheme"),
        ("finite-difference", {"radius": -1.0}, "radius"),
    ],
)
def test_settings_that_do_not_fit_are_named(name, settings, culprit):
    with pytest.raises(ConfigurationError) as caught:
        mlo.make_method(name, **settings)
    message = str(caught.value)
    assert culprit in message
    assert name in message or OWN[name].__name__ in message


def test_installed_packages_offer_methods(monkeypatch):
    def entry_points(group):
        assert group == "mlo.hypergradients"
        offer = "mlo.hypergradients.direct:Direct"
        return [importlib.metadata.EntryPoint("theirs", offer, group)]

    monkeypatch.setattr(plugins.metadata, "entry_points", entry_points)
    assert mlo.methods()["theirs"] is mlo.Direct
    assert mlo.make_method("theirs") == mlo.Direct()


@dataclasses.dataclass(frozen=True)
class Remembering(mlo.Hypergradient):
    """Counts, in its state, how it was called."""

    log: list

    def init(self, condition):
        self.log.append("init")
        return {"moves": torch.zeros(()), "calls": torch.zeros(())}

    def observe(self, move, state):
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
