"""The architecture's gradient in DARTS against its formulas, written out."""

from __future__ import annotations

import pytest
import torch

import mlo
from problems.nas.architecture import Architecture
from problems.nas.programs.darts import darts_problems
from problems.nas.space import CellSpace

from .by_hand import (
    CLIPPED,
    HEAVY,
    TICKS,
    data,
    error,
    grad,
    grads,
    leaves,
    losses,
    plus,
    received,
    size,
    stepped,
    supernet,
    times,
)

DATA = data(6, 5, 8)
EXACT = 1e-10
DIFFERENCE = 1e-9
"""Relative, for each tensor by its norm; the second is a difference of two gradients by hand."""


def engine_of(method, training, *, lookahead):
    network = supernet(1, 0, channels=2)
    torch.manual_seed(1)
    architecture = Architecture(CellSpace.darts(nodes=1), scale=0.5)
    problems = darts_problems(
        network, architecture, ticks=10, training=training, hypergradient=method
    )
    return mlo.Engine(problems, DATA, lookahead=lookahead, dry_run=False)


def unrolled(engine, train, valid):
    """Full differentiation through the step: by A in both places."""
    network, architecture = engine.problems.values()
    alphas, w = leaves(architecture.module), leaves(network.module)
    new = stepped(network, w, losses(network.module, w, alphas, train).mean())
    return grad(losses(network.module, new, alphas, valid).mean(), alphas)


def at_the_step(engine, train, valid):
    """The direct gradient after the step, and v, w, A."""
    network, architecture = engine.problems.values()
    alphas, w = leaves(architecture.module), leaves(network.module)
    new = stepped(network, w, losses(network.module, w, alphas, train).mean())
    new = {k: p.detach().requires_grad_() for k, p in new.items()}
    loss = losses(network.module, new, alphas, valid).mean()
    return *grads(loss, alphas, new), w, alphas


def by_difference(engine, train, valid):
    """DARTS, eq. 8: g = dL_val/dA - rate (dL_tr/dA(w + e v) - dL_tr/dA(w - e v)) / (2 e)."""
    network = engine.problems["network"]
    direct, v, w, alphas = at_the_step(engine, train, valid)
    e = 0.01 / size(v)
    ahead, behind = (
        grad(losses(network.module, plus(w, times(s * e, v)), alphas, train).mean(), alphas)
        for s in (1, -1)
    )
    (group,) = network.optimizer.param_groups
    mixed = times(-group["lr"] / (2 * e), plus(ahead, times(-1, behind)))
    return plus(direct, mixed)


def first_order(engine, train, valid):
    """The direct gradient alone."""
    return at_the_step(engine, train, valid)[0]


def check(engine, reference, tolerance, *, asked=True):
    """In every tick, as the optimizer is handed it; before the first one also by asking."""
    architecture = engine.problems["architecture"]
    for tick in range(TICKS - 1):
        want = reference(engine, DATA["train"][tick], DATA["valid"][tick])
        if asked and tick == 0:
            assert error(engine.hypergradient("architecture"), want) < tolerance
        with received(architecture) as seen:
            engine.step()
        assert error(seen, want) < tolerance


@pytest.mark.parametrize(
    ("training", "lookahead"), [(HEAVY, True), (HEAVY, False), (CLIPPED, True)]
)
def test_the_second_order_is_full_differentiation_through_the_step(training, lookahead):
    check(engine_of(None, training, lookahead=lookahead), unrolled, EXACT)


@pytest.mark.parametrize("lookahead", [True, False])
def test_differences_are_the_formula_of_darts(lookahead):
    method = mlo.FiniteDifference(radius=0.01)
    check(engine_of(method, HEAVY, lookahead=lookahead), by_difference, DIFFERENCE)


def test_the_first_order_is_the_direct_gradient():
    """In a tick the network moves first, and the architecture is judged where it has moved."""
    check(engine_of(mlo.Direct(), HEAVY, lookahead=False), first_order, EXACT, asked=False)


def test_the_orders_differ():
    engine = engine_of(None, HEAVY, lookahead=True)
    exact, difference, direct = (
        reference(engine, DATA["train"][0], DATA["valid"][0])
        for reference in (unrolled, by_difference, first_order)
    )
    assert error(direct, exact) > 1e-3
    assert error(difference, exact) > 1e-3


def test_both_alphas_and_only_they_move_by_the_rate_of_the_architecture():
    engine = engine_of(None, HEAVY, lookahead=True)
    module = engine.problems["architecture"].module
    before = leaves(module)
    engine.step()
    for key, alpha in module.named_parameters():
        # The first step of Adam is the rate, whatever the gradient, entry by entry.
        torch.testing.assert_close(
            (alpha - before[key]).abs().max().detach(), torch.tensor(3e-4), rtol=1e-3, atol=0
        )
