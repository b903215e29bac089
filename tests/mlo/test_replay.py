"""Buffers move with real moves only, and replays draw the random numbers of the move again."""

from __future__ import annotations

import copy
import itertools
import random

import numpy as np
import pytest
import torch
from torch import nn

import mlo

pytestmark = pytest.mark.filterwarnings("ignore::mlo.errors.HypergradientWarning")

RATE = 0.3
METHODS = {
    "Direct": mlo.Direct(),
    "OneStep": mlo.OneStep(),
    "FiniteDifference": mlo.FiniteDifference(0.01),
    "forward difference": mlo.FiniteDifference(0.01, scheme="forward"),
    "Neumann": mlo.Neumann(terms=2, alpha=0.1),
    "ConjugateGradient": mlo.ConjugateGradient(iterations=3, damping=1.0),
    "Dense": mlo.Dense(damping=1.0),
}
METHOD = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
LOOKAHEAD = pytest.mark.parametrize("lookahead", [False, True], ids=["after moves", "look-ahead"])


class Running(nn.Module):
    """Normalization in both modes, and a buffer that is assigned and not written in place."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(3)
        self.total = nn.BatchNorm1d(3, momentum=None)
        self.still = nn.BatchNorm1d(3).eval()
        self.head = nn.Linear(3, 1)
        self.register_buffer("mean", torch.zeros(3))

    def forward(self, x):
        if self.training:
            self.mean = 0.9 * self.mean + 0.1 * x.mean(0).detach()
        return self.head(self.still(self.total(self.norm(x - self.mean))).tanh())[:, 0]


def sgd(module, momentum=0.0):
    return torch.optim.SGD(module.parameters(), RATE, momentum=momentum)


def batches(n, seed):
    draw = torch.Generator().manual_seed(seed)
    return [
        (torch.randn(6, 3, generator=draw) + i, torch.randn(6, generator=draw)) for i in range(n)
    ]


def fit(net, gate, train):
    x, y = train
    return (gate(x).sigmoid() * (net(x) - y) ** 2).mean()


def judge(net, gate, valid):
    x, y = valid
    return ((net(x) - y) ** 2).mean() + 0.1 * gate(x).square().mean()


def buffers(module):
    return {k: b.detach().clone() for k, b in module.named_buffers()}


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


@METHOD
@LOOKAHEAD
@pytest.mark.parametrize("repeat", [1, 2])
@pytest.mark.parametrize("shared", [True, False], ids=["updates gate", "own only"])
def test_buffers_move_once_per_real_move_as_in_a_hand_written_loop(
    method, lookahead, repeat, shared
):
    net, gate = Running(), Running()
    train, valid = batches(12, 1), batches(4, 2)
    lower = mlo.Problem(
        "net",
        module=net,
        loss=fit,
        optimizer=sgd(net, 0.9),
        hypergradient=method,
        repeat=repeat,
        updates_buffers=("gate",) if shared else (),
    )
    upper = mlo.Problem("gate", module=gate, loss=judge, optimizer=sgd(gate))
    engine = mlo.Engine([lower, upper], {"train": train, "valid": valid}, lookahead=lookahead)
    left = {"net": iter(train), "gate": iter(valid)}
    standing = [{"net": copy.deepcopy(net), "gate": copy.deepcopy(gate)}]
    assert all(not b.any() or k.endswith("var") for k, b in net.named_buffers()), "the dry run"

    def compare(record):
        """A forward pass of the modules as they stood before this move, by hand."""
        before = {k: copy.deepcopy(m) for k, m in standing[-1].items()}
        now = {"net": copy.deepcopy(net), "gate": copy.deepcopy(gate)}
        name = record.problem
        given = {"train" if name == "net" else "valid": next(left[name])}
        (fit if name == "net" else judge)(before["net"], before["gate"], **given)
        moved = {name, "gate"} if shared else {name}
        for other, module in now.items():
            want = before[other] if other in moved else standing[-1][other]
            assert equal(buffers(module), buffers(want)), (name, other)
        for other in now.keys() - {name}:
            assert equal(
                now[other].state_dict(), standing[-1][other].state_dict() | buffers(now[other])
            )
        standing.append(now)

    for _ in range(4):
        engine.hypergradient("gate")
        engine.step(compare)
    assert len(standing) == 1 + 4 * (repeat + 1)
    assert int(net.norm.num_batches_tracked) == 4 * repeat
    assert int(gate.norm.num_batches_tracked) == 4 + 4 * repeat * shared
    for module in (net, gate):
        assert int(module.still.num_batches_tracked) == 0
        assert not module.still.training
        assert [m.training for m in module.modules()].count(False) == 1


@METHOD
@LOOKAHEAD
def test_modules_in_evaluation_mode_stay_there_with_their_statistics(method, lookahead):
    net, gate = Running().eval(), Running()
    lower = mlo.Problem("net", module=net, loss=fit, optimizer=sgd(net), hypergradient=method)
    upper = mlo.Problem(
        "gate", module=gate, loss=judge, optimizer=sgd(gate), updates_buffers=("net",)
    )
    data = {"train": batches(3, 1), "valid": batches(3, 2)}
    engine = mlo.Engine([lower, upper], data, lookahead=lookahead)
    before = buffers(net)
    for _ in range(3):
        engine.step()
    assert equal(buffers(net), before)
    assert not any(m.training for m in net.modules())
    assert [m.training for m in gate.modules()].count(False) == 1


class Noisy(nn.Module):
    """Dropout, and noise from NumPy's and Python's global generators."""

    def __init__(self, size=5):
        super().__init__()
        self.w = nn.Parameter(torch.randn(size))
        self.drop = nn.Dropout(0.4)

    def forward(self):
        return self.drop(self.w) * (1 + np.random.rand()) + random.random()


def noisy_fit(net, rate, scale):
    return (rate["r"].exp() * (net() - scale) ** 2).sum() + (net().sin() * rate["r"]).sum()


def noisy_judge(net, rate):
    return (net() ** 4).sum() / 4 + (rate["r"] * net()).sum()


def seed(number):
    torch.manual_seed(number)
    np.random.seed(number)
    random.seed(number)


def noise(size=5):
    """What one forward pass of `Noisy` draws, in its order."""
    return (
        nn.functional.dropout(torch.ones(size), 0.4),
        1 + np.random.rand(),
        random.random(),
    )


def seen(w, drawn):
    mask, factor, shift = drawn
    return w * mask * factor + shift


def hand_fit(w, r, scale, one, two):
    return (r.exp() * (seen(w, one) - scale) ** 2).sum() + (seen(w, two).sin() * r).sum()


def hand_judge(w, r, one, two):
    return (seen(w, one) ** 4).sum() / 4 + (r * seen(w, two)).sum()


def by_hand(name, move, v):
    """The response's part, from formulas with the captured masks: move = (w, r, scale, masks)."""
    w, r, scale, masks = move
    w, r = w.clone().requires_grad_(), r.clone().requires_grad_()
    if name in ("FiniteDifference", "forward difference"):
        u, radius = RATE * v, 0.01
        e = radius / u.norm()
        sides = (1.0, -1.0) if name == "FiniteDifference" else (1.0, 0.0)
        slopes = [
            torch.autograd.grad(hand_fit(w + s * e * u, r, scale, *masks), r)[0] for s in sides
        ]
        return -(slopes[0] - slopes[1]) / ((sides[0] - sides[1]) * e)
    (g,) = torch.autograd.grad(hand_fit(w, r, scale, *masks), w, create_graph=True)
    if name == "OneStep":
        return torch.autograd.grad(w - RATE * g, r, v)[0]
    hessian = torch.stack([torch.autograd.grad(x, w, retain_graph=True)[0] for x in g])
    if name == "Neumann":
        u = 0.1 * v + 0.1 * (v - hessian @ (0.1 * v))
    else:
        u = torch.linalg.solve(hessian + torch.eye(len(v)), v)
    return -torch.autograd.grad(g, r, u)[0]


