"""Methods that are wrong in one way each, and what their check must say."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import torch

import mlo
from mlo.records import Info, Outcome, code_of
from mlo.vectors import add_scaled, dot, filled, flat, negative, norm, times, unflat, zeros_like

CONVERGED = code_of(Outcome.CONVERGED)


def scaled(tensors, factor):
    return tuple(None if t is None else factor * t for t in tensors)


def changed(base, factor):
    """The method with its adjoint multiplied, before the residual is measured."""

    class Changed(type(base)):
        def solve(self, condition, cotangent):
            found = super().solve(condition, cotangent)
            return dataclasses.replace(found, adjoint=scaled(found.adjoint, factor))

    return Changed(**dataclasses.asdict(base))


def multiplied(base, factor):
    """The method with what it answers multiplied."""

    class Multiplied(type(base)):
        def vjp(self, condition, cotangent, state):
            result = super().vjp(condition, cotangent, state)
            return dataclasses.replace(result, grads=scaled(result.grads, factor))

    return Multiplied(**dataclasses.asdict(base))


def answering(method, make):
    """The method with its result put through a function of the condition and the result."""

    class Answering(type(method)):
        def vjp(self, condition, cotangent, state):
            return make(condition, super().vjp(condition, cotangent, state))

    return Answering(**dataclasses.asdict(method))


def reporting(method, code, residual=None):
    """The method with another report."""
    kept = None if residual is None else torch.tensor(residual)
    return answering(
        method,
        lambda condition, result: dataclasses.replace(
            result, info=Info(result.info.products, kept, code_of(code))
        ),
    )


@dataclasses.dataclass(frozen=True)
class Conjugate(mlo.Implicit):
    """Conjugate gradients as in a textbook; `late` returns the iterate before the last."""

    monotone: ClassVar[bool] = False
    late: bool = False

    def solve(self, condition, cotangent):
        x, r = zeros_like(cotangent), cotangent
        p, before = r, x
        for _ in range(20):
            if float(norm(r)) <= self.tolerance * float(norm(cotangent)):
                break
            before, product = x, condition.hvp(p)
            step = dot(r, r) / dot(p, product)
            x, old = add_scaled(x, step, p), r
            r = add_scaled(r, -step, product)
            p = add_scaled(r, dot(r, r) / dot(old, old), p)
        return mlo.LinearSolution(before if self.late else x)


@dataclasses.dataclass(frozen=True)
class Stale(mlo.Hypergradient):
    """Conjugate gradients that stop one step early, and report the residual they would have had."""

    steps_short: int = 1

    def vjp(self, condition, cotangent, state):
        x, r, p, history = zeros_like(cotangent), cotangent, cotangent, []
        size = float(norm(cotangent))
        while float(norm(r)) > 1e-9 * size and len(history) < 20:
            history.append(x)
            product = condition.hvp(p)
            step = dot(r, r) / dot(p, product)
            x, old = add_scaled(x, step, p), r
            r = add_scaled(r, -step, product)
            p = add_scaled(r, dot(r, r) / dot(old, old), p)
        answer = history[-self.steps_short] if history else x
        info = Info(products=len(history), residual=norm(r) / max(size, 1e-30), code=CONVERGED)
        return mlo.Result(negative(condition.mixed_vjp(answer)), state, info)


@dataclasses.dataclass(frozen=True)
class Truncated(mlo.Hypergradient):
    """Ten terms of the Neumann series, called converged."""

    code: int = CONVERGED
    residual: float | None = None

    def vjp(self, condition, cotangent, state):
        rest, adjoint = cotangent, zeros_like(cotangent)
        for _ in range(10):
            term = times(rest, condition.learning_rate)
            adjoint = add_scaled(adjoint, 1.0, term)
            rest = add_scaled(rest, -1.0, condition.hvp(term))
        reported = None if self.residual is None else torch.tensor(self.residual)
        info = Info(products=10, residual=reported, code=self.code)
        return mlo.Result(negative(condition.mixed_vjp(adjoint)), state, info)


class ClaimsItsTerms(mlo.Neumann):
    """A series whose solver says that it converged, so that the measured residual disagrees."""

    def solve(self, condition, cotangent):
        found = super().solve(condition, cotangent)
        return dataclasses.replace(found, info=Info(products=self.terms, code=CONVERGED))


@dataclasses.dataclass(frozen=True)
class Spectral(mlo.Hypergradient):
    """Solves by eigenvectors, whose eigenvalues are put through a function; claims convergence."""

    differentiable: ClassVar[bool] = False
    kind: str = "absolute"

    def vjp(self, condition, cotangent, state):
        v = flat(cotangent)
        columns = [flat(condition.hvp(unflat(e, cotangent))) for e in torch.eye(len(v))]
        values, vectors = torch.linalg.eigh(torch.stack(columns))
        inverse = 1 / values.abs()
        if self.kind == "pseudo":
            inverse = torch.where(values.abs() > 1e-12 * values.abs().max(), 1 / values, 0.0)
        adjoint = unflat(vectors @ (inverse * (vectors.T @ v)), cotangent)
        singular = values.abs().min() <= 1e-12 * values.abs().max()
        named = singular and self.kind == "absolute"
        code = code_of(Outcome.SINGULAR) if named else CONVERGED
        info = Info(products=len(v), code=code)
        return mlo.Result(negative(condition.mixed_vjp(adjoint)), state, info)


class Detaching(mlo.Dense):
    """Says that it may be differentiated, and gives the adjoint without its graph."""

    def vjp(self, condition, cotangent, state):
        result = super().vjp(condition, cotangent, state)
        with torch.no_grad():
            u = self.solve(condition, cotangent).adjoint
        mixed = condition.mixed_vjp(tuple(t.detach() for t in u))
        return dataclasses.replace(result, grads=negative(mixed))


class Quadratic(mlo.Dense):
    """Takes every Hessian for a constant when it is differentiated itself."""

    def vjp(self, condition, cotangent, state):
        if not condition.attached:
            return super().vjp(condition, cotangent, state)
        v = flat(cotangent)
        with torch.no_grad():
            columns = [flat(condition.hvp(unflat(e, cotangent))) for e in torch.eye(len(v))]
            matrix = torch.stack([c.detach() for c in columns])
        adjoint = unflat(torch.linalg.solve(matrix, v), cotangent)
        return mlo.Result(negative(condition.mixed_vjp(adjoint)), state, Info(code=CONVERGED))


class Clipping(mlo.Dense):
    """Shortens cotangents that are longer than any of those of the two problems in question."""

    def vjp(self, condition, cotangent, state):
        longest = 1.4 if condition.problem in ("learner", "relearner") else 1e9
        factor = min(1.0, longest / max(float(norm(cotangent).detach()), 1e-30))
        return super().vjp(condition, scaled(cotangent, factor), state)


class Remembering(mlo.OneStep):
    """Keeps a state; which calls give it a graph, or an object, is a subclass's matter."""

    where: ClassVar[str] = ""
    what: ClassVar[str] = "graph"

    def kept(self, call):
        if call != self.where:
            return torch.zeros(2)
        if self.what == "object":
            return {"memory": object()}
        return torch.zeros(2).requires_grad_() if self.what == "leaf" else _with_graph()

    def init(self, condition):
        return self.kept("init")

    def observe(self, condition, state):
        return self.kept("observe")

    def vjp(self, condition, cotangent, state):
        result = super().vjp(condition, cotangent, state)
        return dataclasses.replace(result, state=self.kept("vjp"))


