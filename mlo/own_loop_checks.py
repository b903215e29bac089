"""The arguments of `mlo.solution`, checked one by one."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.utils._pytree import keystr, tree_flatten_with_path

from mlo.errors import DeclarationError, MethodError, listed
from mlo.hypergradients import Dense, Hypergradient


def check_loss(name: str, loss: Any) -> None:
    """A function.

    Raises:
        DeclarationError: it is none.
    """
    if not callable(loss):
        raise DeclarationError(
            f"problem '{name}': loss= must be a function of params and context, got "
            f"{type(loss).__name__}; the order is solution(params, loss, context)",
            problem=name,
        )


def check_params(name: str, params: Any) -> None:
    """Floating-point tensors, at least one, and each of them once.

    Raises:
        DeclarationError: there is something else.
    """
    leaves, _ = tree_flatten_with_path(params)
    seen: dict[int, str] = {}
    for path, x in leaves:
        place = "params" + keystr(path)
        if not isinstance(x, Tensor) or not x.is_floating_point():
            cure = (
                "hand over dict(module.named_parameters()) and call the module by "
                "torch.func.functional_call"
                if isinstance(x, nn.Module)
                else "constants and other data go to the context, or stay in the loss"
            )
            raise DeclarationError(
                f"problem '{name}': {place} must be a floating-point tensor, got "
                f"{x.dtype if isinstance(x, Tensor) else type(x).__name__}; {cure}",
                problem=name,
            )
        if id(x) in seen:
            raise DeclarationError(
                f"problem '{name}': {place} is the same tensor as {seen[id(x)]}, which would count "
                "as two; give it once, and use it twice in the loss",
                problem=name,
            )
        seen[id(x)] = place
    if not leaves:
        raise DeclarationError(
            f"problem '{name}': params= holds no tensor; give what the loss was minimized over",
            problem=name,
        )


def check_context(name: str, context: Any) -> None:
    """No trainable tensor hides in a module, where it would not be differentiated.

    Raises:
        DeclarationError: one does.
    """
    for path, x in tree_flatten_with_path(context)[0]:
        if isinstance(x, nn.Module) and any(p.requires_grad for p in x.parameters()):
            raise DeclarationError(
                f"problem '{name}': context{keystr(path)} is a module, whose parameters are not "
                "seen; hand over dict(module.named_parameters()) and call the module by "
                "torch.func.functional_call",
                problem=name,
            )


def check_method(name: str, method: Hypergradient, size: int) -> None:
    """The method can do without an optimizer, and with as many parameters as there are.

    Raises:
        MethodError: it cannot.
    """
    if method.needs:
        raise MethodError(
            f"problem '{name}': method={type(method).__name__} needs "
            f"{listed(sorted(method.needs))} of an optimizer, and here is none; use "
            "ConjugateGradient(), Dense() or Neumann(alpha=...), with the step of the series given",
            problem=name,
        )
    if isinstance(method, Dense):
        method.check_size(name, size)
