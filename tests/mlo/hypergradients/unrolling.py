"""Hand-written differentiable loops: optimizers as papers write them, the rest is autograd's."""

from __future__ import annotations

import torch

import mlo

SIZES = {"a": (3, 2), "b": (), "idle": (2,)}
"""Shapes of the lower parameters; "idle" is used by no loss, so it has no gradient."""


def fit(low, top, train):
    """Neither quadratic nor separable, with an upper parameter in every place."""
    x, y = train
    hidden = torch.tanh(x @ low["a"])
    errors = hidden.sum(1) + low["b"] - y
    decay = (top["decay"].exp() * low["a"].square()).sum()
    return (torch.sigmoid(top["weight"]) * errors.square()).mean() + 0.1 * decay


def judge(low, valid):
    """Reads the lower parameters alone."""
    x, y = valid
    return (torch.tanh(x @ low["a"]).sum(1) + low["b"] - y).abs().pow(1.5).mean()


def values(seed=0):
    """Where everybody begins."""
    draw = torch.Generator().manual_seed(seed)
    low = {k: torch.randn(shape, generator=draw) for k, shape in SIZES.items()}
    top = {
        "decay": torch.randn(2, generator=draw),
        "weight": torch.randn(5, generator=draw),
    }
    return low, top


def batches(count, seed):
    """As many batches of five examples."""
    draw = torch.Generator().manual_seed(seed)
    return [
        (torch.randn(5, 3, generator=draw), torch.randn(5, generator=draw)) for _ in range(count)
    ]


def engine(optimizer, method, *, repeat=1, lookahead=False, seed=0, fits=fit, count=12, **settings):
    """The program in the library; `settings` are of the lower problem."""
    low, top = values(seed)
    below = mlo.Problem(
        "low",
        params=low,
        loss=fits,
        optimizer=optimizer,
        hypergradient=method,
        repeat=repeat,
        **settings,
    )
    above = mlo.Problem("top", params=top, loss=judge, optimizer=lambda p: torch.optim.SGD(p, 0.05))
    data = {"train": batches(count, 1), "valid": batches(count, 2)}
    return mlo.Engine([below, above], data, lookahead=lookahead)


class Sgd:
    """Sutskever et al., ICML 2013, in the form of torch's documentation."""

    def __init__(
        self, lr, momentum=0.0, dampening=0.0, *, nesterov=False, decay=0.0, maximize=False
    ):
        self.lr, self.momentum, self.dampening = lr, momentum, dampening
        self.nesterov, self.decay, self.sign = nesterov, decay, -1.0 if maximize else 1.0
        self.buffers = {}

    def __call__(self, w, g):
        new = {}
        for k in w:
            if g[k] is None:
                new[k] = w[k]
                continue
            d = self.sign * g[k] + self.decay * w[k]
            if self.momentum:
                old = self.buffers.get(k)
                b = d if old is None else self.momentum * old + (1 - self.dampening) * d
                self.buffers[k] = b
                d = d + self.momentum * b if self.nesterov else b
            new[k] = w[k] - self.lr * d
        return new


class Adam:
    """Kingma and Ba, 2015, algorithm 1; decoupled decay as Loshchilov and Hutter, 2019."""

    def __init__(
        self, lr, betas=(0.9, 0.999), eps=1e-8, *, decay=0.0, decoupled=False, amsgrad=False
    ):
        self.lr, self.betas, self.eps, self.decay = lr, betas, eps, decay
        self.decoupled, self.amsgrad = decoupled, amsgrad
        self.m, self.v, self.top, self.t = {}, {}, {}, {}

    def __call__(self, w, g):
        return {k: w[k] if g[k] is None else self._one(k, w[k], g[k]) for k in w}

    def _one(self, k, w, g):
        b1, b2 = self.betas
        self.t[k] = t = self.t.get(k, 0) + 1
        if self.decay and not self.decoupled:
            g = g + self.decay * w
        self.m[k] = b1 * self.m.get(k, 0.0) + (1 - b1) * g
        self.v[k] = b2 * self.v.get(k, 0.0) + (1 - b2) * g**2
        v = self.v[k]
        if self.amsgrad:
            v = self.top[k] = v if k not in self.top else torch.maximum(v, self.top[k])
        mean, square = self.m[k] / (1 - b1**t), v / (1 - b2**t)
        shrunk = w * (1 - self.lr * self.decay) if self.decoupled else w
        return shrunk - self.lr * mean / (square.sqrt() + self.eps)


def gradient(loss, own, others, batch, *, clip=None):
    """df/dw with its graph; `None` for what the loss does not use."""
    value = loss(own, *others, batch)
    found = torch.autograd.grad(value, list(own.values()), create_graph=True, allow_unused=True)
    if clip is not None:
        size = torch.stack([g.detach().square().sum() for g in found if g is not None]).sum().sqrt()
        found = [None if g is None else g * min(1.0, clip / float(size + 1e-6)) for g in found]
    return dict(zip(own, found, strict=True))


def run(rule, low, top, train, *, loss=fit, clip=None, project=None):
    """Where `low` gets by one update on every batch, attached to `low` and `top`."""
    for batch in train:
        low = rule(low, gradient(loss, low, [top], batch, clip=clip))
        if project is not None:
            low = {**low, **project(low)}
    return low


def leaves(tensors):
    """To differentiate with respect to."""
    return {k: t.detach().clone().requires_grad_() for k, t in tensors.items()}


def hypergradient(rule, updates, *, seed=0, valid=0, **settings):
    """The total gradient of `top` after so many updates from the beginning."""
    low, top = values(seed)
    top = leaves(top)
    low = run(rule, leaves(low), top, batches(updates, 1), **settings)
    loss = judge(low, batches(valid + 1, 2)[valid])
    found = torch.autograd.grad(loss, list(top.values()))
    return dict(zip(top, found, strict=True))
