"""Recorded runs of the library, and the same updates again with a graph, written by hand.

An upper value that an update read counts as if it were read now: where the update saw x_t, the
loop sees x + (x_t - x) with the difference held constant.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import torch

import mlo

from ..oracles import flat
from .unrolling import batches, fit, judge, leaves, values

COUNT = 12
"""Batches an epoch, of both streams."""


@dataclasses.dataclass(frozen=True)
class Update:
    """What one update saw: its micro-batches, the upper parameters, settings of the optimizer.

    `begins`: whether the problem began anew before it.
    """

    train: Sequence[Any]
    top: dict[str, torch.Tensor]
    groups: dict[str, dict[str, Any]]
    begins: bool = False


def standing(problem):
    """Copies of its parameters."""
    return {k: p.detach().clone() for k, p in problem.module.named_parameters()}


def groups_of(problem):
    """Parameter -> a copy of the settings of its group."""
    names = {id(p): k for k, p in problem.module.named_parameters()}

    def copied(group):
        tensor = torch.is_tensor
        return {k: v.clone() if tensor(v) else v for k, v in group.items() if k != "params"}

    groups = problem.optimizer.param_groups
    return {names[id(p)]: copied(group) for group in groups for p in group["params"]}


def pair(optimizer, method, *, fits=fit, judges=judge, rate=0.05, lookahead=False, **low):
    """The program; settings in `low` are of the lower problem, and of both ("upper") or engine."""
    at_low, at_top = low.pop("at", None) or values()
    upper, retain = low.pop("upper", {}), low.pop("retain", True)
    below = mlo.Problem(
        "low", params=at_low, loss=fits, optimizer=optimizer, hypergradient=method, **low
    )
    above = mlo.Problem(
        "top",
        params=at_top,
        loss=judges,
        optimizer=lambda p: torch.optim.SGD(p, rate),
        **upper,
    )
    data = {"train": batches(COUNT, 1), "valid": batches(COUNT, 2)}
    return mlo.Engine([below, above], data, lookahead=lookahead, retain=retain)


class Run:
    """An engine's ticks, with what every update of the lower problem saw.

    Args:
        engine: as `pair` makes it.
    """

    def __init__(self, engine):
        self.engine = engine
        self.low, self.top = engine.problems["low"], engine.problems["top"]
        self.start = standing(self.low)
        self.updates: list[Update] = []
        self.drawn = 0
        self.judged = 0
        self.moved = 0

    def tick(self, count=1):
        """Make ticks."""
        for _ in range(count):
            before, groups = standing(self.top), groups_of(self.low)
            record = self.engine.step()
            lookahead = self.engine.schedule.lookahead
            made = [m for m in record.moves if m.problem == "low"]
            for i, _ in enumerate(made):  # one record an update
                seen = standing(self.top) if lookahead else before
                self.updates.append(Update(self._draw(), seen, groups, i == 0 and self._begins()))
            self.moved += bool(made)
            self.judged += any(m.problem == "top" for m in record.moves)

    def trials(self):
        """The updates that a look ahead makes after the ticks so far."""
        draws = self.low.repeat * self.low.accumulate
        held = [batches(COUNT, 1)[i % COUNT] for i in range(self.drawn - draws, self.drawn)]
        now, groups, size = standing(self.top), groups_of(self.low), self.low.accumulate
        return [
            Update(held[i * size : (i + 1) * size], now, groups, i == 0 and self._begins())
            for i in range(self.low.repeat)
        ]

    def _begins(self):
        return self.low.start is not None and self.moved % self.low.restart == 0

    def _draw(self):
        start, self.drawn = self.drawn, self.drawn + self.low.accumulate
        return [batches(COUNT, 1)[i % COUNT] for i in range(start, self.drawn)]

    def expected(self, rule, last=None, **settings):
        """The total gradient of the upper problem, by autograd through the last updates."""
        leaf = leaves(standing(self.top))
        updates = list(self.updates)
        if self.engine.schedule.lookahead:
            updates += self.trials()
        low = walk(self.start, leaf, updates, rule, last=last, **settings)
        valid = batches(COUNT, 2)[(self.judged - 1) % COUNT]
        loss = settings.get("judges", judge)(low, valid)
        found = torch.autograd.grad(loss, list(leaf.values()), allow_unused=True)
        return {
            k: torch.zeros_like(t) if g is None else g
            for (k, t), g in zip(leaf.items(), found, strict=True)
        }


def walk(
    low,
    leaf,
    updates: Sequence[Update],
    rule: Callable[..., Any],
    *,
    last=None,
    fits=fit,
    clip_norm=None,
    project=None,
    judges=None,
    start=None,
    slope=None,
):
    """Where the updates lead, the last ones attached to `leaf`; what came before is constant."""
    low, states = leaves(low), {}
    for i, update in enumerate(updates):
        if last is not None and i == len(updates) - last:
            low = leaves(low)
            states = {
                k: {n: x.detach() if torch.is_tensor(x) else x for n, x in state.items()}
                for k, state in states.items()
            }
        top = {k: t + (update.top[k] - t.detach()) for k, t in leaf.items()}
        if update.begins:
            began, states = start(top), {}
            own = leaves(began)  # for what depends on nobody
            low = {k: 1.0 * t if t.requires_grad else own[k] for k, t in began.items()}
        if slope is None:
            loss = sum(fits(low, top, part) for part in update.train) / len(update.train)
            own = list(low.values())
            found = torch.autograd.grad(loss, own, create_graph=True, allow_unused=True)
        else:
            found = slope(low, top, *update.train)
        grads = {k: g for k, g in zip(low, found, strict=True) if g is not None}
        if clip_norm is not None:
            size = flat(grads).norm().detach()
            factor = (clip_norm / (size + 1e-6)).clamp(max=1.0)
            grads = {k: factor * g for k, g in grads.items()}
        low = dict(low)
        for k, g in grads.items():
            low[k], states[k] = rule(low[k], g, update.groups[k], states.get(k, {}))
        if project is not None:
            low = {**low, **project(low)}
    return low
