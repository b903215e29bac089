"""What `mlo.solution` refuses, at once or in backward."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

import mlo
from mlo import errors

from .test_solution_methods import Broken

OUT = torch.ones(2, requires_grad=True, dtype=torch.float64)
NET = nn.Linear(2, 2).double()
C = torch.tensor([1.0, 2.0], dtype=torch.float64)


class Once(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x * 2

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, g):
        return g * 2


def attention(w, c):
    q = (w * c).reshape(1, 1, 1, 2)
    return F.scaled_dot_product_attention(q, q, q).sum() + w.square().sum()


def writing(into):
    def loss(w, c):
        with torch.no_grad():
            (w if into == "params" else c[1]).mul_(2.0)
        return (w - c[0]).square().sum()

    return loss


def square(w, c):
    return (w - c).square().sum()


def stopped(use_reentrant):
    def loss(w, c):
        return checkpoint(lambda w: (w - c).square().sum(), w, use_reentrant=use_reentrant)

    return loss


# name -> (the error, what it says, the loss, its context)
IN_BACKWARD = {
    "no scalar": (errors.LossError, r"float64 tensor of shape \(2,\)", lambda w, c: w * c, C),
    "an integer": (errors.LossError, "int64 tensor", lambda w, c: w.sum().long(), C),
    "a pair": (errors.LossError, "got tuple", lambda w, c: (square(w, c), {}), C),
    "a number": (errors.LossError, "got float", lambda w, c: float(square(w, c).detach()), C),
    "nothing": (errors.LossError, "got NoneType", lambda w, c: None, C),
    "no parameter": (errors.LossError, "none of its parameters", lambda w, c: c.sum(), C),
    "detached params": (errors.LossError, "none of", lambda w, c: square(w.detach(), c), C),
    "a constant": (errors.LossError, "none of", lambda w, c: torch.zeros(()), C),
    "a leaf": (
        errors.ClosureError,
        r"shape \(2,\).*Put it in the context, or detach it",
        lambda w, c: square(w, c) + OUT.sum(),
        C,
    ),
    "a leaf as it is": (errors.ClosureError, r"shape \(\)", lambda w, c: SCALAR, C),
    "a leaf times zero": (
        errors.ClosureError,
        "not among",
        lambda w, c: square(w, c * (OUT * 0)),
        C,
    ),
    "history": (errors.ClosureError, r"shape \(2,\)", lambda w, c: square(w, HISTORY), C),
    "a module": (
        errors.ClosureError,
        r"functional_call",
        lambda w, c: square(NET(w), c),
        C,
    ),
    "another solution": (
        errors.ClosureError,
        r"shape \(2,\)",
        lambda w, c: square(w, c + mlo.solution(C, square, OUT)),
        C,
    ),
    "written params": (errors.EvaluationError, "tensors of 'params'", writing("params"), (C, C)),
    "written data": (errors.EvaluationError, "tensors of 'context'", writing("context"), (C, C)),
    "checkpointing": (errors.CheckpointingError, "checkpointing", stopped(False), C),
    "reentrant": (errors.CheckpointingError, "checkpointing", stopped(True), C),
    "attention": (errors.DoubleBackwardError, "second derivative", attention, C),
    "once": (errors.DoubleBackwardError, "once", lambda w, c: square(Once.apply(w), c), C),
}
SCALAR = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
HISTORY = OUT * 3


@pytest.mark.parametrize("graph", [False, True], ids=["first order", "with a graph"])
@pytest.mark.parametrize("case", IN_BACKWARD)
def test_a_loss_that_cannot_work_is_refused_in_backward_and_named(case, graph):
    error, words, loss, context = IN_BACKWARD[case]
    given = [t.clone() for t in (context if isinstance(context, tuple) else (context,))]
    given[0].requires_grad_()
    context = tuple(given) if isinstance(context, tuple) else given[0]
    w = mlo.solution(C, loss, context, mlo.Dense(), name="fit")
    with pytest.raises(error, match=words) as caught:
        torch.autograd.grad(w.sum(), given[0], create_graph=graph)
    assert type(caught.value) is error
    assert caught.value.problem == "fit"
    assert str(caught.value).startswith("problem 'fit': ")


def test_context_that_is_reached_by_another_way_is_found_also_with_a_graph():
    c = torch.tensor([1.0, 2.0], requires_grad=True)
    doubled = 2 * c
    w = mlo.solution(C, lambda w, c: (w - c - doubled).square().sum(), c)
    for graph in (False, True):
        with pytest.raises(errors.ClosureError):
            torch.autograd.grad(w.sum(), c, create_graph=graph, retain_graph=True)


def test_a_loss_that_is_a_parameter_depends_on_it_and_has_no_curvature():
    w = mlo.solution(torch.tensor(1.0), lambda w, c: w, OUT)
    with pytest.warns(errors.HypergradientWarning, match="the Hessian is singular"):
        w.backward()
    assert OUT.grad is None


def test_an_error_of_the_loss_is_the_users_own_and_says_where():
    def loss(w, c):
        return w @ torch.ones(3)

    w = mlo.solution(C, loss, OUT, name="fit")
    with pytest.raises(RuntimeError) as caught:
        w.sum().backward()
    assert caught.value.__notes__ == ["in the loss of problem 'fit'"]


def test_a_method_that_answers_wrongly_is_named():
    w = mlo.solution(C, lambda w, c: square(w, c[0] + c[1]), (OUT, OUT), Broken([]))
    with pytest.raises(errors.MethodError, match=r"Broken, vjp\(\) must return"):
        w.sum().backward()


# name -> (the error, what it says, the arguments)
AT_ONCE = {
    "no loss": (errors.DeclarationError, "loss= must be a function", (C, 3.0, C)),
    "no params": (errors.DeclarationError, "holds no tensor", ({}, square, C)),
    "a number": (
        errors.DeclarationError,
        r"params\['a'\]\[0\] must be .* got float; constants",
        ({"a": [1.0]}, square, C),
    ),
    "integers": (errors.DeclarationError, "params must be .*int64", (C.long(), square, C)),
    "complex": (errors.DeclarationError, "complex128", (C.cfloat().to(torch.cdouble), square, C)),
    "a module": (errors.DeclarationError, "Linear; .*functional_call", (NET, square, C)),
    "one twice": (
        errors.DeclarationError,
        r"params\['b'\] is the same tensor as params\['a'\]",
        ({"a": C, "b": C}, square, C),
    ),
    "a module of context": (
        errors.DeclarationError,
        r"context\[1\] is a module.*named_parameters",
        (C, square, (C, NET)),
    ),
    "a class": (errors.MethodError, r"method= must be .*write Dense\(", (C, square, C, mlo.Dense)),
    "a name": (errors.MethodError, r"write Neumann\(", (C, square, C, "neumann")),
    "one step": (errors.MethodError, "'moves'.*use ConjugateG", (C, square, C, mlo.OneStep())),
    "differences": (errors.MethodError, "'optimizer'", (C, square, C, mlo.FiniteDifference())),
    "no rates": (
        errors.MethodError,
        r"Neumann needs 'learning_rate' .*Neumann\(alpha=\.\.\.\), with the step",
        (C, square, C, mlo.Neumann()),
    ),
    "too large": (errors.MethodError, r"limit=1\) allows", (C, square, C, mlo.Dense(limit=1))),
}


@pytest.mark.parametrize("grad", [True, False])
@pytest.mark.parametrize("case", AT_ONCE)
def test_arguments_that_cannot_work_are_refused_at_once(case, grad):
    error, words, arguments = AT_ONCE[case]
    with torch.set_grad_enabled(grad), pytest.raises(error, match=words) as caught:
        mlo.solution(*arguments, name="fit")
    assert type(caught.value) is error
    assert caught.value.problem == "fit"


def test_a_frozen_module_is_a_constant_of_the_context():
    frozen, c = nn.Linear(2, 2).requires_grad_(False), C.clone().requires_grad_()
    w = mlo.solution(frozen(c), lambda w, c: square(w, c[1](c[0])), (c, frozen))
    (found,) = torch.autograd.grad(w.sum(), c)
    torch.testing.assert_close(found, frozen.weight.sum(0))
