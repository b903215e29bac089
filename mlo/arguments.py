"""The arguments of a `Problem`, checked one by one; every function returns the checked value."""

from __future__ import annotations

import keyword
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from mlo.errors import DeclarationError, MethodError, ParameterError, nearest
from mlo.hypergradients import Hypergradient, OneStep, methods
from mlo.reads import TICK

OptimizerLike: TypeAlias = (
    torch.optim.Optimizer | Callable[[list[nn.Parameter]], torch.optim.Optimizer]
)
"""An optimizer, or a function from the trainable parameters to one."""

_ONE_STEP = OneStep()


def checked_name(name: str) -> str:
    """An identifier that is not reserved."""
    if not isinstance(name, str) or not name.isidentifier() or keyword.iskeyword(name):
        raise DeclarationError(
            f"problem {name!r}: the name must be an identifier, since losses read it as an argument"
        )
    if name == TICK:
        raise DeclarationError(
            f"problem '{TICK}': the name is reserved for the present tick; choose another",
            problem=name,
        )
    return name


def checked_module(
    name: str, module: nn.Module | None, params: Mapping[str, Tensor] | None
) -> nn.Module:
    """The module itself, or an `nn.ParameterDict` of clones of the bare tensors."""
    if (module is None) == (params is None):
        raise DeclarationError(
            f"problem '{name}': give exactly one of module= and params=, "
            f"got {'neither' if module is None else 'both'}",
            problem=name,
        )
    if module is not None:
        if not isinstance(module, nn.Module):
            raise DeclarationError(
                f"problem '{name}': module= must be an nn.Module, got {type(module).__name__}; "
                "bare tensors go to params=",
                problem=name,
            )
        return module
    if not isinstance(params, Mapping):
        raise DeclarationError(
            f"problem '{name}': params= must map names to tensors, got {type(params).__name__}; "
            "write {'name': tensor}",
            problem=name,
        )
    own = nn.ParameterDict()
    for key, value in params.items():
        if not isinstance(key, str) or not key or "." in key or hasattr(own, key):
            raise DeclarationError(
                f"problem '{name}': params= cannot have the key {key!r}, which an nn.ParameterDict "
                "needs for itself or cannot hold; rename it",
                problem=name,
            )
        if not isinstance(value, Tensor) or not value.is_floating_point():
            raise DeclarationError(
                f"problem '{name}': params[{key!r}] must be a floating-point tensor, got "
                f"{value.dtype if isinstance(value, Tensor) else type(value).__name__}",
                problem=name,
            )
        own[key] = nn.Parameter(value.detach().clone())
    return own


def checked_optimizer(
    name: str, optimizer: OptimizerLike, module: nn.Module
) -> torch.optim.Optimizer:
    """The optimizer as given, or what the given function makes of the parameters."""
    if not isinstance(optimizer, torch.optim.Optimizer) and callable(optimizer):
        trainable = [p for p in module.parameters() if p.requires_grad]
        if not trainable:
            raise ParameterError(
                f"problem '{name}': its module has no trainable parameter; leave requires_grad on "
                "for what is to be trained",
                problem=name,
            )
        optimizer = optimizer(trainable)
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise DeclarationError(
            f"problem '{name}': optimizer= must be a torch.optim optimizer or a function from a "
            f"list of parameters to one, got {type(optimizer).__name__}",
            problem=name,
        )
    return optimizer


def checked_method(
    name: str,
    method: Hypergradient | None,
    default: Hypergradient = _ONE_STEP,
    argument: str = "hypergradient",
) -> Hypergradient:
    """The method, or the default where there is none."""
    if method is None:
        return default
    if isinstance(method, Hypergradient):
        return method
    known = {key: cls.__name__ for key, cls in methods().items()}
    given = method if isinstance(method, str) else getattr(method, "__name__", repr(method))
    meant = known.get(given, given)
    hint = f"; write {meant}(...)" if meant in known.values() else nearest(given, known)
    raise MethodError(
        f"problem '{name}': {argument}= must be an instance of a Hypergradient, such as "
        f"mlo.Neumann(terms=10), got {given!r}{hint}",
        problem=name,
    )


def checked_count(name: str, argument: str, value: int, *, least: int) -> int:
    """A whole number of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise DeclarationError(
            f"problem '{name}': {argument}= must be a whole number of at least {least}, "
            f"got {value!r}",
            problem=name,
        )
    return value


def checked_restart(name: str, start: object, restart: int | None) -> int:
    """A whole number, given only together with `start`."""
    if restart is not None and start is None:
        raise DeclarationError(
            f"problem '{name}': restart={restart!r} says when the problem begins anew, but "
            "start= is None; give a function to name -> tensor, or leave restart= out",
            problem=name,
        )
    return checked_count(name, "restart", 1 if restart is None else restart, least=1)


def checked_clip_norm(name: str, value: float | None) -> float | None:
    """A positive bound, or none."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if value is not None and not (number and value > 0):
        raise DeclarationError(
            f"problem '{name}': clip_norm= must be a positive number or None, got {value!r}",
            problem=name,
        )
    return value


def checked_names(name: str, argument: str, value: Iterable[str]) -> tuple[str, ...]:
    """A tuple of names."""
    sound = isinstance(value, Iterable) and not isinstance(value, str)
    names = tuple(value) if sound else ()
    if not sound or not all(isinstance(item, str) for item in names):
        cure = f"({value!r},)" if isinstance(value, str) else "('name',), or () for none"
        raise DeclarationError(
            f"problem '{name}': {argument}= must be a tuple of names, got "
            f"{type(value).__name__} {value!r}; write {cure}",
            problem=name,
        )
    return names


def checked_scheduler(name: str, scheduler: Any, optimizer: torch.optim.Optimizer) -> Any:
    """The scheduler, made over the problem's own optimizer."""
    if scheduler is None:
        return None
    made = scheduler
    if isinstance(scheduler, type) or not callable(getattr(scheduler, "step", None)):
        try:
            made = scheduler(optimizer)
        except TypeError as error:
            raise _no_scheduler(name, f"{scheduler!r} ({error})") from error
    if not callable(getattr(made, "step", None)):
        raise _no_scheduler(name, f"{scheduler!r}, which made a {type(made).__name__}")
    if getattr(made, "optimizer", optimizer) is not optimizer:
        raise DeclarationError(
            f"problem '{name}': scheduler= drives another optimizer than the problem's own; "
            "build it over the optimizer given here, or pass a function from the optimizer to it",
            problem=name,
        )
    return made


def _no_scheduler(name: str, found: str) -> DeclarationError:
    return DeclarationError(
        f"problem '{name}': scheduler= must be a learning-rate scheduler or a function from the "
        "optimizer to one, such as lambda optimizer: StepLR(optimizer, step_size=10), got "
        f"{found}",
        problem=name,
    )


def checked_project(name: str, project: Any) -> Any:
    """A function, or none."""
    if project is not None and not callable(project):
        raise DeclarationError(
            f"problem '{name}': project= must be a function from name -> tensor to the same, got "
            f"{type(project).__name__} {project!r}; write one, or leave it out",
            problem=name,
        )
    return project
