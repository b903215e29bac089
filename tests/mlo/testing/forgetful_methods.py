"""Methods that are right at their first call, and wrong later or under another optimizer."""

from __future__ import annotations

import dataclasses
import functools
from typing import ClassVar

import torch

import mlo
from mlo.records import Info, Outcome, code_of
from mlo.vectors import filled, flat, negative, times, unflat

from .wrong_methods import CONVERGED, scaled


class RemembersItsAnswer(mlo.Dense):
    """Gives its first answer again and again."""

    differentiable: ClassVar[bool] = False

    def vjp(self, condition, cotangent, state):
        if state is not None:
            return mlo.Result(state, state, Info(code=CONVERGED))
        result = super().vjp(condition, cotangent, state)
        grads = filled(result.grads, condition.context)
        different = any(float(t.abs().max()) > 0 for t in cotangent)
        return dataclasses.replace(result, grads=grads, state=grads if different else None)


@dataclasses.dataclass(frozen=True)
class RemembersItsFactors(mlo.Hypergradient):
    """Writes out the Hessian once, and takes it for a constant."""

    def vjp(self, condition, cotangent, state):
        if state is None:
            unit = torch.eye(sum(t.numel() for t in cotangent))
            state = torch.stack([flat(condition.hvp(unflat(e, cotangent))) for e in unit])
        adjoint = unflat(torch.linalg.lstsq(state, flat(cotangent)[:, None])[0][:, 0], cotangent)
        singular = torch.linalg.matrix_rank(state) < len(state)
        code = code_of(Outcome.SINGULAR) if singular else CONVERGED
        return mlo.Result(negative(condition.mixed_vjp(adjoint)), state, Info(code=code))


class WornOutByMoves(mlo.Dense):
    """Doubles its answer once a move was observed."""

    differentiable: ClassVar[bool] = False

    def observe(self, move, state):
        return 2.0

    def vjp(self, condition, cotangent, state):
        result = super().vjp(condition, cotangent, state)
        return dataclasses.replace(result, grads=scaled(result.grads, state or 1.0))


class WornOutByCalls(mlo.Dense):
    """Doubles its answer from the second call on."""

    differentiable: ClassVar[bool] = False

    def vjp(self, condition, cotangent, state):
        result = super().vjp(condition, cotangent, state)
        return dataclasses.replace(result, grads=scaled(result.grads, state or 1.0), state=2.0)


class TiredByCalls(mlo.Dense):
    """Stops early from the second call on, and says so."""

    differentiable: ClassVar[bool] = False

    def vjp(self, condition, cotangent, state):
        result = super().vjp(condition, cotangent, None)
        if state is None:
            return dataclasses.replace(result, state=1.0)
        info = Info(code=code_of(Outcome.LIMIT))
        return mlo.Result(scaled(result.grads, 0.5), 1.0, info)


class FirstRate(mlo.Neumann):
    """Takes the learning rate of the first parameter for that of all."""

    def prepare(self, condition):
        rates = (condition.learning_rate[0],) * len(condition.params)
        return mlo.Preconditioning(functools.partial(times, b=rates))


class FirstGroup(mlo.OneStep):
    """The derivative of the step, at the learning rate of the first parameter."""

    def vjp(self, condition, cotangent, state):
        rates = condition.learning_rate
        adjoint = times(condition.update_vjp(cotangent), [rates[0] / r for r in rates])
        return mlo.Result(negative(condition.mixed_vjp(adjoint)), state, Info(products=1))


class NoOptimizer(mlo.Hypergradient):
    """Takes every step for one of plain SGD."""

    needs: ClassVar[frozenset[str]] = frozenset({"moves"})

    def vjp(self, condition, cotangent, state):
        adjoint = times(cotangent, condition.learning_rate)
        return mlo.Result(negative(condition.mixed_vjp(adjoint)), state, Info(products=1))


class FirstStep(mlo.OneStep):
    """Takes a dampened step for a first one, of which dampening takes nothing."""

    def vjp(self, condition, cotangent, state):
        result = super().vjp(condition, cotangent, state)
        numbers = [d for d in condition.move.step.derivative if not isinstance(d, torch.Tensor)]
        if len(numbers) < 2 or numbers[1] == condition.learning_rate[1]:
            return result
        factors = [1.0, condition.learning_rate[1] / numbers[1]]
        adjoint = times(condition.update_vjp(cotangent), factors[: len(cotangent)])
        return dataclasses.replace(result, grads=negative(condition.mixed_vjp(adjoint)))


class ClaimsTwo(mlo.OneStep):
    """Says that it differentiates two updates, and differentiates one."""

    reach: ClassVar[int] = 2


class Uncorrected(mlo.OneStep):
    """SAMA's derivative of Adam's update, called exact."""

    def vjp(self, condition, cotangent, state):
        result = super().vjp(condition, cotangent, state)
        adaptive = isinstance(condition.move.step.derivative[0], torch.Tensor)
        # k1 / sqrt(k2) at the third step, for the betas of either group.
        factors = [(1 - b1**3) / (1 - b2**3) ** 0.5 for b1, b2 in ((0.8, 0.9), (0.9, 0.999))]
        if not adaptive:
            return result
        adjoint = times(condition.update_vjp(cotangent), factors[: len(cotangent)])
        return dataclasses.replace(result, grads=negative(condition.mixed_vjp(adjoint)))
