"""Random programs of nets whose every bit depends on everything that a state must hold."""

from __future__ import annotations

import random

import numpy as np
import torch
from hypothesis import strategies as st
from torch import nn
from torch.optim import lr_scheduler
from torch.utils.data import DataLoader, TensorDataset

import mlo

METHODS = {
    "one step": mlo.OneStep(),
    "finite difference": mlo.FiniteDifference(),
    "sama": mlo.Sama(),
    "unrolled across moves": mlo.Unrolled(steps=3),
    "unrolled, all of a move": mlo.Unrolled(),
    "forward mode": mlo.ForwardMode(),
    "neumann": mlo.Neumann(terms=2),
    "warm conjugate gradients": mlo.ConjugateGradient(iterations=2, damping=1.0, warm_start=True),
    "nystrom": mlo.Nystrom(rank=3, damping=0.5, refresh=3),
}
OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, 0.05, momentum=0.9, dampening=0.1, weight_decay=1e-2),
    "nesterov": lambda p: torch.optim.SGD(p, 0.05, momentum=0.8, nesterov=True),
    "adam": lambda p: torch.optim.Adam(p, 0.02, amsgrad=True),
    "adamw": lambda p: torch.optim.AdamW(p, 0.02),
    "rmsprop": lambda p: torch.optim.RMSprop(p, 0.01, centered=True, momentum=0.5),
}
SCHEDULERS = {
    "none": None,
    "cosine": lambda o: lr_scheduler.CosineAnnealingLR(o, 9),
    "steps": lambda o: lr_scheduler.MultiStepLR(o, [2, 5], 0.5),
    "warmup, then decay": lambda o: lr_scheduler.SequentialLR(
        o, [lr_scheduler.LinearLR(o, 0.2, 1.0, 3), lr_scheduler.ExponentialLR(o, 0.9)], [3]
    ),
    "plateau": lambda o: lr_scheduler.ReduceLROnPlateau(o, patience=0, factor=0.7),
    "cycle": lambda o: lr_scheduler.OneCycleLR(o, 0.05, total_steps=60),
}


class Noise(nn.Module):
    """Draws on all three generators, counts its calls, and holds a buffer that grows."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(1), persistent=False)

    def forward(self, x):
        if self.training:
            self.calls = torch.cat([self.calls[-3:], self.calls[-1:] + 1])
            x = x * (1 + 0.01 * random.random() + 0.01 * float(np.random.rand()))
        return x


def net(inputs=3, outputs=2):
    return nn.Sequential(
        nn.Linear(inputs, 4), nn.BatchNorm1d(4), Noise(), nn.Dropout(0.3), nn.Linear(4, outputs)
    )


def learn(a, lam, data, side):
    (x, y), (z,) = data, side
    weight = (lam["w"].sigmoid() * x[:, :2]).sum(1).sigmoid()
    fit = (weight[:, None] * (a(x) - y).square()).mean()
    return fit + 1e-2 * lam["d"].exp() * sum(p.square().sum() for p in a.parameters()) + 0 * z.sum()


def relearn(b, a, lam, data):
    x, y = data
    weight = (a(x) - y).square().sum(1).detach() * lam["w"].sum()
    return ((1 + weight.tanh())[:, None] * (b(x) - y).square()).mean()


def judge(a, b, side, tick):
    (z,) = side
    return (a(z) - 1).square().mean() + (b(z) + 0.1 * (tick % 3)).square().mean()


SHAPES = {key: p.shape for key, p in net().named_parameters()}


def begin(lam):
    return {key: 0.3 * torch.randn(s) + 0.1 * lam["w"].sum() for key, s in SHAPES.items()}


def begin_alone():
    return {key: 0.3 * torch.randn(shape) for key, shape in SHAPES.items()}


PROJECTABLE = ("one step", "finite difference", "unrolled across moves", "unrolled, all of a move")


@st.composite
def choices(draw):
    """What a program is made of, as plain values."""
    method = draw(st.sampled_from(sorted(METHODS)))
    lookahead = draw(st.booleans())
    lower = st.fixed_dictionaries(
        {
            "optimizer": st.sampled_from(sorted(OPTIMIZERS)),
            "scheduler": st.sampled_from(sorted(SCHEDULERS)),
            "repeat": st.integers(1, 2),
            "accumulate": st.integers(1, 2),
            "clip_norm": st.sampled_from([None, 0.5]),
        }
    )
    return {
        "method": method,
        "lookahead": lookahead,
        "a": draw(lower),
        "b": draw(lower),
        "restart": draw(st.sampled_from([None, 2])),
        "every": draw(st.integers(1, 3)),
        "warmup": draw(st.integers(0, 2)),
        "epochs": draw(st.booleans()),
        "project": draw(st.booleans()) and method in PROJECTABLE,
        "listed": draw(st.booleans()),
        "shuffled": draw(st.booleans()),
        "seed": draw(st.integers(0, 99)),
    }


def engine(chosen):
    """Build the program from nothing; the same choices make the same program."""
    torch.manual_seed(chosen["seed"])
    random.seed(chosen["seed"])
    np.random.seed(chosen["seed"])
    x, y, z = torch.randn(14, 3), torch.randn(14, 2), torch.randn(9, 3)
    pairs = TensorDataset(x, y)
    data = DataLoader(pairs, 4, shuffle=chosen["shuffled"], drop_last=False)
    listed = [(z[i : i + 3],) for i in range(0, 9, 3)]
    side = listed if chosen["listed"] else DataLoader(TensorDataset(z), 3, shuffle=True)
    method = METHODS[chosen["method"]]

    def lower(name, loss, **more):
        own = dict(chosen[name])
        module = net()
        optimizer = OPTIMIZERS[own.pop("optimizer")]
        scheduler = SCHEDULERS[own.pop("scheduler")]
        if chosen["epochs"] and scheduler is not None:
            more["scheduler_every"] = "data"
        return mlo.Problem(
            name,
            module=module,
            loss=loss,
            optimizer=optimizer,
            scheduler=scheduler,
            hypergradient=method,
            **own,
            **more,
        )

    def shrunk(p):
        return {key: t.clamp(-2.0, 2.0) for key, t in p.items()}

    start = {}
    if chosen["restart"] is not None:
        # Across two moves of one update each it can be differentiated.
        followed = chosen["method"] == "unrolled across moves" and chosen["a"]["repeat"] == 1
        start = {"start": begin if followed else begin_alone, "restart": chosen["restart"]}
    a = lower("a", learn, **start)
    b = lower("b", relearn, project=shrunk if chosen["project"] else None)
    upper = {"w": torch.tensor([0.3, -0.2]), "d": torch.tensor(-1.0)}
    lam = mlo.Problem(
        "lam",
        params=upper,
        loss=judge,
        optimizer=lambda p: torch.optim.Adam(p, 0.1),
        every=chosen["every"],
        warmup=chosen["warmup"],
    )
    return mlo.Engine([a, b, lam], {"data": data, "side": side}, lookahead=chosen["lookahead"])
