r"""Reverse mode through recorded updates.

An update is (w', s') = step(w, g(w, c), s) with s the state of its optimizer. From the last to the
first,

    (w_bar, g_bar, s_bar) = (dstep)^T (w_bar', s_bar')
    w_bar += (dg/dw)^T g_bar,    c_bar += (dg/dc)^T g_bar

with everything taken where the update was made. Sources: Franceschi et al., ICML 2017, algorithm 1;
Maclaurin et al., ICML 2015.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mlo.optimizer_steps import GRADIENT, PARAMETER, LinearStep
from mlo.types import PartialTensors, Tensors
from mlo.update import Step
from mlo.vectors import add_scaled, filled, norm, plus, rounding

if TYPE_CHECKING:
    from mlo.condition import Condition

Bars = list[dict[str, Tensor]]
"""For every parameter: `PARAMETER` or the name of an optimizer's state -> cotangent."""


@dataclasses.dataclass
class Reverse:
    """Where a cotangent has been pulled back to.

    Attributes:
        bars: cotangents of parameters and optimizer states, before the updates so far.
        context: cotangents of the context, summed over the updates so far.
        began: where the update that was pulled through last began; at first, where they led.
        updates: how many there were.
        gap: how far an update made again led from where it did, over its length.
    """

    bars: Bars
    context: PartialTensors
    began: Tensors
    updates: int = 0
    gap: Tensor | None = None

    @property
    def params(self) -> Tensors:
        """The cotangent of where the updates began."""
        return tuple(bars[PARAMETER] for bars in self.bars)


def pull_back(condition: Condition, cotangent: Tensors, updates: Iterable[Condition]) -> Reverse:
    """Pull a cotangent of where the updates led back to where they began.

    Args:
        condition: of the last update.
        cotangent: v, one tensor per parameter.
        updates: the conditions where they were made, the latest first.
    """
    bars = [{PARAMETER: v} for v in cotangent]
    found = Reverse(bars, (None,) * len(condition.context), condition.led)
    for at in updates:
        _through(found, at)
    return found


def step_of(at: Condition) -> Step:
    """The recorded step of an update."""
    if at.move is None or at.move.step is None:
        raise RuntimeError("only recorded moves are differentiated")
    return at.move.step


def linear_steps(at: Condition) -> tuple[LinearStep | None, ...]:
    """Every parameter's step, linearized where it was made; `None` where it was left alone."""
    step, gradient = step_of(at), at.move_gradient()
    return tuple(
        None if update is None else update.linearized(w, g)
        for update, w, g in zip(step.updates, at.params, gradient, strict=True)
    )


def _through(found: Reverse, at: Condition) -> None:
    """Pull through one update."""
    step = step_of(at)
    unprojected = step.unprojected_vjp(found.params)
    for bars, pulled in zip(found.bars, unprojected, strict=True):
        bars[PARAMETER] = pulled
    linear = linear_steps(at)
    _compare(found, at, step, linear)
    pairs = zip(linear, found.bars, strict=True)
    pulled_bars = [dict(bars) if one is None else one.vjp(bars) for one, bars in pairs]
    g_bar = filled([bars.pop(GRADIENT, None) for bars in pulled_bars], at.params)
    through, mixed = at.products(g_bar)
    for bars, more in zip(pulled_bars, through, strict=True):
        own = bars.get(PARAMETER)
        bars[PARAMETER] = more if own is None else own + more
    found.bars = pulled_bars
    found.context = plus(found.context, mixed)
    found.updates += 1
    found.began = at.params


def _compare(
    found: Reverse, at: Condition, step: Step, linear: Sequence[LinearStep | None]
) -> None:
    """Note how far the update made again misses where it led, and that where the next one began."""
    pairs = zip(linear, at.params, strict=True)
    reached = tuple(w if one is None else one.reached for one, w in pairs)
    links = [(found.began, step.projected() or reached)]
    if step.projection is not None:
        links.append((step.unprojected, reached))
    length = norm(add_scaled(reached, -1.0, at.params))
    length = length + 1e2 * rounding(at.params) * norm(at.params)
    for led, made in links:
        missed = norm(add_scaled(led, -1.0, made))
        gap = torch.where(missed > 0, missed / length, missed)
        found.gap = gap if found.gap is None else torch.maximum(found.gap, gap)
