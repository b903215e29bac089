"""Projections: what they return, in place or not, and their derivative."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import mlo
from mlo.errors import (
    EvaluationError,
)

X = torch.linspace(-1, 1, 15, dtype=torch.float64).reshape(5, 3)


LOOKAHEAD = pytest.mark.parametrize("lookahead", [False, True])


def sgd(params):
    return torch.optim.SGD(params, 0.1)


def fit(net, top):
    return (net(X).square().mean() * top["a"].exp()) + net(X).mean()


def judge(net):
    return (net(X) - 1.0).square().mean()


def two(net=None, low=None, high=None, **settings):
    """A network and one number above it, with what a case changes."""
    given = {"module": net or nn.Linear(3, 2), "loss": fit, "optimizer": sgd, **(low or {})}
    upper = {"params": {"a": torch.tensor(0.3)}, "loss": judge, "optimizer": sgd, **(high or {})}
    return mlo.Engine([mlo.Problem("net", **given), mlo.Problem("top", **upper)], **settings)


def clamped(given):
    for tensor in given.values():
        tensor.clamp_(min=0.0)
    return given


PROJECTS = {
    "nothing": (lambda given: None, "must return name -> tensor, got NoneType"),
    "a tensor": (lambda given: given["bias"], "must return name -> tensor, got Tensor"),
    "numbers": (lambda given: {"bias": 0.0}, r"got dict.*'bias': 'float'"),
    "an unknown name": (lambda given: {"bais": given["bias"]}, r"'bais'.*none of.*'bias'"),
    "another shape": (lambda given: {"bias": given["bias"][:1]}, r"'bias'.*\(1,\).*\(2,\)"),
}


@LOOKAHEAD
@pytest.mark.parametrize("case", PROJECTS)
def test_a_projection_that_returns_something_else_is_named(case, lookahead):
    function, message = PROJECTS[case]
    engine = two(low={"project": function}, lookahead=lookahead)
    with pytest.raises(EvaluationError, match=rf"'net'.*project=.*{message}"):
        engine.step()


@LOOKAHEAD
def test_a_projection_in_place_is_applied_and_differentiated(lookahead):
    """f = |w - x|^2 / 2, F = <w', c> with w' = max(w - 0.1 (w - x), 0): dF/dx = 0.1 c where > 0."""
    w, x, c = (torch.tensor(t) for t in ([1.0, -1.0, 2.0], [3.0, 2.0, -1.0], [0.5, 7.0, 2.0]))
    low = mlo.Problem(
        "low",
        params={"w": w},
        loss=lambda low, top: (low["w"] - top["x"]).square().sum() / 2,
        optimizer=sgd,
        project=clamped,
    )
    top = mlo.Problem("top", params={"x": x}, loss=lambda low: low["w"] @ c, optimizer=sgd)
    engine = mlo.Engine([low, top], lookahead=lookahead)
    unprojected = w - 0.1 * (w - x)
    expected = torch.where(unprojected > 0, 0.1 * c, 0.0)
    assert expected.count_nonzero() == 2
    torch.testing.assert_close(engine.hypergradient("top")["x"], expected, rtol=1e-14, atol=0)
    engine.step()
    if lookahead:  # the upper problem moved before the real move
        unprojected = w - 0.1 * (w - (x - 0.1 * expected))
    torch.testing.assert_close(
        low.module["w"].detach(), unprojected.clamp(min=0.0), rtol=1e-14, atol=0
    )
