"""Every program with every hypergradient method: a finite gradient, or an error that says why."""

from __future__ import annotations

import warnings

import pytest
import torch

import mlo
from mlo.errors import (
    ConfigurationError,
    GraphError,
    HypergradientWarning,
    MethodError,
    NonfiniteError,
)
from mlo.hypergradients.registry import make_method, method_names

from .programs import UPPERS, engine_of

INSTANCES = {
    **{name: (name, {}) for name in method_names()},
    "neumann-auto": ("neumann", {"terms": 5, "alpha": "auto", "warm_start": True}),
    "neumann-diagonal": ("neumann", {"alpha": 0.5, "preconditioner": "diagonal"}),
    "cg-diagonal": ("conjugate-gradient", {"damping": 1.0, "preconditioner": "diagonal"}),
    "cg-nystrom": ("conjugate-gradient", {"damping": 1.0, "preconditioner": "nystrom"}),
    "cg-warm": ("conjugate-gradient", {"damping": 1.0, "warm_start": True}),
    "cg-optimizer": ("conjugate-gradient", {"damping": 1.0, "preconditioner": "optimizer"}),
    "minres-damped": ("minres", {"damping": 1.0, "warm_start": True}),
    "nystrom-refreshed": ("nystrom", {"rank": 6, "damping": 0.5, "refresh": 2}),
    "dense-damped": ("dense", {"damping": 0.1}),
    "unrolled-three": ("unrolled", {"steps": 3, "recompute": False}),
    "difference-checked": ("finite-difference", {"scheme": "forward", "check": True}),
    "sama-checked": ("sama", {"check": True}),
}

REFUSED = {
    "direct": (GraphError, "Direct.*answers nothing"),
    "cg-optimizer": (MethodError, "second moments of the optimizer"),
    ("l2rw", "dense"): (NonfiniteError, "Hessian is singular"),
    ("l2rw", "forward-mode"): (ConfigurationError, "expected a method of one step"),
    ("l2rw", "unrolled-three"): (ConfigurationError, "expected a method of one step"),
}
"""By method, or by program and method: where all weights are zero, so is L2RW's Hessian."""

SILENT = {("l2rw", "conjugate-gradient"), ("l2rw", "minres"), ("l2rw", "neumann-auto")}
"""No weight has a gradient there, for the same reason."""


def made(name, kind, *, lookahead):
    method, settings = INSTANCES[kind]
    return engine_of(name, make_method(method, **settings), lookahead=lookahead)


@pytest.mark.parametrize("kind", INSTANCES)
@pytest.mark.parametrize("name", UPPERS)
def test_a_program_runs_with_a_method_or_says_why_not(name, kind):
    _check(name, kind, lookahead=True)


@pytest.mark.parametrize("kind", method_names())
@pytest.mark.parametrize("name", UPPERS)
def test_a_program_runs_through_its_real_moves_too(name, kind):
    _check(name, kind, lookahead=False)


def _check(name, kind, *, lookahead):
    refusal = REFUSED.get(kind) or REFUSED.get((name, kind))
    if refusal is not None:
        with pytest.raises(refusal[0], match=refusal[1]):
            made(name, kind, lookahead=lookahead).step()
        return
    engine = made(name, kind, lookahead=lookahead)
    upper = engine.problems[UPPERS[name]]
    before = [p.detach().clone() for p in upper.module.parameters()]
    records = [engine.step() for _ in range(2)]
    failed = {
        response.info.outcome.name
        for record in records
        for move in record.moves
        for response in move.responses
        if response.info.outcome.failed
    }
    with warnings.catch_warnings():
        if name == "l2rw":  # at the weights of the last batch, not at zero
            warnings.simplefilter("ignore", HypergradientWarning)
        gradient = engine.hypergradient(upper.name)
    assert all(bool(value.isfinite().all()) for value in gradient.values())
    moved = [not torch.equal(p, q) for p, q in zip(upper.module.parameters(), before, strict=True)]
    assert any(moved) == ((name, kind) not in SILENT)
    assert failed <= ({"SINGULAR"} if (name, kind) in SILENT else set())


@pytest.mark.parametrize("kind", ["one-step", "unrolled", "neumann", "sama", "finite-difference"])
def test_methods_that_are_exact_at_zero_weights_find_the_same_ones(kind):
    """The Hessian of L2RW is zero there, so a series is a multiple of the step, which cancels."""
    found = []
    for method in (mlo.OneStep(), make_method(kind)):
        engine = engine_of("l2rw", method)
        engine.step()
        found.append(engine.problems["weights"].module["epsilon"].detach().clone())
    torch.testing.assert_close(found[0], found[1], rtol=1e-6, atol=1e-12)
    assert float(found[0].sum()) == pytest.approx(1)
