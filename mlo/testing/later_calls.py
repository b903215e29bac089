"""What a method answers after its first call: with a state carried along, and after real moves."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

from mlo.testing.forms import ClosedForm, Level, lfm_shaped, quadratic
from mlo.testing.forms.form import Named, OptimizerFactory
from mlo.testing.judge import Judge, Right
from mlo.testing.method_report import MethodRow, Verdict
from mlo.testing.steps import Rule, adam_step, sgd_step, uncorrected_adam_step
from mlo.testing.unrolled import snapshot, unrolled
from mlo.testing.watched import Answer, Watched, answer_of, ask

MOVES = 3
"""Real moves before a recorded one is looked at."""


def rows_after_moves(judge: Judge) -> Iterator[MethodRow]:
    """A method of recorded moves, after real ones of SGD with momentum and of Adam.

    Every lower problem has two parameter groups, whose settings differ.
    """
    adam = uncorrected_adam_step if "adaptation" in judge.method.needs else adam_step
    yield _after_moves(judge, "moves of SGD", _momentum(judge.rate), sgd_step)
    yield _after_moves(judge, "moves of Adam", _adam(judge.rate), adam)


def _after_moves(judge: Judge, name: str, optimizer: OptimizerFactory, rule: Rule) -> MethodRow:
    # None: those of the last move, here one.
    reach = MOVES if judge.method.carries else judge.method.reach or 1
    # With several updates and several problems, which update of one another one saw is a choice.
    form = dataclasses.replace(lfm_shaped() if reach == 1 else quadratic(), name=name)

    def asked(watched: Watched) -> tuple[Answer, Right]:
        engine = form.engine(watched, rate=judge.rate, away=True, optimizer=optimizer)
        history = [snapshot(engine)]
        for _ in range(MOVES):
            engine.step()
            history.append(snapshot(engine))
        answer = answer_of(engine, form.upper)
        return answer, unrolled(form, history, rule, reach=reach)

    return judge.row(form, asked)


def two_rates(rate: float) -> tuple[ClosedForm, OptimizerFactory]:
    """A program whose lower Hessian is 1 / rate entry by entry, with an optimizer of two rates."""
    form = quadratic(condition=1.0, scale=1.0 / rate)

    def sgd(params: list[Parameter]) -> torch.optim.Optimizer:
        first, second = {"params": params[:1], "lr": rate}, {"params": params[1:], "lr": rate / 4}
        return torch.optim.SGD([first, second])

    return _doubled(form, "Hessian 1 / rates"), sgd


def state_complaints(judge: Judge) -> Iterator[str]:
    """A carried state may help and must not hurt; one from elsewhere must not be believed."""
    form = lfm_shaped()
    right = judge.right(form)

    def row(watched: Watched) -> MethodRow:
        answer = ask(form, watched, rate=judge.rate, away=judge.moves)
        return judge.verdict(form, answer, right)

    first = row(Watched(judge.method))
    if not judge.moves:  # those have rows of their own
        settled = judge.verdict(form, _settled(form, judge), right)
        yield from _hurt("after two ticks in which nothing changed", first, settled)
    elsewhere = Watched(judge.method)
    ask(form, elsewhere, rate=judge.rate, away=not judge.moves)
    stale = Watched(judge.method, elsewhere.states)
    found = row(stale)
    if found.verdict is Verdict.WRONG:
        yield f"with the state of another point on '{form.name}': {found.reason}"
    again = row(Watched(judge.method, stale.states))
    yield from _hurt("called again with the state of its last call", first, again)


def _settled(form: ClosedForm, judge: Judge) -> Answer:
    """At the solution nobody moves but by rounding, and the engine carries the states along."""
    engine = form.engine(judge.method, rate=judge.rate, still=True)
    for _ in range(2):
        engine.step()
    return answer_of(engine, form.upper)


def _hurt(when: str, first: MethodRow, later: MethodRow) -> Iterator[str]:
    if later.verdict is Verdict.WRONG:
        yield f"{when} on '{first.problem}': {later.reason}"
    elif first.verdict.right and not later.verdict.right:
        found = "nan" if math.isnan(later.error) else f"{later.error:.1e}"
        yield (
            f"{when} on '{first.problem}': its error is {found} and its outcome "
            f"{'none' if later.outcome is None else later.outcome.name}, where the first call was "
            f"right ({first.error:.1e}); a state may save work and must not cost the answer"
        )


def _momentum(rate: float) -> OptimizerFactory:
    def make(params: list[Parameter]) -> torch.optim.Optimizer:
        return torch.optim.SGD(
            [
                {"params": params[:1], "momentum": 0.9, "nesterov": True},
                {"params": params[1:], "lr": rate / 3, "momentum": 0.5, "dampening": 0.4},
            ],
            rate,
        )

    return make


def _adam(rate: float) -> OptimizerFactory:
    def make(params: list[Parameter]) -> torch.optim.Optimizer:
        groups: list[dict[str, Any]] = [
            {"params": params[:1], "betas": (0.8, 0.9)},
            {"params": params[1:], "lr": rate / 3},
        ]
        # So small an eps that it does not matter where a formula has it.
        return torch.optim.Adam(groups, rate, eps=1e-12)

    return make


def _doubled(form: ClosedForm, name: str) -> ClosedForm:
    """The form with the last parameter of its lowest problem given in units of 2.

    The parameter is half of the number that the losses use, so curvature in it is four times as
    large, and the truth is the same.
    """
    lowest = form.levels[0]
    key = list(lowest.solution)[-1]

    def times(params: Named, factor: float) -> Named:
        return {**params, key: factor * params[key]}

    def rewritten(level: Level) -> Level:
        def loss(*read: Named) -> Tensor:
            pairs = zip(level.reads, read, strict=True)
            return level.loss(*(times(w, 2.0) if n == lowest.name else w for n, w in pairs))

        return dataclasses.replace(level, loss=loss)

    first, *others = map(rewritten, form.levels)
    first = dataclasses.replace(
        first, solution=times(first.solution, 0.5), start=times(first.start, 0.5)
    )
    return dataclasses.replace(form, name=name, levels=(first, *others))
