"""One move: a gradient in a sweep, a step with it, and the record that others differentiate."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from mlo.errors import LossError
from mlo.moves import Begun, Move
from mlo.setting import Setting
from mlo.sweep import Gradient, Sweep
from mlo.types import PartialTensors
from mlo.update import needs_closure, take_step
from mlo.watch import UNWATCHED, Watch


def advance(
    sweep: Sweep,
    name: str,
    setting: Setting,
    optimizer: torch.optim.Optimizer,
    params: Sequence[nn.Parameter],
    *,
    graph: bool,
    kept: bool,
    begun: Begun | None = None,
    past: tuple[Move, ...] = (),
    trial: bool = False,
    ready: Callable[[], None] | None = None,
    watch: Watch = UNWATCHED,
) -> tuple[Gradient, Move]:
    """Take the total gradient of `name` in the sweep and step `params` with it.

    An optimizer that needs a closure is given one that evaluates the same gradient at other
    parameters: the same batch and random numbers, so that its line search sees one function.

    Args:
        sweep: where everybody stands.
        name: who moves.
        setting: batch, random state and mode.
        optimizer: what steps: the problem's own, or a copy on trial.
        params: the parameters that it holds, live or copies.
        graph: keep the gradient's graph, or what `once` computed, where the problem's method can
            use it.
        kept: record the move in full, where the problem's method needs that.
        begun: how the problem began anew just before, where it did.
        past: the recorded moves that led here.
        trial: whether the move is made on trial.
        ready: called between gradient and step; until then nothing live has changed.
        watch: is told of loss, responses, gradient and step.

    Raises:
        LossError: the loss depends on none of the problem's variables.
    """
    program = sweep.program
    problem = program.problems[name]
    needs = problem.hypergradient.needs
    recorded = kept and program.records_moves(name)
    watch.under(name, setting)
    sweep.watch = watch
    gradient = sweep.gradient(
        name,
        setting,
        graph=graph and recorded and "graph" in needs and not program.graph.scope(name),
        share=graph and recorded and "shared" in needs and not program.graph.scope(name),
        context=recorded and "context_gradient" in needs,
    )
    sweep.watch = UNWATCHED  # not what a closure evaluates on the way of a line search
    _check_dependence(name, gradient.values)
    watch.gradient(name, gradient)
    if kept:
        watch.probe(sweep, name, setting, gradient)
    rate = program.learning_rate(name)
    stepped = watch.stepping(name, optimizer, params, trial=trial)
    if ready is not None:
        ready()

    def again() -> tuple[Tensor, PartialTensors]:
        sweep.values[name] = tuple(p.detach() for p in params)
        found = sweep.gradient(name, setting, replay=True)
        return found.evaluation.value, found.values

    step = take_step(
        optimizer,
        params,
        gradient.values,
        clip_norm=problem.clip_norm,
        projection=program.projection(name),
        differentiable=recorded and "optimizer" in needs,
        replayable=recorded and "steps" in needs,
        adapted="adaptation" in needs,
        closure=(gradient.evaluation.value, again) if needs_closure(optimizer) else None,
    )
    stepped()
    if not recorded:
        return gradient, Move(setting, rate)
    seen = {other: sweep.values[other] for other in program.graph.surroundings(name)}
    context_gradient = gradient.context_gradient
    if context_gradient is not None and begun is not None:
        context_gradient = (*context_gradient, *gradient.values)
    return gradient, Move(
        setting,
        rate,
        before=sweep.values[name],
        reads=seen,
        below={n: sweep.moves[n].without_graph() for n in program.graph.order(name)},
        step=step,
        graph=gradient.graph,
        kept=gradient.kept,
        context_gradient=context_gradient,
        begun=begun,
        past=() if begun is not None else past,
        trial=trial,
    )


def _check_dependence(name: str, gradient: PartialTensors) -> None:
    if all(g is None for g in gradient):
        raise LossError(
            f"problem '{name}': its loss depends on none of its variables, neither directly nor "
            "through the problems below it. Check that the lower losses use the problems that "
            f"they name, and that nothing between them and '{name}' is detached",
            problem=name,
        )
