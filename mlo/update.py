"""One optimizer step on given gradients, live or on trial; `.grad` is written nowhere else."""

from __future__ import annotations

import copy
import dataclasses
import functools
import inspect
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mlo.optimizer_steps import ParameterStep, recorded_steps
from mlo.projection import Projection
from mlo.types import PartialTensors, Tensors
from mlo.update_rules import carried, update_derivative
from mlo.vectors import times

Closure = tuple[Tensor, Callable[[], tuple[Tensor, PartialTensors]]]
"""The loss at the present parameters, and what evaluates loss and gradient at later ones."""


@dataclasses.dataclass(frozen=True)
class Step:
    """How one optimizer step depends on the gradient that it was made with.

    Attributes:
        derivative: D per parameter, clipping included.
        carry: dw'/dw at a fixed gradient, per parameter.
        updates: the step of each parameter as a function, where that was asked for; `None` where it
            was left alone.
        projection: the projection after the step, where there is one.
        unprojected: where the step led before it.
    """

    derivative: tuple[Tensor | float, ...]
    carry: tuple[Tensor | float, ...] = ()
    updates: tuple[ParameterStep | None, ...] = ()
    projection: Projection | None = None
    unprojected: Tensors = ()

    def vjp(self, v: Tensors) -> Tensors:
        """Pull v, a cotangent of where the step led, back to the gradient: projection, then D."""
        return times(self.unprojected_vjp(v), self.derivative)

    def start_vjp(self, v: Tensors) -> Tensors:
        """Pull v back to where the step began, at a fixed gradient."""
        return times(self.unprojected_vjp(v), self.carry)

    def projected(self) -> Tensors:
        """Where the step led, projected again; empty where there is no projection."""
        if self.projection is None:
            return ()
        with torch.no_grad():
            return self.projection([p.clone() for p in self.unprojected])  # it may work in place

    def unprojected_vjp(self, v: Tensors) -> Tensors:
        """Pull v back through the projection alone."""
        if self.projection is not None:
            return self.projection.vjp(self.unprojected, v)
        return v


def take_step(
    optimizer: torch.optim.Optimizer,
    params: Sequence[nn.Parameter],
    gradient: PartialTensors,
    *,
    clip_norm: float | None,
    projection: Projection | None,
    differentiable: bool,
    replayable: bool = False,
    adapted: bool = False,
    closure: Closure | None = None,
) -> Step | None:
    """Step `optimizer` on `gradient`, clip before and project after; return how if asked for.

    A parameter whose gradient is `None` is left alone, as after an ordinary `backward`. With a
    closure, `gradient` is what its first call gives; if a later one fails, `params` are put back.
    The derivative is recorded where the step is to be `differentiable`, the step itself as a
    function where it is to be `replayable`.
    """
    held = [p for group in optimizer.param_groups for p in group["params"]]
    before = [p.grad for p in held]
    try:
        for p in held:  # those that are no variables stay where they are
            p.grad = None
        factor = _hand_over(params, gradient, clip_norm)
        derivative: tuple[Tensor | float, ...] = ()
        carry: tuple[Tensor | float, ...] = ()
        updates = recorded_steps(optimizer, params, factor) if replayable else ()
        if differentiable:
            unclipped = update_derivative(optimizer, params, adapted=adapted)
            derivative = tuple(factor * d for d in unclipped)
            carry = carried(optimizer, params, unclipped)
        if closure is None:
            optimizer.step()
        else:
            _step_with(optimizer, params, gradient, closure, clip_norm)
    finally:
        for p, g in zip(held, before, strict=True):
            p.grad = g
    unprojected: Tensors = ()
    if projection is not None:
        with torch.no_grad():
            unprojected = tuple(p.detach().clone() for p in params)
            projected = projection([p.clone() for p in unprojected])  # it may work in place
            for p, q in zip(params, projected, strict=True):
                p.copy_(q)
    if differentiable or replayable:
        return Step(derivative, carry, updates, projection, unprojected)
    return None


def _hand_over(
    params: Sequence[nn.Parameter], gradient: PartialTensors, clip_norm: float | None
) -> Tensor | float:
    """Write the gradient where optimizers look for it; return the factor of its clipping."""
    for p, g in zip(params, gradient, strict=True):
        # A copy: autograd may hand out one tensor twice, and optimizers may write to it.
        p.grad = None if g is None else g.detach().clone()
    return _clipped(params, clip_norm)


