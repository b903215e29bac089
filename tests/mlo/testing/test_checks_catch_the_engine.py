"""A check is no echo of the engine: where the engine is broken on purpose, it says so.

The exact rules are the engine's own, so what breaks them is an error, and never a bias.
"""

from __future__ import annotations

import contextlib
import dataclasses

import pytest
import torch

import mlo
import mlo.condition
import mlo.evaluator
import mlo.solve
import mlo.update
from mlo.condition import Condition
from mlo.errors import CheckError
from mlo.optimizer_steps import STEP_RULES
from mlo.site import Site, _Place
from mlo.sweep import Sweep
from mlo.testing import check_hypergradient
from mlo.update import Step

from .checked import UPPER, aim, bowl, chain, lfm, noisy_net, pair, sgd, staged
from .test_check_hypergradient import maml

DENSE = {"a": mlo.Dense(), "b": mlo.Dense()}
NESTED = {"z": mlo.Dense(), "y": mlo.Dense()}


def scaled(method: str):
    """A product of `Condition` is one per cent too large; of two, the second."""

    def mutate(monkeypatch):
        plain = getattr(Condition, method)

        def wrong(self, *given):
            found = plain(self, *given)
            if isinstance(found[0], tuple):
                return found[0], times(found[1])
            return times(found)

        monkeypatch.setattr(Condition, method, wrong)

    return mutate


def times(tensors, factor=1.01):
    return tuple(None if t is None else factor * t for t in tensors)


def without_response(name: str):
    def mutate(monkeypatch):
        plain = Sweep._respond

        def cut(self, group, env):
            found = plain(self, group, env)
            return {
                n: tuple(t.detach() for t in own) if n == name else own for n, own in found.items()
            }

        monkeypatch.setattr(Sweep, "_respond", cut)

    return mutate


def without_the_carry(monkeypatch):
    """dw'/dw counts as one, whatever the weight decay."""
    monkeypatch.setattr(mlo.update, "carried", lambda optimizer, params, d: (1.0,) * len(params))


def without_the_route_through_the_start(monkeypatch):
    monkeypatch.setattr(Site, "_through_start", lambda self, move, direct, *rest: direct)


def without_the_projection(monkeypatch):
    monkeypatch.setattr(Step, "unprojected_vjp", lambda self, v: v)


def without_the_bend_of_adam(monkeypatch):
    """Its second moment counts as a constant."""

    def flat(group, step, w, g, state):
        (b1, b2), lr = group["betas"], group["lr"]
        m = (1 - b1) * g + b1 * state.get("exp_avg", 0.0)
        s = (1 - b2) * g.detach() ** 2 + b2 * state.get("exp_avg_sq", 0.0)
        scale = (s / (1 - b2**step)).sqrt() + group["eps"]
        return w - lr / (1 - b1**step) * m / scale, {"exp_avg": m, "exp_avg_sq": s}

    monkeypatch.setitem(STEP_RULES, torch.optim.Adam, flat)


def without_the_dampening(monkeypatch):
    monkeypatch.setattr(mlo.update_rules, "sgd", lambda group, state: group["lr"])


def where_it_stands_now(monkeypatch):
    """A recorded move is differentiated at the parameters to which it led."""
    plain = Site.condition

    def late(self, params, context, needed):
        here = self
        if self.move.before is not None:
            here = object.__new__(Site)
            here.__dict__.update(self.__dict__)
            here.move = dataclasses.replace(self.move, before=self.values[self.name], graph=None)
        return plain(here, params, context, needed)

    monkeypatch.setattr(Site, "condition", late)


def without_third_derivatives(monkeypatch):
    def none(self, u, z):
        return (None,) * (len(self.params) + len(self.context))

    monkeypatch.setattr(Condition, "curvature_vjp", none)


def with_the_wrong_sign_of_third_derivatives(monkeypatch):
    plain = Condition.curvature_vjp
    monkeypatch.setattr(Condition, "curvature_vjp", lambda self, u, z: times(plain(self, u, z), -1))


def with_tangents_that_are_too_long(monkeypatch):
    plain = Condition.solve

    def long(self, solver, v):
        found = plain(self, solver, v)
        return dataclasses.replace(found, adjoint=times(found.adjoint))

    monkeypatch.setattr(Condition, "solve", long)


