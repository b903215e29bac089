"""Programs in which the batches say where a number that is not finite appears, and how."""

from __future__ import annotations

import random

import numpy as np
import torch
from torch import nn

import mlo
from mlo.plain import copied, differences
from mlo.problem_state import problem_state

FINE, LOSS, GRADIENT, ADJOINT, STEP = range(5)
KINDS = {LOSS: "loss", GRADIENT: "gradient", ADJOINT: "adjoint", STEP: "parameters"}
RATE = 2.0
"""Of all steps, so that a gradient of 0.9 times the largest number leads to an infinity."""

SHAPES = {
    "two levels": {"a": "ab", "b": "ab"},
    "chain": {"a": "ab", "b": "abc", "c": "bc"},
    "mistakes": {"a": "ac", "b": "abc", "c": "bc"},
    "diamond": {"a": "ad", "b": "abd", "c": "acd", "d": "bcd"},
    "circle": {"a": "abc", "b": "abc", "c": "abc"},
}
"""Who reads whom, lowest first; in the circle a and b are on one level."""


def leaf(k, dtype=torch.float64):
    draw = torch.Generator().manual_seed(k)
    return torch.randn(3, generator=draw, dtype=torch.float64).to(dtype)


def poison(code, w, c):
    """What does nothing (FINE), or is not finite in its value, first or second derivatives.

    The last leads to a finite gradient that is too large for a step.
    """
    still = w - w.detach()
    if code == LOSS:
        return w.sum() * torch.nan
    if code == GRADIENT:
        return still.sum().sqrt()  # 0, but 1 / (2 sqrt(0))
    if code == ADJOINT:
        product = w * c
        return (product - product.detach()).pow(1.5).sum()  # h = h' = 0, h'' is infinite
    if code == STEP:
        return 0.9 * torch.finfo(w.dtype).max * still.sum()
    return 0.0


class Net(nn.Module):
    """Three numbers, and a buffer that every evaluation changes."""

    def __init__(self, k, dtype):
        super().__init__()
        self.w = nn.Parameter(leaf(k, dtype))
        self.register_buffer("seen", torch.zeros((), dtype=dtype))


def loss_of(name, reads):
    def loss(*given):
        *modules, codes = given
        read = dict(zip(reads, modules, strict=True))
        own, others = read.get(name), [m.w for n, m in read.items() if n != name]
        noise = torch.rand(()) + random.random() + np.random.rand() + np.random.randn()
        first = own if own is not None else modules[0]
        first.seen += 1
        target = sum(others) if others else torch.zeros_like(first.w)
        value = 0.05 * ((first.w - 0.1 * target) ** 2).sum() + 0.001 * noise * first.w.sum()
        value = value + 0.01 * (target**2).sum() + 0.001 * (first.w * target).sum()
        return value + poison(int(codes), first.w, others[-1] if others else first.w)

    return loss


def engine(shape, plan, *, method=None, dtype=torch.float64, settings=None, **options):
    """An engine for a shape, whose batches are the codes of `plan`: problem -> one a tick."""
    torch.manual_seed(1)
    np.random.seed(1)
    random.seed(1)
    problems = {}
    for k, (name, reads) in enumerate(SHAPES[shape].items()):
        optimizer = {"momentum": 0.1, "dampening": 0.1} if k % 2 else {}
        module = Net(k, dtype)
        made = torch.optim.SGD(module.parameters(), RATE, **optimizer)
        problems[name] = mlo.Problem(
            name,
            module=module,
            loss=loss_of(name, reads),
            reads=(*reads, f"codes_{name}"),
            optimizer=made,
            hypergradient=method or mlo.Neumann(terms=2, alpha=0.5),
            scheduler=torch.optim.lr_scheduler.StepLR(made, 1, gamma=0.99),
            **(settings or {}).get(name, {}),
        )
    levels = list(problems.values())
    if shape == "circle":
        levels = [levels[:2], levels[2]]
    data = {f"codes_{name}": [torch.tensor(c) for c in plan[name]] for name in problems}
    return mlo.Engine(levels, data, **options)


def codes(shape, ticks, at=None, name=None, kind=FINE):
    """The batches of all problems: fine but for one tick of one problem."""
    plan = {n: [FINE] * ticks for n in SHAPES[shape]}
    if name is not None:
        plan[name][at] = kind
    return plan


def live(engine):
    """A copy of all problems and of what the engine remembers of their moves."""
    memory = engine._mover.memory()
    return copied(
        {
            "problems": {n: problem_state(p) for n, p in engine.problems.items()},
            "states": memory.states,
            "made": memory.made,
            "moves": {n: m.before for n, m in memory.moves.items()},
        }
    )


def drawn():
    """The random states, in a form that can be compared."""
    kind, key, *rest = np.random.get_state()
    return [random.getstate(), kind, key.tolist(), rest, torch.get_rng_state().tolist()]


def same(a, b):
    """Bit for bit; what differs is returned, so that an assertion shows it."""
    return list(differences(a, b)) == [] or list(differences(a, b))