def needs_closure(optimizer: torch.optim.Optimizer) -> bool:
    """Whether its step evaluates the loss itself, as that of LBFGS does."""
    return _asks_for_closure(type(optimizer))  # type: ignore[arg-type]  # classes are hashable


@functools.cache
def _asks_for_closure(kind: type[torch.optim.Optimizer]) -> bool:
    """Reading a signature is slow beside a small move, and a class keeps its own."""
    closure = inspect.signature(kind.step).parameters.get("closure")
    return closure is not None and closure.default is inspect.Parameter.empty


def _step_with(
    optimizer: torch.optim.Optimizer,
    params: Sequence[nn.Parameter],
    gradient: PartialTensors,
    closure: Closure,
    clip_norm: float | None,
) -> None:
    """One step of an optimizer that evaluates the loss as often as it likes.

    The first evaluation is known, if it is where the parameters stand.
    """
    known, again = closure
    before = [p.detach().clone() for p in params]
    fresh = True

    def evaluate() -> Tensor:
        nonlocal fresh
        loss, found = known, gradient
        if not fresh or not all(map(torch.equal, params, before)):
            loss, found = again()
        fresh = False
        _hand_over(params, found, clip_norm)
        return loss

    try:
        optimizer.step(evaluate)  # type: ignore[arg-type]  # torch takes tensors too
    except BaseException:
        with torch.no_grad():
            for p, stood in zip(params, before, strict=True):
                p.copy_(stood)
        raise


def trial_copy(
    optimizer: torch.optim.Optimizer, params: Sequence[nn.Parameter], values: Tensors
) -> tuple[torch.optim.Optimizer, list[nn.Parameter]]:
    """A copy of `optimizer` that steps copies of `params` standing at `values`."""
    copies = [nn.Parameter(v.detach().clone(memory_format=torch.preserve_format)) for v in values]
    twins: dict[int, Any] = {id(p): c for p, c in zip(params, copies, strict=True)}
    return _twin(optimizer, twins), copies


def kept_state(optimizer: torch.optim.Optimizer) -> list[dict[str, Any]]:
    """A copy of its state, parameter by parameter."""
    held = [p for group in optimizer.param_groups for p in group["params"]]
    return [copy.deepcopy(optimizer.state.get(p, {})) for p in held]


def renew(optimizer: torch.optim.Optimizer, kept: Sequence[Mapping[str, Any]]) -> None:
    """Put a copied state back into it, or into a copy of it."""
    held = [p for group in optimizer.param_groups for p in group["params"]]
    optimizer.state.clear()
    for p, state in zip(held, kept, strict=True):
        if state:
            optimizer.state[p] = copy.deepcopy(dict(state))


def _twin(optimizer: torch.optim.Optimizer, twins: dict[int, Any]) -> torch.optim.Optimizer:
    """A copy of an optimizer, attribute by attribute, over the twins of its parameters."""
    trial = object.__new__(type(optimizer))
    twins[id(optimizer)] = trial
    for name, value in optimizer.__dict__.items():
        # The user's hooks belong to real steps, as does the wrapper of `step` that a scheduler
        # hangs on the instance.
        if name in _HOOKS:
            trial.__dict__[name] = OrderedDict()
        elif isinstance(value, torch.optim.Optimizer) and id(value) not in twins:
            trial.__dict__[name] = _twin(value, twins)
        elif name != "step":
            trial.__dict__[name] = copy.deepcopy(value, twins)
    return trial


_HOOKS = ("_optimizer_step_pre_hooks", "_optimizer_step_post_hooks")


def _clipped(params: Sequence[nn.Parameter], clip_norm: float | None) -> Tensor | float:
    """Clip the gradients in place; return the factor that they were multiplied by."""
    moved = [p for p in params if p.grad is not None]
    if clip_norm is None or not moved:
        return 1.0
    total = torch.nn.utils.clip_grad_norm_(moved, clip_norm)
    return torch.clamp(clip_norm / (total + 1e-6), max=1.0)
