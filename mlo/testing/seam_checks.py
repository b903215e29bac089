"""What the seam asks of a method beside right numbers.

All of it on one program, `lfm_shaped`: two responses, one through the other, parameters of several
shapes, curvature that depends on where one stands.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

from mlo.errors import MethodError
from mlo.hypergradients import Hypergradient
from mlo.records import Info, Outcome
from mlo.testing.forms import ClosedForm, lfm_shaped
from mlo.testing.watched import Call, Watched, answer_of, ask
from mlo.types import Tensors
from mlo.vectors import add_scaled, filled, norm, shapes, times, zeros_like

CHECKED = (
    "shapes, dtypes and devices",
    "a zero cotangent",
    "linearity",
    "an upper parameter that nothing uses",
    "states before and after real moves",
    "later calls",
    "states of another point",
)
"""What is looked at beside right numbers, here and in `later_calls`, in words."""


def seam_complaints(method: Hypergradient, *, rate: float, tolerance: float) -> Iterator[str]:
    """Whatever is wrong with the method, in sentences.

    Args:
        method: the method.
        rate: learning rate of the lower problems.
        tolerance: relative error that is no error.

    Raises:
        MethodError: the method answers with other shapes than those of the context.
    """
    form, watched = lfm_shaped(), Watched(method)
    away = "moves" in method.needs
    ask(form, watched, rate=rate, away=away)
    with torch.no_grad():  # as in a first-order backward pass
        for problem, call in watched.calls.items():
            for found in _zero(method, call), _linear(form, method, call, tolerance):
                yield from (f"for problem '{problem}': {sentence}" for sentence in found)
    yield from _unused(form, method, rate, away)
    if "graph" in method.needs:
        yield from _graph(form, method, rate, tolerance)
    engine = form.engine(watched, rate=rate, away=True)
    engine.step()
    answer_of(engine, form.upper)
    yield from watched.complaints


def _zero(method: Hypergradient, call: Call) -> Iterator[str]:
    grads, info = _answer(method, call, zeros_like(call.cotangent))
    if not all(bool((g == 0).all()) for g in grads):
        yield f"vjp() of a zero cotangent must be zero, got a gradient of length {norm(grads):.1e}"
    if info.outcome.failed:
        yield f"vjp() of a zero cotangent must be no failure, but it reports {info.outcome.name}"


def _linear(form: ClosedForm, method: Hypergradient, call: Call, tolerance: float) -> Iterator[str]:
    """``vjp(2 v) = 2 vjp(v)`` and ``vjp(v + w) = vjp(v) + vjp(w)``, where an answer is claimed.

    A solver that stopped early need not be linear in v: the directions of conjugate gradients
    depend on it. A difference is linear up to its bias, for which `tolerance` must leave room.
    """
    v = call.cotangent
    w = tuple(t.flip(tuple(range(t.dim()))) + 0.5 * t.abs() for t in v)
    allowed = 4.0 * tolerance

    def answer(cotangent: Tensors) -> Tensors | None:
        nonlocal allowed
        grads, info = _answer(method, call, cotangent)
        if info.outcome not in (Outcome.EXPLICIT, Outcome.CONVERGED):
            return None
        if info.residual is not None:
            allowed += form.condition * form.sensitivity * float(info.residual)
        return grads

    at_v, at_w = answer(v), answer(w)
    double, both = answer(times(v, (2.0,) * len(v))), answer(add_scaled(v, 1.0, w))
    if at_v is None or at_w is None or double is None or both is None:
        return
    size = norm(at_v) + norm(at_w)
    for what, gap in (
        ("vjp(2 v) must be 2 vjp(v)", add_scaled(double, -2.0, at_v)),
        (
            "vjp(v + w) must be vjp(v) + vjp(w)",
            add_scaled(add_scaled(both, -1.0, at_v), -1.0, at_w),
        ),
    ):
        off = float(norm(gap) / size) if size > 0 else float(norm(gap))
        if not off <= allowed:
            yield f"{what}, but they differ by {off:.1e} of its length; allowed: {allowed:.1e}"


def _unused(form: ClosedForm, method: Hypergradient, rate: float, away: bool) -> Iterator[str]:
    answer = ask(form.with_unused(), method, rate=rate, away=away)
    found = answer.values["unused"]
    if not bool((found == 0).all()):
        yield (
            "an upper parameter that no loss uses must have the gradient zero, got "
            f"{found.tolist()}"
        )


def _graph(form: ClosedForm, method: Hypergradient, rate: float, tolerance: float) -> Iterator[str]:
    """The graph of a move, where it is kept, changes nothing but the cost."""
    kept, made = (
        ask(form, method, rate=rate, away=True, retain=retain).values for retain in (True, False)
    )
    gap = norm([kept[k] - made[k] for k in kept]) / norm(list(made.values()))
    if not gap <= tolerance:
        yield (
            "with the graph of the move it must answer as without it (Engine(retain=False)), but "
            f"the two differ by {gap:.1e}"
        )


def _answer(method: Hypergradient, call: Call, cotangent: Tensors) -> tuple[Tensors, Info]:
    """What `vjp` says in the same place to another cotangent."""
    result = method.vjp(call.condition, cotangent, call.state)
    expected = shapes(call.condition.context)
    found = shapes(result.grads)
    if len(found) != len(expected) or any(
        f not in (None, e) for f, e in zip(found, expected, strict=True)
    ):
        raise MethodError(
            f"problem '{call.condition.problem}': vjp() must return a gradient (or None) of the "
            f"shape of each tensor of condition.context, {expected}, got {found}",
            problem=call.condition.problem,
        )
    return filled(result.grads, call.condition.context), result.info
