"""Methods by name, methods of one's own, what they may answer, and what they remember."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import inspect
import math
from collections.abc import Callable

import pytest
import torch

import mlo
from mlo import plugins
from mlo.errors import ConfigurationError, MethodError
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
        MethodError, match=r"'low'.*Answering.*'move'.*did you mean 'moves'.*known: 'c"
    ):
        engine_of(levels, starts(levels), method)


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


def went(method, loss, **start):
    """How the response of `low`, with the given loss, went in the move of `top`, and its size."""

    def sgd(params):
        return torch.optim.SGD(params, 0.1)

    def judge(low, top):
        return low["w"].square() + top["w"].square()

    at = {name: {"w": torch.tensor(value)} for name, value in start.items()}
    low = mlo.Problem("low", params=at["low"], loss=loss, optimizer=sgd, hypergradient=method)
    top = mlo.Problem("top", params=at["top"], loss=judge, optimizer=sgd)
    (move,) = (m for m in mlo.Engine([low, top]).step().moves if m.problem == "top")
    return move.responses[0].info, move.gradient_norm


EXPLICIT = {
    "one step": mlo.OneStep(),
    "central": mlo.FiniteDifference(),
    "forward": mlo.FiniteDifference(scheme="forward"),
    "checked": mlo.FiniteDifference(check=True),
    "checked, any disagreement": mlo.FiniteDifference(check=True, tolerance=1e300),
}
METHODS = {
    **EXPLICIT,
    "Neumann": mlo.Neumann(),
    "CG": mlo.ConjugateGradient(),
    "Dense": mlo.Dense(),
}
NONFINITE = {
    "the parameters": (
        lambda low, top: (low["w"] - top["w"]).square(),
        {"low": math.nan, "top": 1.0},
    ),
    "an upper parameter": (
        lambda low, top: (low["w"] - top["w"]).square(),
        {"low": 1.0, "top": math.nan},
    ),
    # The gradient is finite; its derivative with respect to the square root's argument is not.
    "the mixed derivative": (
        lambda low, top: low["w"].square() + low["w"] * top["w"].sqrt(),
        {"low": 1.0, "top": 0.0},
    ),
}


@pytest.mark.parametrize("where", NONFINITE)
@pytest.mark.parametrize("name", METHODS)
def test_a_hypergradient_that_is_not_finite_is_named(name, where):
    loss, start = NONFINITE[where]
    info, size = went(METHODS[name], loss, **start)
    assert not size.isfinite()
    assert info.outcome is mlo.Outcome.NONFINITE


@pytest.mark.parametrize("scheme", ["central", "forward"])
@pytest.mark.parametrize("hole", [0.005, 0.01])
def test_a_check_passes_no_number_that_one_of_its_two_radii_does_not_have(scheme, hole):
    def loss(low, top):
        away = abs(float(low["w"].detach()) - 2.0)
        value = (low["w"] - top["w"]).square()
        return value * math.nan if abs(away - hole) < 1e-6 else value

    method = mlo.FiniteDifference(scheme=scheme, check=True, radius=0.01, tolerance=1e300)
    info, size = went(method, loss, low=2.0, top=3.0)
    assert size.isfinite() == (hole == 0.005)
    assert info.outcome.failed


@pytest.mark.parametrize("name", EXPLICIT)
@pytest.mark.parametrize("depends", [1.0, 0.0])
def test_a_hypergradient_that_is_finite_is_explicit(name, depends):
    def loss(low, top):
        return (low["w"] - (top["w"] if depends else 1.0)).square()

    info, _ = went(EXPLICIT[name], loss, low=2.0, top=3.0)
    assert info.outcome is mlo.Outcome.EXPLICIT
    # Where nothing depends on the upper problem there is nothing to compare.
    assert (info.residual is not None) is bool(name.startswith("checked") and depends)


def test_a_series_that_has_begun_to_grow_has_diverged_though_its_residual_is_small():
    """Along the eigenvalue -0.1 the rest grows by 1.05 a term, from a hundredth of the whole."""
    hessian = torch.diag(torch.tensor([1.0, 1.0, 1.0, -0.1]))
    v = torch.tensor([1.0, 0.0, 0.0, 0.01])
    _, info = answer(mlo.Neumann(terms=60, alpha=0.5), hessian, v)
    torch.testing.assert_close(info.residual, torch.tensor(0.01 * 1.05**60) / v.norm())
    assert info.residual < 1
    assert info.outcome is mlo.Outcome.DIVERGED


@pytest.mark.parametrize("rates", [(0.5, 0.01, 0.1), (0.02, 0.3, 0.3), (0.3, 0.3, 0.001)])
def test_a_series_that_converges_with_several_rates_is_never_called_divergent(rates):
    hessian, _ = symmetric([0.05, 0.4, 1.0, 1.9, 2.5, 3.0], seed=2)
    scale = torch.tensor([rates[0]] + [rates[1]] * 2 + [rates[2]] * 3)
    factor = torch.eye(6) - hessian * scale
    assert torch.linalg.eigvals(factor).abs().max() < 1
    grown = 0
    for seed in range(8):
        torch.manual_seed(seed)
        rest = v = torch.randn(6)
        for terms in range(1, 25):
            _, info = answer(mlo.Neumann(terms=terms), hessian, v, rates=rates)
            assert info.outcome is mlo.Outcome.LIMIT
            grown += bool((factor @ rest).norm() > rest.norm())
            rest = factor @ rest
    # The Euclidean length of the rests says nothing: it grows on the way.
    assert grown


def test_a_series_with_several_rates_converges():
    hessian, _ = symmetric([0.05, 0.4, 1.0, 1.9, 2.5, 3.0], seed=2)
    _, info = answer(mlo.Neumann(terms=1500), hessian, torch.randn(6), rates=(0.5, 0.2, 0.3))
    assert info.outcome is mlo.Outcome.CONVERGED


@pytest.mark.parametrize("seed", range(8))
def test_a_rest_that_stays_as_it_is_does_not_grow_by_its_rounding(seed):
    hessian, _ = symmetric([0.0, 0.0, 1.0, 2.0], seed)
    torch.manual_seed(seed)
    _, info = answer(mlo.Neumann(terms=50, alpha=0.5), hessian, torch.randn(4))
    assert info.outcome is mlo.Outcome.LIMIT
