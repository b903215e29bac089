"""Two mistakes that would give wrong numbers silently, caught at every evaluation."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from mlo.errors import CheckpointingError, ClosureError
from mlo.types import Values


def check_closure(problem: str, loss: Tensor, values: Values, live: Mapping[int, str]) -> None:
    """Find live variables in the graph of an evaluation at other tensors.

    The walk stops at the given tensors, so its cost is linear in the evaluation's own graph.

    Args:
        problem: whose loss it is.
        loss: what it returned.
        values: the tensors that it was evaluated at.
        live: id of every live variable of the program -> how to name it in a message.

    Raises:
        ClosureError: the loss uses a variable that it was not handed.
    """
    seen: set[Any] = {t.grad_fn for tensors in values.values() for t in tensors} | {None}
    todo: list[Any] = [loss.grad_fn]
    found = live.get(id(loss))
    while todo and found is None:
        node = todo.pop()
        if node in seen:
            continue
        seen.add(node)
        variable = getattr(node, "variable", None)
        if variable is not None:
            found = live.get(id(variable))
        todo.extend(n for n, _ in node.next_functions)
    if found is not None:
        raise ClosureError(
            f"problem '{problem}': its loss uses {found} from outside its arguments; the engine "
            "cannot replace it there, and the hypergradient would be wrong. Name the problem as an "
            "argument of the loss and use what is handed in",
            problem=problem,
        )


@contextlib.contextmanager
def refusing_checkpointing(problem: str) -> Iterator[None]:
    """Refuse activation checkpointing in the loss that is evaluated inside.

    Non-reentrant checkpointing recomputes during backward, when the functional call is over, with
    the live weights; it announces itself by installing saved-tensor hooks.

    Raises:
        CheckpointingError: the loss uses it.
    """
    message = checkpointing_message(problem)
    with torch.autograd.graph.disable_saved_tensors_hooks(message):
        try:
            yield
        except RuntimeError as error:
            if message not in str(error):
                raise
            raise CheckpointingError(message, problem=problem) from error


def checkpointing_message(problem: str) -> str:
    """What to say about activation checkpointing in the loss of `problem`."""
    return (
        f"problem '{problem}': its loss uses activation checkpointing (or another saved-tensor "
        "hook), which would recompute with the live parameters instead of those that the engine "
        "evaluates at; take it out of the loss, or use a smaller batch to save memory"
    )