def as_if_nested_were_partial(monkeypatch):
    """Conditions are those of a problem to which nobody answers."""
    plain = _Place.objective

    def partial(self, w, c):
        with monkeypatch.context() as patch:
            patch.setattr(self.sweep.program.graph, "nested", "partial")
            return plain(self, w, c)

    monkeypatch.setattr(_Place, "objective", partial)


def long_steps():
    """So long that what the learner's step changes shows in the relearner's."""
    return lfm(optimizer=sgd(2.0))


def decaying_maml():
    return maml(optimizer=sgd(0.3, weight_decay=0.2))


def after(engine: mlo.Engine, ticks: int = 3) -> mlo.Engine:
    for _ in range(ticks):
        engine.step()
    return engine


def adam_steps():
    return after(lfm(optimizer=lambda params: torch.optim.Adam(params, 0.02, eps=1e-2)))


def dampened_steps():
    return after(lfm(optimizer=sgd(momentum=0.9, dampening=0.4)))


def projected_steps():
    return lfm(project=lambda p: {k: t.sinh() for k, t in p.items()})


MUTANTS = {
    "mixed products, of moves": (scaled("mixed_vjp"), lfm, UPPER),
    "mixed products, of micro-batches": (scaled("mixed_vjp"), lambda: lfm(accumulate=3), UPPER),
    "mixed products, of a few numbers": (scaled("mixed_vjp"), lambda: pair(bowl, aim), "top"),
    "mixed products, of solutions": (scaled("products"), lambda: staged(DENSE), "top"),
    "mixed products, of nested levels": (scaled("products"), lambda: chain(NESTED), "x"),
    "Hessian products": (scaled("hvp"), lambda: staged(DENSE), "top"),
    "the response of the middle problem": (without_response("relearner"), lfm, UPPER),
    "the response of the lower problem": (without_response("learner"), long_steps, UPPER),
    "the response of the first of two": (without_response("a"), lambda: staged(DENSE), "top"),
    "the response of the last of two": (without_response("b"), lambda: staged(DENSE), "top"),
    "the response of the anticipated one": (without_response("z"), lambda: chain(NESTED), "x"),
    "the carry of a decaying step": (without_the_carry, decaying_maml, "top"),
    "the route through the start": (without_the_route_through_the_start, maml, "top"),
    "the projection": (without_the_projection, projected_steps, UPPER),
    "the bend of Adam": (without_the_bend_of_adam, adam_steps, UPPER),
    "dampening": (without_the_dampening, dampened_steps, UPPER),
    "where a move was made": (where_it_stands_now, lfm, UPPER),
    "third derivatives": (without_third_derivatives, lambda: chain(NESTED), "x"),
    "sign of third derivatives": (
        with_the_wrong_sign_of_third_derivatives,
        lambda: chain(NESTED),
        "x",
    ),
    "tangent solves": (with_tangents_that_are_too_long, lambda: chain(NESTED), "x"),
    "total gradients of nested levels": (as_if_nested_were_partial, lambda: chain(NESTED), "x"),
}


@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_mutant_of_the_engine_is_an_error_that_no_bias_excuses(mutant, monkeypatch):
    mutate, make, name = MUTANTS[mutant]
    torch.manual_seed(0)
    assert check_hypergradient(make(), name, tolerance=1e-4).bias < 1e-6
    torch.manual_seed(0)
    engine = make()
    mutate(monkeypatch)
    with pytest.raises(CheckError, match=r"wrong hypergradient|could not be solved") as caught:
        check_hypergradient(engine, name, tolerance=1e-4, bias=1e9)
    if "wrong" in str(caught.value):
        assert str(caught.value).startswith(f"wrong hypergradient: problem '{name}'")


def test_masks_that_are_drawn_anew_are_noticed(monkeypatch):
    monkeypatch.setattr(mlo.evaluator, "replayed", lambda state: contextlib.nullcontext())
    with pytest.raises(CheckError, match="stochastic loss"):
        check_hypergradient(lfm(net=noisy_net), UPPER)
    with pytest.raises(CheckError, match=r"wrong hypergradient|nothing to see"):
        check_hypergradient(lfm(net=noisy_net), UPPER, losses=False)
