"""Closed forms as programs: engines built by hand, exact answers, and bounds for inexact ones."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping

import numpy as np
import torch

import mlo
from mlo.testing import ClosedForm

from . import theory
from .claims import FORMS, RATE, TICKS, Claim
from .matrices import Array, Derivatives, answered, at_solution, derivatives, flat, unflat


def norm(a: Array) -> float:
    """The Euclidean norm of a vector, the spectral norm of a matrix."""
    return float(np.linalg.norm(a, 2))


@dataclasses.dataclass(frozen=True)
class Answer:
    """The upper gradient that an engine gives, in one vector, and what was reported with it."""

    gradient: Array
    infos: tuple[mlo.Info, ...]

    @property
    def outcomes(self) -> list[mlo.Outcome]:
        return [info.outcome for info in self.infos]


def engine(form: ClosedForm, method: mlo.Hypergradient, *, away: bool) -> mlo.Engine:
    """The program with SGD below and an upper problem that stands still."""
    problems = [
        mlo.Problem(
            level.name,
            params=level.start if away else level.solution,
            loss=level.loss,
            reads=level.reads,
            optimizer=functools.partial(
                torch.optim.SGD, lr=0.0 if level.name == form.upper else RATE
            ),
            hypergradient=None if level.name == form.upper else method,
        )
        for level in form.levels
    ]
    return mlo.Engine(problems)


def asked(made: mlo.Engine, upper: str) -> Answer:
    values, responses = made.total_gradient(upper)
    return Answer(flat(values), tuple(response.info for response in responses))


def answer(form: ClosedForm, claim: Claim) -> Answer:
    """As it stands at the solution; recorded methods after some ticks from elsewhere."""
    made = engine(form, claim.method, away=claim.reach is not None)
    for _ in range(TICKS if claim.reach is not None else 0):
        made.step()
    return asked(made, form.upper)


@functools.cache
def drawn(problem: str, seed: int, dtype: torch.dtype = torch.float64) -> ClosedForm:
    return FORMS[problem](seed=seed, dtype=dtype)


@functools.cache
def standing(problem: str, seed: int) -> dict[str, Derivatives]:
    """All derivatives of all losses at the solution."""
    form = drawn(problem, seed)
    values = at_solution(form)
    return {level.name: derivatives(level, values) for level in form.levels}


@dataclasses.dataclass(frozen=True)
class Node:
    """A lower problem as a linear map from its cotangent to those of what it reads.

    -G_p^T (gain) v, where a solve has G_p = dg/dp and the gain H^{-1}.
    """

    routes: Mapping[str, Array]
    gain: Array
    mu: Array | None = None

    def weight(self, power: float) -> Array:
        """|H|^power."""
        mu, vectors = np.linalg.eigh(np.linalg.inv(self.gain))
        return vectors * np.abs(mu) ** power @ vectors.T

    def pull(self, v: Array, solve: Callable[[Array], Array] | None = None) -> dict[str, Array]:
        u = self.gain @ v if solve is None else solve(v)
        return {p: -G.T @ u for p, G in self.routes.items()}


@functools.cache
def solved(problem: str, seed: int) -> tuple[dict[str, Node], dict[str, Array]]:
    """The nodes at the solution, and their Hessians."""
    form = drawn(problem, seed)
    nodes, hessians = {}, {}
    for level in form.levels[:-1]:
        own = level.name
        found = standing(problem, seed)[own].curvature
        H = hessians[own] = found[own, own]
        routes = {p: found[own, p] for p in level.reads if p != own}
        nodes[own] = Node(routes, np.linalg.inv(H), np.linalg.eigvalsh(H))
    return nodes, hessians


@dataclasses.dataclass(frozen=True)
class Move:
    """One recorded move: of which problem, where everybody stood, and the derivatives there."""

    own: str
    at: Mapping[str, Mapping[str, torch.Tensor]]
    found: Derivatives


@functools.cache
def moves(problem: str, seed: int) -> tuple[list[list[Move]], dict]:
    """The moves of SGD, tick by tick, the lowest problem first; and where they end."""
    form = drawn(problem, seed)
    values, ticks = {level.name: level.start for level in form.levels}, []
    for _ in range(TICKS):
        ticks.append([])
        for level in form.levels[:-1]:
            own, found = level.name, derivatives(level, values)
            ticks[-1].append(Move(own, values, found))
            w = flat(values[own]) - RATE * found.slope[own]
            values = {**values, own: unflat(w, values[own])}
    return ticks, values


@functools.cache
def stepped(problem: str, seed: int, reach: int) -> dict[str, Node]:
    """The nodes of the last `reach` of the moves.

    w' = w - eta g gives dw'/dp = (1 - eta H) dw/dp - eta dg/dp, from zero where the reach begins;
    what is read of p counts as if it were shifted alike in all these moves.
    """
    ticks, ends = moves(problem, seed)
    routes: dict[str, dict[str, Array]] = {}
    for move in (move for tick in ticks[TICKS - reach :] for move in tick):
        own, found = move.own, move.found.curvature
        before = routes.setdefault(own, {})
        for p in (p for p in move.found.slope if p != own):
            start = before.get(p, np.zeros_like(found[own, p]))
            before[p] = start - RATE * (found[own, own] @ start + found[own, p])
    return {
        own: Node({p: -Z for p, Z in ways.items()}, np.eye(len(flat(ends[own]))))
        for own, ways in routes.items()
    }


@functools.cache
def truth(problem: str, seed: int, reach: int | None) -> tuple[Array, Array, dict[str, Array]]:
    """The exact gradient, its direct part, and the cotangents of a staged program."""
    form = drawn(problem, seed)
    if reach is None:
        nodes, _ = solved(problem, seed)
        values = at_solution(form)
    else:
        nodes, values = stepped(problem, seed, reach), moves(problem, seed)[1]
    return answered(form, values, lambda own, v: nodes[own].pull(v))


def textbook(problem: str, seed: int, claim: Claim) -> Array:
    """The gradient if every problem solves as the textbook does."""
    nodes, hessians = solved(problem, seed)

    def pull(own: str, v: Array) -> dict[str, Array]:
        return nodes[own].pull(v, lambda v: claim.textbook(hessians[own], v))

    return answered(drawn(problem, seed), at_solution(drawn(problem, seed)), pull)[0]


def bound(problem: str, seed: int, claim: Claim, unit: float) -> float:
    """How far the answer of a staged program may be off, relative to the response.

    An error d of the cotangent that reaches a problem, and the error e of its solve in the norm of
    N = |H|^power, are carried on as e |G^T N^{-1}| (|N u| + |N H^{-1}| d) + |G| |H^{-1}| d, from
    the last problem to the first. `unit` is what rounding of losses and gradients does to every
    cotangent and to every product.
    """
    form = drawn(problem, seed)
    whole, direct, seen = truth(problem, seed, claim.reach)
    nodes = solved(problem, seed)[0] if claim.solves else stepped(problem, seed, claim.reach)
    off = {name: unit * norm(v) for name, v in seen.items()}
    off[form.upper] = unit * norm(direct)
    for own in reversed(nodes):
        node, v = nodes[own], seen[own]
        more = norm(node.gain) * off[own]
        rounding = unit * (norm(node.gain @ v) + more)
        biases = difference_bias(problem, seed, claim, own, v=v, unit=unit) if claim.radius else {}
        decay, N = 0.0, np.eye(len(v))
        if claim.solves:
            rounding *= 1 + claim.amplified(node.mu)
            decay, N = decayed(claim, node.mu, claim.power), node.weight(claim.power)
        lost = decay * (norm(N @ node.gain @ v) + norm(N @ node.gain) * off[own])
        for p, G in node.routes.items():
            carried = lost * norm(np.linalg.solve(N, G)) + norm(G) * (rounding + more)
            off[p] += carried + biases.get(p, 0.0)
    return float(off[form.upper] / norm(whole - direct))


def difference_bias(
    problem: str, seed: int, claim: Claim, own: str, *, v: Array, unit: float
) -> dict[str, float]:
    """Taylor: r^2 / 6 (central) or r / 2 (forward) times the next derivative along u, and rounding.

    That derivative, a third or fourth one of the loss, is measured along the segment by second
    differences of exact mixed products, at five points.
    """
    (move,) = (move for move in moves(problem, seed)[0][-1] if move.own == own)
    r, u = claim.radius, RATE * v
    length = norm(u)
    if length == 0.0:
        return {}
    around = segment(problem, seed, own, tuple(u / length), r)
    w, found = norm(flat(move.at[own])), {}
    for p in (p for p in move.found.slope if p != own):
        products = np.array([at.curvature[p, own] @ u for at in around])
        slope = np.abs(np.diff(products, axis=0)).max(0) / (r / 2)
        turn = np.abs(np.diff(products, n=2, axis=0)).max(0) / (r / 2) ** 2
        # Five points miss a little of the largest value.
        taylor = 1.1 * norm(r / 2 * slope if claim.forward else r**2 / 6 * turn)
        size = max(norm(at.slope[p]) + norm(at.curvature[p, own]) * w for at in around)
        found[p] = taylor + unit * size * length / r
    return found


@functools.cache
def segment(problem: str, seed: int, own: str, way: tuple[float, ...], r: float):
    """Derivatives of one loss at five points of the shift of a difference at the last move."""
    (move,) = (move for move in moves(problem, seed)[0][-1] if move.own == own)
    (level,) = (level for level in drawn(problem, seed).levels if level.name == own)
    w, found = flat(move.at[own]), []
    for s in np.linspace(-r, r, 5):
        shifted = unflat(w + s * np.array(way), move.at[own])
        found.append(derivatives(level, {**move.at, own: shifted}))
    return found


def decayed(claim: Claim, mu: Array, power: float) -> float:
    """|N (S v - u)| / |N u| at most, with what is left where it stops at a residual."""
    return claim.decay(mu) + claim.stop * theory.spread(mu) ** (1 - power)