def noisy_program(method, **options):
    seed(1)
    net = Noisy()
    lower = mlo.Problem("net", module=net, loss=noisy_fit, optimizer=sgd(net), hypergradient=method)
    upper = mlo.Problem(
        "rate",
        params={"r": torch.linspace(-1, 1, 5)},
        loss=noisy_judge,
        optimizer=lambda params: torch.optim.SGD(params, 0.1),
    )
    return mlo.Engine([lower, upper], {"scale": [0.5, 1.5]}, **options), net, lower, upper


MASKED = [m for m in METHODS if m not in ("Direct", "ConjugateGradient")]


@pytest.mark.parametrize("name", MASKED)
@LOOKAHEAD
@pytest.mark.parametrize("retain", [True, False])
@pytest.mark.parametrize("switched", [True, False], ids=["then eval", "same mode"])
def test_dropout_draws_the_same_mask_in_the_move_and_in_its_replay(
    name, lookahead, retain, switched
):
    engine, net, _, upper = noisy_program(METHODS[name], lookahead=lookahead, retain=retain)
    w, r = net.w.detach().clone(), upper.module["r"].detach().clone()
    seed(2)
    drawn = [(noise(), noise()) for _ in range(3)]
    seed(2)
    engine.step()
    if lookahead:
        # The trial move draws first, then the upper problem, then the real move draws anew.
        first, second, real = drawn
    else:
        (first, second, _), real = drawn, drawn[0]

    def stepped(w, r, masks):
        leaf = w.clone().requires_grad_()
        return w - RATE * torch.autograd.grad(hand_fit(leaf, r, 0.5, *masks), leaf)[0]

    def total(tried, r, masks, move):
        leaf, own = tried.clone().requires_grad_(), r.clone().requires_grad_()
        v, direct = torch.autograd.grad(hand_judge(leaf, own, *masks), [leaf, own])
        point = tried if name in ("Neumann", "Dense") else move[0]
        return direct + by_hand(name, (point, *move[1:]), v)

    tried = stepped(w, r, first)
    moved = r - 0.1 * total(tried, r, second, (w, r, 0.5, first))
    torch.testing.assert_close(upper.module["r"].detach(), moved, rtol=1e-10, atol=1e-12)
    after = stepped(w, moved, real) if lookahead else tried
    torch.testing.assert_close(net.w.detach(), after, rtol=1e-10, atol=1e-12)
    if lookahead:
        return
    # Later and in another mode, the recorded move is still the one that was made. Implicit
    # methods take its masks at the present point.
    net.train(not switched)
    seed(3)
    masks = (noise(), noise())
    if switched:
        masks = tuple((torch.ones(5), factor, shift) for factor, shift in eval_noise())
    seed(3)
    now = moved if name in ("Neumann", "Dense") else r
    want = total(after, moved, masks, (w, now, 0.5, first))
    torch.testing.assert_close(engine.hypergradient("rate")["r"], want, rtol=1e-10, atol=1e-12)
    assert net.training == net.drop.training == (not switched)