def _with_graph():
    with torch.enable_grad():
        return torch.zeros(2).requires_grad_() * 2


def remembering(where, what):
    return type("Remembering", (Remembering,), {"where": where, "what": what})()


class RemembersItsAdjoint(mlo.Dense):
    """A state that is plain in a first-order backward, and has a graph in a nested one."""

    def vjp(self, condition, cotangent, state):
        result = super().vjp(condition, cotangent, state)
        kept = tuple(t for t in result.grads if t is not None)
        return dataclasses.replace(result, state=kept)


def without_entry(condition, result):
    return dataclasses.replace(result, grads=result.grads[:-1])


def transposed(condition, result):
    turned = tuple(None if g is None else g.reshape(1, *g.shape) for g in result.grads)
    return dataclasses.replace(result, grads=turned)


def narrow(condition, result):
    grads = tuple(None if g is None else g.float() for g in result.grads)
    return dataclasses.replace(result, grads=grads)


def with_graph(condition, result):
    grads = tuple(None if g is None else g.requires_grad_() for g in result.grads)
    return dataclasses.replace(result, grads=grads)


def not_a_number(condition, result):
    grads = tuple(None if g is None else g * torch.nan for g in result.grads)
    return dataclasses.replace(result, grads=grads)


def unmeasured_learner(condition, result):
    if condition.problem != "learner":
        return result
    info = dataclasses.replace(result.info, residual=torch.tensor(torch.nan))
    return dataclasses.replace(result, info=info)


def ones_for_none(condition, result):
    pairs = zip(result.grads, condition.context, strict=True)
    grads = tuple(torch.ones_like(c) if g is None else g for g, c in pairs)
    return dataclasses.replace(result, grads=grads)


def ones_for_zero(condition, result):
    grads = filled(result.grads, condition.context)
    empty = all(bool((g == 0).all()) for g in grads)
    return dataclasses.replace(result, grads=tuple(g + empty for g in grads))


class NeedsTheGraph(mlo.OneStep):
    """Right only where the graph of the move was kept."""

    def vjp(self, condition, cotangent, state):
        factor = 1.0 if condition._graph is not None else 2.0
        result = super().vjp(condition, cotangent, state)
        return dataclasses.replace(result, grads=scaled(result.grads, factor))


class Raising(mlo.OneStep):
    """Fails like anybody's code."""

    def vjp(self, condition, cotangent, state):
        raise ZeroDivisionError("by hand")
