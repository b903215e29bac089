"""Mistakes in a loss that would give wrong numbers silently, caught where they are made."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils._pytree import tree_leaves

from mlo.errors import (
    CheckpointingError,
    ClosureError,
    DoubleBackwardError,
    EvaluationError,
    LossError,
)
from mlo.types import Tensors, Values


def check_graph(
    problem: str, loss: Tensor, values: Values, live: Mapping[int, str], kind: str = "loss"
) -> None:
    """Find live variables, and reentrant checkpointing, in the graph of an evaluation.

    The walk stops at the given tensors, so its cost is linear in the evaluation's own graph.

    Args:
        problem: whose loss it is.
        loss: what it returned.
        values: the tensors that it was evaluated at.
        live: id of every live variable of the program -> how to name it in a message.
        kind: what returned it, for messages.

    Raises:
        ClosureError: the loss uses a variable that it was not handed.
        CheckpointingError: it uses reentrant activation checkpointing.
    """
    given = [t for tensors in values.values() for t in tensors]
    found = [live[id(x)] for x in _outside(problem, loss, given) if id(x) in live]
    if found:
        raise ClosureError(
            f"problem '{problem}': its {kind} uses {found[0]} from outside its arguments; the "
            "engine cannot replace it there, and the hypergradient would be wrong. Name the "
            "problem as an argument and use what is handed in",
            problem=problem,
        )


def check_closed(problem: str, loss: Tensor, params: Tensors, context: Tensors) -> None:
    """A loss depends on its parameters, and on nothing that it was not handed.

    Raises:
        ClosureError: it uses a tensor from elsewhere that requires grad.
        CheckpointingError: it uses reentrant activation checkpointing.
        LossError: it uses no parameter.
    """
    for x in _outside(problem, loss, (*params, *context)):
        raise ClosureError(
            f"problem '{problem}': its loss uses a tensor of shape {tuple(x.shape)} that requires "
            "grad and is not among its arguments, so the gradient would miss it. Put it in the "
            "context, or detach it; a module is evaluated at the tensors that are handed in by "
            "torch.func.functional_call(module, params, inputs)",
            problem=problem,
        )
    if not leads_to(loss, params):
        raise LossError(
            f"problem '{problem}': its loss depends on none of its parameters; compute it from the "
            "params that it is handed, and see that nothing on the way is detached",
            problem=problem,
        )


def checked_scalar(problem: str, loss: Any, alternative: str = "") -> Tensor:
    """What a loss returned, which must be a scalar; `alternative` is what it might have been.

    Raises:
        LossError: it is something else.
    """
    if isinstance(loss, Tensor) and loss.dim() == 0 and loss.is_floating_point():
        return loss
    found = (
        f"a {loss.dtype} tensor of shape {tuple(loss.shape)}"
        if isinstance(loss, Tensor)
        else type(loss).__name__
    )
    raise LossError(
        f"problem '{problem}': its loss must return a scalar floating-point tensor{alternative}, "
        f"got {found}; reduce it, by .mean() for instance",
        problem=problem,
    )


def _outside(problem: str, loss: Tensor, given: Sequence[Tensor]) -> list[Tensor]:
    """The variables that a loss depends on other than by the given tensors.

    Raises:
        CheckpointingError: there is reentrant activation checkpointing on the way.
    """
    found = [loss] if loss.is_leaf and loss.requires_grad else []
    for node in _nodes([loss.grad_fn], [t.grad_fn for t in given]):
        variable = getattr(node, "variable", None)
        if variable is not None:
            found.append(variable)
        elif type(node).__name__ == "CheckpointFunctionBackward":
            # Reentrant checkpointing uses no hooks, and autograd.grad may pass it by.
            raise CheckpointingError(checkpointing_message(problem), problem=problem)
    handed = {id(t) for t in given}
    return [x for x in found if id(x) not in handed]


def _nodes(start: Iterable[Any], stop: Iterable[Any] = ()) -> Iterator[Any]:
    """Every node of an autograd graph once, from `start` on and not beyond `stop`."""
    seen = {None, *stop}
    todo = list(start)
    while todo:
        node = todo.pop()
        if node not in seen:
            seen.add(node)
            yield node
            todo.extend(n for n, _ in node.next_functions)


@contextlib.contextmanager
def refusing_checkpointing(problem: str) -> Iterator[None]:
    """Refuse activation checkpointing in the loss that is evaluated inside.

    Non-reentrant checkpointing recomputes during backward, when the functional call is over, with
    the live weights; it announces itself by installing saved-tensor hooks.

    Raises:
        CheckpointingError: the loss uses it.
    """
    message = checkpointing_message(problem)
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(torch.autograd.graph.disable_saved_tensors_hooks(message))
        except RuntimeError as error:
            raise CheckpointingError(
                f"problem '{problem}': saved-tensor hooks, such as those of save_on_cpu(), are "
                "active around the engine, where it could not tell them from activation "
                "checkpointing in a loss; call the engine outside of them",
                problem=problem,
            ) from error
        try:
            yield
        except RuntimeError as error:
            if message not in str(error):
                raise
            raise CheckpointingError(message, problem=problem) from error


@contextlib.contextmanager
def refusing_writes(problem: str, values: Values) -> Iterator[None]:
    """Refuse a loss that writes into the tensors it is evaluated at.

    Raises:
        EvaluationError: the loss of `problem` did so inside.
    """
    before = {read: [t._version for t in tensors] for read, tensors in values.items()}
    yield
    for read, versions in before.items():
        if [t._version for t in values[read]] != versions:
            raise EvaluationError(
                f"problem '{problem}': its loss writes into tensors of '{read}' in place, as "
                "nn.Embedding(max_norm=...) does; a loss must only read them. Compute the changed "
                f"values out of place, or, in a program, bound them by project= of '{read}'",
                problem=problem,
            )


@contextlib.contextmanager
def refusing_batch_writes(problem: str, kind: str, batch: Mapping[str, Any]) -> Iterator[None]:
    """Refuse a function that writes into its batch: trials and replays would see what it left.

    Raises:
        EvaluationError: the function of `problem` did so inside.
    """
    tensors = [
        (stream, t)
        for stream, value in batch.items()
        for t in tree_leaves(value)
        if isinstance(t, Tensor) and not t.is_inference()
    ]
    before = [t._version for _, t in tensors]
    yield
    for (stream, t), version in zip(tensors, before, strict=True):
        if t._version != version:
            raise EvaluationError(
                f"problem '{problem}': its {kind} writes into its batch of '{stream}' in place, "
                "which trial moves, replays and other problems would see; compute the changed "
                "values out of place, or change them in the data",
                problem=problem,
            )


def check_twice_differentiable(
    problem: str,
    outputs: Iterable[Tensor],
    inputs: Sequence[Tensor],
    gradient: Iterable[Tensor | None],
) -> None:
    """Find operations without a second derivative between `outputs` and `inputs`.

    Autograd raises only where such an operation is met on the way to what is asked for; a
    function marked by `once_differentiable` cuts the graph of the gradient off, and then nothing
    would seem to depend on it.

    Args:
        problem: whose loss it is.
        outputs: what was differentiated.
        inputs: with respect to what.
        gradient: the result, with its graph.

    Raises:
        DoubleBackwardError: there is one.
    """
    for node in _nodes([*_functions(gradient), *_functions(outputs)]):
        cut = type(node).__name__ == "Error"  # what autograd hangs into the gradient's graph
        if cut or (_is_once_differentiable(node) and _leads_to(node, inputs)):
            raise double_backward_error(problem, "it is marked by once_differentiable")


_ONCE = once_differentiable(lambda ctx: None).__code__


def _is_once_differentiable(node: Any) -> bool:
    function = getattr(node, "_forward_cls", None)
    return function is not None and getattr(function.backward, "__code__", None) is _ONCE


def leads_to(output: Tensor, inputs: Sequence[Tensor]) -> bool:
    """Whether the graph of `output` contains one of these tensors, or it is one of them."""
    return any(output is x for x in inputs) or _leads_to(output.grad_fn, inputs)


def _leads_to(node: Any, inputs: Sequence[Tensor]) -> bool:
    wanted, variables = {x.grad_fn for x in inputs} - {None}, {id(x) for x in inputs}
    return any(n in wanted or id(getattr(n, "variable", None)) in variables for n in _nodes([node]))


def _functions(tensors: Iterable[Tensor | None]) -> Iterator[Any]:
    return (t.grad_fn for t in tensors if t is not None)


def double_backward_error(problem: str, reason: str) -> DoubleBackwardError:
    """What to raise where an operation in the loss of `problem` has no second derivative."""
    return DoubleBackwardError(
        f"problem '{problem}': an operation of its loss has no second derivative ({reason}). "
        "Fused attention is the usual cause: run it under "
        "torch.nn.attention.sdpa_kernel(SDPBackend.MATH), or, in a program, choose "
        "hypergradient=mlo.FiniteDifference(), which needs first derivatives only",
        problem=problem,
    )


def checkpointing_message(problem: str) -> str:
    """What to say about activation checkpointing in the loss of `problem`."""
    return (
        f"problem '{problem}': its loss uses activation checkpointing (or another saved-tensor "
        "hook), which would recompute with the live parameters instead of those that the engine "
        "evaluates at; take it out of the loss, or use a smaller batch to save memory"
    )
