"""The exact derivative of the recorded updates of a closed form, by autograd through a loop."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from mlo.engine import Engine
from mlo.testing.forms import ClosedForm
from mlo.testing.forms.form import Named, gradient_of, leaf_params
from mlo.testing.steps import Group, Rule, State


@dataclasses.dataclass(frozen=True)
class Snapshot:
    """Where a program stands between two ticks.

    Attributes:
        values: problem -> its parameters.
        groups: problem -> parameter -> the settings of its optimizer.
        states: problem -> parameter -> what the optimizer remembers.
    """

    values: dict[str, dict[str, Tensor]]
    groups: dict[str, dict[str, Group]]
    states: dict[str, dict[str, State]]


def snapshot(engine: Engine) -> Snapshot:
    """Copies of all that a step depends on."""
    values: dict[str, dict[str, Tensor]] = {}
    groups: dict[str, dict[str, Group]] = {}
    states: dict[str, dict[str, State]] = {}
    for name, problem in engine.problems.items():
        params, optimizer = dict(problem.module.named_parameters()), problem.optimizer
        settings = {id(p): dict(g) for g in optimizer.param_groups for p in g["params"]}
        values[name] = {k: p.detach().clone() for k, p in params.items()}
        groups[name] = {k: settings[id(p)] for k, p in params.items()}
        states[name] = {k: _copied(optimizer.state.get(p, {})) for k, p in params.items()}
    return Snapshot(values, groups, states)


def unrolled(
    form: ClosedForm, history: Sequence[Snapshot], rule: Rule, *, reach: int
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The gradient through the last `reach` of the recorded updates, and its direct part.

    Each tick the lower problems move once, the lowest first; each reads the updates made below it.
    The upper parameters of all those ticks, and of now, are shifted alike.

    Args:
        form: a staged program.
        history: where it stood before every tick, and where it stands now.
        rule: of the lower problems' optimizer.
        reach: updates that are differentiated; what was before them is constant.
    """
    upper = form.levels[-1]
    shift = leaf_params({k: torch.zeros_like(t) for k, t in history[-1].values[upper.name].items()})
    ticks = history[-1 - min(reach, len(history) - 1) : -1]
    values: dict[str, Named] = dict(ticks[0].values)
    states = {name: dict(of) for name, of in ticks[0].states.items()}
    for tick in ticks:
        values[upper.name] = _shifted(tick.values[upper.name], shift)
        for level in form.levels[:-1]:
            own = {k: t if t.requires_grad else _leaf(t) for k, t in values[level.name].items()}
            slope = gradient_of(level, own, values, graph=True)
            reached = {}
            for k, w in own.items():
                group, state = tick.groups[level.name][k], states[level.name][k]
                reached[k], states[level.name][k] = rule(w, slope[k], group, state)
            values[level.name] = reached
    now = history[-1].values
    fixed: dict[str, Named] = {n: {k: t.detach() for k, t in w.items()} for n, w in values.items()}
    return _slope(form, shift, now, values), _slope(form, shift, now, fixed)


def _slope(form: ClosedForm, shift: Named, now: Any, values: dict[str, Named]) -> dict[str, Tensor]:
    """Of the upper loss with respect to the shift, where the lower problems are at `values`."""
    upper = form.levels[-1]
    at = {**values, upper.name: _shifted(now[upper.name], shift)}
    loss = upper.loss(*(at[read] for read in upper.reads))
    found = torch.autograd.grad(
        loss, list(shift.values()), retain_graph=True, materialize_grads=True
    )
    return dict(zip(shift, found, strict=True))


def _shifted(values: Named, shift: Named) -> dict[str, Tensor]:
    return {k: t + shift[k] for k, t in values.items()}


def _leaf(t: Tensor) -> Tensor:
    return t.detach().clone().requires_grad_()


def _copied(state: Any) -> State:
    kept = {k: x for k, x in state.items() if x is not None}
    return {k: torch.as_tensor(x).detach().clone() for k, x in kept.items()}
