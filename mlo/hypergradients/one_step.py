"""`OneStep`: the exact derivative of the last optimizer step."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, ClassVar

from mlo.hypergradients.base import Hypergradient, Result, State
from mlo.hypergradients.registry import register
from mlo.records import Info, Outcome, code_where
from mlo.types import Tensors
from mlo.vectors import finite, negative

if TYPE_CHECKING:
    from mlo.condition import Condition


@register("one-step")
@dataclasses.dataclass(frozen=True)
class OneStep(Hypergradient):
    r"""Differentiates through the recorded last move (default).

    The move w' = w - update(g(w, c)) has dw'/dc = -D dg/dc with D = d update / d gradient, so

        u = D v,    c_bar = -(dg/dc)^T u

    with everything taken where the move was made. D is the learning rate for SGD (times
    1 + momentum with Nesterov, times 1 - dampening after the first step) and the diagonal of the
    adaptive update for Adam, AdamW and RMSprop; gradient clipping is a constant factor; a
    projection is differentiated exactly.

    Cost: one mixed product, about 2 gradient evaluations, and no gradient of its own where the
    move was made in the same tick (its graph is used). Bias against the implicit function
    theorem: ``|H^-1 - D|``; none against the derivative of that one step. Sources: Luketina et
    al., ICML 2016 (T1-T2); Liu et al., ICLR 2019, eq. 6.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"moves", "optimizer", "graph"})

    def work(self, size: int) -> int:
        """One mixed product."""
        return 1

    def vjp(self, condition: Condition, cotangent: Tensors, state: State) -> Result:
        """One scaled copy of the cotangent, one mixed product."""
        adjoint = condition.update_vjp(cotangent)
        mixed = condition.mixed_vjp(adjoint)
        code = code_where(~finite((*adjoint, *mixed)), Outcome.NONFINITE, 0)
        return Result(negative(mixed), state, Info(products=1, code=code))
