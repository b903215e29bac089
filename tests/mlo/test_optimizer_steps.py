"""Optimizer steps as functions: torch's own values, right partial derivatives, true transposes."""

from __future__ import annotations

import pytest
import torch

import mlo
from mlo.errors import MethodError
from mlo.method_checks import _OPTIMIZERS
from mlo.optimizer_steps import GRADIENT, PARAMETER, recorded_steps

SGD, Adam, AdamW = torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW
RMSprop = torch.optim.RMSprop
KINDS = {
    "sgd": (SGD, {}),
    "sgd that decays and climbs": (SGD, {"weight_decay": 0.3, "maximize": True}),
    "momentum": (SGD, {"momentum": 0.9}),
    "dampened": (SGD, {"momentum": 0.7, "dampening": 0.4, "weight_decay": 0.2}),
    "dampened, climbing": (SGD, {"momentum": 0.7, "dampening": 0.4, "maximize": True}),
    "nesterov": (SGD, {"momentum": 0.8, "nesterov": True, "weight_decay": 0.1}),
    "adam": (Adam, {}),
    "adam, all of it": (
        Adam,
        {"weight_decay": 0.3, "betas": (0.6, 0.8), "eps": 1e-3, "maximize": True},
    ),
    "amsgrad": (Adam, {"amsgrad": True, "betas": (0.5, 0.4), "weight_decay": 0.1}),
    "decoupled adam": (Adam, {"weight_decay": 0.3, "decoupled_weight_decay": True}),
    "adamw": (AdamW, {"weight_decay": 0.4, "betas": (0.6, 0.8)}),
    "adamw, all of it": (AdamW, {"amsgrad": True, "maximize": True, "betas": (0.5, 0.4)}),
    "adamw, fused": (AdamW, {"fused": True}),
    "rmsprop": (RMSprop, {"alpha": 0.6}),
    "rmsprop, all of it": (
        RMSprop,
        {"alpha": 0.7, "eps": 1e-3, "weight_decay": 0.3, "momentum": 0.6, "maximize": True},
    ),
    "rmsprop, centered": (RMSprop, {"alpha": 0.7, "centered": True, "momentum": 0.5}),
}
STEPS = 6


def sequence(name, seed, shape=(3, 2), rate=0.1):
    """Yield, for each of several real steps: the step, w, g, and what torch makes of it."""
    kind, settings = KINDS[name]
    draw = torch.Generator().manual_seed(seed)
    w = torch.nn.Parameter(torch.randn(shape, generator=draw))
    optimizer = kind([w], rate, **settings)
    for number in range(STEPS):
        size = 10.0 ** float(torch.rand((), generator=draw) * 3 - 2)
        w.grad = size * torch.randn(shape, generator=draw)
        before, g = w.detach().clone(), w.grad.clone()
        (step,) = recorded_steps(optimizer, [w], 1.0)
        optimizer.step()
        after = {k: v.clone() for k, v in optimizer.state[w].items() if torch.is_tensor(v)}
        assert kind is SGD or step.number == number + 1
        yield step, before, g, w.detach().clone(), after


@pytest.mark.parametrize("shape", [(3, 2), ()])
@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("name", KINDS)
def test_a_step_leads_where_torchs_own_does(name, seed, shape):
    for step, w, g, reached, after in sequence(name, seed, shape):
        linear = step.linearized(w, g)
        torch.testing.assert_close(linear.reached, reached, rtol=1e-13, atol=1e-15)
        found, state = step.rule(step.group, step.number, w, g, step.state)
        torch.testing.assert_close(found, reached, rtol=1e-13, atol=1e-15)
        assert set(state) == set(linear.partials) - {PARAMETER} == set(after) - {"step"}
        for key, value in state.items():
            torch.testing.assert_close(value, after[key], rtol=1e-13, atol=1e-15)


def outputs(step, inputs):
    state = {k: v for k, v in inputs.items() if k not in (PARAMETER, GRADIENT)}
    moved, after = step.rule(step.group, step.number, inputs[PARAMETER], inputs[GRADIENT], state)
    return {PARAMETER: moved, **after}


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("name", KINDS)
def test_partial_derivatives_are_central_differences(name, seed):
    for step, w, g, _, _ in sequence(name, seed):
        inputs, linear = {PARAMETER: w, GRADIENT: g, **step.state}, step.linearized(w, g)
        for key, value in inputs.items():
            h = 1e-5 * (value.abs() + (0.0 if key.endswith("sq") else 1e-3))
            up, down = (outputs(step, {**inputs, key: value + s * h}) for s in (1, -1))
            for out, partials in linear.partials.items():
                slope = (up[out] - down[out]) / (2 * h)
                found = partials.get(key, torch.zeros_like(w))
                size = slope.abs().max() + up[out].abs().max() * 1e-2
                assert (found - slope).abs().max() / size < 1e-6, (key, out)


