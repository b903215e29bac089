"""Whether every hypergradient method can serve where it was put, checked at building time."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch

from mlo.errors import GraphError, MethodError, listed, nearest
from mlo.graph import DependencyGraph
from mlo.hypergradients import Direct, Implicit
from mlo.hypergradients.base import NEEDS
from mlo.optimizer_steps import STEP_RULES
from mlo.problem import Problem
from mlo.second_moments import SCALES
from mlo.update import needs_closure

_SOLVER = "an implicit method such as Neumann(alpha=...) or ConjugateGradient()"
_OPTIMIZERS: Mapping[str, tuple[Collection[type], str, str]] = {
    "optimizer": (STEP_RULES, "the derivative of the update", _SOLVER),
    "steps": (STEP_RULES, "recorded steps", _SOLVER),
    "second_moments": (SCALES, "the second moments", "another preconditioner, such as 'diagonal'"),
}
"""Need -> the optimizers that can serve it (exact classes), in words, and what else to do."""


def check_methods(
    problems: Mapping[str, Problem], graph: DependencyGraph, *, lookahead: bool
) -> None:
    """Every method can serve where it was put, and no upper problem is left without an answer."""
    for name, problem in problems.items():
        if needs_closure(problem.optimizer):
            _check_closure(problem, graph, lookahead=lookahead)
        if name in graph.responding:
            _check_method(problem, graph)
            _check_nesting(problem, graph)
            if "moves" in problem.hypergradient.needs:
                _check_order(problem, graph)
                _check_start(problem, graph)
    for name in graph.names:
        scope = graph.scope(name)
        for group in graph.groups(name):
            if len(group) > 1:
                _check_circle(name, group, problems, graph)
        direct = all(isinstance(problems[n].hypergradient, Direct) for n in scope)
        if name not in problems[name].reads.names and direct:
            raise GraphError(
                f"problem '{name}': its loss does not read itself, and every problem below it "
                f"({listed(sorted(scope))}) has hypergradient=Direct(), which answers nothing: its "
                "gradient would be zero for ever. Choose another method, such as OneStep()",
                problem=name,
            )


def _check_method(problem: Problem, graph: DependencyGraph) -> None:
    name, method = problem.name, problem.hypergradient
    kind = type(method).__name__
    if isinstance(method.needs, str):
        raise MethodError(
            f"problem '{name}': hypergradient={kind}, needs must be a set of words, got the text "
            f"{method.needs!r}; write frozenset({{{method.needs!r}}})",
            problem=name,
        )
    reach = method.reach
    whole = isinstance(reach, int) and not isinstance(reach, bool) and reach >= 1
    if reach is not None and not whole:
        raise MethodError(
            f"problem '{name}': hypergradient={kind}, reach must be a whole number of at least 1, "
            f"or None for all updates of a move, got {reach!r}",
            problem=name,
        )
    unknown = sorted(set(method.needs) - NEEDS)
    if unknown:
        raise MethodError(
            f"problem '{name}': hypergradient={kind} declares the need '{unknown[0]}', which is "
            f"none{nearest(unknown[0], NEEDS)} (known: {listed(sorted(NEEDS))}); correct its needs",
            problem=name,
        )
    method.check_place(problem, graph)
    for need, (known, what, cure) in _OPTIMIZERS.items():
        if need in method.needs and type(problem.optimizer) not in known:
            raise MethodError(
                f"problem '{name}': hypergradient={kind} needs {what} of the optimizer, known for "
                f"{', '.join(k.__name__ for k in known)} and not for "
                f"{type(problem.optimizer).__name__}; choose one of these optimizers, or {cure}",
                problem=name,
            )
    if isinstance(method, Implicit) and problem.project is not None:
        raise MethodError(
            f"problem '{name}': hypergradient={kind} takes the gradient to be zero at the "
            "solution, which fails where project= holds parameters at a bound; use OneStep() or "
            "FiniteDifference(), which differentiate the projected move",
            problem=name,
        )


def _check_nesting(problem: Problem, graph: DependencyGraph) -> None:
    """Below an anticipating problem a method is differentiated; at one, the responses move."""
    name, method = problem.name, problem.hypergradient
    kind = type(method).__name__
    readers = [r for r in graph.names if graph.anticipates(r) and name in graph.scope(r)]
    if readers and graph.nested != "partial" and not method.differentiable:
        raise MethodError(
            f"problem '{name}': '{readers[0]}' anticipates its response and is itself "
            f"differentiated through, so hypergradient={kind} would have to be differentiated "
            "again, which it cannot; choose ConjugateGradient, Minres, Neumann, Nystrom or Dense, "
            "or, where two upper problems only share what is below them, put them on one level: "
            "[..., [first, second]]",
            problem=name,
        )
    if "staged" in method.needs and graph.anticipates(name):
        raise MethodError(
            f"problem '{name}': hypergradient={kind} works with its plain loss, at points where "
            f"{listed(sorted(graph.scope(name)))} would have to answer anew; choose OneStep, "
            "Unrolled, Neumann, ConjugateGradient or Dense",
            problem=name,
        )


def _check_circle(
    name: str, group: tuple[str, ...], problems: Mapping[str, Problem], graph: DependencyGraph
) -> None:
    """Problems that read each other answer by one solve, with a Jacobian that is not symmetric."""
    methods = [problems[n].hypergradient for n in group]
    kind = type(methods[0]).__name__
    wrong, cure = "", "choose Dense or Neumann for all of them, or OneStep (they move at once), or"
    if any(method != methods[0] for method in methods):
        wrong = "for which they must have the same hypergradient="
    elif isinstance(methods[0], Direct):
        return
    elif not isinstance(methods[0], Implicit):
        wrong = f"which {kind} is not made for, being no Implicit method"
    elif methods[0].symmetric:
        wrong = f"which {kind} takes to be symmetric"
    elif graph.anticipates(name) and graph.nested != "partial":
        wrong = f"which '{name}' anticipates, so that it would have to be differentiated again"
        cure = "choose nested='partial', or"
    if wrong:
        raise MethodError(
            f"problem '{group[0]}': {listed(group)} on one level read each other and answer to "
            f"'{name}' by one solve with their joint Jacobian, {wrong}; {cure} cut a route by "
            "constant=",
            problem=group[0],
        )


def _check_start(problem: Problem, graph: DependencyGraph) -> None:
    """A route through the start is in the recorded move only if that move began there."""
    name, method = problem.name, problem.hypergradient
    begun = problem.start_reads.names if problem.start_reads else ()
    kind = type(method).__name__
    own = [r for r in begun if r in graph.scope(name)]
    if own:
        raise MethodError(
            f"problem '{name}': its start reads '{own[0]}', which itself answers to '{name}': "
            f"hypergradient={kind} would have to follow it to where it stood before. Begin from a "
            f"problem that does not read '{name}', or choose an implicit method, to which the "
            "start does not matter",
            problem=name,
        )
    routes = [r for r in begun if r in graph.carrying(name)]
    if not routes:
        return
    if not method.needs & {"optimizer", "steps"}:
        raise MethodError(
            f"problem '{name}': its start reads '{routes[0]}', and hypergradient={kind} "
            "differentiates its move without the optimizer's update, so the route through the "
            'start cannot be followed; declare needs = {"moves", "optimizer"}',
            problem=name,
        )
    updates = problem.repeat * problem.restart
    if updates > (problem.repeat if method.reach is None else method.reach):
        seen = "those of the last move" if method.reach is None else f"the last {method.reach}"
        raise MethodError(
            f"problem '{name}': its start reads '{routes[0]}', from where it makes {updates} "
            f"update(s) (repeat={problem.repeat}, restart={problem.restart}), but "
            f"hypergradient={kind} differentiates {seen}: the route through the start would be "
            f"lost. Use Unrolled(steps={updates}), or repeat=1 and restart=1 (MAML with one step), "
            f"or an implicit method with a loss that reads '{routes[0]}' too (implicit MAML), or "
            f"cut the route by constant=('{routes[0]}',)",
            problem=name,
        )


def _check_closure(problem: Problem, graph: DependencyGraph, *, lookahead: bool) -> None:
    """An optimizer that evaluates the loss at points of its own, as LBFGS does."""
    name, optimizer, method = problem.name, problem.optimizer, problem.hypergradient
    kind = type(optimizer).__name__
    once = isinstance(optimizer, torch.optim.LBFGS) and all(
        group["max_iter"] == 1 and group["line_search_fn"] is None
        for group in optimizer.param_groups
    )
    below = listed(sorted(graph.scope(name)))
    wrong = ""
    if lookahead:
        wrong = (
            "evaluates its loss through a closure, which trial moves do not offer; use "
            "lookahead=False, or another optimizer"
        )
    elif graph.scope(name) and not once:
        wrong = (
            f"evaluates its loss at several points, to which {below} would have to answer anew; "
            "use LBFGS(max_iter=1) without a line search, or another optimizer"
        )
    elif name in graph.responding and "moves" in method.needs:
        wrong = (
            "evaluates its loss at several points in one move, so there is no recorded step for "
            f"{type(method).__name__} to differentiate; use ConjugateGradient() or Dense()"
        )
    elif name in graph.responding and "learning_rate" in method.needs:
        wrong = (
            f"takes no gradient steps, so its learning rate is none for {type(method).__name__}(); "
            "give Neumann(alpha=...), or use ConjugateGradient()"
        )
    if wrong:
        raise MethodError(f"problem '{name}': optimizer {kind} {wrong}", problem=name)


def _check_order(problem: Problem, graph: DependencyGraph) -> None:
    """A recorded move is made before later responses exist, so it cannot be attached to them."""
    name = problem.name
    for read in graph.nodes[name].reads:
        uppers = graph.through(read, name)
        if uppers and graph.level[read] > graph.level[name]:
            raise MethodError(
                f"problem '{name}': hypergradient={type(problem.hypergradient).__name__} "
                f"differentiates its recorded move, but '{uppers[0]}' would also have to go "
                f"through the response of '{read}', which '{name}' reads and which moves after "
                f"it. List '{read}' before '{name}', or choose an implicit method such as "
                "ConjugateGradient()",
                problem=name,
            )
