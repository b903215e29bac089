"""A program that carries its own answer."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.nn import Parameter

from mlo.engine import Engine
from mlo.errors import ConfigurationError
from mlo.guarding import Guards
from mlo.hypergradients import Hypergradient
from mlo.problem import Problem

PRIOR = 0.2
"""Curvature of the upper losses in their own parameters: their direct part."""

OptimizerFactory: TypeAlias = Callable[[list[Parameter]], torch.optim.Optimizer]

Named: TypeAlias = Mapping[str, Tensor]
"""Parameter name -> tensor."""


@dataclasses.dataclass(frozen=True, eq=False)
class Level:
    """One problem as data.

    Attributes:
        name: name of the problem.
        loss: of one mapping of tensors for each name in `reads`, in this order.
        reads: problems that the loss reads.
        solution: its parameters where it and everything below it are solved.
        start: its parameters away from there; those of the upper problem are the same.
    """

    name: str
    loss: Callable[..., Tensor]
    reads: tuple[str, ...]
    solution: Named
    start: Named


@dataclasses.dataclass(frozen=True, eq=False)
class ClosedForm:
    r"""A program whose total gradient is known by a formula that owes nothing to the library.

    Attributes:
        name: what it is called in reports.
        upper: the problem whose total gradient is known.
        levels: all problems, lowest first; the last one is `upper`.
        truth: the total gradient of `upper` with every problem below it solved.
        nested: whether a lower problem anticipates the response of another one.
        condition: largest condition number of a lower problem's (total) Hessian.
        sensitivity: how much larger the error of the response can be than the residuals of the
            linear solves, ``sum_k |dw_k/dx| |v_k| / |response|`` over the lower problems: with
            residuals r_k the answer is off by ``sum_k (dw_k/dx)^T r_k`` to first order (exactly
            where one problem is below). For nested forms, where the residuals of inner solves enter
            the outer Hessians, this times the depth, which is an estimate.
    """

    name: str
    upper: str
    levels: tuple[Level, ...]
    truth: Named
    nested: bool = False
    condition: float = 1.0
    sensitivity: float = 1.0

    def engine(
        self,
        method: Hypergradient | Mapping[str, Hypergradient],
        *,
        rate: float = 0.1,
        away: bool = False,
        optimizer: OptimizerFactory | None = None,
        still: bool = False,
        **settings: Any,
    ) -> Engine:
        """The program in the library, standing at the solution of all lower problems.

        Args:
            method: how lower problems are differentiated: one method, or problem -> method.
            rate: learning rate of their `torch.optim.SGD`.
            away: stand away from the solution, where a step is a step.
            optimizer: makes theirs of their parameters, in the place of SGD with that rate.
            still: the upper problem has the learning rate zero.
            settings: of the `Engine`.
        """

        def sgd(params: list[Parameter], rate: float) -> torch.optim.Optimizer:
            return torch.optim.SGD(params, rate)

        lower = optimizer or functools.partial(sgd, rate=rate)
        upper = functools.partial(sgd, rate=0.0 if still else rate)
        problems = []
        for level in self.levels:
            own = method.get(level.name) if isinstance(method, Mapping) else method
            problems.append(
                Problem(
                    level.name,
                    params=level.start if away else level.solution,
                    loss=level.loss,
                    reads=level.reads,
                    optimizer=upper if level.name == self.upper else lower,
                    hypergradient=own,
                )
            )
        # What is not finite is the business of the checks.
        settings.setdefault("guards", Guards(on_nonfinite="ignore"))
        return Engine(problems, **settings)

    def one_step(self, rate: float) -> dict[str, Tensor]:
        r"""The exact gradient where every lower problem makes one step of SGD from its start.

        The lowest steps first, and each reads the steps made below it:
        ``w_k' = w_k - rate dF_k/dw_k``. By plain autograd through these steps.

        Raises:
            ConfigurationError: the program is nested, so that a step is no such formula.
        """
        own = leaf_params(self.levels[-1].start)
        return gradient_of(self.levels[-1], own, self._stepped(own, rate))

    def direct(self, rate: float | None = None) -> dict[str, Tensor]:
        """The gradient of the upper loss with the lower problems held fixed.

        Args:
            rate: hold them where `one_step` takes them; by default at their solutions.

        Raises:
            ConfigurationError: with a rate, where the program is nested.
        """
        own = leaf_params(self.levels[-1].start)
        if rate is None:
            return gradient_of(self.levels[-1], own, {n.name: n.solution for n in self.levels})
        stepped = self._stepped(own, rate)
        fixed = {name: {k: t.detach() for k, t in w.items()} for name, w in stepped.items()}
        return gradient_of(self.levels[-1], own, fixed)

    def with_unused(self) -> ClosedForm:
        """The same program with one more upper parameter, which no loss uses."""
        upper = self.levels[-1]
        one = next(iter(upper.solution.values())).new_ones(3)
        level = dataclasses.replace(
            upper,
            solution={**upper.solution, "unused": one},
            start={**upper.start, "unused": one},
        )
        truth = {**self.truth, "unused": torch.zeros_like(one)}
        return dataclasses.replace(self, levels=(*self.levels[:-1], level), truth=truth)

    def _stepped(self, own: Named, rate: float) -> dict[str, Named]:
        """Where the lower problems are after one step each, attached to the upper parameters."""
        if self.nested:
            raise ConfigurationError(
                f"closed form '{self.name}' is nested: a step of its middle problem contains the "
                "response of another one; use `truth`, or a staged form"
            )
        values: dict[str, Named] = {level.name: level.start for level in self.levels}
        values[self.upper] = own
        for level in self.levels[:-1]:
            w = leaf_params(level.start)
            slope = gradient_of(level, w, values, graph=True)
            values[level.name] = {k: w[k] - rate * slope[k] for k in w}
        return values

    def __str__(self) -> str:
        """Name, depth and conditioning."""
        kind = "nested" if self.nested else "staged"
        return f"{self.name}: {len(self.levels)} problems, {kind}, condition {self.condition:.3g}"


def sensitivity(
    jacobians: Sequence[Tensor], cotangents: Sequence[Tensor], response: Tensor
) -> float:
    """``sum_k |dw_k/dx| |v_k| / |response|``, see `ClosedForm`.

    Args:
        jacobians: dw_k/dx of every lower problem, (size of w_k, size of x).
        cotangents: v_k, the total derivative of the upper loss with respect to w_k.
        response: the total gradient without its direct part; NaN where there is none.
    """
    if not response.isfinite().all():
        return math.nan
    pairs = zip(jacobians, cotangents, strict=True)
    total = sum(float(torch.linalg.matrix_norm(J, 2) * v.norm()) for J, v in pairs)
    return total / float(response.norm())


def condition_number(hessian: Tensor) -> float:
    """Largest over smallest modulus of the eigenvalues of a symmetric matrix."""
    moduli = torch.linalg.eigvalsh(hessian).abs()
    return float(moduli.max() / moduli.min())


def leaf_params(params: Named) -> dict[str, Tensor]:
    """Copies to differentiate with respect to."""
    return {k: t.detach().clone().requires_grad_() for k, t in params.items()}


def gradient_of(
    level: Level, own: Named, values: Mapping[str, Named], *, graph: bool = False
) -> dict[str, Tensor]:
    """Of the loss of `level` with respect to `own`, where the others are at `values`."""
    with torch.enable_grad():
        at = {**values, level.name: own}
        loss = level.loss(*(at[read] for read in level.reads))
        found = torch.autograd.grad(
            loss, list(own.values()), create_graph=graph, materialize_grads=True
        )
    return dict(zip(own, found, strict=True))
