"""`OneStep` at a problem that anticipates another, against the same ticks written by hand.

The lowest problem z answers implicitly, the middle one y makes one step with its total gradient,
and the top x differentiates that step:

    y' = y - update(d/dy f2(y, z(y, x), x)),    x descends f1(y', z(y', x), x)

z(y, x) passes through where z stands, solved or not, and bends as a minimizer does; y' is taken
where it was made, z(y', x) where z stands now. No response, context or recorded move is used here.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import mlo
from mlo.errors import MethodError

from ..hypergradients.steps import OPTIMIZERS
from ..oracles import argmin, central, gradient, jacobian

TOLERANCE = 1e-10  # rounding, of some dozen solves with Hessians of condition number about 10
RATE = 0.1
SIZES = {"z": 3, "y": 2, "x": 2}


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


TO_Y, TO_X, Y_TO_X = normal(3, 2, seed=1), normal(3, 2, seed=2), normal(2, 2, seed=3)
CURVATURE = torch.eye(3, dtype=torch.float64) + 0.3 * normal(3, 1, seed=4) @ normal(3, 1, seed=4).T
START = {n: normal(size, seed=5 + size) for n, size in SIZES.items()}


def batches(size: int, seed: int) -> list[Tensor]:
    return list(0.5 * normal(3, size, seed=seed))


DATA = {"low": batches(3, 1), "mid": batches(2, 2), "high": batches(2, 3)}


def lowest(z: Tensor, y: Tensor, x: Tensor, low: Tensor) -> Tensor:
    target = TO_Y @ y + TO_X @ x.sin() + low
    return (
        0.5 * z @ CURVATURE @ z
        - z @ target
        + 0.2 * (z**4).sum()
        + 0.1 * (z * target).square().sum()
    )


def middle(y: Tensor, x: Tensor, z: Tensor, mid: Tensor) -> Tensor:
    near = 0.5 * (y - Y_TO_X @ x - mid).square().sum() + 0.1 * (y**4).sum()
    return near + 0.4 * (z.sum() - y[0]).square() + 0.3 * (z.square().sum() * x[0]).sin()


def top(x: Tensor, y: Tensor, z: Tensor, high: Tensor) -> Tensor:
    return 0.5 * (y - high).square().sum() + (z.sum() * x[1]).cos() + 0.2 * x.square().sum()


class Drawn:
    """A stream as the engine draws it: one batch a tick in which a reader moves."""

    def __init__(self, source: list[Tensor]) -> None:
        self.source, self.used = source, 0

    @property
    def present(self) -> Tensor:
        return self.source[max(self.used - 1, 0) % len(self.source)]


def through(stood: Tensor, loss: Callable[..., Tensor], y0: Tensor, x0: Tensor) -> Callable:
    """(y, x) -> the minimizer of `loss` tilted so that at (y0, x0) it is `stood`.

    A tilt adds nothing to any derivative but the first, so the minimizer moves and bends as the
    implicit function theorem at `stood` says, whether or not that is a solution.
    """
    w = stood.clone().requires_grad_()
    tilt = gradient(loss(w, y0.detach(), x0.detach()), w).detach()
    return lambda y, x: argmin(lambda z: loss(z, y, x) - z @ tilt, stood)


def flattened(stood: Tensor, loss: Callable, y0: Tensor, x0: Tensor, nested: str) -> Callable:
    """What `nested=` makes of it: the same line (P, R fixed), or one that does not answer to y."""
    y, x = y0.detach().clone().requires_grad_(), x0.detach().clone().requires_grad_()
    reached = through(stood, loss, y0, x0)(y, x)
    p, r = jacobian(reached, y).detach(), jacobian(reached, x).detach()
    if nested == "partial":
        p = torch.zeros_like(p)
    return lambda y, x: stood + p @ (y - y0) + r @ (x - x0)


@dataclasses.dataclass
class Made:
    """A move of y: from where, what it saw, and by which optimizer."""

    y: Tensor
    z: Tensor
    x: Tensor
    low: Tensor
    mid: Tensor
    group: dict
    state: dict


class Hand:
    """The program, tick by tick, in plain tensors."""

    def __init__(self, optimizer: str, nested: str = "exact", clip: float | None = None) -> None:
        make, self.rule = OPTIMIZERS[optimizer]
        self.group = make([torch.nn.Parameter(START["y"].clone())]).param_groups[0]
        self.at = {n: t.clone() for n, t in START.items()}
        self.state: dict = {}
        self.streams = {n: Drawn(source) for n, source in DATA.items()}
        self.seen: Tensor | None = None  # the batch of z's latest move
        self.nested, self.clip = nested, clip
        self.made: Made | None = None

    def lowest(self, low: Tensor) -> Callable[..., Tensor]:
        return lambda z, y, x: lowest(z, y, x, low)

    def moved_z(self, y: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        low = self.streams["low"].present
        z = self.at["z"].clone().requires_grad_()
        return z.detach() - RATE * gradient(lowest(z, y, x, low), z).detach(), low

    def to_make(self, z: Tensor, low: Tensor) -> Made:
        mid, state = self.streams["mid"].present, copy.deepcopy(self.state)
        return Made(self.at["y"], z, self.at["x"], low, mid, self.group, state)

    def move(self, made: Made, x: Tensor) -> tuple[Tensor, dict]:
        """Where a move leads, attached to x (of the value that it saw), and the state after it."""
        y = made.y.clone().requires_grad_()
        answer = through(made.z, self.lowest(made.low), y, x)
        slope = gradient(middle(y, x, answer(y, x), made.mid), y)
        if self.nested != "exact":  # the move is the total one, what it is to x is not
            line = flattened(made.z, self.lowest(made.low), y.detach(), x.detach(), self.nested)
            other = gradient(middle(y, x, line(y, x), made.mid), y)
            slope = slope.detach() + other - other.detach()
        if self.clip is not None:
            slope = slope * (self.clip / (slope.detach().norm() + 1e-6)).clamp(max=1.0)
        return self.rule(made.y, slope, made.group, made.state)

    def upper_gradient(self, made: Made, z: Tensor, low: Tensor, y: Tensor | None = None) -> Tensor:
        """d/dx where x stood then and stands now, shifted alike."""
        shift = torch.zeros_like(self.at["x"]).requires_grad_()
        y_moved, _ = self.move(made, made.x + shift)
        if y is not None:
            assert torch.allclose(y_moved.detach(), y, rtol=0, atol=1e-12)
        x = self.at["x"] + shift
        answer = through(z, self.lowest(low), y_moved.detach(), self.at["x"])
        loss = top(x, y_moved, answer(y_moved, x), self.streams["high"].present)
        return gradient(loss, shift, graph=False)

    def made_by_y(self, made: Made) -> None:
        reached, state = self.move(made, made.x)
        self.at["y"] = reached.detach()
        self.state = {k: torch.as_tensor(v).detach() for k, v in state.items()}
        self.made = made

    def ahead(self) -> Tensor:
        """The gradient of x against trial moves of both."""
        z, low = self.moved_z(self.at["y"], self.at["x"])
        return self.upper_gradient(self.to_make(z, low), z, low)

    def look(self, lookahead: bool) -> Tensor:
        """What `hypergradient("x")` is to be between ticks."""
        if lookahead:
            return self.ahead()
        low = self.streams["low"].present if self.seen is None else self.seen
        made = self.to_make(self.at["z"], low) if self.made is None else self.made
        return self.upper_gradient(made, self.at["z"], low)

    def tick(self, moves: list[str], lookahead: bool) -> Tensor:
        """Make one tick in which these problems move; the gradient with which x did."""
        for stream, reader in {"low": "z", "mid": "y", "high": "x"}.items():
            self.streams[stream].used += reader in moves
        if not lookahead:
            self.at["z"], self.seen = self.moved_z(self.at["y"], self.at["x"])
            if "y" in moves:
                self.made_by_y(self.to_make(self.at["z"], self.seen))
            slope = self.look(False)
            self.at["x"] = self.at["x"] - RATE * slope
            return slope
        z, low = self.moved_z(self.at["y"], self.at["x"])
        resting = "y" not in moves and self.made is not None
        slope = self.upper_gradient(self.made if resting else self.to_make(z, low), z, low)
        self.at["x"] = self.at["x"] - RATE * slope
        if "y" in moves:
            self.made_by_y(self.to_make(*self.moved_z(self.at["y"], self.at["x"])))
        self.at["z"], self.seen = self.moved_z(self.at["y"], self.at["x"])
        return slope


def engine(
    optimizer: str = "sgd",
    *,
    lookahead: bool = False,
    solver: mlo.Hypergradient | None = None,
    method: mlo.Hypergradient | None = None,
    nested: str = "exact",
    every: int = 1,
    **options: object,
) -> mlo.Engine:
    sgd = lambda params: torch.optim.SGD(params, RATE)  # noqa: E731
    z = mlo.Problem(
        "z",
        params={"w": START["z"]},
        loss=lambda z, y, x, low: lowest(z["w"], y["w"], x["w"], low),
        optimizer=sgd,
        hypergradient=solver or mlo.Dense(),
    )
    y = mlo.Problem(
        "y",
        params={"w": START["y"]},
        loss=lambda y, x, z, mid: middle(y["w"], x["w"], z["w"], mid),
        optimizer=OPTIMIZERS[optimizer][0],
        hypergradient=method or mlo.OneStep(),
        every=every,
        **options,
    )
    x = mlo.Problem(
        "x",
        params={"w": START["x"]},
        loss=lambda x, y, z, high: top(x["w"], y["w"], z["w"], high),
        optimizer=sgd,
    )
    return mlo.Engine([z, y, x], DATA, lookahead=lookahead, nested=nested)


def standing(program: mlo.Engine) -> dict[str, Tensor]:
    return {n: p.module["w"].detach().clone() for n, p in program.problems.items()}


def close(found: Tensor, expected: Tensor) -> bool:
    assert expected.norm() > 1e-3, "an expected value near zero tests nothing"
    return float((found - expected).norm() / expected.norm()) < TOLERANCE


def followed(program: mlo.Engine, hand: Hand, *, lookahead: bool, ticks: int) -> int:
    """Tick by tick the engine makes the moves made by hand, and finds the same when it is asked.

    Returns in how many ticks y did not move.
    """
    rested = 0
    assert close(program.hypergradient("x")["w"], hand.look(lookahead))
    for _ in range(ticks):
        before = standing(program)
        moves = [move.problem for move in program.step().moves]
        rested += "y" not in moves
        slope = hand.tick(moves, lookahead)
        after = standing(program)
        assert close((before["x"] - after["x"]) / RATE, slope)
        for name in SIZES:
            assert close(after[name], hand.at[name]), name
        assert close(program.hypergradient("x")["w"], hand.look(lookahead))
    return rested


LOOKAHEAD = pytest.mark.parametrize("lookahead", [False, True], ids=["after moves", "look-ahead"])
SOLVERS = {
    "dense": mlo.Dense(),
    "conjugate gradients": mlo.ConjugateGradient(iterations=10, tolerance=1e-14),
}


@LOOKAHEAD
@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "nesterov", "adam", "adamw"])
def test_it_is_the_derivative_of_the_step_made_with_the_total_gradient(
    optimizer, solver, lookahead
):
    program = engine(optimizer, lookahead=lookahead, solver=SOLVERS[solver])
    assert program.graph.kind("y") == "anticipating"
    followed(program, Hand(optimizer), lookahead=lookahead, ticks=4)


@LOOKAHEAD
@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "adam"])
def test_a_move_is_differentiated_where_it_was_made_though_others_have_moved_since(
    optimizer, lookahead
):
    """y rests every second tick, while z and x go on and draw other batches."""
    program, hand = engine(optimizer, lookahead=lookahead, every=2), Hand(optimizer)
    rested = followed(program, hand, lookahead=lookahead, ticks=6)
    assert rested == 3


@LOOKAHEAD
def test_clipping_is_a_constant_factor_of_the_total_gradient(lookahead):
    program = engine("momentum", lookahead=lookahead, clip_norm=0.3)
    followed(program, Hand("momentum", clip=0.3), lookahead=lookahead, ticks=3)


@LOOKAHEAD
@pytest.mark.parametrize("nested", ["projected", "partial"])
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_the_moves_are_total_and_their_response_leaves_out_what_the_option_says(
    optimizer, nested, lookahead
):
    program = engine(optimizer, lookahead=lookahead, nested=nested)
    followed(program, Hand(optimizer, nested), lookahead=lookahead, ticks=3)


def test_the_three_options_differ_here():
    found = [engine(nested=n).hypergradient("x")["w"] for n in ("exact", "projected", "partial")]
    gaps = [float((a - b).norm() / a.norm()) for a in found for b in found if a is not b]
    assert min(gaps) > 1e-3


def test_where_z_is_solved_for_the_y_that_has_moved_it_is_the_slope_of_the_re_solved_program():
    """By differences of f1(y'(x), argmin f3(., y'(x), x), x); nothing is attached to x."""
    low, mid, high = (DATA[stream][0] for stream in ("low", "mid", "high"))

    def stepped(z0: Tensor, x: Tensor) -> Tensor:
        """y', where it saw z0 at the start of x; z0 is its minimizer but for a tilt."""
        answer = through(z0, lambda z, y, x: lowest(z, y, x, low), START["y"], START["x"])
        y = START["y"].clone().requires_grad_()
        return y.detach() - RATE * gradient(middle(y, x, answer(y, x), mid), y).detach()

    def solution(y: Tensor, x: Tensor) -> Tensor:
        return argmin(lambda z: lowest(z, y, x, low), START["z"]).detach()

    stood = START["z"]
    for _ in range(60):  # until what y saw is the answer to where that led it
        stood = solution(stepped(stood, START["x"]), START["x"])
    program = engine()
    with torch.no_grad():
        program.problems["z"].module["w"].copy_(stood)

    def reduced(x: Tensor) -> Tensor:
        y = stepped(stood, x)
        return top(x, y, solution(y, x), high).detach()

    found, expected = program.hypergradient("x")["w"], central(reduced, START["x"])
    # Truncation and rounding of the differences are about 1e-11 each.
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-8)


def test_below_an_anticipating_problem_one_step_is_refused():
    with pytest.raises(MethodError, match=r"'z': 'y' anticipates.*OneStep.*Neumann.*Dense"):
        engine(solver=mlo.OneStep())


def test_at_an_anticipating_problem_a_finite_difference_is_refused():
    with pytest.raises(MethodError, match=r"'y'.*FiniteDifference.*'z' would have to answer anew"):
        engine(method=mlo.FiniteDifference())