@pytest.mark.parametrize("name", KINDS)
def test_pulling_back_is_the_transpose_of_pushing_forward(name):
    draw = torch.Generator().manual_seed(5)
    for step, w, g, _, _ in sequence(name, 4):
        linear = step.linearized(w, g)
        rows = 3
        tangents = {
            k: torch.randn(rows, *w.shape, generator=draw)
            for k in (PARAMETER, GRADIENT, *step.state)
        }
        cotangents = {k: torch.randn(w.shape, generator=draw) for k in linear.partials}
        pushed, pulled = linear.jvp(tangents), linear.vjp(cotangents)
        left = sum((pushed[k] * cotangents[k]).flatten(1).sum(1) for k in pushed)
        right = sum((tangents[k] * pulled[k]).flatten(1).sum(1) for k in pulled)
        assert left.shape == (rows,)
        assert left.abs().min() > 0
        torch.testing.assert_close(left, right, rtol=1e-11, atol=1e-11)


def test_a_factor_multiplies_the_gradient_and_is_constant():
    w = torch.nn.Parameter(torch.tensor([1.0, -2.0]))
    optimizer = SGD([w], 0.5)
    w.grad = torch.tensor([3.0, 4.0])
    (step,) = recorded_steps(optimizer, [w], torch.tensor(0.1))
    linear = step.linearized(w, w.grad)
    torch.testing.assert_close(linear.reached, torch.tensor([0.85, -2.2]))
    torch.testing.assert_close(linear.partials[PARAMETER][GRADIENT], torch.full((2,), -0.05))


def test_a_step_is_kept_as_it_was():
    """What the optimizer, a scheduler or the user write afterwards does not reach it."""
    w = torch.nn.Parameter(torch.tensor([1.0, -2.0]))
    optimizer = SGD([w], torch.tensor(0.5), momentum=0.9)
    w.grad = torch.tensor([3.0, 4.0])
    optimizer.step()
    (step,) = recorded_steps(optimizer, [w], 1.0)
    optimizer.param_groups[0]["lr"].mul_(0.0)
    optimizer.param_groups[0]["momentum"] = 0.0
    optimizer.step()
    optimizer.state[w]["momentum_buffer"].zero_()
    linear = step.linearized(torch.zeros(2), torch.tensor([1.0, 1.0]))
    torch.testing.assert_close(linear.reached, -0.5 * torch.tensor([3.7, 4.6]))


def test_what_has_no_gradient_is_left_alone():
    w, idle = (torch.nn.Parameter(torch.ones(2)) for _ in range(2))
    w.grad = torch.ones(2)
    steps = recorded_steps(Adam([idle, w], 0.1), [w, idle], 1.0)
    assert steps[0] is not None
    assert steps[1] is None


@pytest.mark.parametrize("need", _OPTIMIZERS)
def test_subclasses_and_other_optimizers_are_not_known(need):
    known, *_ = _OPTIMIZERS[need]
    assert {Adam, AdamW, RMSprop} <= set(known) <= {SGD, Adam, AdamW, RMSprop}

    class Mine(Adam):
        def step(self, closure=None):
            """Something else."""

    class Needing(mlo.OneStep):
        needs = frozenset({"moves", need})

    def declared(optimizer):
        low = mlo.Problem(
            "low",
            params={"w": torch.ones(2)},
            loss=lambda low, top: (low["w"] - top["x"]).square().sum(),
            optimizer=lambda params: optimizer(params, 0.1),
            hypergradient=Needing(),
        )
        top = mlo.Problem(
            "top",
            params={"x": torch.ones(2)},
            loss=lambda low: low["w"].sum(),
            optimizer=lambda params: SGD(params, 0.1),
        )
        return mlo.Engine([low, top])

    declared(Adam)
    for optimizer in (Mine, torch.optim.Adagrad):
        with pytest.raises(
            MethodError, match=rf"'low'.*Needing.*Adam.*not for {optimizer.__name__}"
        ):
            declared(optimizer)
