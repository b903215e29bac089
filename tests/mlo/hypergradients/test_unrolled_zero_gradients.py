"""Adam where gradients are exactly zero: its square root has no derivative there, the step has."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import mlo
from mlo.optimizer_steps import GRADIENT, PARAMETER, recorded_steps

Adam, AdamW = torch.optim.Adam, torch.optim.AdamW
KINDS = {
    "adam": lambda p: Adam(p, 0.05, eps=1e-3),
    "amsgrad": lambda p: Adam(p, 0.05, eps=1e-3, amsgrad=True),
    "adamw": lambda p: AdamW(p, 0.05, eps=1e-3, weight_decay=0.1),
    "adam that decays": lambda p: Adam(p, 0.05, eps=1e-3, weight_decay=0.1),
}
METHODS = {"reverse": mlo.Unrolled(steps=100), "forward": mlo.ForwardMode()}
DRAWN = torch.Generator().manual_seed(11)
X = torch.randn(7, 4, generator=DRAWN, dtype=torch.float64)
X[:, 2] = 0.0  # an input that is never on: its weights have gradients that are exactly zero
LATER = X.clone()
LATER[:, 1] = 0.0  # one that is on only later


class Net(nn.Module):
    """With a hidden unit that is dead from the beginning."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(4, 3, dtype=torch.float64)
        self.second = nn.Linear(3, 1, dtype=torch.float64)
        with torch.no_grad():
            self.first.bias[0] = -100.0

    def forward(self, x):
        return self.second(self.first(x).relu() + 0.1 * self.first(x)[:, 1:2].square())


def fit(low, top, x):
    return (low(x).squeeze(1) * top["a"].exp() - top["b"]).square().mean()


def judge(low):
    return low(X.to(low.second.weight.dtype)).square().mean().sqrt()


def program(kind, method, dtype, *, shift=None, repeat=1):
    torch.manual_seed(3)
    net = Net().to(dtype)
    low = mlo.Problem(
        "low",
        module=net,
        loss=fit,
        optimizer=KINDS[kind](list(net.parameters())),
        hypergradient=method,
        repeat=repeat,
    )
    at = {"a": torch.tensor([0.3] * 7, dtype=dtype), "b": torch.tensor(0.7, dtype=dtype)}
    for key, more in (shift or {}).items():
        at[key] = at[key] + more
    top = mlo.Problem("top", params=at, loss=judge, optimizer=lambda p: torch.optim.SGD(p, 0.0))
    data = {"x": [t.to(dtype) for t in (LATER, LATER, X, LATER, X)]}
    return mlo.Engine([low, top], data)


def value(kind, shift):
    engine = program(kind, None, torch.float64, shift=shift)
    for _ in range(5):
        engine.step()
    return judge(engine.problems["low"].module).detach()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_run_with_dead_units_is_differentiated_as_differences_have_it(kind, method):
    engine = program(kind, METHODS[method], torch.float64)
    for _ in range(5):
        engine.step()
    weight = engine.problems["low"].module.first.weight
    if kind != "adam that decays":
        squares = engine.problems["low"].optimizer.state[weight]["exp_avg_sq"]
        assert (squares[0] == 0).all()
        assert (squares[:, 2] == 0).all()
        assert (squares != 0).any()
    found, (response,) = engine.total_gradient("top")
    assert response.info.outcome is mlo.Outcome.EXPLICIT
    h = 1e-5
    for key, i in (("a", 0), ("a", 5), ("b", None)):
        unit = torch.zeros_like(found[key])
        unit[() if i is None else i] = h
        slope = (value(kind, {key: unit}) - value(kind, {key: -unit})) / (2 * h)
        torch.testing.assert_close(found[key][() if i is None else i], slope, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", KINDS)
def test_in_single_precision_it_is_finite_and_the_same(kind, method):
    answers = []
    for dtype in (torch.float32, torch.float64):
        torch.set_default_dtype(dtype)
        engine = program(kind, METHODS[method], dtype, repeat=2)
        for _ in range(5):
            engine.step()
        found, (response,) = engine.total_gradient("top")
        assert response.info.outcome is mlo.Outcome.EXPLICIT
        assert all(g.dtype == dtype and bool(g.isfinite().all()) for g in found.values())
        answers.append({k: g.double() for k, g in found.items()})
    for key in ("a", "b"):
        torch.testing.assert_close(answers[0][key], answers[1][key], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("amsgrad", [False, True])
@pytest.mark.parametrize("zeros", [0, 1, 4])
def test_at_a_zero_gradient_after_zeros_the_slope_is_that_of_the_first_average(
    zeros, amsgrad, dtype
):
    r"""m' = (1 - b1) g, and sqrt(s') + eps = eps + O(g): dw'/dg = -(eta / k1) (1 - b1) / eps."""
    w = nn.Parameter(torch.tensor([1.0, -2.0], dtype=dtype))
    optimizer = Adam([w], 0.05, betas=(0.8, 0.9), eps=1e-4, amsgrad=amsgrad)
    for _ in range(zeros):
        w.grad = torch.zeros_like(w)
        optimizer.step()
    w.grad = torch.zeros_like(w)
    (step,) = recorded_steps(optimizer, [w], 1.0)
    partials = step.linearized(w, w.grad).partials[PARAMETER]
    slope = -0.05 / (1 - 0.8 ** (zeros + 1)) * 0.2 / 1e-4
    expected = torch.full((2,), slope, dtype=dtype)
    torch.testing.assert_close(partials[GRADIENT], expected)
    h = torch.tensor(1e-9, dtype=torch.float64)
    state = {k: v.double() for k, v in step.state.items()}
    up, down = (
        step.rule(step.group, step.number, torch.zeros(2).double(), g * torch.ones(2), state)[0]
        for g in (h, -h)
    )
    torch.testing.assert_close(((up - down) / (2 * h)).to(dtype), expected, rtol=1e-3, atol=0)
