"""`Unrolled`: reverse mode through the last recorded updates."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from mlo.hypergradients.base import Hypergradient, Result, State
from mlo.hypergradients.fields import check_flag, check_number, check_whole
from mlo.hypergradients.registry import register
from mlo.hypergradients.reverse import pull_back
from mlo.records import Info, Outcome, code_where
from mlo.types import Tensors
from mlo.vectors import finite, rounding

if TYPE_CHECKING:
    from mlo.condition import Condition


@register("unrolled")
@dataclasses.dataclass(frozen=True)
class Unrolled(Hypergradient):
    r"""Differentiates through the last `steps` recorded updates of the problem.

        w_{t+1}, s_{t+1} = step(w_t, g(w_t, c), s_t)        s: the optimizer's state

    in reverse (see `mlo.hypergradients.reverse`), every update where it was made: parameters,
    optimizer state, batch, random state, buffers and what the loss read of others, which counts as
    if it were read now. SGD with momentum, dampening, Nesterov and weight decay, Adam (AMSGrad
    too), AdamW and RMSprop; clipping is a constant factor, a projection is differentiated exactly.
    Where the problem began anew within these updates, the derivative goes on through its `start`.

    Cost: 3 gradient evaluations an update, of which one makes its graph again; with
    `recompute=False` that of an update in the same tick is kept instead: 2. Memory: the parameters
    and the optimizer's state before every update, and the graph of one at a time (of all, with
    `recompute=False`). Bias against the derivative of the whole run: that of leaving out all
    earlier updates, which for SGD shrinks as (1 - eta mu)^steps along a direction of curvature mu
    (Shaban et al., AISTATS 2019, proposition 3.1); against the implicit function theorem the same,
    where the updates stand at the solution. With one step it is `OneStep`.

    As a check, every update is made again on the way. Where one does not lead to where it led
    (parameters written to since, a loss that draws random numbers of its own), the outcome is
    `off course`; the residual says by how much of the update's length. With micro-batches an
    update costs a gradient more, since they are taken one at a time.
    Sources: Maclaurin et al., ICML 2015; Franceschi et al., ICML 2017; Shaban et al., AISTATS 2019.

    Args:
        steps: updates, across moves; fewer where fewer were made. `None` takes those of the last
            move (`repeat` of them).
        recompute: make the graph of every update again, one at a time.
        tolerance: largest part of an update's length that it may be off course; two roundings of
            the parameters' dtype where these are more.
    """

    steps: int | None = None
    recompute: bool = True
    tolerance: float = 1e-3

    def __post_init__(self) -> None:
        if self.steps is not None:
            check_whole(self, "steps", least=1)
        check_flag(self, "recompute")
        check_number(self, "tolerance")

    @property
    def needs(self) -> frozenset[str]:  # type: ignore[override]
        """The graphs of moves only where they are not to be made again."""
        return frozenset({"moves", "steps"} | (set() if self.recompute else {"graph"}))

    @property
    def reach(self) -> int | None:  # type: ignore[override]
        """As many updates as `steps`."""
        return self.steps

    def work(self, size: int) -> int | None:
        """One product an update."""
        return self.steps

    def vjp(self, condition: Condition, cotangent: Tensors, state: State) -> Result:
        """From the last update to the first."""
        found = pull_back(condition, cotangent, condition.trajectory())
        sound = finite((*found.context, *found.params))
        code = code_where(~sound, Outcome.NONFINITE, 0)
        if found.gap is not None:
            # An entry of a step can be one rounding off, which is much in bfloat16.
            allowed = max(self.tolerance, 2.0 * rounding(cotangent))
            off = sound & ~(found.gap <= allowed)
            code = code_where(off, Outcome.OFF_COURSE, code)
        info = Info(products=found.updates, residual=found.gap, code=code)
        return Result(found.context, state, info, start=found.params)
