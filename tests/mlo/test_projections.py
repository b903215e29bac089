"""Projections: what they return, in place or not, and their derivative."""

from __future__ import annotations

import pytest
import torch

import mlo
from mlo.errors import (
    EvaluationError,
)

from .small import LOOKAHEAD, sgd, two


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