def eval_noise():
    seed(3)
    return [(1 + np.random.rand(), random.random()) for _ in range(2)]


ORDERS = [
    ("OneStep", False, True, [0, 1]),
    ("OneStep", False, False, [0, 1, 0]),
    ("OneStep", True, True, [0, 1, 2]),
    ("OneStep", True, False, [0, 1, 0, 2]),
    ("FiniteDifference", False, True, [0, 1, 0, 0]),
    ("FiniteDifference", True, True, [0, 1, 0, 0, 2]),
    ("forward difference", True, True, [0, 1, 0, 2]),
    ("Direct", False, True, [0, 1]),
]


@pytest.mark.parametrize(("name", "lookahead", "retain", "order"), ORDERS)
def test_replays_draw_again_and_the_real_move_after_a_trial_draws_anew(
    name, lookahead, retain, order
):
    drawn = []

    def draw():
        drawn.append((float(torch.rand(())), np.random.rand(), random.random()))
        return sum(drawn[-1])

    net = nn.Linear(2, 1)
    lower = mlo.Problem(
        "net",
        module=net,
        loss=lambda net, up: (net.weight * up["c"] * draw()).square().sum(),
        optimizer=sgd(net),
        hypergradient=METHODS[name],
    )
    upper = mlo.Problem(
        "up",
        params={"c": torch.tensor(0.5)},
        loss=lambda net, up: (net.weight * draw() - up["c"]).square().sum(),
        optimizer=lambda params: torch.optim.SGD(params, 0.1),
    )
    guards = mlo.Guards(probe=False)  # which would evaluate once more, and draw
    engine = mlo.Engine([lower, upper], lookahead=lookahead, retain=retain, guards=guards)
    seed(4)
    stream = [(float(torch.rand(())), np.random.rand(), random.random()) for _ in range(6)]
    seed(4)
    for tick in range(2):
        drawn.clear()
        engine.step()
        first = tick * (max(order) + 1)
        assert drawn == [stream[first + i] for i in order]


def test_a_replay_sees_the_buffers_from_which_the_move_was_made():
    """A layer that divides by its running mean gives another gradient with later buffers."""

    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.tensor([1.0, 2.0]))
            self.register_buffer("size", torch.ones(()))

        def forward(self):
            out = self.w / self.size
            self.size = 3.0 * self.size
            return out

    for method, lookahead in itertools.product(("OneStep", "FiniteDifference"), (False, True)):
        net = Scaled()
        lower = mlo.Problem(
            "net",
            module=net,
            loss=lambda net, up: (net() * up["c"]).square().sum(),
            optimizer=sgd(net),
            hypergradient=METHODS[method],
        )
        upper = mlo.Problem(
            "up",
            params={"c": torch.tensor(0.5)},
            loss=lambda net: net.w.square().sum(),
            optimizer=lambda params: torch.optim.SGD(params, 0.0),
        )
        engine = mlo.Engine([lower, upper], lookahead=lookahead, retain=False)
        engine.step()
        w, c, size = torch.tensor([1.0, 2.0]), 0.5, 1.0
        if lookahead:
            w, size = w * (1 - RATE * 2 * c**2 / size**2), 3.0
        # w' = w (1 - 2 rate c^2 / size^2), so d |w'|^2 / dc = -2 w' w 4 rate c / size^2
        after = w * (1 - RATE * 2 * c**2 / size**2)
        want = -(2 * after * w * 4 * RATE * c / size**2).sum()
        # The loss is quadratic in w, so the central difference is exact but for rounding.
        torch.testing.assert_close(engine.hypergradient("up")["c"], want, rtol=1e-9, atol=0)
        assert float(net.size) == 3.0
