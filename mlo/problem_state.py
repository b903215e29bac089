"""Everything that a problem's moves change in its module, optimizer and scheduler."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from mlo.errors import CheckpointError
from mlo.places import hang
from mlo.plain import copied, numbers
from mlo.problem import Problem

ProblemState = Mapping[str, Any]
"""`parameters`, `buffers`, `extra`, `modes`, `optimizer` and `scheduler` of a problem."""


def problem_state(problem: Problem) -> dict[str, Any]:
    """The present state, not copied.

    Parameters, buffers (those that `state_dict` leaves out as well), training flags and extra
    states of modules, and what optimizer and scheduler say of themselves.

    Raises:
        CheckpointError: the scheduler does not say.
    """
    modules = dict(problem.module.named_modules())
    return {
        "parameters": {key: p.detach() for key, p in problem.module.named_parameters()},
        "buffers": {
            path: dict(module._buffers) for path, module in modules.items() if module._buffers
        },
        "extra": {
            path: module.get_extra_state()
            for path, module in modules.items()
            if type(module).get_extra_state is not nn.Module.get_extra_state
        },
        "modes": [module.training for module in modules.values()],
        "optimizer": numbers(problem.optimizer.state_dict()),
        "scheduler": None if problem.scheduler is None else numbers(_of_scheduler(problem)),
    }


def load_problem_state(problem: Problem, state: ProblemState) -> None:
    """Put a state back; nothing of it is shared with the problem afterwards."""
    state = copied(state)
    modules = dict(problem.module.named_modules())
    with torch.no_grad():
        for key, p in problem.module.named_parameters():
            p.copy_(state["parameters"][key])
        for path, buffers in state["buffers"].items():
            for key, value in buffers.items():
                hang(modules[path], key, value)
    for path, extra in state["extra"].items():
        modules[path].set_extra_state(extra)
    for module, training in zip(modules.values(), state["modes"], strict=True):
        module.training = training
    _load_optimizer(problem.optimizer, state["optimizer"])
    if state["scheduler"] is not None:
        problem.scheduler.load_state_dict(state["scheduler"])


def _load_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Load, and keep what torch would convert to the dtype of the parameter."""
    optimizer.load_state_dict(state)
    held = [p for group in optimizer.param_groups for p in group["params"]]
    for index, saved in state.get("state", {}).items():
        live = optimizer.state[held[index]] if isinstance(index, int) else {}
        for key, value in saved.items():
            if isinstance(value, Tensor) and key in live and live[key].dtype != value.dtype:
                live[key] = value


def _of_scheduler(problem: Problem) -> dict[str, Any]:
    if not hasattr(problem.scheduler, "state_dict"):
        raise CheckpointError(
            f"problem '{problem.name}': its scheduler, a {type(problem.scheduler).__name__}, has "
            "no state_dict(), so that a checkpoint cannot hold it; give it state_dict() and "
            "load_state_dict(), or take one of torch.optim.lr_scheduler",
            problem=problem.name,
        )
    found: dict[str, Any] = problem.scheduler.state_dict()
    return found
